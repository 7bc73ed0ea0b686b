"""``lezea sync``: what a person types, what it prints, how it exits."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import Result
from mlflow import MlflowClient
from rich.console import Console
from typer.testing import CliRunner

from lezea_mlops.cli import app
from lezea_mlops.cli.sync import Delivery
from lezea_mlops.config import load_settings
from lezea_mlops.journal import RunFolder
from lezea_mlops.runtime.delivering import take_delivery_lock
from lezea_mlops.runtime.own_process import MLFLOW_DEFAULTS
from lezea_mlops.runtime.replay import Order
from lezea_mlops.tracker import ExperimentTracker
from tests.conftest import ROOT
from tests.finishers import BROKEN
from tests.gate import Gate
from tests.sinks.mlflow.seen import artifacts, runs_of, the_run


@pytest.fixture(autouse=True)
def environment_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command sets variables of its own process, which is that of the tests here."""
    for name in MLFLOW_DEFAULTS.keys() - os.environ.keys():
        monkeypatch.setenv(name, "1")
        monkeypatch.delenv(name)


def sync(*arguments: str) -> Result:
    """Call the command in this process."""
    return CliRunner().invoke(app, ["sync", *arguments])


def offline_run(name: str = "Later") -> ExperimentTracker:
    """Return the tracker of a run that was only journaled."""
    with ExperimentTracker(name, settings={"mode": "offline"}) as tracker:
        tracker.log_metrics({"loss": 0.5}, step=1)
    return tracker


def status(uri: str, tracker: ExperimentTracker) -> str:
    """Return the status that MLflow shows."""
    return str(the_run(MlflowClient(uri), tracker.experiment_id).info.status)


def test_a_run_is_delivered_by_its_id(mlflow_store: str) -> None:
    """It says how many records and that it is complete; again, that nothing was left."""
    tracker = offline_run()
    first, again = sync(tracker.experiment_id), sync(tracker.experiment_id)
    assert (first.exit_code, again.exit_code) == (0, 0)
    assert f"{tracker.experiment_id} → mlflow: " in first.stderr
    assert "complete" in first.stderr
    assert "0 records, complete" in again.stderr
    assert first.stdout == ""
    assert status(mlflow_store, tracker) == "FINISHED"


def test_as_a_program_of_its_own(mlflow_store: str) -> None:
    """``python -m lezea_mlops.cli sync <id>``, as the log line of the tracker says."""
    tracker = offline_run()
    done = subprocess.run(
        [sys.executable, "-m", "lezea_mlops.cli", "sync", tracker.experiment_id],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")
    assert [line for line in done.stderr.splitlines() if line.strip()] == [
        f"{tracker.experiment_id} → mlflow: {len(records(tracker))} records, complete"
    ]
    assert status(mlflow_store, tracker) == "FINISHED"


def records(tracker: ExperimentTracker) -> list[str]:
    """Return the lines of a run's journal."""
    return (tracker.run_dir / "events.jsonl").read_text().splitlines()


def test_several_runs_by_id_and_by_folder(mlflow_store: str) -> None:
    """An id and a path may stand beside each other."""
    one, other = offline_run(), offline_run()
    assert sync(one.experiment_id, str(other.run_dir)).exit_code == 0
    assert (status(mlflow_store, one), status(mlflow_store, other)) == ("FINISHED", "FINISHED")


def test_all_runs_of_the_folder(mlflow_store: str, tmp_path: Path) -> None:
    """``--all`` takes every folder with a journal and no other."""
    trackers = [offline_run(f"Experiment {number}") for number in range(3)]
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "runs" / "readme.txt").write_text("x")
    result = sync("--all", "--json")
    assert result.exit_code == 0
    assert {report["run_id"] for report in json.loads(result.stdout)} == {
        tracker.experiment_id for tracker in trackers
    }
    assert [status(mlflow_store, tracker) for tracker in trackers] == ["FINISHED"] * 3


def test_all_of_no_runs_is_nothing_to_do(mlflow_store: str) -> None:
    """Where no folder is, nothing waits."""
    result = sync("--all", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, [])


def test_several_runs_are_summed_up(mlflow_store: str) -> None:
    """How many are complete, in the last line; one run needs no sum."""
    good, bad = offline_run(), offline_run()
    (bad.run_dir / "events.jsonl").write_bytes(b"\x00" * 100)
    assert sync("--all").stderr.splitlines()[-1] == "2 runs: 1 complete, 1 incomplete"
    assert "runs" not in sync(good.experiment_id).stderr


