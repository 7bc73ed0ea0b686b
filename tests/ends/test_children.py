"""A run that is made in a child process ends as that child does, however the child was started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lezea_mlops.events import Envelope
from lezea_mlops.journal import RunFolder
from tests.conftest import ROOT
from tests.ends.programs import WITHOUT_A_WORD, ends_of, infer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc")

CHILDREN = """
import multiprocessing, os, signal, sys
from lezea_mlops.tracker import ExperimentTracker

def begin(way):
    tracker = ExperimentTracker("Demo", experiment_id=way, auto_start=True)
    tracker.log_training_step(1, {"loss": 0.5})
    return tracker

def returns(way, ready):
    begin(way)

def raises(way, ready):
    begin(way)
    raise ValueError("boom")

def exits(way, ready):
    begin(way)
    sys.exit(3)

def exits_with(way, ready):
    with begin(way):
        sys.exit(3)

def waits(way, ready):
    tracker = begin(way)
    ready.set()
    signal.pause()

WAYS = {
    "returns": (returns, None, 0), "raises": (raises, None, 1), "exits": (exits, None, 3),
    "exits-with": (exits_with, None, 3), "terminated": (waits, "terminate", -15), "killed": (waits, "kill", -9),
}

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    started = []
    for way, (function, stop, code) in WAYS.items():
        ready = context.Event()
        process = context.Process(target=function, args=(way, ready))
        process.start()
        started.append((process, ready, stop, code))
    for process, ready, stop, code in started:
        if stop is not None:
            ready.wait()
            getattr(process, stop)()
        process.join()
        assert process.exitcode == code, (process, code)
"""

EXPECTED = {
    "returns": ("completed", "interpreter exit"),
    "raises": ("failed", "ValueError: boom"),
    "exits": ("completed", "interpreter exit"),
    "exits-with": ("failed", "SystemExit(3)"),
    "terminated": ("killed", "SIGTERM"),
    "killed": ("killed", WITHOUT_A_WORD),
}


def run_script(code: str, folder: Path, *arguments: str) -> None:
    """Run code from a file, as spawned children need it."""
    script = folder / "program.py"
    script.write_text(code)
    environment = {"PYTHONPATH": str(ROOT), "LEZEA_MODE": "offline"}
    done = subprocess.run(
        [sys.executable, str(script), *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def end_of(folder: Path, experiment_id: str) -> Envelope:
    """Return the one end of a run, which may have to be written down first."""
    run = RunFolder(folder / "runs" / experiment_id)
    infer(run)
    (end,) = ends_of(run)
    return end


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_childs_run_ends_as_the_child_does(method: str, tmp_path: Path) -> None:
    """A child of ``multiprocessing`` runs no exit functions; its run is ended nevertheless, with the traceback."""
    run_script(CHILDREN, tmp_path, method)
    ends = {way: end_of(tmp_path, way) for way in EXPECTED}
    assert {way: (end.event.status, end.event.reason) for way, end in ends.items()} == EXPECTED
    assert "in raises" in ends["raises"].event.error["traceback"]


POOLS = """
import multiprocessing, os
from concurrent.futures import ProcessPoolExecutor
from lezea_mlops.tracker import ExperimentTracker

def begin():
    global tracker
    tracker = ExperimentTracker("Demo")

def work(number):
    tracker.log_training_step(number, {"loss": 1.0})
    return tracker.experiment_id

if __name__ == "__main__":
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), begin) as executor:
        executors = set(executor.map(work, range(8)))
    with multiprocessing.get_context("fork").Pool(2, begin) as pool:
        pool.map(work, range(8))
        pool.close()
        pool.join()
"""


def test_a_run_in_a_worker_of_a_pool_ends_with_the_worker(tmp_path: Path) -> None:
    """Workers that are let go end what their jobs forgot to."""
    run_script(POOLS, tmp_path)
    runs = [path.name for path in (tmp_path / "runs").iterdir()]
    assert 2 <= len(runs) <= 4
    for name in runs:
        end = end_of(tmp_path, name)
        assert (end.event.status, end.event.reason, end.wid) == ("completed", "interpreter exit", "main")


FORKED_FROM_A_THREAD = """
import os, signal, threading
from lezea_mlops.tracker import ExperimentTracker

tracker = ExperimentTracker("Demo", experiment_id="parent", auto_start=True)

def fork():
    pid = os.fork()
    if pid == 0:
        with ExperimentTracker("Demo", experiment_id="child") as own:
            own.log_training_step(1, {"loss": 0.5})
            os.kill(os.getpid(), signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM

thread = threading.Thread(target=fork)
thread.start()
thread.join()
tracker.end()
"""


def test_a_child_that_a_thread_forked_notes_its_own_signal(tmp_path: Path) -> None:
    """In the child that thread is the main one; the run of each process has its own end."""
    run_script(FORKED_FROM_A_THREAD, tmp_path)
    ends = [end_of(tmp_path, name) for name in ("parent", "child")]
    assert [(end.event.status, end.event.reason) for end in ends] == [
        ("completed", None),
        ("killed", "SIGTERM"),
    ]
