"""The points of a run's metrics, read out of its records: the names and steps are those that MLflow shows.

There, what a further writer such as a rank logged stands behind its name; here, each point says whose it is.
Any program may have written a journal. Nothing here raises for what a payload holds; what is no number is no point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from lezea_mlops.events import Envelope, ScopePairs, as_number, expense_groups
from lezea_mlops.insight.series import metric_name

# Deeper than any program's own data; Python's stack ends at 1,000.
MAX_DEPTH = 100

Fields = Mapping[str, Any]
# Numbers by name, the parts of the name between scope and name, and the step.
Group = tuple[Any, tuple[str, ...], Any]


class Point(NamedTuple):
    """One value of a metric.

    Attributes:
        name: with scopes, then split or kind, then the metric's own: ``builder:42/val/loss``.
        step: None where the record names no step that is a whole number.
        value: the number as it was logged; may be NaN or infinite.
        ts: when it was logged, UTC microseconds.
        wid: the writer.
        att: the attempt, from 1.
        seq: number of the record among those of its writer.
    """

    name: str
    step: int | None
    value: int | float
    ts: int
    wid: str
    att: int
    seq: int


def points_of(records: Iterable[Envelope]) -> Iterator[Point]:
    """Yield every point of *records* in their order, holding one record at a time."""
    for record in records:
        groups = _GROUPS.get(record.type)
        if groups is None:
            continue
        scope = tuple((level, identity) for level, identity in record.scope)
        ts, wid, att, seq = record.ts, record.wid, record.att, record.seq
        for values, folder, step in groups(record, record.payload):
            at = whole_step(step)
            for path, value in leaves(values, folder):
                number = _number(value)
                if number is not None:
                    yield Point(_name(scope, path), at, number, ts, wid, att, seq)


def whole_step(value: Any) -> int | None:
    """Return a step that is a whole number, also one written as ``7.0``; None for all else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return int(value) if isinstance(value, int) else None


def mapping_of(value: Any) -> Fields:
    """Return *value* if it is a mapping, not the pointer of one that was too large for a line; else an empty one."""
    return value if isinstance(value, Mapping) and "$blob" not in value else {}