def test_a_sink_can_be_named(mlflow_store: str) -> None:
    """One that is configured; of another one those that are."""
    tracker = offline_run()
    wrong = sync(tracker.experiment_id, "--to", "mongodb")
    assert wrong.exit_code == 2
    assert "--to is 'mongodb'; configured are: mlflow" in wrong.stderr
    assert sync(tracker.experiment_id, "--to", "mlflow").exit_code == 0
    assert status(mlflow_store, tracker) == "FINISHED"


def test_a_person_at_a_terminal_sees_how_far_it_is(mlflow_store: str) -> None:
    """The run, and how many bytes of its journal are delivered; nothing of it stays, and programs see none of it."""
    tracker = offline_run()
    shown = {}
    for as_json in (False, True):
        screen = Console(file=io.StringIO(), force_terminal=True, width=100)
        delivery = Delivery(load_settings(), Order(recreate=True), screen, as_json)
        assert delivery.attempt(RunFolder(tracker.run_dir), False, time.sleep)[0].error is None
        shown[as_json] = screen.file.getvalue()
    size = (tracker.run_dir / "events.jsonl").stat().st_size
    assert tracker.experiment_id[:8] in shown[False]
    assert f"{size / 1000:.1f}/{size / 1000:.1f} kB" in shown[False]
    assert shown[True] == ""


def test_a_finisher_that_fails_is_told_and_is_no_failure_of_the_delivery(mlflow_store: str) -> None:
    """The run is complete without what it makes."""
    screen = Console(file=io.StringIO(), width=500)
    order = Order(finishers=[BROKEN])
    [report] = Delivery(load_settings(), order, screen, False).of(RunFolder(offline_run().run_dir))
    assert (report.error, report.finisher_failed) == (None, 1)
    assert screen.file.getvalue().endswith("records, 1 finisher failed, complete\n")


def test_the_runs_folder_can_be_named(mlflow_store: str, tmp_path: Path) -> None:
    """By option, as it can by variable."""
    tracker = offline_run()
    moved = tmp_path / "elsewhere"
    (tmp_path / "runs").rename(moved)
    assert sync(tracker.experiment_id).exit_code == 2
    assert sync(tracker.experiment_id, "--runs-dir", str(moved)).exit_code == 0


def test_the_report_can_be_read_by_programs(mlflow_store: str) -> None:
    """``--json`` prints one list and nothing else on stdout."""
    tracker = offline_run()
    assert json.loads(sync(tracker.experiment_id, "--json").stdout) == [
        {
            "run_id": tracker.experiment_id,
            "sink": "mlflow",
            "records": len(records(tracker)),
            "rejected": 0,
            "error": None,
            "damaged": 0,
            "finisher_failed": 0,
        }
    ]


def test_what_still_waits_is_exit_code_1_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is not there: its address is told, and the other runs are tried too."""
    nobody = Gate()
    monkeypatch.setenv("LEZEA_MLFLOW_TRACKING_URI", nobody.uri)
    one, other = offline_run(), offline_run()
    result = sync(one.experiment_id, other.experiment_id, "--json")
    assert result.exit_code == 1
    reports = json.loads(result.stdout)
    assert [report["run_id"] for report in reports] == [one.experiment_id, other.experiment_id]
    assert all(nobody.uri in report["error"] for report in reports)
    assert nobody.uri in result.stderr


def test_what_is_wrong_with_a_server_is_logged_once_for_all_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run has its line; that the server is down, and why, stands before them once."""
    monkeypatch.setenv("LEZEA_MLFLOW_TRACKING_URI", Gate().uri)
    handlers_before = list(logging.getLogger("lezea_mlops").handlers)
    for _ in range(2):
        offline_run()
    lines = sync("--all").stderr.splitlines()
    assert len([line for line in lines if "the records wait" in line]) == 1
    assert len([line for line in lines if "→ mlflow" in line]) == 2
    assert logging.getLogger("lezea_mlops").handlers == handlers_before


