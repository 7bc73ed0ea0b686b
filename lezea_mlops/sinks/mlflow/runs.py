"""Finding the run of an experiment id in MLflow, or making it; never two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from lezea_mlops.events import Envelope
from lezea_mlops.sinks.base import Unavailable
from lezea_mlops.sinks.mlflow.connection import RunGone
from lezea_mlops.sinks.mlflow.pieces import time_ms
from lezea_mlops.sinks.mlflow.translation import names_of_run

RUN_TAG = "lezea.experiment_id"
ORDER_TAG = "lezea.status_order"


def find_run(client: Any, experiment_id: str, *, even_if_deleted: bool = True) -> Any:
    """Return the run that carries *experiment_id*; None if there is none.

    Args:
        client: an ``MlflowClient``.
        experiment_id: ours, not that of MLflow's experiment.
        even_if_deleted: also look at deleted runs, and say so rather than let a new one be made.

    Raises:
        RunGone: a person deleted it.
    """
    found = list(_runs(client, experiment_id))
    active = _active(found)
    if active:
        return active[0]
    if found and even_if_deleted:
        raise run_gone(found[0].info.run_id, experiment_id)
    return None


def read_run(client: Any, run_id: str, experiment_id: str) -> Any:
    """Return the run *run_id* as it is now.

    Raises:
        RunGone: a person deleted it.
    """
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise run_gone(run_id, experiment_id) from error
    if run.info.lifecycle_stage != "active":
        raise run_gone(run_id, experiment_id)
    return run


def run_gone(run_id: str, experiment_id: str) -> RunGone:
    """Return the error that says what a person can do about a deleted run."""
    return RunGone(
        f"the run {run_id} was deleted in MLflow, or its experiment was; restore it there, or make a new one with: "
        f"lezea sync --recreate {experiment_id}"
    )


def make_run(client: Any, started: Envelope, experiment_id: str, artifact_location: str | None) -> Any:
    """Make the run as its first record tells it, and return it.

    An answer may be lost on the way, and the request be repeated below us: then there are two, and all but one of
    those that hold nothing yet are deleted.
    """
    experiment_name, run_name = names_of_run(started)
    client.create_run(
        _find_or_make_experiment(client, experiment_name, artifact_location),
        start_time=time_ms(started),
        tags={RUN_TAG: experiment_id},
        run_name=f"{run_name}-{experiment_id[:8]}",
    )
    first, *others = active_runs(client, experiment_id)
    for run in others:
        if ORDER_TAG not in run.data.tags:
            client.delete_run(run.info.run_id)
    return first


def active_runs(client: Any, experiment_id: str) -> list[Any]:
    """Return the runs that carry *experiment_id* and are not deleted; the one that is delivered to comes first."""
    return _active(_runs(client, experiment_id))


def _active(runs: Iterable[Any]) -> list[Any]:
    return sorted((run for run in runs if run.info.lifecycle_stage == "active"), key=_in_use_first)


def _in_use_first(run: Any) -> tuple[bool, int, str]:
    return ORDER_TAG not in run.data.tags, run.info.start_time, run.info.run_id


def _runs(client: Any, experiment_id: str) -> Iterator[Any]:
    """Yield the runs with our tag in every experiment, deleted or not."""
    from mlflow.entities import ViewType

    token = None
    while True:
        experiments = client.search_experiments(view_type=ViewType.ALL, page_token=token)
        ids = [experiment.experiment_id for experiment in experiments]
        if ids:
            wanted = f"tags.`{RUN_TAG}` = '{experiment_id}'"
            yield from client.search_runs(ids, wanted, run_view_type=ViewType.ALL, max_results=100)
        token = experiments.token
        if not token:
            return


def _find_or_make_experiment(client: Any, name: str, artifact_location: str | None) -> str:
    """Return the id of the experiment *name*; where several make it at once, all get the same."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifact_location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage != "active":
        raise Unavailable(
            f"the experiment {name!r} was deleted in MLflow; restore it there, or use another experiment_name",
            "removed",
        )
    return str(experiment.experiment_id)
