"""A tracker lives beside the user's own MLflow: it changes nothing there, and prints nothing."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from lezea_mlops.tracker import ExperimentTracker
from tests.conftest import MlflowServer
from tests.sinks.mlflow.seen import artifacts, the_run

RunPython = Callable[..., "CompletedProcess[str]"]
SETTINGS = {"close_timeout_s": 120}


@pytest.fixture
def the_user_s_run(prepared_store: Path, tmp_path: Path) -> Iterator[str]:
    """A run that the user tracks with MLflow's fluent API, in a store of the user's own."""
    uri = f"sqlite:///{tmp_path}/mine.db"
    (tmp_path / "mine.db").write_bytes(prepared_store.read_bytes())
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    mlflow.create_experiment("Mine", artifact_location=(tmp_path / "mine").as_uri())
    mlflow.set_experiment("Mine")
    with mlflow.start_run() as run:
        yield run.info.run_id
    mlflow.set_tracking_uri(before)


def state() -> dict[str, Any]:
    """Return what belongs to the user."""
    active = mlflow.active_run()
    return {
        "uri": mlflow.get_tracking_uri(),
        "registry": mlflow.get_registry_uri(),
        "run": active.info.run_id if active else None,
        "environment": {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
        "random": random.getstate(),
        "numpy": str(np.random.get_state()),
        "folder": os.getcwd(),
    }


def use(tracker: ExperimentTracker) -> None:
    """Log a little of everything, from start to end."""
    with tracker:
        tracker.log_params({"lr": 0.1})
        tracker.log_params({"lr": 0.2})
        tracker.log_training_step(1, {"loss": 0.5})
        tracker.log_text("text", "notes.txt")
        tracker.log_dataset_version("digits", "v1")
        assert tracker.flush(120)


def test_the_user_s_mlflow_is_not_touched(the_user_s_run: str, mlflow_store: str) -> None:
    """Global URI, active run, environment, random numbers: before, during and after; and no run of ours is there."""
    before = state()
    tracker = ExperimentTracker("Ours", settings=SETTINGS)
    with tracker:
        tracker.log_params({"lr": 0.1})
        assert tracker.flush(120)
        assert state() == before
        mlflow.log_metric("mine", 1.0)
    use(ExperimentTracker("Ours", settings=SETTINGS))
    assert state() == before
    client = MlflowClient(mlflow.get_tracking_uri())
    assert [found.name for found in client.search_experiments()] == ["Mine", "Default"]
    assert client.get_run(the_user_s_run).data.metrics == {"mine": 1.0}
    assert the_run(MlflowClient(mlflow_store), tracker.experiment_id).info.status == "FINISHED"


def test_the_user_s_run_in_the_same_store_goes_on(mlflow_store: str) -> None:
    """Also where both use one store: the end of ours is not the end of theirs."""
    client = MlflowClient(mlflow_store)
    own = client.create_run("0")
    use(ExperimentTracker("Ours", settings=SETTINGS))
    client.log_metric(own.info.run_id, "mine", 1.0)
    assert client.get_run(own.info.run_id).info.status == "RUNNING"


def test_a_checkpoint_that_is_overwritten_after_the_call_is_delivered_as_it_was(
    mlflow_store: str, tmp_path: Path
) -> None:
    """The content at the call is what MLflow gets, however late it is delivered."""
    tracker = ExperimentTracker("Ours", settings=SETTINGS)
    checkpoint = tmp_path / "best.pt"
    for step in (1, 2):
        checkpoint.write_text(f"weights of step {step}")
        tracker.log_checkpoint(checkpoint, step=step)
    checkpoint.unlink()
    tracker.start()
    tracker.end()
    client = MlflowClient(mlflow_store)
    run = the_run(client, tracker.experiment_id)
    place = tmp_path / "found"
    place.mkdir()
    for step in (1, 2):
        path = f"checkpoints/step_{step}/best.pt"
        found = client.download_artifacts(run.info.run_id, path, str(place))
        assert Path(found).read_text() == f"weights of step {step}"
    assert "checkpoints/step_1/best.pt" in artifacts(client, run)


@pytest.mark.parametrize("uri", ["./mlruns", "file:./mlruns"])
def test_a_file_store_is_refused_in_words_and_the_journal_keeps_all(
    uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither an exception nor a folder ``mlruns``; ``health`` has the remedy."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    tracker = ExperimentTracker("Ours", auto_start=True)
    tracker.log_metrics({"loss": 1.0}, step=1)
    [health] = tracker.health()["sinks"].values()
    assert health["state"] == "down"
    assert "sqlite:///mlflow.db" in health["last_error"]
    tracker.end()
    assert not (tmp_path / "mlruns").exists()
    assert '"loss"' in (tracker.run_dir / "events.jsonl").read_text()


@pytest.mark.slow
def test_nothing_is_printed_with_a_server(run_python: RunPython, shared_mlflow_server: MlflowServer) -> None:
    """MLflow prints two lines with addresses when a run ends; a library does not."""
    done = run_python(
        "from lezea_mlops.tracker import ExperimentTracker\n"
        "with ExperimentTracker('Quiet') as tracker:\n"
        "    tracker.log_metrics({'loss': 1.0}, step=1)\n"
        "    assert tracker.flush(120)\n",
        LEZEA_CLOSE_TIMEOUT_S="120",
        LEZEA_MLFLOW_TRACKING_URI=shared_mlflow_server.uri,
    )
    assert (done.stdout, done.stderr) == ("", "")
