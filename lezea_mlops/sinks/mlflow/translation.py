"""What an event is in MLflow: pure functions from a record to metrics, params, tags and files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lezea_mlops.events import Envelope, as_number
from lezea_mlops.sinks.mlflow.names import escape, file_part, metric_key, one_part

STATUS_OF = {"completed": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
INDIVIDUALS = frozenset({"builder", "tasker"})


@dataclass(frozen=True)
class Point:
    """One value of a metric.

    Attributes:
        key: its escaped name.
        value: the number; may be NaN or infinite.
        step: whole number.
        individual: the name is scoped by a builder or a tasker, of which there may be many.
    """

    key: str
    value: float
    step: int
    individual: bool = False


@dataclass(frozen=True)
class TextFile:
    """A small file that is made from an event."""

    path: str
    content: str


@dataclass(frozen=True)
class BlobFile:
    """A captured file; ``sha256`` finds it, or ``reference`` where it stands."""

    path: str
    sha256: str | None
    source: str | None = None
    size: int | None = None
    reference: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Dataset:
    """A dataset of the run."""

    name: str
    digest: str
    source: str
    metadata: Mapping[str, Any]


@dataclass
class Translation:
    """All that one record brings to MLflow; params are raw names and texts."""

    points: list[Point] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    texts: list[TextFile] = field(default_factory=list)
    blobs: list[BlobFile] = field(default_factory=list)
    datasets: list[Dataset] = field(default_factory=list)
    note: tuple[str, str] | None = None
    status: str | None = None


def translate(record: Envelope) -> Translation:
    """Return what *record* is in MLflow; a type that MLflow has no place for brings nothing."""
    translation = Translation()
    handle = _HANDLERS.get(record.type)
    if handle is not None:
        handle(record, record.payload, translation)
        _large_values(record, record.payload, translation)
    return translation


Payload = Mapping[str, Any]


def _large_values(record: Envelope, payload: Payload, out: Translation) -> None:
    """Bring fields that were too large for a line as files."""
    for name, value in payload.items():
        if isinstance(value, Mapping) and isinstance(value.get("$blob"), str):
            suffix = {"json": "json", "text": "txt"}.get(value.get("format", ""), "bin")
            path = f"values/{record.type}/{_identity(record)}-{file_part(name)}.{suffix}"
            out.blobs.append(BlobFile(path, value["$blob"], size=value.get("size")))


def _identity(record: Envelope) -> str:
    return f"{record.seq:08d}" if record.wid == "main" else f"{file_part(record.wid)}-{record.seq:08d}"


def file_path(name: str) -> str:
    """Return a name given by a user as a relative path inside the artifacts: no ``..``, no leading slash."""
    parts = [file_part(part) for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "/".join(parts) or "unnamed"


def _scope_folder(record: Envelope) -> str:
    return "".join(f"{file_part(level)}_{file_part(identity)}/" for level, identity in record.scope)


def _numbers(
    record: Envelope, values: Any, step: Any, out: Translation, folder: str = "", *, individual: bool = False
) -> None:
    """Add every number of a mapping as a point below *folder* (escaped); nested mappings are folders too."""
    if not isinstance(values, Mapping):
        return
    individual = individual or any(level in INDIVIDUALS for level, _ in record.scope)
    for name, value in values.items():
        if isinstance(value, Mapping) and "$num" not in value:
            below = f"{folder}/{one_part(name)}" if folder else one_part(name)
            _numbers(record, value, step, out, below, individual=individual)
            continue
        number = as_number(value["$num"] if isinstance(value, Mapping) else value)
        if number is not None:
            key = metric_key(record.scope, folder, name, record.wid)
            out.points.append(Point(key, float(number), step if isinstance(step, int) else 0, individual))


def _dump(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _own_fields(payload: Payload) -> dict[str, Any]:
    return {name: value for name, value in payload.items() if name not in ("run_id", "scope")}


def _param_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested params as texts by escaped, dotted name; empty mappings and lists stay as they are.

    Where ``{"a.b": …}`` and ``{"a": {"b": …}}`` meet, the dot of the first is escaped.
    """
    flat: dict[str, str] = {}
    plain: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping) and value and not any(str(key).startswith("$") for key in value):
            flat |= flatten(value, f"{prefix}{escape(name)}.")
        else:
            plain.append((name, value))
    for name, value in plain:
        key = f"{prefix}{escape(name)}"
        if key in flat:
            key = prefix + escape(name).replace(".", "_x2E_")
        flat[key] = _param_text(value)
    return flat


def _run_started(record: Envelope, p: Payload, out: Translation) -> None:
    out.status = "RUNNING"
    source, env = p.get("source") or {}, p.get("env") or {}
    out.tags = {str(name): _param_text(value) for name, value in (p.get("tags") or {}).items()}
    out.tags |= {"lezea.attempt": str(record.att)}
    if source.get("entrypoint"):
        out.tags |= {"mlflow.source.name": source["entrypoint"], "mlflow.source.type": "LOCAL"}
    out.tags |= {f"lezea.{name}": str(env[name]) for name in ("python_version", "platform", "hostname") if name in env}
    if env.get("user"):
        out.tags["mlflow.user"] = str(env["user"])
    if p.get("purpose"):
        out.note = ("purpose", p["purpose"])


