"""Whatever ends a program, MLflow shows it: status, reason and traceback, from real programs to a real store."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.artifacts import load_text

from lezea_mlops.config import load_settings
from lezea_mlops.journal import MAIN_WRITER, JournalWriter, RunFolder
from lezea_mlops.runtime.replay import deliver_run
from lezea_mlops.tracker import ExperimentTracker
from tests.ends.programs import (
    BEGIN,
    WITHOUT_A_WORD,
    RunPython,
    infer,
    start_python,
    the_run,
    wait_for_couriers,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc")


def shown(store: str, experiment_id: str) -> Any:
    """Return the one run that MLflow shows."""
    client = MlflowClient(store)
    (run,) = client.search_runs(["1"], f"tags.`lezea.experiment_id` = '{experiment_id}'")
    return run


def end_shown(store: str, experiment_id: str) -> tuple[str, str | None, str]:
    """Return status, reason and traceback as MLflow shows them."""
    run = shown(store, experiment_id)
    names = [file.path for file in MlflowClient(store).list_artifacts(run.info.run_id, "error")]
    traceback = load_text(f"{run.info.artifact_uri}/error/traceback.txt") if names else ""
    return run.info.status, run.data.tags.get("lezea.reason"), traceback


def sync(run: RunFolder) -> None:
    """Deliver a run as ``lezea sync`` does."""
    assert [report.error for report in deliver_run(run, load_settings())] == [None]


ENDS_OF_A_COURIERS_RUN = {
    "completed": ("tracker.end()", 0, "FINISHED", None, ""),
    "failed": ("raise ValueError('boom')", 1, "FAILED", "ValueError: boom", "ValueError: boom"),
    "terminated": ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, "KILLED", "SIGTERM", ""),
    "killed": ("os.setpgid(0, 0); os.killpg(0, 9)", -signal.SIGKILL, "KILLED", WITHOUT_A_WORD, ""),
}


@pytest.mark.parametrize("asynchronous", ["0", "1"])
def test_the_courier_shows_each_end(asynchronous: str, mlflow_store: str, tmp_path: Path) -> None:
    """Four programs at once, in both modes: each is over with its status when its courier has gone."""
    begin = BEGIN.replace('"Demo"', '"Demo", experiment_id=os.environ["NAME"]')
    programs = {
        name: start_python(begin + code, tmp_path, LEZEA_COURIER="process", ASYNC=asynchronous, NAME=name)
        for name, (code, *_) in ENDS_OF_A_COURIERS_RUN.items()
    }
    for name, program in programs.items():
        _, errors = program.communicate()
        assert program.returncode == ENDS_OF_A_COURIERS_RUN[name][1], errors
    for name, (_, _, status, reason, traceback) in ENDS_OF_A_COURIERS_RUN.items():
        wait_for_couriers(RunFolder(tmp_path / "runs" / name))
        told = end_shown(mlflow_store, name)
        assert told[:2] == (status, reason)
        assert traceback in told[2]
        assert bool(told[2]) is bool(traceback)
        run = shown(mlflow_store, name)
        assert run.info.end_time >= run.info.start_time
        assert run.data.metrics["loss"] == 0.5


@pytest.mark.parametrize(("mode", "courier"), [("online", "thread"), ("offline", "process")])
def test_sync_shows_an_end_that_no_courier_told(
    mode: str, courier: str, run_python: RunPython, mlflow_store: str, tmp_path: Path
) -> None:
    """With threads MLflow says RUNNING after a kill, offline nothing; sync tells both of them the end."""
    run_python(
        BEGIN + "tracker.flush()\nos.kill(os.getpid(), signal.SIGTERM)",
        check=False, LEZEA_MODE=mode, LEZEA_COURIER=courier,
    )  # fmt: skip
    run = the_run(tmp_path)
    if mode == "online":
        assert shown(mlflow_store, run.run_id).info.status == "RUNNING"
    sync(run)
    assert end_shown(mlflow_store, run.run_id) == ("KILLED", "SIGTERM", "")
    sync(run)
    assert shown(mlflow_store, run.run_id).info.status == "KILLED"


@pytest.mark.parametrize("real_comes_first", [True, False])
def test_the_real_end_of_an_attempt_wins_whichever_comes_first(
    real_comes_first: bool, run_python: RunPython, mlflow_store: str, tmp_path: Path
) -> None:
    """A process that was believed dead has the last word on how it ended."""
    run_python(BEGIN + "os._exit(0)", LEZEA_MODE="offline")
    run = the_run(tmp_path)
    infer(run)
    guess = run.journal("courier")
    if real_comes_first:
        guess.rename(tmp_path / "later")
    else:
        sync(run)
        assert shown(mlflow_store, run.run_id).info.status == "KILLED"
    writer = JournalWriter(run, MAIN_WRITER, attempt=1)
    writer.append("run_finished", {"status": "failed", "reason": "no data"})
    writer.close()
    sync(run)
    if real_comes_first:
        (tmp_path / "later").rename(guess)
        sync(run)
    assert end_shown(mlflow_store, run.run_id)[:2] == ("FAILED", "no data")


def test_the_end_of_an_earlier_attempt_does_not_end_the_run(
    run_python: RunPython, mlflow_store: str, tmp_path: Path
) -> None:
    """A run that was killed and resumed is RUNNING until it ends, and then shows how that came about."""
    run_python(BEGIN + "os.kill(os.getpid(), signal.SIGKILL)", check=False, LEZEA_MODE="offline")
    run = the_run(tmp_path)
    tracker = ExperimentTracker("Demo", resume=run.run_id, settings={"mode": "offline"})
    sync(run)
    assert shown(mlflow_store, run.run_id).info.status == "RUNNING"
    tracker.end("completed", "all done")
    sync(run)
    assert end_shown(mlflow_store, run.run_id)[:2] == ("FINISHED", "all done")
