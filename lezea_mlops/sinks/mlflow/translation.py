"""What an event is in MLflow: pure functions from a record to metrics, params, tags and files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from lezea_mlops.events import Envelope
from lezea_mlops.sinks.mlflow.expenses import EXPENSES
from lezea_mlops.sinks.mlflow.names import SPEAKERS, dotted, file_part, file_path, fit, user_tag
from lezea_mlops.sinks.mlflow.pieces import (
    BlobFile,
    Dataset,
    Payload,
    TextFile,
    Translation,
    blobs_in,
    dump,
    flatten,
    holds_pointer,
    identity,
    mapping_of,
    number_of,
    own_fields,
    points,
    scope_folder,
    sha256_of,
    text_of,
    whole_of,
)

STATUS_OF = {"completed": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
# A user's file at the top may not stand where these folders and this file are.
RESERVED = frozenset(
    "business checkpoints config data datasets environment error modifications notes population resources results "
    "values summary.json".split()
)
MAX_DATASET_DIGEST = 36
MAX_DATASET_TEXT = 60_000

Handler = Callable[[Envelope, Payload, Translation], None]


def translate(record: Envelope) -> Translation:
    """Return what *record* is in MLflow; a type that MLflow has no place for brings nothing."""
    out = Translation()
    handle = _HANDLERS.get(record.type)
    if handle is not None:
        handle(record, record.payload, out)
        _large_values(record, out)
        if record.wid not in SPEAKERS:
            _keep_apart(record, out)
    return out


def names_of_run(started: Envelope) -> tuple[str, str]:
    """Return the names of the experiment and of the run, from the run's first record."""
    p = started.payload
    ids = mapping_of(p.get("run_id"))
    name = text_of(p.get("name"))
    experiment = text_of(p.get("experiment_name")) or text_of(ids.get("exp_id")) or name or "unnamed"
    return fit(experiment, 500), (name or experiment)[:200]


def _large_values(record: Envelope, out: Translation) -> None:
    """Bring values that were too large for a line as files."""
    if not holds_pointer(record.payload):
        return
    for name, sha256, pointer in blobs_in(record.payload):
        suffix = {"json": "json", "text": "txt"}.get(text_of(pointer.get("format")), "bin")
        path = f"values/{record.type}/{identity(record)}-{file_part(name)}.{suffix}"
        out.blobs.append(BlobFile(path, sha256))


def _keep_apart(record: Envelope, out: Translation) -> None:
    """Put the files of a writer that is none of ``SPEAKERS`` into a folder of its own; it says nothing of the run."""
    folder = file_part(record.wid)
    out.texts = [replace(text, path=f"{folder}/{text.path}") for text in out.texts]
    out.blobs = [replace(blob, path=f"{folder}/{blob.path}") for blob in out.blobs]
    out.tags, out.status, out.of_run = {}, None, frozenset()
    if out.note is not None and out.note[0] == "purpose":
        out.note = None


# ---------------------------------------------------------------------- the run


def _run_started(record: Envelope, p: Payload, out: Translation) -> None:
    source, env, tags = mapping_of(p.get("source")), mapping_of(p.get("env")), mapping_of(p.get("tags"))
    out.status = "RUNNING"
    out.tags = {user_tag(name): text_of(value) for name, value in tags.items()}
    out.tags["lezea.attempt"] = str(record.att)
    if source.get("entrypoint"):
        out.tags |= {"mlflow.source.name": text_of(source["entrypoint"]), "mlflow.source.type": "LOCAL"}
    if env.get("user"):
        out.tags["mlflow.user"] = text_of(env["user"])
    for name in ("python_version", "platform", "hostname"):
        if env.get(name) is not None:
            out.tags[f"lezea.{name}"] = text_of(env[name])
    # Emitters of the protocol bring the repository here.
    _git_tags(
        {
            "commit": source.get("git_commit"),
            "branch": source.get("git_branch"),
            "remote": source.get("git_repo"),
        },
        out,
    )
    if env.get("gpu_info"):
        out.texts.append(TextFile("environment/gpu.json", dump(env["gpu_info"])))
    if p.get("purpose"):
        out.note = ("purpose", text_of(p["purpose"]))


def _run_finished(record: Envelope, p: Payload, out: Translation) -> None:
    out.status = STATUS_OF.get(text_of(p.get("status")), "FAILED")
    if p.get("reason"):
        out.tags["lezea.reason"] = text_of(p["reason"])
    error = p.get("error")
    if isinstance(error, Mapping):
        out.tags["lezea.error"] = f"{text_of(error.get('type'))}: {text_of(error.get('message'))}"
        if error.get("traceback"):
            out.texts.append(TextFile("error/traceback.txt", text_of(error["traceback"])))
    elif error:
        out.tags["lezea.error"] = text_of(error)
    if p.get("summary") is not None:
        out.texts.append(TextFile("summary.json", dump(p["summary"])))
        resources = mapping_of(mapping_of(p["summary"]).get("resources"))
        if resources.get("samples"):
            out.points += points(record, resources, 0, ("resources", "total"))
    out.points += points(record, p.get("final_metrics"), 0, ("final",))


