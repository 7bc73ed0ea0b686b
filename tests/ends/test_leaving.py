"""How a block, a task, a thread or an interpreter is left while a run is open."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lezea_mlops.events import Envelope
from lezea_mlops.journal import RunFolder
from lezea_mlops.tracker import ExperimentTracker
from tests.ends.programs import BEGIN, RunPython, ends_of, records_of, the_run


def offline() -> ExperimentTracker:
    """Return a tracker that only writes its journal."""
    return ExperimentTracker("Demo", settings={"mode": "offline"})


def end_of(tracker: ExperimentTracker) -> Envelope:
    """Return the one end of a run."""
    (end,) = ends_of(RunFolder(tracker.run_dir))
    return end


# ---------------------------------------------------------------------- blocks and tasks


class OwnBase(BaseException):
    """An exception that is no ``Exception``."""


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (OwnBase("odd"), "failed", "OwnBase: odd"),
        (StopIteration(7), "failed", "StopIteration: 7"),
        (asyncio.CancelledError(), "killed", "CancelledError"),
        (GeneratorExit(), "completed", None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_block_is_left_by_exceptions_of_every_kind(
    error: BaseException, status: str, reason: str | None
) -> None:
    """Who is told to stop, as by Ctrl-C, was killed and did not fail; a generator that is closed is content."""
    tracker = offline()
    with suppress(BaseException), tracker:
        raise error
    end = end_of(tracker)
    assert end.event.status == status
    assert (reason or "") in (end.event.reason or "")
    text = (end.event.error or {}).get("traceback", "")
    assert ("raise error" in text) is (status != "completed")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions come alone there")
def test_a_block_is_left_by_several_exceptions_at_once(run_python: RunPython, tmp_path: Path) -> None:
    """A group is told with all its parts."""
    code = "with tracker: raise ExceptionGroup('both', [ValueError('one'), KeyError('two')])"
    run_python(BEGIN + code, check=False, LEZEA_MODE="offline")
    (end,) = ends_of(the_run(tmp_path))
    assert (end.event.status, end.event.reason) == ("failed", "ExceptionGroup: both (2 sub-exceptions)")
    assert "ValueError: one" in end.event.error["traceback"]
    assert "KeyError: 'two'" in end.event.error["traceback"]


def test_a_generator_that_is_closed_ends_its_run_as_completed() -> None:
    """Whoever takes no more from it is content."""
    tracker = offline()

    def steps() -> Generator[int, None, None]:
        with tracker:
            for step in range(100):
                tracker.log_training_step(step, {"loss": 1.0})
                yield step

    taken: Iterator[int] = steps()
    assert next(taken) == 0
    del taken
    assert end_of(tracker).event.status == "completed"


def test_a_cancelled_task_ends_its_own_run_alone() -> None:
    """Of two tasks, each with a run, one is cancelled and the other goes on to its end."""

    async def train(tracker: ExperimentTracker, waits: asyncio.Event, started: asyncio.Event) -> None:
        with tracker:
            started.set()
            await waits.wait()

    async def both() -> list[ExperimentTracker]:
        trackers, go, never = [offline(), offline()], asyncio.Event(), asyncio.Event()
        tasks = []
        for tracker, waits in zip(trackers, (never, go), strict=True):
            started = asyncio.Event()
            tasks.append(asyncio.create_task(train(tracker, waits, started)))
            await started.wait()
        tasks[0].cancel()
        go.set()
        await asyncio.wait(tasks)
        return trackers

    cancelled, other = asyncio.run(both())
    assert end_of(cancelled).event.status == "killed"
    assert end_of(other).event.status == "completed"


CTRL_C_IN_ASYNCIO = """
import asyncio

