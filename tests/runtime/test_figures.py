"""Figures go on from a stored state as if there had been no pause, and refuse a state that is damaged."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.runtime.figures import RunFigures

Told = tuple[str, dict[str, Any], Any, int]

NUMBERS = (
    st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**63), 2**64 - 1)
    | st.sampled_from(["NaN", "Infinity", "-Infinity"])
)
NAMES = st.sampled_from(["loss", "acc", "delta_loss", "🙂", "a/b", "val/loss", "\ud800"])
IDS = st.sampled_from(list("abcdefg"))
STEPS = st.integers(-3, 20)
SCOPES = st.sampled_from([(), (("builder", "1"),), (("builder", "1"), ("layer", "2")), (("tasker", "3"),)])
METRICS = st.dictionaries(NAMES, NUMBERS, max_size=3)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)


def fields(**given: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return payloads in which each field may be missing."""
    return st.fixed_dictionaries({}, optional=given)


PAYLOADS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "run_started": st.just({"experiment_name": "Demo"}),
    "training_step": st.fixed_dictionaries(
        {"step": STEPS, "metrics": METRICS}, optional={"data_split": st.sampled_from(["train", "val", "reward"])}
    ),
    "metric": st.fixed_dictionaries({"step": STEPS, "metrics": METRICS}),
    "delta_loss": fields(epoch=STEPS, delta_loss=NUMBERS),
    "reward": fields(tasker_id=IDS, target_id=IDS, reward=NUMBERS, step=STEPS),
    "param": fields(params=st.dictionaries(IDS, VALUES, max_size=2)),
    "lezea_config": fields(tasker_population_size=NUMBERS, hyperparameters=VALUES),
    "data_splits": fields(sizes=st.dictionaries(st.sampled_from(["train", "val"]), st.integers(0, 9))),
    "data_usage": fields(sample_ids=st.lists(IDS, max_size=3), count=st.integers(0, 3), epoch=STEPS),
    "data_score": fields(sample_id=IDS, delta=NUMBERS),
    "resource": fields(
        component_id=IDS, component_type=st.sampled_from(["tasker", "builder"]), cpu_percent=NUMBERS,
        memory_mb=NUMBERS, gpu_util_percent=NUMBERS, io_operations=NUMBERS,
    ),
    "resource_cost": fields(cpu_hours=NUMBERS, mem_gb=NUMBERS),
    "business": fields(metrics=st.dictionaries(IDS, VALUES, max_size=2)),
    "modification_tree": fields(
        modifications=st.lists(
            fields(
                type=IDS, accepted=st.booleans() | st.none(), id=IDS, parent_ids=st.lists(IDS, max_size=2) | VALUES,
                score=NUMBERS,
            ),
            max_size=3,
        )
    ),
    "modification_tree_stats": fields(stats=METRICS, step=STEPS),
    "modification_stats": fields(stats=METRICS, step=STEPS),
    "population": fields(
        generation=STEPS, tasker_count=STEPS, diversity_metric=NUMBERS,
        fitness_scores=st.dictionaries(IDS, NUMBERS, max_size=3) | st.lists(NUMBERS, max_size=3),
    ),
    "network": fields(network_type=IDS),
    "checkpoint": fields(path=st.text(max_size=3), step=STEPS, size=st.integers(0, 9)),
    "conclusion": fields(text=st.text(max_size=5)),
    "result": fields(result_dict=VALUES, step=STEPS),
    "dataset_version": fields(dataset_name=st.text(max_size=3), version_tag=st.text(max_size=3)),
    "of a later version": fields(x=VALUES),
}  # fmt: skip
EVENTS = st.lists(
    st.sampled_from(sorted(PAYLOADS)).flatmap(
        # Up to a few minutes apart, so that most samples of resources are integrated and some are not.
        lambda name: st.tuples(st.just(name), PAYLOADS[name], SCOPES, st.integers(0, 400_000_000))
    ),
    max_size=25,
)
LIMITS = st.sampled_from([1, 2, 3, 10_000])


def observed(figures: RunFigures, events: list[Told]) -> RunFigures:
    """Let *figures* observe *events*, whose last part is the time since the event before."""
    for type_name, payload, scope, ts in events:
        figures.observe(type_name, payload, scope, ts)
    return figures