def _environment(record: Envelope, p: Payload, out: Translation) -> None:
    facts = mapping_of(p.get("facts"))
    if not facts:
        return
    _git_tags(mapping_of(facts.get("git")), out)
    name = fit("_".join(map(file_part, facts)), 50)
    out.texts.append(TextFile(f"environment/{name}.json", dump(facts)))


def _git_tags(git: Payload, out: Translation) -> None:
    if git.get("commit"):
        out.tags["mlflow.source.git.commit"] = text_of(git["commit"])
        for name in ("branch", "dirty", "remote"):
            if git.get(name) is not None:
                out.tags[f"lezea.git.{name}"] = text_of(git[name])


# ---------------------------------------------------------------------- params


def _param(record: Envelope, p: Payload, out: Translation) -> None:
    out.params = flatten(p.get("params"))
    if "key" in p:
        nested = p.get("nested_key")
        path = [text_of(p["key"]), *map(text_of, nested if isinstance(nested, list) else [])]
        out.params[dotted(path)] = text_of(p.get("value"))


def _config(record: Envelope, p: Payload, out: Translation) -> None:
    out.params = flatten(own_fields(p))


# ---------------------------------------------------------------------- metrics


def _training_step(record: Envelope, p: Payload, out: Translation) -> None:
    split, step = text_of(p.get("data_split")), p.get("step")
    folder = (split,) if split else ()
    out.step = whole_of(step)
    out.points += points(record, p.get("metrics"), step, folder)
    if p.get("delta_loss") is not None:
        out.points += points(record, {"delta_loss": p["delta_loss"]}, step, folder)
    out.points += points(record, p.get("modification_statistics"), step, ("modification",))


def _metric(record: Envelope, p: Payload, out: Translation) -> None:
    phase = text_of(mapping_of(p.get("ctx")).get("phase"))
    step = p["step"] if p.get("step") is not None else p.get("epoch")
    metrics = {text_of(p["key"]): p.get("value")} if "key" in p else p.get("metrics")
    out.step = whole_of(step)
    out.points += points(record, metrics, step, (phase,) if phase else ())


def _delta_loss(record: Envelope, p: Payload, out: Translation) -> None:
    out.points += points(record, {"delta_loss": p.get("delta_loss")}, p.get("epoch"))


def _stats(folder: str) -> Handler:
    def handle(record: Envelope, p: Payload, out: Translation) -> None:
        out.points += points(record, p.get("stats"), p.get("step"), (folder,))

    return handle


def _modification_tree(record: Envelope, p: Payload, out: Translation) -> None:
    repeat = f"-{_number(p, 'repeat')}" if "repeat" in p else ""
    part = f".part{_number(p, 'part')}" if "part" in p else ""
    path = f"modifications/{scope_folder(record)}step_{_number(p, 'step')}{repeat}{part}.json"
    out.texts.append(TextFile(path, dump(own_fields(p))))
    statistics = mapping_of(p.get("statistics"))
    if p.get("part", 1) == 1:
        own = {name: value for name, value in statistics.items() if name != "computed"}
        # Types are many and come from the program: their figures stand in the file alone.
        computed = {n: v for n, v in mapping_of(statistics.get("computed")).items() if n != "by_type"}
        figures = {**computed, **own}
        # Not ``modtree``: that is what the researcher says of the tree as a whole, by a call of its own.
        out.points += points(record, figures, p.get("step"), ("tree",))


def _data_splits(record: Envelope, p: Payload, out: Translation) -> None:
    sizes = {f"{name}_size": size for name, size in mapping_of(p.get("sizes")).items()}
    out.points += points(record, sizes, 0, ("data",))
    out.texts.append(TextFile(f"data/splits_{identity(record)}.json", dump(own_fields(p))))


def _data_usage(record: Envelope, p: Payload, out: Translation) -> None:
    out.points += points(record, {"samples_used": p.get("count")}, p.get("epoch", record.seq), ("data",))
    out.texts.append(TextFile(f"data/usage/{identity(record)}.json", dump(own_fields(p))))


def _data_score(record: Envelope, p: Payload, out: Translation) -> None:
    out.points += points(record, {"relevance": p.get("delta")}, record.seq, ("data",))


def _result(record: Envelope, p: Payload, out: Translation) -> None:
    step = p.get("step")
    out.points += points(record, p.get("result_dict"), step, ("results",))
    for kind in ("tasker_rewards", "builder_rewards"):
        out.points += points(record, p.get(kind), step, ("results", kind), individual=True)
    out.texts.append(TextFile(f"results/{identity(record)}.json", dump(own_fields(p))))


def _reward(record: Envelope, p: Payload, out: Translation) -> None:
    target = text_of(p.get("tasker_id")) or text_of(p.get("target_id"))
    out.points += points(record, {target: p.get("reward")}, p.get("step"), ("reward",), individual=True)