async def main():
    with tracker:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def test_ctrl_c_in_an_asyncio_program_kills_the_run(run_python: RunPython, tmp_path: Path) -> None:
    """There the block is left by a cancellation, and the interrupt follows behind it."""
    done = run_python(BEGIN + CTRL_C_IN_ASYNCIO, check=False, LEZEA_MODE="offline")
    assert done.stderr.endswith("KeyboardInterrupt\n")
    (end,) = ends_of(the_run(tmp_path))
    assert (end.event.status, end.event.reason) == ("killed", "CancelledError")


# ---------------------------------------------------------------------- threads


def test_threads_that_log_while_the_run_ends_lose_nothing() -> None:
    """What comes before the end counts to it, what comes after is late; nothing is lost or reported as unsafe."""
    for _ in range(10):
        tracker = offline()
        tracker.start()
        stop = threading.Event()
        logged = [0] * 4

        def work(index: int, tracker: Any = tracker, stop: Any = stop, logged: Any = logged) -> None:
            while not stop.is_set():
                logged[index] += 1
                tracker.log_training_step(logged[index], {f"loss{index}": 1.0})

        threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        tracker.log_comment("now")
        tracker.end()
        stop.set()
        for thread in threads:
            thread.join()
        records = records_of(RunFolder(tracker.run_dir))
        assert sum(record.type == "training_step" for record in records) == sum(logged)
        late = [bool(record.meta.get("late")) for record in records]
        at = [record.type for record in records].index("run_finished")
        assert late == [False] * (at + 1) + [True] * (len(records) - at - 1)
        assert tracker.health()["counts"] == {}


def test_a_journal_that_is_closed_while_it_is_synced_is_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that logs late closes the file again, perhaps while another makes it safe: closing has done that."""
    tracker = offline()
    real_fsync = os.fsync

    def closed_meanwhile(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", real_fsync)
        tracker.log_comment("late, from another thread")
        real_fsync(descriptor)

    tracker.end()
    tracker._recorder.writer.append("comment", {"text": "late"}, late=True)
    monkeypatch.setattr(os, "fsync", closed_meanwhile)
    tracker._recorder.sync()
    assert tracker.health()["counts"] == {}


CTRL_C_WHILE_ENDING = """
import traceback
main = threading.get_ident()

def press():
    def waits():
        return any(frame.name == "join" for frame in traceback.extract_stack(sys._current_frames()[main]))
    while not waits():
        continue
    os.kill(os.getpid(), signal.SIGINT)

presser = threading.Thread(target=press)
presser.start()
with tracker:
    raise ValueError("boom")
"""


def test_ctrl_c_while_the_run_ends_does_not_take_the_end_away(run_python: RunPython, tmp_path: Path) -> None:
    """Who does not want to wait for git, which hangs, still has the run's own end and its traceback."""
    hangs = tmp_path / "bin" / "git"
    hangs.parent.mkdir()
    hangs.write_text("#!/bin/sh\nexec sleep 60\n")
    hangs.chmod(0o755)
    (tmp_path / ".git").mkdir()
    done = run_python(
        BEGIN + CTRL_C_WHILE_ENDING, check=False, PATH=f"{hangs.parent}:/usr/bin:/bin", LEZEA_MODE="offline"
    )
    assert "KeyboardInterrupt" in done.stderr
    (end,) = ends_of(the_run(tmp_path))
    assert (end.event.status, end.event.reason) == ("failed", "ValueError: boom")


# ---------------------------------------------------------------------- the interpreter's end

EXIT_FUNCTIONS = """
import atexit
atexit.register(lambda: tracker.log_comment("registered first, called last"))
from lezea_mlops.tracker import ExperimentTracker
tracker = ExperimentTracker("Demo", auto_start=True)
atexit.register(lambda: tracker.log_comment("registered last, called first"))
"""


def test_exit_functions_may_log(run_python: RunPython, tmp_path: Path) -> None:
    """Those that are called before ours log into the run, those after it late; neither is lost."""
    run_python(EXIT_FUNCTIONS, LEZEA_MODE="offline")
    records = [record for record in records_of(the_run(tmp_path)) if record.type != "environment"]
    told = [(record.type, bool(record.meta.get("late"))) for record in records]
    assert told == [("run_started", False), ("comment", False), ("run_finished", False), ("comment", True)]
    assert records[1].event.text == "registered last, called first"


