"""What the courier's tests share: a destination where nobody listens, and runs that a courier delivers.

Where a destination refuses every connection, the courier never loads MLflow and is there within a moment.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lezea_mlops._clock import Deadline
from lezea_mlops._files import read_holder
from lezea_mlops.journal import RunFolder, read_run
from lezea_mlops.runtime import courier_driver
from lezea_mlops.tracker import ExperimentTracker

PATIENCE_S = 60.0
# As users have it.
HEALTH_WAIT_S = courier_driver.HEALTH_WAIT_S


@pytest.fixture(autouse=True)
def courier_process(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deliver by a courier process, whose answers come late where the machine has others to serve."""
    monkeypatch.setenv("LEZEA_COURIER", "process")
    monkeypatch.setattr(courier_driver, "HEALTH_WAIT_S", PATIENCE_S)


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of a port that refuses connections for as long as the test lasts; it is the tracking URI."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("LEZEA_MLFLOW_TRACKING_URI", uri)
        yield uri


def next_call_looks_after_the_courier(tracker: ExperimentTracker) -> None:
    """Bring it about, as if a second had passed, and not just when another thread's call does it."""
    assert tracker._driver is not None
    wait_for_capture(tracker)
    tracker._driver.due_us = 0


def wait_for_capture(tracker: ExperimentTracker) -> None:
    """Wait until what surrounds the run is recorded: from then on nobody records but the test."""
    assert tracker._capturing is not None
    tracker._capturing.join()


class Watched:
    """A process by its id, of which one can learn that it has ended."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)

    def ended(self, within_s: float = PATIENCE_S) -> bool:
        """Wait for its end; False if it lives on."""
        return bool(select.select([self._descriptor], [], [], within_s)[0])

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        signal.pidfd_send_signal(self._descriptor, number)

    def close(self) -> None:
        """Kill it, if it still lives."""
        if not self.ended(0):
            self.signal(signal.SIGKILL)
            self.signal(signal.SIGCONT)
        os.close(self._descriptor)


Watch = Callable[..., Watched]


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Return a function that watches a courier: that of a tracker, of a run folder, or by its id."""
    watched: list[Watched] = []

    def begin(of: ExperimentTracker | Path | int) -> Watched:
        pid = of if isinstance(of, int) else courier_of(of if isinstance(of, Path) else of.run_dir)
        watched.append(Watched(pid))
        return watched[-1]

    yield begin
    for process in watched:
        process.close()


def courier_of(run_dir: Path) -> int:
    """Return the process id of the courier that delivers a run, as its lock names it."""
    holder = read_holder(RunFolder(run_dir).lock("courier"))
    assert holder is not None, "nobody delivers this run"
    return holder.process.pid


@pytest.fixture
def tracker(nowhere: str) -> Iterator[ExperimentTracker]:
    """A run whose courier is up and has found nobody at its destination."""
    tracker = ExperimentTracker("Demo", async_mode=True)
    tracker.start(prometheus_port=None)
    assert tracker.health()["sinks"].keys() == {"mlflow"}
    assert tracker._driver is not None
    tracker._driver.wait_until_reached(deadline())
    wait_for_capture(tracker)
    yield tracker
    if tracker.status == "running":
        tracker.end()


def deadline() -> Deadline:
    """Return a deadline that nothing reaches that works."""
    return Deadline.after(PATIENCE_S)


def warnings_in(caplog: pytest.LogCaptureFixture, about: str) -> list[str]:
    """Return the warnings that hold these words."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and about in record.getMessage()
    ]


def ends_of(run_dir: Path) -> list[dict[str, Any]]:
    """Return the ends of a run that its journals hold."""
    return [dict(record.payload) for record in read_run(run_dir) if record.type == "run_finished"]