def at_their_times(events: list[Told]) -> list[Told]:
    """Return *events* with times instead of pauses."""
    now, told = 1_700_000_000_000_000, []
    for type_name, payload, scope, pause in events:
        now += pause
        told.append((type_name, payload, scope, now))
    return told


def through_json(figures: RunFigures, limit: int = 10_000) -> RunFigures:
    """Store *figures* as strict JSON, and restore them."""
    return RunFigures.restored(json.loads(json.dumps(figures.state(), allow_nan=False)), limit)


def everything(figures: RunFigures) -> tuple[str, str, list[str]]:
    """Return all that is asked of figures, as texts, in which also NaN equals itself; order counts."""
    data = figures.as_dict()
    order = [name for table in ("params", "metrics") for name in data[table]]
    return repr(data), repr(figures.summary()), order


@given(EVENTS, st.integers(0, 25), LIMITS)
def test_a_pause_changes_nothing(events: list[Told], cut: int, limit: int) -> None:
    """Stored and restored at any point, full tables included, the figures are those of one observer."""
    told = at_their_times(events)
    whole = observed(RunFigures(limit), told)
    paused = observed(through_json(observed(RunFigures(limit), told[:cut]), limit), told[cut:])
    assert everything(paused) == everything(whole)
    assert json.dumps(paused.state()) == json.dumps(whole.state())


@given(EVENTS, EVENTS, LIMITS)
def test_a_second_attempt_goes_on_from_the_first(first: list[Told], second: list[Told], limit: int) -> None:
    """With a start between them, two attempts are counted as one journal of both."""
    start: Told = ("run_started", {}, (), 1_000_000)
    told = at_their_times([start, *first, start, *second])
    cut = len(first) + 1
    whole = observed(RunFigures(limit), told)
    paused = observed(through_json(observed(RunFigures(limit), told[:cut]), limit), told[cut:])
    assert everything(paused) == everything(whole)


@given(EVENTS, EVENTS)
def test_a_state_is_a_picture_of_its_moment(events: list[Told], later: list[Told]) -> None:
    """What is observed afterwards does not change it."""
    figures = observed(RunFigures(), at_their_times(events))
    state = figures.state()
    before = copy.deepcopy(state)
    observed(figures, at_their_times(later))
    assert json.dumps(state) == json.dumps(before)


def step(number: int, metrics: dict[str, Any], split: str | None = None, scope: Any = ()) -> Told:
    """Return a training step."""
    return "training_step", {"step": number, "metrics": metrics, "data_split": split}, scope, 0


def test_a_new_attempt_begins_its_deltas_and_running_counts_anew_and_keeps_its_totals() -> None:
    """The first loss has no delta, a call without a step gets 1, and counts go on."""
    figures = observed(RunFigures(), [step(1, {"loss": 1.0}), step(2, {"loss": 0.5})])
    observed(figures, [("modification_stats", {"stats": {"widen": 1}, "step": 1}, (), 0)])
    resumed = observed(through_json(figures), [("run_started", {}, (), 0)])
    group = resumed.series.group((), None)
    assert (group.next_step("loss"), resumed.series.group((), "modification").calls) == (1, 0)
    assert resumed.series.take_step((), None, 3, {"loss": 0.25}) is None
    assert group.next_step("loss") == 2
    assert resumed.as_dict()["metrics"]["loss"]["count"] == 3
    assert resumed.as_dict()["metrics"]["delta_loss"]["count"] == 1
    assert resumed.events == {"training_step": 3, "modification_stats": 1, "run_started": 1}


def test_within_an_attempt_deltas_go_on_over_a_pause() -> None:
    """A reader that stops in the middle of an attempt compares the next loss with the last."""
    resumed = through_json(observed(RunFigures(), [step(1, {"loss": 1.0})]))
    assert resumed.series.take_step((), None, 2, {"loss": 0.75}) == 0.25


def test_nothing_is_used_between_two_attempts() -> None:
    """The time in which no process ran is not integrated."""
    minute = 60_000_000
    sample = {"component_id": "t0", "cpu_percent": 100.0}
    figures = RunFigures()
    for ts in (0, 6 * minute):
        figures.observe("resource", sample, (), ts)
    figures.observe("run_started", {}, (), 7 * minute)
    for ts in (8 * minute, 14 * minute):
        figures.observe("resource", sample, (), ts)
    assert figures.summary()["resources"]["core_hours"] == pytest.approx(0.2)


