"""Fork: a child is a writer of its own, whatever the parent's threads were doing at that moment."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes.jobs import by_writer, check_threads_and_children, steps_of, the_run

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


ONE_CHILD = """
import os
from lezea_mlops.tracker import ExperimentTracker

tracker = ExperimentTracker("Demo", auto_start=True)
ids = tracker.log_modification_tree(1, [{"type": "widen"}])
tracker.log_training_step(1, {"loss": 1.0})
with tracker.builder_scope("1"):
    pid = os.fork()
    tracker.log_training_step(2, {"loss": 0.5})
    tracker.log_metrics({"acc": 0.5})
    ids += tracker.log_modification_tree(2, [{"type": "widen"}])
    tracker.log_text(f"of {pid == 0}", "who.txt")
assert len(set(ids)) == 2
if pid == 0:
    tracker.end("failed")  # a child does not end the parent's run
    tracker.log_training_step(3, {"loss": 0.25})
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
tracker.log_training_step(3, {"loss": 0.25})
tracker.end()
"""


@pytest.mark.parametrize("mode", ["offline", "off"])
def test_a_child_logs_into_its_own_file(run_python: RunPython, tmp_path: Path, mode: str) -> None:
    """The parent's numbers go on unbroken; the child's file holds its records, in its scopes, with its own ids."""
    run_python(ONE_CHILD, LEZEA_MODE=mode)
    if mode == "off":
        assert not (tmp_path / "runs").exists()
        return
    writers = by_writer(the_run(tmp_path))
    (child,) = writers.keys() - {"main"}
    assert child.startswith("main.")
    assert len(child) == len("main.") + 8
    ours = {wid: [r for r in records if r.type == "training_step"] for wid, records in writers.items()}
    assert [(r.event.step, r.event.delta_loss) for r in ours["main"]] == [(1, None), (2, None), (3, 0.75)]
    assert [(r.event.step, r.event.delta_loss) for r in ours[child]] == [(2, None), (3, None)]
    assert [r.scope for r in ours[child]] == [[["builder", "1"]], []]
    trees = [
        r.event.modifications[0]["id"] for records in writers.values() for r in records if "tree" in r.type
    ]
    assert len(set(trees)) == 3
    assert [r.event.step for r in writers[child] if r.type == "metric"] == [1]
    ends = [r for records in writers.values() for r in records if r.type == "run_finished"]
    assert [(r.wid, r.event.status) for r in ends] == [("main", "completed")]


GRANDCHILD = """
import os
from lezea_mlops.tracker import ExperimentTracker

tracker = ExperimentTracker("Demo")
for depth in range(3):
    tracker.log_comment(str(depth))
    if pid := os.fork():
        assert os.waitpid(pid, 0)[1] == 0
        break
tracker.log_comment("end of " + str(os.getpid()))
"""


def test_a_child_of_a_child_is_a_writer_too(run_python: RunPython, tmp_path: Path) -> None:
    """Names tell the line of descent, and a child that leaves the interpreter normally ends nobody's run."""
    run_python(GRANDCHILD, LEZEA_MODE="offline")
    writers = by_writer(the_run(tmp_path))
    assert sorted(wid.count(".") for wid in writers) == [0, 1, 2, 3]
    deepest = max(writers, key=len)
    assert all(deepest.startswith(wid) for wid in writers)
    ends = [r for records in writers.values() for r in records if r.type == "run_finished"]
    assert [(r.wid, r.event.reason) for r in ends] == [("main", "interpreter exit")]


WHILE_THREADS_LOG = """
import os, sys, threading
from lezea_mlops.tracker import ExperimentTracker

sys.setswitchinterval(1e-5)
tracker = ExperimentTracker("Demo", auto_start=True)
stop = threading.Event()
logged = [0] * 4

def work(index):
    with tracker.tasker_scope(index):
        while not stop.is_set():
            logged[index] += 1
            tracker.log_training_step(logged[index], {"loss": 1.0 / logged[index], "bad": None})

threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
for thread in threads:
    thread.start()
for child in range(30):
    pid = os.fork()
    if pid == 0:
        with tracker.builder_scope(child):
            for step in range(20):
                tracker.log_training_step(step, {"loss": 1.0, "bad": None})
        tracker.health()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
stop.set()
for thread in threads:
    thread.join()
tracker.end()
print(*logged)
"""


def test_a_fork_while_threads_log_blocks_nobody(run_python: RunPython, tmp_path: Path) -> None:
    """30 children of a parent whose threads hold any lock at any moment all log, and the parent loses nothing."""
    done = run_python(WHILE_THREADS_LOG, LEZEA_MODE="offline", timeout_s=120)
    writers = by_writer(the_run(tmp_path))
    assert len(writers) == 31
    check_threads_and_children(writers, list(map(int, done.stdout.split())))
    for wid, records in writers.items():
        assert wid == "main" or steps_of(records) == list(range(20))


POOL = """
import multiprocessing
from lezea_mlops.tracker import ExperimentTracker

tracker = ExperimentTracker("Demo")

def work(number):
    tracker.log_training_step(number, {"loss": 1.0})
    return tracker.health()["journal"]["path"]

with multiprocessing.get_context("fork").Pool(3) as pool:
    paths = set(pool.map(work, range(60)))
assert tracker.health()["journal"]["path"] not in paths
tracker.end()
"""


def test_workers_of_a_pool_each_have_a_file(run_python: RunPython, tmp_path: Path) -> None:
    """What a pool of forked workers logs is all there, each step once."""
    run_python(POOL, LEZEA_MODE="offline")
    writers = by_writer(the_run(tmp_path))
    assert 2 <= len(writers) <= 4
    assert sorted(step for records in writers.values() for step in steps_of(records)) == list(range(60))