def _population(record: Envelope, p: Payload, out: Translation) -> None:
    names = ("tasker_count", "builder_count", "generation", "diversity_metric")
    figures: dict[str, Any] = {name.removesuffix("_metric"): p.get(name) for name in names}
    scores = p.get("fitness_scores")
    values = list(mapping_of(scores).values()) or (scores if isinstance(scores, list) else [])
    numbers = [number for value in values if (number := number_of(value)) is not None and number == number]
    if numbers:
        figures |= {
            "fitness_max": max(numbers), "fitness_min": min(numbers), "fitness_mean": sum(numbers) / len(numbers),
        }  # fmt: skip
    step = p["step"] if p.get("step") is not None else p.get("generation")
    out.points += points(record, figures, step, ("population",))
    path = f"population/{scope_folder(record)}generation_{_number(p, 'generation')}.json"
    out.texts.append(TextFile(path, dump(own_fields(p))))


def _fold(record: Envelope, p: Payload, out: Translation) -> None:
    split = [text_of(p["split"])] if p.get("split") else []
    folder = ("population", text_of(p.get("level")), *split, *text_of(p.get("metric")).split("/"))
    figures = {name: p.get(name) for name in ("mean", "min", "max", "count")}
    out.points += points(record, figures, p.get("step"), folder)


# ---------------------------------------------------------------------- files, datasets, notes


def _checkpoint(record: Envelope, p: Payload, out: Translation) -> None:
    at = f"step_{_number(p, 'step')}" if p.get("step") is not None else identity(record)
    name = f"checkpoints/{scope_folder(record)}{at}/{file_part(_file_name(p))}"
    _file(p, out, name, ("role", "metadata", "meta", "epoch", "metrics", "is_best", "best_key"))


def _artifact(record: Envelope, p: Payload, out: Translation) -> None:
    _file(p, out, file_path(_file_name(p), RESERVED if record.wid in SPEAKERS else ()), ("metadata", "meta"))


def _file(p: Payload, out: Translation, name: str, details: tuple[str, ...]) -> None:
    """Bring a file and what is told of it, under *name*."""
    blob, source = sha256_of(p.get("blob")), text_of(p.get("path"))
    if blob is not None or source:
        mtime_ns = mapping_of(p.get("reference")).get("mtime_ns")
        checksum = sha256_of(p.get("checksum")) or sha256_of(p.get("sha256"))
        size = whole_of(p.get("size")) or None
        out.blobs.append(
            BlobFile(name, blob, source, size, mtime_ns if isinstance(mtime_ns, int) else None, checksum)
        )
    told = {detail: p[detail] for detail in details if p.get(detail)}
    if told:
        out.texts.append(TextFile(f"{name}.metadata.json", dump(told)))


def _file_name(p: Payload) -> str:
    return text_of(p.get("name")) or text_of(p.get("path")).replace("\\", "/").rpartition("/")[2] or "unnamed"


def _dataset(record: Envelope, p: Payload, out: Translation) -> None:
    name, version = text_of(p.get("dataset_name")) or "unnamed", text_of(p.get("version_tag"))
    digest = text_of(mapping_of(p.get("fingerprint")).get("fingerprint")) or version or "unknown"
    if len(digest) > MAX_DATASET_DIGEST:
        digest = (sha256_of(digest) or hashlib.sha256(digest.encode()).hexdigest())[:MAX_DATASET_DIGEST]
    told = {field: p[field] for field in ("version_tag", "version_metadata", "fingerprint") if field in p}
    metadata = dump(told)
    if len(metadata) > MAX_DATASET_TEXT:
        path = f"datasets/{identity(record)}-{file_part(name)}.json"
        out.texts.append(TextFile(path, metadata))
        metadata = dump({"version_tag": version[:500], "whole": path})
    source = text_of(p.get("dataset_path")) or name
    out.datasets.append(
        Dataset(fit(name, 500), digest, source[:MAX_DATASET_TEXT], version[:500] or "dataset", metadata)
    )


def _text(kind: str) -> Handler:
    def handle(record: Envelope, p: Payload, out: Translation) -> None:
        text = text_of(p.get("text"))
        out.note = (kind, text)
        out.texts.append(TextFile(f"notes/{kind}_{identity(record)}.md", text))

    return handle


def _number(p: Payload, name: str) -> str:
    """Return a number of the payload for a file name, whatever it is."""
    return file_part(text_of(p.get(name)))


_HANDLERS: dict[str, Handler] = {
    "run_started": _run_started,
    "run_finished": _run_finished,
    "environment": _environment,
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
    "result": _result,
    "reward": _reward,
    "population": _population,
    "fold": _fold,
    "checkpoint": _checkpoint,
    "artifact": _artifact,
    "dataset_version": _dataset,
    "comment": _text("comment"),
    "conclusion": _text("conclusion"),
    **EXPENSES,
}