def test_figures_that_miss_events_say_so_for_ever() -> None:
    """``mark_partial`` is in all that is returned, and survives being stored."""
    figures = RunFigures()
    assert figures.as_dict()["partial"] is figures.summary()["partial"] is False
    figures.mark_partial()
    for each in (figures, through_json(figures)):
        assert each.incomplete
        assert each.as_dict()["partial"] is each.summary()["partial"] is True


def test_figures_with_a_cut_value_stay_partial() -> None:
    """A parameter too long to be kept whole is cut, and after a pause it is known that it was."""
    figures = observed(RunFigures(), [("param", {"params": {"prompt": "x" * 20_000}}, (), 0)])
    resumed = through_json(figures)
    assert resumed.as_dict()["partial"] is True
    assert resumed.as_dict()["params"] == figures.as_dict()["params"]


def test_a_smaller_limit_lets_the_oldest_go() -> None:
    """A state of larger tables is cut to those of here, and says that it is partial."""
    figures = RunFigures()
    for number in range(10):
        observed(figures, [
            step(number, {"loss": 1.0}, scope=(("tasker", str(number)),)),
            ("param", {"params": {f"p{number}": 1}}, (), 0), ("network", {"network_type": str(number)}, (), 0),
        ])  # fmt: skip
    small = through_json(figures, limit=3).as_dict()
    assert list(small["metrics"]) == ["tasker:7/loss", "tasker:8/loss", "tasker:9/loss"]
    assert list(small["params"]) == ["p7", "p8", "p9"]
    assert list(small["population"]["networks"]) == ["7", "8", "9"]
    assert small["partial"]


def test_a_state_is_as_bounded_as_the_tables() -> None:
    """However many names, samples and components there were, no more of them are stored than the limit."""
    figures = RunFigures(limit=10)
    sizes = []
    for number in range(400):
        name = f"n{number:04}"
        observed(figures, [
            step(1, {name: 1.0}), ("metric", {"step": 1, "metrics": {"x": 1.0}}, (("tasker", name),), 0),
            ("param", {"params": {name: 1}}, (), 0), ("data_usage", {"sample_ids": [name], "count": 1}, (), 0),
            ("data_score", {"sample_id": name, "delta": 1.0}, (), 0), ("resource", {"component_id": name}, (), 0),
            ("business", {"metrics": {name: 1}}, (), 0), ("network", {"network_type": name}, (), 0),
            (
                "modification_tree", {"modifications": [{"id": name, "type": name, "score": 1.0}]},
                (("builder", name),), 0,
            ),
            ("reward", {"tasker_id": name, "reward": 1.0}, (), 0),
        ])  # fmt: skip
        sizes.append(len(json.dumps(figures.state())))
    # From 20 to 400 of each only the digits of counts grow.
    assert sizes[-1] - sizes[20] < 200


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value inside *value*."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in inside:
        yield (*path, name)
        yield from places(item, (*path, name))


def rich_state() -> Any:
    """Return a state in which every table holds something."""
    return json.loads(json.dumps(observed(RunFigures(), [
        step(1, {"loss": 1.0, "acc": "NaN"}, "val", (("builder", "1"),)),
        ("param", {"params": {"lr": 1}}, (), 0), ("data_usage", {"sample_ids": ["s"], "count": 1}, (), 0),
        ("data_score", {"sample_id": "s", "delta": 1.0}, (), 0), ("resource", {"component_id": "t"}, (), 0),
        ("business", {"metrics": {"eur": 1}}, (), 0), ("network", {"network_type": "tasker"}, (), 0),
        ("population", {"fitness_scores": [1.0], "diversity_metric": 1.0}, (), 0),
        (
            "modification_tree",
            {"modifications": [{"id": "a", "type": "widen", "score": 1.0}, {"parent_ids": ["a"], "score": 2.0}]},
            (("builder", "1"),), 0,
        ),
        ("lezea_config", {"hyperparameters": {"lr": 1}}, (), 0),
    ]).state()))  # fmt: skip