def leaves(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield what is no further mapping, with the names that lead there behind *path*."""
    for name, value in mapping_of(values).items():
        if _is_nested(value) and len(path) < MAX_DEPTH:
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name), value


def text_of(value: Any) -> str:
    """Return text as it is, None as empty text, all else as Python writes it."""
    return value if isinstance(value, str) else "" if value is None else str(value)


def _is_nested(value: Any) -> bool:
    # {"$num": …}, {"$blob": …} and the like are one value each.
    return isinstance(value, Mapping) and bool(value) and not any(str(name).startswith("$") for name in value)


def _number(value: Any) -> int | float | None:
    number = as_number(value.get("$num") if isinstance(value, Mapping) else value)
    # The sign makes a number of a bool, and leaves all others as they are.
    return None if number is None else +number


# The names of a run come again and again; a sort of many points is quicker where equal names are one object.
@lru_cache(maxsize=4_096)
def _name(scope: ScopePairs, path: tuple[str, ...]) -> str:
    return metric_name(scope, None, "/".join(path))


# ---------------------------------------------------------------------- by type


def _run_finished(record: Envelope, p: Fields) -> Iterator[Group]:
    resources = mapping_of(mapping_of(p.get("summary")).get("resources"))
    if resources.get("samples"):
        yield resources, ("resources", "total"), 0
    yield p.get("final_metrics"), ("final",), 0


def _training_step(record: Envelope, p: Fields) -> Iterator[Group]:
    step, split = p.get("step"), text_of(p.get("data_split"))
    folder = (split,) if split else ()
    yield p.get("metrics"), folder, step
    if "delta_loss" in p:
        yield {"delta_loss": p["delta_loss"]}, folder, step
    if "modification_statistics" in p:
        yield p["modification_statistics"], ("modification",), step


def _metric(record: Envelope, p: Fields) -> Iterator[Group]:
    phase = text_of(mapping_of(p.get("ctx")).get("phase"))
    values = {text_of(p["key"]): p.get("value")} if "key" in p else p.get("metrics")
    yield values, (phase,) if phase else (), _first(p, "step", "epoch")


def _delta_loss(record: Envelope, p: Fields) -> Iterator[Group]:
    yield {"delta_loss": p.get("delta_loss")}, (), p.get("epoch")


def _stats(folder: str) -> Callable[[Envelope, Fields], Iterator[Group]]:
    def groups(record: Envelope, p: Fields) -> Iterator[Group]:
        yield p.get("stats"), (folder,), p.get("step")

    return groups


def _modification_tree(record: Envelope, p: Fields) -> Iterator[Group]:
    statistics = mapping_of(p.get("statistics"))
    if p.get("part", 1) == 1:
        own = {name: value for name, value in statistics.items() if name != "computed"}
        computed = {n: v for n, v in mapping_of(statistics.get("computed")).items() if n != "by_type"}
        yield {**computed, **own}, ("tree",), p.get("step")


def _data_splits(record: Envelope, p: Fields) -> Iterator[Group]:
    yield {f"{name}_size": size for name, size in mapping_of(p.get("sizes")).items()}, ("data",), 0


def _data_usage(record: Envelope, p: Fields) -> Iterator[Group]:
    yield {"samples_used": p.get("count")}, ("data",), p.get("epoch", record.seq)


def _data_score(record: Envelope, p: Fields) -> Iterator[Group]:
    yield {"relevance": p.get("delta")}, ("data",), record.seq


def _result(record: Envelope, p: Fields) -> Iterator[Group]:
    step = p.get("step")
    yield p.get("result_dict"), ("results",), step
    for kind in ("tasker_rewards", "builder_rewards"):
        yield p.get(kind), ("results", kind), step


def _reward(record: Envelope, p: Fields) -> Iterator[Group]:
    target = text_of(p.get("tasker_id")) or text_of(p.get("target_id"))
    yield {target: p.get("reward")}, ("reward",), p.get("step")


def _population(record: Envelope, p: Fields) -> Iterator[Group]:
    names = ("tasker_count", "builder_count", "generation", "diversity_metric")
    figures: dict[str, Any] = {name.removesuffix("_metric"): p.get(name) for name in names}
    scores = p.get("fitness_scores")
    values = list(mapping_of(scores).values()) or (scores if isinstance(scores, list) else [])
    numbers = [number for value in values if (number := _number(value)) is not None and number == number]
    if numbers:
        figures |= {
            "fitness_max": max(numbers), "fitness_min": min(numbers), "fitness_mean": sum(numbers) / len(numbers),
        }  # fmt: skip
    yield figures, ("population",), _first(p, "step", "generation")


def _fold(record: Envelope, p: Fields) -> Iterator[Group]:
    split = [text_of(p["split"])] if p.get("split") else []
    folder = ("population", text_of(p.get("level")), *split, *text_of(p.get("metric")).split("/"))
    yield {name: p.get(name) for name in ("mean", "min", "max", "count")}, folder, p.get("step")


def _expenses(record: Envelope, p: Fields) -> Iterator[Group]:
    for group in expense_groups(record):
        yield group.numbers, group.path, group.step


def _first(p: Fields, name: str, other: str) -> Any:
    return p[name] if p.get(name) is not None else p.get(other)


_GROUPS: dict[str, Callable[[Envelope, Fields], Iterator[Group]]] = {
    "run_finished": _run_finished,
    "training_step": _training_step,
    "metric": _metric,
    "delta_loss": _delta_loss,
    "modification_tree": _modification_tree,
    "modification_tree_stats": _stats("modtree"),
    "modification_stats": _stats("modification"),
    "data_splits": _data_splits,
    "data_usage": _data_usage,
    "data_score": _data_score,
    "resource": _expenses,
    "resource_totals": _expenses,
    "result": _result,
    "reward": _reward,
    "population": _population,
    "fold": _fold,
    "resource_cost": _expenses,
    "business": _expenses,
}
