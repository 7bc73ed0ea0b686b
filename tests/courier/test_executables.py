"""Where no courier can be started a thread delivers: one warning, and no record is lost."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lezea_mlops._process import pid_exists
from lezea_mlops.errors import BackendUnreachableError
from lezea_mlops.runtime import courier_driver
from lezea_mlops.runtime.driver import ThreadDriver
from lezea_mlops.runtime.spawning import reap_left_behind
from lezea_mlops.tracker import ExperimentTracker
from tests.courier.conftest import deadline, next_call_looks_after_the_courier, warnings_in
from tests.ends.programs import wait_for_process

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize(
    ("executable", "why"),
    [
        ("", "cannot be executed"),
        (None, "cannot be executed"),
        ("/nowhere/bin/python3", "cannot be executed"),
        (__file__, "cannot be executed"),
        ("/bin/false", "not called like a Python interpreter"),
        ("/bin/cat", "not called like a Python interpreter"),
    ],
)
def test_an_executable_that_is_no_interpreter(
    nowhere: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    executable: str | None,
    why: str,
) -> None:
    """Embedded, removed, not executable, or a server with Python inside that would start itself once more."""
    monkeypatch.setattr(sys, "executable", executable)
    tracker = ExperimentTracker("Demo", auto_start=True)
    assert tracker.health()["driver"] == "thread"
    assert tracker.health()["sinks"]["mlflow"]["state"] == "down"
    tracker.end()
    [warning] = warnings_in(caplog, "courier")
    assert why in warning
    assert repr(executable) in warning


def test_a_frozen_program(
    nowhere: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its executable is the program itself; starting it would run the training twice."""
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    tracker = ExperimentTracker("Demo", auto_start=True)
    assert tracker.health()["driver"] == "thread"
    tracker.end()
    [warning] = warnings_in(caplog, "courier")
    assert "frozen" in warning


def wrapper(folder: Path, script: str) -> str:
    """Return a program that is called like an interpreter."""
    path = folder / "python3"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return str(path)


@pytest.mark.parametrize("script", ["exit 1", "exec cat", "echo 'no license' >&2; kill -9 $$"])
def test_a_courier_that_never_comes_up(
    nowhere: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    script: str,
) -> None:
    """It is tried four times; then the next call has a thread deliver, with the one warning that says so."""
    monkeypatch.setattr(sys, "executable", wrapper(tmp_path, script))
    tracker = ExperimentTracker("Demo", async_mode=True, auto_start=True)
    # Each question finds a courier that has ended, and asks the next.
    assert tracker.flush() is False
    assert tracker._driver is not None
    next_call_looks_after_the_courier(tracker)
    tracker.log_metrics({"loss": 0.5}, step=1)
    assert tracker.health()["driver"] == "thread"
    assert isinstance(tracker._driver, ThreadDriver)
    assert tracker._driver.wait_until_reached(deadline()) != []
    assert tracker.health()["sinks"]["mlflow"]["state"] == "down"
    tracker.end()
    [warning] = warnings_in(caplog, "the courier of")
    assert "a thread of this process delivers instead" in warning
    assert ("no license" in warning) == ("license" in script)


def test_a_courier_that_hangs_before_it_is_up(
    nowhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It has its time; then it is ended like one that ended by itself, and after the fourth a thread delivers."""
    monkeypatch.setattr(courier_driver, "COME_UP_S", 0.0)
    monkeypatch.setattr(sys, "executable", wrapper(tmp_path, "exec sleep 1000"))
    tracker = ExperimentTracker("Demo", async_mode=True, auto_start=True)
    started = set()
    for step in range(courier_driver.MAX_RESTARTS + 1):
        assert tracker._driver is not None
        started.add(getattr(tracker._driver, "pid", None))
        next_call_looks_after_the_courier(tracker)
        tracker.log_metrics({"loss": 0.5}, step=step)
    assert tracker.health()["driver"] == "thread"
    tracker.end()
    [warning] = warnings_in(caplog, "the courier of")
    assert "it was not up within 0 s" in warning
    for pid in started - {None}:
        wait_for_process(pid)
    reap_left_behind()
    assert [pid for pid in started - {None} if pid_exists(pid)] == []


def test_a_strict_start_with_a_courier_that_never_comes_up(
    nowhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends long before its time-out, for nothing will answer."""
    monkeypatch.setattr(sys, "executable", wrapper(tmp_path, "exit 1"))
    tracker = ExperimentTracker("Demo", settings={"start_timeout_s": 100})
    within = deadline()
    with pytest.raises(BackendUnreachableError, match=r"the courier of .* ended \(exit code 1"):
        tracker.start(strict=True, prometheus_port=None)
    assert not within.passed()
    tracker.end()


@pytest.mark.skipif(
    os.name != "posix" or os.getuid() != 0, reason="another user is needed, whom only root can become"
)
def test_a_user_who_may_start_no_process(nowhere: str, run_python: RunPython) -> None:
    """A limit of the system (RLIMIT_NPROC) that holds for threads as well: the journal has all, and that is told."""
    with tempfile.TemporaryDirectory() as runs:
        os.chmod(runs, 0o777)
        done = run_python(
            "import os, resource\n"
            "from lezea_mlops.tracker import ExperimentTracker\n"
            # This user may enter none of the folders that Python is in.
            "import lezea_mlops.sinks.mlflow, urllib.request, http.client\n"
            "os.setgid(65534)\n"
            "os.setuid(65534)\n"
            "tracker = ExperimentTracker('Demo', async_mode=True, runs_dir=os.environ['RUNS'])\n"
            "resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))\n"
            "tracker.start(prometheus_port=None)\n"
            "tracker.log_metrics({'loss': 0.5}, step=1)\n"
            "print(tracker.health()['driver'], tracker.health()['journal']['lost'])\n"
            "tracker.end()\n",
            RUNS=runs,
        )
    assert done.stdout == "thread 0\n"
    assert "no courier process can be started" in done.stderr
    assert "no thread can be started" in done.stderr


def test_a_run_folder_without_room_for_the_couriers_log(
    nowhere: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the reason: what cannot be started is told, and a thread delivers."""
    tracker = ExperimentTracker("Demo")
    (tracker.run_dir / "courier.log").mkdir()
    tracker.start(prometheus_port=None)
    assert tracker.health()["driver"] == "thread"
    tracker.end()
    [warning] = warnings_in(caplog, "courier process")
    assert "courier.log" in warning
