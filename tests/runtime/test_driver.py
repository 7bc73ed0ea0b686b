"""The thread driver: who delivers a run when several processes write it, and what happens at the end."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace

import pytest

from lezea_mlops._clock import Deadline
from lezea_mlops.delivery import Shipper, Step
from lezea_mlops.events import Envelope, MetricsLogged
from lezea_mlops.journal import RunFolder, read_run
from lezea_mlops.runtime import delivering
from lezea_mlops.runtime.delivering import take_delivery_lock
from lezea_mlops.runtime.driver import ThreadDriver
from lezea_mlops.runtime.recorder import Recorder
from lezea_mlops.sinks.base import destination_id
from lezea_mlops.testing import FakeClock, MemorySink

PATIENCE_S = 60.0
RunPython = Callable[..., "CompletedProcess[str]"]


class HangingSink(MemorySink):
    """Hangs in ``deliver`` while the gate is shut."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()

    def deliver(self, records: Sequence[Envelope]) -> None:
        """Wait for the gate, then take."""
        self.entered.set()
        assert self.gate.wait(PATIENCE_S)
        super().deliver(records)


class Process:
    """What a process that writes a run has: its recorder, its sink and its driver."""

    def __init__(self, folder: RunFolder, wid: str = "main") -> None:
        self.recorder = Recorder(folder, wid, "process", lambda content: {})
        self.sink = HangingSink()
        self.driver = ThreadDriver(self.recorder, [self.sink])

    def log(self, count: int = 1) -> None:
        """Record so many metrics."""
        for step in range(count):
            self.recorder.record(MetricsLogged(metrics={"loss": 0.5}, step=step))

    def flush(self) -> bool:
        """Wait until all is delivered."""
        return self.driver.flush(Deadline.after(PATIENCE_S))

    def close(self, within_s: float = PATIENCE_S) -> None:
        """End the driver, then the recorder."""
        self.driver.close(Deadline.after(within_s))
        self.recorder.close()

    def delivered(self) -> int:
        """Return how many records its sink has."""
        return len(self.sink.records)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Return an empty run folder."""
    folder = RunFolder(tmp_path / "run-1")
    folder.create()
    return folder


@pytest.fixture
def main(folder: RunFolder) -> Iterator[Process]:
    """Return the process that is ``main``; it is closed at the end."""
    process = Process(folder)
    yield process
    process.sink.gate.set()
    process.close()


# ---------------------------------------------------------------------- one process


def test_what_is_recorded_is_delivered(main: Process) -> None:
    """Before the start nothing is; then all of it, and ``health`` says so."""
    main.log(3)
    assert main.delivered() == 0
    main.driver.start()
    assert main.flush()
    main.log(2)
    assert main.flush()
    assert main.delivered() == 5
    assert main.driver.health()["memory"] == {
        "state": "ok", "delivered": 5, "waiting": 0, "lag_s": 0.0, "rejected": 0, "damaged": 0, "failures": {},
        "last_error": None,
    }  # fmt: skip


def test_the_start_learns_what_is_wrong(main: Process) -> None:
    """A destination that takes nothing is named with its error; waiting ends with the first failure."""
    main.log()
    main.sink.down = "the cable is cut"
    main.driver.start()
    deadline = Deadline.after(PATIENCE_S)
    [wrong] = main.driver.wait_until_reached(deadline)
    assert "memory-" in wrong
    assert "the cable is cut" in wrong
    assert not deadline.passed()


def test_the_start_finds_nothing_wrong_with_what_works(main: Process) -> None:
    """It returns when the first records are taken."""
    main.log()
    main.driver.start()
    assert main.driver.wait_until_reached(Deadline.after(PATIENCE_S)) == []


def test_closing_delivers_what_waits_and_gives_the_right_to_deliver_back(
    main: Process, folder: RunFolder
) -> None:
    """After it anybody may deliver; there is nothing to do."""
    main.driver.start()
    main.log(100)
    assert take_delivery_lock(folder) is None
    main.close()
    assert main.delivered() == 100
    lock = take_delivery_lock(folder)
    assert lock is not None
    lock.release()
    assert Shipper(folder, main.sink, FakeClock()).ship_once() is Step.IDLE


def test_a_driver_that_was_never_started_can_be_closed(main: Process) -> None:
    """What waits is taken along, for nobody else delivers."""
    main.log(3)
    main.close()
    assert main.delivered() == 3


def test_a_thread_that_hangs_keeps_the_right_to_deliver_until_it_has_ended(
    main: Process, folder: RunFolder
) -> None:
    """Closing returns at its deadline; what the thread does late must not meet what another process does."""
    main.driver.start()
    main.log()
    assert main.flush()
    main.sink.gate.clear()
    main.sink.entered.clear()
    main.log(3)
    assert main.sink.entered.wait(PATIENCE_S)
    assert main.driver.close(Deadline.after(0.1)).left == {"memory": 3}
    main.recorder.close()
    assert take_delivery_lock(folder) is None
    [thread] = [
        thread for thread in threading.enumerate() if thread.name == f"lezea-{destination_id(main.sink)}"
    ]
    main.sink.gate.set()
    thread.join(PATIENCE_S)
    lock = take_delivery_lock(folder)
    assert lock is not None
    lock.release()


def test_it_tells_that_it_is_alive(main: Process, folder: RunFolder) -> None:
    """``alive.json`` names the process and the writer."""
    main.driver.start()
    main.close()
    told = json.loads((folder.path / "alive.json").read_text())
    assert (told["pid"], told["wid"], type(told["ts"])) == (os.getpid(), "main", int)


def test_where_no_thread_can_be_started_the_journal_still_has_all(
    main: Process, folder: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A limit of the system, or an interpreter that ends: said once, with the command that delivers."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        main.driver.start()
    main.log(3)
    assert main.driver.flush(Deadline.after(0.01)) is False
    main.close()
    assert f"lezea sync {folder.path}" in caplog.text
    assert len(list(read_run(folder.path))) == 3
    lock = take_delivery_lock(folder)
    assert lock is not None
    lock.release()


def test_a_lock_that_cannot_be_made_is_told_and_costs_no_record(
    main: Process, folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is delivered from here, for it could be delivered twice at once."""
    folder.lock("courier").mkdir()
    main.driver.start()
    main.log(3)
    main.close()
    assert main.delivered() == 0
    assert "cannot lock the delivery" in caplog.text
    assert len(list(read_run(folder.path))) == 3


