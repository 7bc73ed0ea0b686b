"""What a person sees of a run in MLflow, as plain values for comparison."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from lezea_mlops.sinks.mlflow.runs import RUN_TAG

# What differs between two runs with the same records.
OWN_TAGS = {RUN_TAG, "mlflow.runName"}


def runs_of(client: MlflowClient, experiment_id: str) -> list[Run]:
    """Return every run with this id of ours, deleted ones too, in whatever experiment."""
    experiments = [found.experiment_id for found in client.search_experiments(view_type=ViewType.ALL)]
    return list(client.search_runs(experiments, f"tags.`{RUN_TAG}` = '{experiment_id}'", ViewType.ALL))


def the_run(client: MlflowClient, experiment_id: str) -> Run:
    """Return the one run with this id of ours."""
    [run] = runs_of(client, experiment_id)
    return client.get_run(run.info.run_id)


def history(client: MlflowClient, run: Run, key: str) -> set[tuple[int, int, str]]:
    """Return step, time and value of every point of a metric; NaN equals NaN as text."""
    points = client.get_metric_history(run.info.run_id, key)
    found = {(point.step, point.timestamp, repr(point.value)) for point in points}
    assert len(found) == len(points), f"{key} has a point twice"
    return found


def artifacts(client: MlflowClient, run: Run) -> dict[str, str]:
    """Return the hash of every artifact by its path."""

    def paths(folder: str | None) -> Iterator[str]:
        for item in client.list_artifacts(run.info.run_id, folder):
            if item.is_dir:
                yield from paths(item.path)
            else:
                yield item.path

    with tempfile.TemporaryDirectory() as place:
        client.download_artifacts(run.info.run_id, "", place)
        return {path: hashlib.sha256(Path(place, path).read_bytes()).hexdigest() for path in paths(None)}


def seen(client: MlflowClient, experiment_id: str) -> dict[str, Any]:
    """Return all of the run: status, times, params, tags, metric histories, artifacts, datasets."""
    run = the_run(client, experiment_id)
    return {
        "status": run.info.status,
        "times": (run.info.start_time, run.info.end_time),
        "experiment": client.get_experiment(run.info.experiment_id).name,
        "params": run.data.params,
        "tags": {name: value for name, value in run.data.tags.items() if name not in OWN_TAGS},
        "metrics": {key: history(client, run, key) for key in run.data.metrics},
        "artifacts": artifacts(client, run),
        "datasets": sorted(
            (
                each.dataset.name, each.dataset.digest, each.dataset.source, each.dataset.profile,
                tuple((tag.key, tag.value) for tag in each.tags),
            )
            for each in run.inputs.dataset_inputs
        ),
    }  # fmt: skip