def test_a_run_that_is_delivered_elsewhere_is_exit_code_1(mlflow_store: str) -> None:
    """Another process has the right to deliver it now."""
    tracker = offline_run()
    lock = take_delivery_lock(RunFolder(tracker.run_dir))
    assert lock is not None
    result = sync(tracker.experiment_id)
    lock.release()
    assert result.exit_code == 1
    assert result.stderr == f"{tracker.experiment_id}: another process delivers this run now\n"


def test_a_server_that_hangs_is_given_up_sooner_than_mlflow_would(
    mlflow_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person waits for the command; what that person set for MLflow is respected."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")
    sync("--all")
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "5"
    assert int(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]) < 60


@pytest.mark.parametrize("arguments", [[], ["no-such-run"], ["."], ["[red]no[/red]"]])
def test_a_run_that_is_none_is_exit_code_2(arguments: list[str]) -> None:
    """Nothing was named, or what was named holds no journal: the message says what to do."""
    result = sync(*arguments)
    assert result.exit_code == 2
    assert "check the id" in result.stderr or "give an experiment id" in result.stderr
    assert all(name in result.stderr for name in arguments if name != ".")


def test_a_setting_that_is_wrong_is_exit_code_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is named."""
    monkeypatch.setenv("LEZEA_MODE", "sideways")
    result = sync("--all")
    assert result.exit_code == 2
    assert "LEZEA_MODE" in result.stderr


def test_a_run_that_is_still_written_is_delivered_as_far_as_it_is(mlflow_store: str) -> None:
    """Offline and unfinished: what is there is shown as running, the rest comes with the next call."""
    tracker = ExperimentTracker("Later", settings={"mode": "offline"}, auto_start=True)
    tracker.log_metrics({"loss": 0.5}, step=1)
    assert sync(tracker.experiment_id).exit_code == 0
    assert status(mlflow_store, tracker) == "RUNNING"
    tracker.log_metrics({"loss": 0.4}, step=2)
    tracker.end()
    assert sync(tracker.experiment_id).exit_code == 0
    run = the_run(MlflowClient(mlflow_store), tracker.experiment_id)
    assert (run.info.status, run.data.metrics["loss"]) == ("FINISHED", 0.4)


def test_refused_records_are_told(mlflow_store: str, tmp_path: Path) -> None:
    """Their number stands in the line; it is no reason to call again."""
    (tmp_path / "a.bin").write_text("a")
    with ExperimentTracker("Later", capture="reference", settings={"mode": "offline"}) as tracker:
        tracker.log_artifact(tmp_path / "a.bin")
    (tmp_path / "a.bin").unlink()
    result = sync(tracker.experiment_id)
    assert result.exit_code == 0
    assert "1 set aside" in result.stderr


def test_refused_records_are_offered_again_on_request(mlflow_store: str, tmp_path: Path) -> None:
    """The file is back as it was: now it is taken."""
    file = tmp_path / "a.bin"
    file.write_text("a")
    time_ns = file.stat().st_mtime_ns
    with ExperimentTracker("Later", capture="reference", settings={"mode": "offline"}) as tracker:
        tracker.log_artifact(file)
    file.unlink()
    assert "1 set aside" in sync(tracker.experiment_id).stderr
    file.write_text("a")
    os.utime(file, ns=(time_ns, time_ns))
    again = sync(tracker.experiment_id, "--retry-rejected")
    assert again.exit_code == 0
    assert "set aside" not in again.stderr
    client = MlflowClient(mlflow_store)
    assert any(path.endswith("a.bin") for path in artifacts(client, the_run(client, tracker.experiment_id)))


def test_a_deleted_run_is_made_anew_by_request(mlflow_store: str) -> None:
    """The message of the refusal is the command that helps."""
    tracker, client = offline_run(), MlflowClient(mlflow_store)
    sync(tracker.experiment_id)
    client.delete_run(the_run(client, tracker.experiment_id).info.run_id)
    with (tracker.run_dir / "events.jsonl").open("a") as file:
        file.write(records(tracker)[-1].replace('"seq":', '"seq":9') + "\n")
    refused = sync(tracker.experiment_id)
    assert refused.exit_code == 1
    command = refused.stderr.rpartition("make a new one with: lezea ")[2].split()[:3]
    assert command == ["sync", "--recreate", tracker.experiment_id]
    assert CliRunner().invoke(app, command).exit_code == 0
    stages = [run.info.lifecycle_stage for run in runs_of(client, tracker.experiment_id)]
    assert sorted(stages) == ["active", "deleted"]