def _run_finished(record: Envelope, p: Payload, out: Translation) -> None:
    out.status = STATUS_OF.get(p.get("status", ""), "FAILED")
    if p.get("reason"):
        out.tags["lezea.reason"] = p["reason"]
    error = p.get("error")
    if isinstance(error, Mapping):
        out.tags["lezea.error"] = f"{error.get('type')}: {error.get('message')}"
        if error.get("traceback"):
            out.texts.append(TextFile("error/traceback.txt", str(error["traceback"])))
    if p.get("summary") is not None:
        out.texts.append(TextFile("summary.json", _dump(p["summary"])))
        resources = p["summary"].get("resources") if isinstance(p["summary"], Mapping) else None
        if isinstance(resources, Mapping) and resources.get("samples"):
            _numbers(record, resources, 0, out, "resources/total")


def _param(record: Envelope, p: Payload, out: Translation) -> None:
    if isinstance(p.get("params"), Mapping) and "$blob" not in p["params"]:
        out.params = flatten(p["params"])


def _config(record: Envelope, p: Payload, out: Translation) -> None:
    out.params = flatten(_own_fields(p))


def _training_step(record: Envelope, p: Payload, out: Translation) -> None:
    split, step = p.get("data_split"), p.get("step")
    folder = escape(split) if split else ""
    _numbers(record, p.get("metrics"), step, out, folder)
    _numbers(record, {"delta_loss": p.get("delta_loss")}, step, out, folder)
    _numbers(record, p.get("modification_statistics"), step, out, "modification")


def _metric(record: Envelope, p: Payload, out: Translation) -> None:
    metrics = p.get("metrics", {p["key"]: p.get("value")} if "key" in p else {})
    _numbers(record, metrics, p.get("step"), out)


def _delta_loss(record: Envelope, p: Payload, out: Translation) -> None:
    _numbers(record, {"delta_loss": p.get("delta_loss")}, p.get("epoch"), out)


def _modification_tree(record: Envelope, p: Payload, out: Translation) -> None:
    part = f".part{p['part']}" if "part" in p else ""
    repeat = f"-{p['repeat']}" if "repeat" in p else ""
    path = f"modifications/{_scope_folder(record)}step_{p.get('step')}{repeat}{part}.json"
    out.texts.append(TextFile(path, _dump(_own_fields(p))))
    statistics = p.get("statistics")
    if p.get("part", 1) == 1 and isinstance(statistics, Mapping):
        own = {name: value for name, value in statistics.items() if name != "computed"}
        computed = statistics.get("computed")
        # Not ``modtree``: that is what the researcher says of the tree as a whole, by a call of its own.
        _numbers(record, dict(computed if isinstance(computed, Mapping) else {}) | own, p.get("step"), out, "tree")


def _stats(folder: str) -> Callable[[Envelope, Payload, Translation], None]:
    def handle(record: Envelope, p: Payload, out: Translation) -> None:
        _numbers(record, p.get("stats"), p.get("step"), out, folder)

    return handle


def _data_splits(record: Envelope, p: Payload, out: Translation) -> None:
    _numbers(record, {f"{name}_size": size for name, size in (p.get("sizes") or {}).items()}, 0, out, "data")
    out.texts.append(TextFile(f"data/splits_{_identity(record)}.json", _dump(_own_fields(p))))


def _data_usage(record: Envelope, p: Payload, out: Translation) -> None:
    epoch = p.get("epoch", record.seq)
    _numbers(record, {"samples_used": p.get("count")}, epoch, out, "data")
    out.texts.append(TextFile(f"data/usage/{_identity(record)}.json", _dump(_own_fields(p))))


def _data_score(record: Envelope, p: Payload, out: Translation) -> None:
    _numbers(record, {"relevance": p.get("delta")}, record.seq, out, "data")


def _resource(record: Envelope, p: Payload, out: Translation) -> None:
    names = ("cpu_percent", "memory_mb", "gpu_util_percent", "io_operations")
    used = {name: p[name] for name in names if name in p}
    folder = f"resources/{one_part(str(p.get('component_id')))}"
    _numbers(record, used, record.seq, out, folder, individual=True)


def _file(folder: str) -> Callable[[Envelope, Payload, Translation], None]:
    def handle(record: Envelope, p: Payload, out: Translation) -> None:
        name = str(p.get("name") or str(p.get("path", "unnamed")).replace("\\", "/").rpartition("/")[2])
        if folder:
            at = f"step_{p['step']}" if "step" in p else _identity(record)
            name = f"{folder}/{_scope_folder(record)}{at}/{file_part(name)}"
        else:
            name = file_path(name)
        reference = p.get("reference")
        out.blobs.append(BlobFile(name, p.get("blob"), p.get("path"), p.get("size"), reference))
        if p.get("metadata"):
            out.texts.append(TextFile(f"{name}.metadata.json", _dump(p["metadata"])))

    return handle


