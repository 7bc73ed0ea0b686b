"""Finishers and the courier: made beside the program or after it, by a process that the program does not wait for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from lezea_mlops.journal import RunFolder, read_run
from lezea_mlops.runtime import assembly
from lezea_mlops.tracker import ExperimentTracker
from tests.conftest import ROOT
from tests.courier.conftest import Watch, ends_of, warnings_in
from tests.finishers import BROKEN, PAGE, WAITING, calls
from tests.sinks.mlflow.seen import artifacts, the_run


def made(run_dir: Path) -> list[str]:
    """Return the names of what the courier made."""
    return [
        record.payload["name"]
        for record in read_run(run_dir)
        if (record.type, record.wid) == ("artifact", "courier")
    ]


def test_the_end_waits_for_the_records_and_not_for_a_page_about_them(
    mlflow_store: str, monkeypatch: pytest.MonkeyPatch, watch: Watch
) -> None:
    """The courier stays until what was made is delivered; it says so to nobody, for nothing of the run waits."""
    monkeypatch.setattr(assembly, "FINISHERS", (WAITING, PAGE))
    settings = {"start_timeout_s": 100, "close_timeout_s": 100}
    tracker = ExperimentTracker("Finished", auto_start=True, settings=settings)
    os.mkfifo(tracker.run_dir / "gate")
    courier = watch(tracker)
    tracker.end()
    client = MlflowClient(mlflow_store)
    run = the_run(client, tracker.experiment_id)
    assert run.info.status == "FINISHED"
    assert not courier.ended(0)
    (tracker.run_dir / "gate").write_bytes(b"<p>late</p>")
    assert courier.ended()
    assert made(tracker.run_dir) == ["evolution/late.html", "evolution/tree.html"]
    assert artifacts(client, run).keys() >= {"evolution/late.html", "evolution/tree.html"}


def test_a_destination_that_is_away_keeps_nobody_from_making_something(
    nowhere: str, monkeypatch: pytest.MonkeyPatch, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that fails is told in the courier's log, and to a program that is still there; others run all the same."""
    monkeypatch.setattr(assembly, "FINISHERS", (BROKEN, PAGE))
    tracker = ExperimentTracker("Finished", auto_start=True)
    courier = watch(tracker)
    tracker.end()
    assert courier.ended()
    assert made(tracker.run_dir) == ["evolution/tree.html"]
    assert (
        RunFolder(tracker.run_dir).courier_log.read_text().count(f"WARNING the finisher {BROKEN} failed") == 1
    )
    assert len(warnings_in(caplog, " is down (")) == 1


KILLED = """
import os, signal, sys
from lezea_mlops.runtime import assembly
from lezea_mlops.tracker import ExperimentTracker
from tests.courier.conftest import courier_of

assembly.FINISHERS = (sys.argv[1],)
tracker = ExperimentTracker("Demo", auto_start=True)
tracker.log_metrics({"loss": 0.5}, step=1)
print(courier_of(tracker.run_dir), tracker.run_dir, flush=True)
sys.stdin.readline()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_program_has_its_page_too(nowhere: str, tmp_path: Path, watch: Watch) -> None:
    """The courier writes the end down first."""
    program = subprocess.Popen(
        [sys.executable, "-c", KILLED, PAGE], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert program.stdout is not None
    pid, run_dir = program.stdout.readline().split()
    courier = watch(int(pid))
    program.communicate("\n")
    assert courier.ended()
    [end] = ends_of(Path(run_dir))
    assert (end["status"], end["inferred"]) == ("killed", True)
    assert made(Path(run_dir)) == ["evolution/tree.html"]
    assert calls(RunFolder(Path(run_dir))) == ["page"]