# ---------------------------------------------------------------------- several processes


@pytest.fixture
def rank1(main: Process, folder: RunFolder) -> Iterator[Process]:
    """Return a second process of the same run, while ``main`` delivers; its sink leads to the same place."""
    main.log()
    main.driver.start()
    assert main.flush()
    process = Process(folder, "rank1")
    process.sink.records = main.sink.records
    yield process
    process.close()


def test_who_ends_delivers_what_nobody_else_will(
    main: Process, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has the right until it has made its page, and looks at the journals no more."""
    lock = take_delivery_lock(folder)
    assert lock is not None
    main.driver.start()
    main.log(3)
    # It lets go while this process waits for it.
    monkeypatch.setattr(delivering, "time", SimpleNamespace(sleep=lambda seconds: lock.release()))
    assert main.driver.close(Deadline.after(PATIENCE_S)).left == {"memory": 0}
    assert main.delivered() == 3


def test_only_one_process_delivers_a_run(main: Process, rank1: Process) -> None:
    """The other's records are delivered by it too, and the other knows when."""
    rank1.driver.start()
    rank1.log(5)
    assert rank1.flush()
    assert main.delivered() == 6
    assert rank1.sink.batches == []


def test_a_process_that_does_not_deliver_does_not_wait_for_a_first_try(main: Process, rank1: Process) -> None:
    """There will be none; its start returns at once and finds nothing wrong."""
    rank1.driver.start()
    deadline = Deadline.after(PATIENCE_S)
    assert rank1.driver.wait_until_reached(deadline) == []
    assert not deadline.passed()


def test_health_says_that_another_process_delivers(main: Process, rank1: Process) -> None:
    """How much waits is read from the other's cursor."""
    rank1.driver.start()
    rank1.log(5)
    assert rank1.flush()
    assert rank1.driver.health()["memory"]["state"] == "elsewhere"
    assert rank1.driver.health()["memory"]["waiting"] == 0
    main.sink.gate.clear()
    rank1.log(2)
    assert rank1.driver.health()["memory"]["waiting"] == 2


def test_flushing_where_another_process_hangs_ends_at_the_deadline(main: Process, rank1: Process) -> None:
    """It says that the records are not there yet."""
    rank1.driver.start()
    main.sink.gate.clear()
    rank1.log()
    assert rank1.driver.flush(Deadline.after(0.1)) is False


def test_when_the_process_that_delivers_ends_another_takes_over(main: Process, rank1: Process) -> None:
    """It goes on where the cursor stands, and repeats nothing."""
    rank1.driver.start()
    main.close()
    rank1.log(5)
    assert rank1.flush()
    assert rank1.delivered() == 6
    assert sum(rank1.sink.batches) == 5
    assert rank1.driver.health()["memory"]["state"] == "ok"


def test_the_last_process_to_end_delivers_what_the_others_left(main: Process, rank1: Process) -> None:
    """Though it never had the right to deliver before."""
    main.sink.down = "switched off"
    main.log(3)
    main.close()
    rank1.log(2)
    rank1.close()
    assert rank1.delivered() == 6


def test_a_forked_child_does_not_keep_others_from_delivering(run_python: RunPython) -> None:
    """The right to deliver ends with the parent's driver, though a child that it forked lives on."""
    done = run_python(
        "import os, sys\n"
        "from pathlib import Path\n"
        "from lezea_mlops._clock import Deadline\n"
        "from lezea_mlops.journal import RunFolder\n"
        "from lezea_mlops.runtime.delivering import take_delivery_lock\n"
        "from lezea_mlops.runtime.driver import ThreadDriver\n"
        "from lezea_mlops.runtime.recorder import Recorder\n"
        "from lezea_mlops.testing import MemorySink\n"
        "folder = RunFolder(Path('run-1').absolute())\n"
        "folder.create()\n"
        "recorder = Recorder(folder, 'main', 'process', lambda content: {})\n"
        "driver = ThreadDriver(recorder, [MemorySink()])\n"
        "driver.start()\n"
        "reading, writing = os.pipe()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os.close(writing)\n"
        "    os.read(reading, 1)\n"
        "    os._exit(0)\n"
        "driver.close(Deadline.after(60))\n"
        "lock = take_delivery_lock(folder)\n"
        "os.close(writing)\n"
        "os.waitpid(child, 0)\n"
        "print('free' if lock is not None else 'held')\n"
    )
    assert done.stdout == "free\n"