def _dataset(record: Envelope, p: Payload, out: Translation) -> None:
    fingerprint = p.get("fingerprint") if isinstance(p.get("fingerprint"), Mapping) else {}
    digest = str((fingerprint or {}).get("fingerprint") or p.get("version_tag") or "unknown")
    metadata = {name: p[name] for name in ("version_tag", "version_metadata", "fingerprint") if name in p}
    name = str(p.get("dataset_name"))
    out.datasets.append(Dataset(name, digest, str(p.get("dataset_path") or name), metadata))


def _result(record: Envelope, p: Payload, out: Translation) -> None:
    step = p.get("step", 0)
    _numbers(record, p.get("result_dict"), step, out, "results")
    for kind in ("tasker_rewards", "builder_rewards"):
        _numbers(record, p.get(kind), step, out, f"results/{kind}", individual=True)
    out.texts.append(TextFile(f"results/{_identity(record)}.json", _dump(_own_fields(p))))


def _reward(record: Envelope, p: Payload, out: Translation) -> None:
    target = p.get("tasker_id") or p.get("target_id")
    _numbers(record, {str(target): p.get("reward")}, p.get("step"), out, "reward", individual=True)


def _population(record: Envelope, p: Payload, out: Translation) -> None:
    generation = p.get("generation", 0)
    step = p.get("step", generation)
    wanted = ("tasker_count", "builder_count", "generation", "diversity_metric")
    figures = {name.removesuffix("_metric"): p[name] for name in wanted if name in p}
    scores = p.get("fitness_scores")
    values = list(scores.values()) if isinstance(scores, Mapping) else scores
    numbers = (
        [n for v in values if (n := as_number(v)) is not None and n == n] if isinstance(values, list) else []
    )
    if numbers:
        figures |= {
            "fitness_max": max(numbers), "fitness_min": min(numbers), "fitness_mean": sum(numbers) / len(numbers),
        }  # fmt: skip
    _numbers(record, figures, step, out, "population")
    out.texts.append(
        TextFile(f"population/{_scope_folder(record)}generation_{generation}.json", _dump(_own_fields(p)))
    )


def _fold(record: Envelope, p: Payload, out: Translation) -> None:
    split = f"{escape(p['split'])}/" if p.get("split") else ""
    folder = f"population/{one_part(str(p.get('level')))}/{split}{escape(str(p.get('metric')))}"
    _numbers(record, {name: p.get(name) for name in ("mean", "min", "max", "count")}, p.get("step"), out, folder)


def _resource_cost(record: Envelope, p: Payload, out: Translation) -> None:
    _numbers(record, _own_fields(p), record.seq, out, "cost")
    out.texts.append(TextFile(f"business/cost_{_identity(record)}.json", _dump(_own_fields(p))))


def _business(record: Envelope, p: Payload, out: Translation) -> None:
    _numbers(record, p.get("metrics"), record.seq, out, "cost")
    out.texts.append(TextFile(f"business/metrics_{_identity(record)}.json", _dump(_own_fields(p))))


def _text(kind: str) -> Callable[[Envelope, Payload, Translation], None]:
    def handle(record: Envelope, p: Payload, out: Translation) -> None:
        out.note = (kind, str(p.get("text", "")))
        out.texts.append(TextFile(f"notes/{kind}_{_identity(record)}.md", str(p.get("text", ""))))

    return handle


def _environment(record: Envelope, p: Payload, out: Translation) -> None:
    facts = p.get("facts")
    if not isinstance(facts, Mapping):
        return
    git = facts.get("git")
    if isinstance(git, Mapping) and git.get("commit"):
        out.tags |= {"mlflow.source.git.commit": str(git["commit"])}
        out.tags |= {
            f"lezea.git.{name}": str(git[name])
            for name in ("branch", "dirty", "remote")
            if git.get(name) is not None
        }
    out.texts.append(TextFile(f"environment/{'_'.join(map(file_part, facts)) or 'facts'}.json", _dump(facts)))


_HANDLERS: dict[str, Callable[[Envelope, Payload, Translation], None]] = {
    "run_started": _run_started,
    "run_finished": _run_finished,
    "param": _param,
    "lezea_config": _config,
    "constraints": _config,
    "training_step": _training_step,
    "metric": _metric,
    "delta_loss": _delta_loss,
    "modification_tree": _modification_tree,
    "modification_tree_stats": _stats("modtree"),
    "modification_stats": _stats("modification"),
    "data_splits": _data_splits,
    "data_usage": _data_usage,
    "data_score": _data_score,
    "resource": _resource,
    "checkpoint": _file("checkpoints"),
    "artifact": _file(""),
    "dataset_version": _dataset,
    "result": _result,
    "reward": _reward,
    "population": _population,
    "fold": _fold,
    "resource_cost": _resource_cost,
    "business": _business,
    "comment": _text("comment"),
    "conclusion": _text("conclusion"),
    "environment": _environment,
}