@given(st.data())
def test_a_damaged_state_is_refused_or_harmless(data: st.DataObject) -> None:
    """Whichever value is replaced by whatever: a ``ValueError``, or figures that can be used."""
    state = rich_state()
    path = data.draw(st.sampled_from(list(places(state))))
    holder = state
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = data.draw(VALUES | st.just(10**400) | st.just([]) | st.just({}))
    try:
        figures = RunFigures.restored(state)
    except ValueError:
        return
    observed(figures, [step(2, {"loss": 0.5}, "val", (("builder", "1"),))])
    assert json.loads(json.dumps(figures.state(), allow_nan=False))["v"] == 2
    figures.as_dict()
    figures.summary()


@pytest.mark.parametrize("state", [None, [], "text", {}, {"v": 1}, {"v": "1"}, {"v": True}, {"v": None}])
def test_a_state_of_another_version_is_refused(state: Any) -> None:
    """It may mean something else by the same words."""
    with pytest.raises(ValueError, match="expected the state of figures of version 2, found"):
        RunFigures.restored(state)


@pytest.mark.parametrize("name", sorted(rich_state().keys() - {"v", "cut", "incomplete"}))
def test_a_part_that_is_missing_is_named(name: str) -> None:
    """The message says which table it was."""
    state = rich_state()
    del state[name]
    with pytest.raises(ValueError, match=f"the state of {name} is damaged"):
        RunFigures.restored(state)


def test_the_last_step_is_that_of_training_and_metrics() -> None:
    """Rewards, statistics and epochs have counts of their own."""
    figures = observed(RunFigures(), [
        step(7, {"loss": 1.0}), step(8, {"loss": 0.5}, "val"),
        ("reward", {"tasker_id": "t0", "reward": 1.0, "step": 100}, (), 0),
        ("modification_stats", {"stats": {"x": 1}, "step": 101}, (), 0),
        ("modification_tree_stats", {"stats": {"x": 1}, "step": 102}, (), 0),
        ("delta_loss", {"epoch": 103, "delta_loss": 0.5}, (), 0),
    ])  # fmt: skip
    assert figures.summary()["last_step"] == 8
    observed(figures, [("metric", {"step": 9, "metrics": {"acc": 1.0}}, (), 0)])
    assert figures.summary()["last_step"] == 9
    assert RunFigures().summary()["last_step"] is None


def test_one_whole_name_is_one_metric_however_it_was_logged() -> None:
    """A reward and a metric of its name, a split and a slash: nothing of either way is missing."""
    figures = observed(RunFigures(), [
        ("reward", {"tasker_id": "t0", "reward": 3.0, "step": 1}, (), 0),
        ("metric", {"metrics": {"reward/t0": 1.0, "val/loss": "NaN"}, "step": 5}, (), 0),
        step(6, {"loss": 0.5}, "val"),
    ])  # fmt: skip
    assert figures.as_dict()["metrics"]["reward/t0"] == {
        "count": 2, "last_step": 5, "nonfinite": 0, "first": 3.0, "last": 1.0, "mean": 2.0,
        "min": 1.0, "min_step": 5, "max": 3.0, "max_step": 1,
    }  # fmt: skip
    loss = figures.as_dict()["metrics"]["val/loss"]
    assert (loss["count"], loss["nonfinite"], loss["first"], loss["last"], loss["last_step"]) == (
        2,
        1,
        0.5,
        0.5,
        6,
    )


@pytest.mark.parametrize("value", [None, True, [], {}, "text"])
def test_a_foreign_record_without_numbers_stops_nothing(value: Any) -> None:
    """What another program wrote where numbers belong is left out; what is good is kept."""
    figures = observed(RunFigures(), [
        ("training_step", {"step": value, "metrics": {"loss": value, "acc": 1.0}, "data_split": value}, (), 0),
        ("metric", {"step": value, "metrics": value}, (), 0), ("reward", {"reward": value}, (), 0),
        ("delta_loss", {"delta_loss": value, "epoch": value}, (), 0), ("modification_stats", {"stats": value}, (), 0),
    ])  # fmt: skip
    assert any(name.endswith("acc") for name in figures.summary()["metrics"])
