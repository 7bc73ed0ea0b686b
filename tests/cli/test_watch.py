"""``lezea sync --watch``: delivers what comes, for ever, and ends when it is told to."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from lezea_mlops._files import LifeLock
from lezea_mlops.cli.watch import Interruption, Watch
from lezea_mlops.config import load_settings
from lezea_mlops.journal import JournalWriter, RunFolder
from lezea_mlops.runtime.delivering import take_delivery_lock
from lezea_mlops.runtime.replay import Delivered, deliver_run
from lezea_mlops.tracker import ExperimentTracker
from tests.conftest import ROOT
from tests.sinks.mlflow.seen import the_run

Program = subprocess.Popen[str]


@pytest.fixture
def watching(mlflow_store: str) -> Iterator[Program]:
    """The program, watching every run; it says so on its first line."""
    with subprocess.Popen(
        [sys.executable, "-m", "lezea_mlops.cli", "sync", "--all", "--watch", "--json"],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as program:  # fmt: skip
        assert program.stderr is not None
        assert program.stderr.readline() == "watching; Ctrl-C ends it\n"
        yield program
        program.kill()


def delivered(program: Program, run_id: str, at_least: int) -> int:
    """Wait until so many records of a run were told of as delivered, in however many lines; return how many were."""
    assert program.stdout is not None
    records = 0
    while records < at_least:
        change = json.loads(program.stdout.readline())
        assert (change["error"], change["rejected"]) == (None, 0)
        records += change["records"] if change["run_id"] == run_id else 0
    return records


def written(folder: RunFolder) -> int:
    """Return how many records a run has."""
    return sum(len(path.read_bytes().splitlines()) for path in folder.journals().values())


def offline_run() -> RunFolder:
    """Return a run that was only journaled."""
    with ExperimentTracker("Later", settings={"mode": "offline"}) as tracker:
        tracker.log_metrics({"loss": 0.5}, step=1)
    return RunFolder(tracker.run_dir)


@pytest.mark.slow
def test_runs_that_come_later_are_delivered_and_it_ends_by_ctrl_c(
    watching: Program, mlflow_store: str
) -> None:
    """One line for each change; a run that goes on is taken up again; Ctrl-C is no failure."""
    one = offline_run()
    assert delivered(watching, one.run_id, written(one)) == written(one)
    with ExperimentTracker("Goes on", settings={"mode": "offline"}) as tracker:
        tracker.log_metrics({"loss": 0.5}, step=1)
        first = delivered(watching, tracker.experiment_id, 1)
        assert the_run(MlflowClient(mlflow_store), tracker.experiment_id).info.status == "RUNNING"
    records = written(RunFolder(tracker.run_dir))
    assert delivered(watching, tracker.experiment_id, records - first) == records - first > 0
    watching.send_signal(signal.SIGINT)
    out, error = watching.communicate()
    assert (watching.returncode, out) == (0, "")
    assert error.splitlines()[-1] == "ended; what waits stays in the journals"
    assert the_run(MlflowClient(mlflow_store), one.run_id).info.status == "FINISHED"


@pytest.mark.slow
def test_sigterm_ends_it_too(watching: Program) -> None:
    """As a service's stop does."""
    watching.terminate()
    assert watching.communicate()[1].splitlines()[-1] == "ended; what waits stays in the journals"
    assert watching.returncode == 0


def test_a_signal_ends_the_block_and_the_handlers_come_back() -> None:
    """Wherever it comes; what stands behind the block goes on."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    for number in (signal.SIGINT, signal.SIGTERM):
        with Interruption() as interruption:
            os.kill(os.getpid(), number)
            interruption.wait(0)
            raise AssertionError("it was not interrupted")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_interruption_that_was_swallowed_ends_the_next_wait() -> None:
    """A library may lose an exception that comes in its callbacks."""
    with Interruption() as interruption:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            interruption.wait(0)
        except KeyboardInterrupt:
            reached = True
        interruption.wait(100)
        raise AssertionError("it waited")
    assert reached


def test_other_errors_are_no_interruption() -> None:
    """They are not hidden."""
    with pytest.raises(ZeroDivisionError), Interruption():
        raise ZeroDivisionError


class Watched:
    """A watch of one run with a delivery that does as told."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.error: str | None = None
        self.again: list[bool] = []
        self.told: list[Delivered] = []
        self._watch = Watch(self._attempt, self.told.append)

    def _attempt(self, folder: RunFolder, again: bool) -> list[Delivered]:
        self.again.append(again)
        return [Delivered(folder.run_id, "mlflow", 0 if self.error else 1, 0, self.error)]

    def look(self) -> int:
        """Look at the run once, and return how often it was delivered by now."""
        self._watch.look_at(self.folder)
        return len(self.again)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    """A run with one record, whose process is gone."""
    folder = RunFolder(tmp_path / "run-1")
    folder.create()
    append(folder)
    return Watched(folder)


def append(folder: RunFolder) -> None:
    """Let the run's process come, write and leave."""
    writer = JournalWriter(folder, "main", durability="process")
    writer.append("comment", {"text": "x"})
    writer.close()


def test_a_run_is_delivered_when_something_came(watched: Watched) -> None:
    """Not in every round; what is asked for once is asked for the first time only."""
    assert [watched.look(), watched.look()] == [1, 1]
    append(watched.folder)
    assert [watched.look(), watched.look()] == [2, 2]
    assert watched.again == [False, True]


def test_the_end_of_the_process_is_something_too(watched: Watched) -> None:
    """Its run's end may have to be written down, though no byte came."""
    lock = LifeLock.take(watched.folder.lock("main"))
    assert lock is not None
    assert [watched.look(), watched.look()] == [1, 1]
    lock.release()
    assert watched.look() == 2


def test_a_run_that_another_process_delivers_is_left_to_it_in_silence(watched: Watched) -> None:
    """Its own courier, for instance; when that has gone, the rest is delivered here."""
    lock = take_delivery_lock(watched.folder)
    assert lock is not None
    assert watched.look() == 0
    lock.release()
    assert watched.look() == 1
    assert [report.error for report in watched.told] == [None]


def test_an_error_is_told_once_and_the_run_rests_a_moment(watched: Watched) -> None:
    """A server that is down is not asked in every round."""
    watched.error = "nobody there"
    assert [watched.look(), watched.look()] == [1, 1]
    assert [report.error for report in watched.told] == ["nobody there"]


def test_a_run_that_was_deleted_is_not_made_again(watched: Watched) -> None:
    """Nobody asked for an empty folder."""
    watched.look()
    shutil.rmtree(watched.folder.path)
    assert watched.look() == 1
    assert not watched.folder.path.exists()


def test_a_real_delivery_of_a_run_that_is_locked_is_no_change(mlflow_store: str) -> None:
    """A courier may take the run between the look and the delivery."""
    folder, told = offline_run(), []
    lock = take_delivery_lock(folder)
    watch = Watch(lambda folder, again: deliver_run(folder, load_settings()), told.append)
    lock_file = folder.lock("courier")
    content = lock_file.read_bytes()
    lock_file.write_bytes(b"")
    watch.look_at(folder)
    assert told == []
    lock_file.write_bytes(content)
    assert lock is not None
    lock.release()
    watch.look_at(folder)
    assert [report.error for report in told] == [None]