STILL_AT_WORK = """
def work():
    for step in range(2, 2_000):
        tracker.log_training_step(step, {"loss": 1.0 / step})

for daemon in (False, True):
    threading.Thread(target=work if not daemon else threading.Event().wait, daemon=daemon).start()
"""


def test_the_run_ends_when_the_last_thread_has(run_python: RunPython, tmp_path: Path) -> None:
    """The interpreter waits for threads that are no daemons; what they log belongs to the run, and nothing hangs."""
    run_python(BEGIN + STILL_AT_WORK, LEZEA_MODE="offline")
    records = records_of(the_run(tmp_path))
    assert sum(record.type == "training_step" for record in records) == 1_999
    assert records[-1].type == "run_finished"


AN_ERROR_OF_ANOTHER_THREAD = """
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
"""


def test_an_error_in_another_thread_is_that_threads(run_python: RunPython, tmp_path: Path) -> None:
    """The program went on without it, and so the run is completed."""
    done = run_python(BEGIN + AN_ERROR_OF_ANOTHER_THREAD, LEZEA_MODE="offline")
    assert "ZeroDivisionError" in done.stderr
    (end,) = ends_of(the_run(tmp_path))
    assert (end.event.status, end.event.reason) == ("completed", "interpreter exit")


LET_GO = """
def train(name):
    tracker = ExperimentTracker(name, auto_start=True)
    tracker.log_training_step(1, {"loss": 0.5})

train("First")
train("Second")
tracker = ExperimentTracker("Third")
"""


def test_a_run_whose_tracker_was_let_go_is_ended_too(run_python: RunPython, tmp_path: Path) -> None:
    """A local variable that is gone, or one that names another run by now, is a forgotten end like any other."""
    run_python(BEGIN + LET_GO, LEZEA_MODE="offline")
    ends = [end for path in (tmp_path / "runs").iterdir() for end in ends_of(RunFolder(path))]
    assert [(end.event.status, end.event.reason) for end in ends] == [("completed", "interpreter exit")] * 4


MANY = """
import socket
silent = socket.create_server(("127.0.0.1", 0), backlog=1_000)
settings = {
    "mlflow_tracking_uri": f"http://127.0.0.1:{silent.getsockname()[1]}", "courier": "thread", "close_timeout_s": 2,
}
for number in range(40):
    ExperimentTracker("Demo", async_mode=True, auto_start=True, settings=settings)
"""


def test_many_forgotten_runs_have_one_deadline(run_python: RunPython, tmp_path: Path) -> None:
    """With a server that never answers, forty ends take as long as one; each of them is in its journal."""
    run_python(BEGIN.partition("tracker = ")[0] + MANY, timeout_s=60)
    ends = [end for path in (tmp_path / "runs").iterdir() for end in ends_of(RunFolder(path))]
    assert [(end.event.status, end.event.reason) for end in ends] == [("completed", "interpreter exit")] * 40


SEVERAL = """
with ExperimentTracker("Inner") as inner:
    pass
open_one = ExperimentTracker("Open")
raise ValueError("boom")
"""


def test_every_open_run_of_a_program_is_ended(run_python: RunPython, tmp_path: Path) -> None:
    """Those that are open fail with the program; the one that was completed stays so."""
    run_python(BEGIN + SEVERAL, check=False, LEZEA_MODE="offline")
    ends = {}
    for path in (tmp_path / "runs").iterdir():
        records = records_of(RunFolder(path))
        ends[records[0].event.experiment_name] = [r.event.status for r in records if r.type == "run_finished"]
    assert ends == {"Demo": ["failed"], "Inner": ["completed"], "Open": ["failed"]}
