"""A run remembers where it is to be delivered to, and names the command that does it."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from lezea_mlops.cli import app
from lezea_mlops.config import load_settings
from lezea_mlops.journal import RunFolder
from lezea_mlops.runtime.remembered import as_remembered, remember_destinations, sync_command
from lezea_mlops.sinks.base import destination_named
from lezea_mlops.tracker import ExperimentTracker
from tests.sinks.mlflow.seen import history, the_run

ADDRESS = "http://tracking.example:5000"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Return an empty run folder."""
    folder = RunFolder(tmp_path / "runs" / "run-1")
    folder.create()
    return folder


def test_what_is_remembered_comes_back(folder: RunFolder) -> None:
    """In a shell that names no destination."""
    settings = load_settings({"mlflow_tracking_uri": ADDRESS}, {})
    remember_destinations(folder, settings)
    assert as_remembered(folder, load_settings(environ={}), {}).mlflow_tracking_uri == ADDRESS
    assert as_remembered(folder, load_settings(environ={}), {}).mlflow_artifact_location is None


def test_the_environment_moves_a_run(folder: RunFolder) -> None:
    """Whoever names a destination means it."""
    remember_destinations(folder, load_settings({"mlflow_tracking_uri": ADDRESS}, {}))
    environ = {"MLFLOW_TRACKING_URI": "http://other:5000"}
    assert (
        as_remembered(folder, load_settings(environ=environ), environ).mlflow_tracking_uri
        == "http://other:5000"
    )


@pytest.mark.parametrize(
    "uri",
    [
        "http://me:hunter2@tracking:5000",
        "http://tracking:5000?token=hunter2",
        "http://tracking:5000/?token=hunter2@5",
    ],
)
def test_a_secret_in_an_address_is_not_remembered(folder: RunFolder, uri: str) -> None:
    """Neither a password nor a token in the query; the address is, by which the destination is known."""
    remember_destinations(folder, load_settings({"mlflow_tracking_uri": uri}, {}))
    assert b"hunter2" not in folder.destinations.read_bytes()
    remembered = as_remembered(folder, load_settings(environ={}), {}).mlflow_tracking_uri
    assert remembered == "http://tracking:5000"
    assert destination_named("mlflow", remembered) == destination_named("mlflow", uri)


@pytest.mark.parametrize("uri", ["databricks://Team-A", "sqlite:////data/a@b/What?.db"])
def test_an_address_without_a_secret_is_remembered_as_it_was_written(folder: RunFolder, uri: str) -> None:
    """The name of a profile has capitals, and a file's name may hold any sign."""
    remember_destinations(folder, load_settings({"mlflow_tracking_uri": uri}, {}))
    assert as_remembered(folder, load_settings(environ={}), {}).mlflow_tracking_uri == uri


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"mlflow_tracking_uri": 3, "mlflow_artifact_location": null}']
)
def test_what_cannot_be_read_counts_as_nothing(folder: RunFolder, content: str) -> None:
    """A run of former days has no such file at all."""
    settings = load_settings(environ={})
    assert as_remembered(folder, settings, {}) == settings
    folder.destinations.write_text(content)
    assert as_remembered(folder, settings, {}) == settings


def test_the_command_can_be_typed_where_the_program_runs(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its id where that finds it, else by its folder."""
    assert sync_command(folder) == "lezea sync run-1"
    monkeypatch.chdir("/")
    assert sync_command(folder) == f"lezea sync {folder.path}"
    monkeypatch.setenv("LEZEA_RUNS_DIR", str(folder.path.parent))
    assert sync_command(folder) == "lezea sync run-1"


def test_the_command_of_the_log_delivers_to_where_the_run_belongs(
    mlflow_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Typed in another folder, with nothing set: not to a store that is made there."""
    monkeypatch.delenv("LEZEA_MLFLOW_TRACKING_URI")
    settings = {"mlflow_tracking_uri": mlflow_store, "mode": "offline"}
    with ExperimentTracker("Remembered", runs_dir=tmp_path / "far", settings=settings) as tracker:
        tracker.log_metrics({"loss": 0.5}, step=1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    command = sync_command(RunFolder(tracker.run_dir)).split()
    assert CliRunner().invoke(app, command[1:]).exit_code == 0
    client = MlflowClient(mlflow_store)
    assert len(history(client, the_run(client, tracker.experiment_id), "loss")) == 1
    assert list(elsewhere.iterdir()) == []


def test_a_run_that_mlflow_has_lost_is_not_called_complete(mlflow_store: str) -> None:
    """All of it was delivered once; then a person deleted it there."""
    with ExperimentTracker("Lost", settings={"mode": "offline"}) as tracker:
        tracker.log_metrics({"loss": 0.5}, step=1)
    assert CliRunner().invoke(app, ["sync", tracker.experiment_id]).exit_code == 0
    client = MlflowClient(mlflow_store)
    client.delete_run(the_run(client, tracker.experiment_id).info.run_id)
    again = CliRunner().invoke(app, ["sync", tracker.experiment_id])
    assert again.exit_code == 1
    assert "--recreate" in again.output
