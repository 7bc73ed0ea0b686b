"""Hundreds of forks of a process whose threads log and whose driver delivers: nobody hangs, nothing comes twice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lezea_mlops.journal import COURIER_WRITER, MAIN_WRITER
from lezea_mlops.tracker import ExperimentTracker
from tests.ends.programs import ends_of, infer, wait_for_couriers
from tests.processes.jobs import by_writer, check_threads_and_children, run_script, steps_of, the_run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

STORM = """
import os, sys, threading
from lezea_mlops.runtime import assembly
from lezea_mlops.tracker import ExperimentTracker

# A page of so large a tree takes longer than this program's end.
assembly.FINISHERS = ()
sys.setswitchinterval(1e-5)
tracker = ExperimentTracker("Demo", auto_start=True, settings={"close_timeout_s": 1})
stop = threading.Event()
logged = [0] * 4

def work(index):
    with tracker.tasker_scope(index):
        while not stop.is_set():
            logged[index] += 1
            tracker.log_training_step(logged[index], {"loss": 1.0 / logged[index], "bad": None})
            tracker.log_modification_tree(logged[index], [{"type": "widen"}])
            tracker.health()

threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
for thread in threads:
    thread.start()
alive = []
for child in range(200):
    pid = os.fork()
    if pid == 0:
        with tracker, tracker.builder_scope(child):
            for step in range(3):
                tracker.log_training_step(child * 3 + step, {"loss": 1.0, "bad": None})
            tracker.log_modification_tree(child, [{"type": "widen"}])
            tracker.log_text(str(child), f"{child}.txt")
            assert tracker.flush(0) is False
            assert tracker.health()["sinks"] == {}
        os._exit(0)
    alive.append(pid)
    if len(alive) == 8:
        assert os.waitpid(alive.pop(0), 0)[1] == 0
for pid in alive:
    assert os.waitpid(pid, 0)[1] == 0
stop.set()
for thread in threads:
    thread.join()
tracker.end()
print(*logged)
"""


@pytest.mark.parametrize(
    ("mode", "courier"), [("offline", "thread"), ("online", "thread"), ("online", "process")]
)
def test_two_hundred_forks_while_four_threads_log(mode: str, courier: str, tmp_path: Path) -> None:
    """With every driver each record of each process is there once, its ids are its own, and everybody ends."""
    told = run_script(
        STORM, tmp_path,
        LEZEA_MODE=mode, LEZEA_COURIER=courier, LEZEA_MLFLOW_TRACKING_URI="http://127.0.0.1:9",
    )  # fmt: skip
    writers = by_writer(the_run(tmp_path))
    assert COURIER_WRITER not in writers
    children = {wid: records for wid, records in writers.items() if wid != MAIN_WRITER}
    assert len(children) == 200
    assert sorted(step for records in children.values() for step in steps_of(records)) == list(range(600))
    check_threads_and_children(writers, list(map(int, told.split())))
    everything = [record for records in writers.values() for record in records]
    ids = [r.event.modifications[0]["id"] for r in everything if r.type == "modification_tree"]
    assert len(set(ids)) == len(ids)
    ends = [(r.wid, r.event.status) for r in everything if r.type == "run_finished"]
    assert ends == [(MAIN_WRITER, "completed")]


LIVES_ON = """
import os
from lezea_mlops.tracker import ExperimentTracker

tracker = ExperimentTracker("Demo", experiment_id="job", auto_start=True)
tracker.log_training_step(1, {"loss": 0.5})
if os.fork() == 0:
    # A helper of the user's outlives the program that began the run.
    for descriptor in range(3):
        os.close(descriptor)
    os.open("helper", os.O_RDONLY)
    os._exit(0)
os._exit(0)
"""


@pytest.mark.parametrize(
    ("mode", "courier"), [("online", "process"), ("online", "thread"), ("offline", "thread")]
)
def test_a_child_that_lives_on_holds_nothing_of_its_parents(mode: str, courier: str, tmp_path: Path) -> None:
    """Neither the journal's lock nor the right to deliver: the run is told to have ended, and can be resumed."""
    os.mkfifo(tmp_path / "helper")
    run_script(
        LIVES_ON, tmp_path,
        LEZEA_MODE=mode, LEZEA_COURIER=courier, LEZEA_MLFLOW_TRACKING_URI="http://127.0.0.1:9",
    )  # fmt: skip
    run = the_run(tmp_path)
    wait_for_couriers(run)
    assert infer(run) == (courier == "thread")
    tracker = ExperimentTracker("Demo", resume="job", settings={"mode": "offline"})
    tracker.end()
    assert {(end.att, end.event.status) for end in ends_of(run)} == {(1, "killed"), (2, "completed")}
    # The helper has waited for this; without it nobody could open the other end.
    os.close(os.open(tmp_path / "helper", os.O_WRONLY | os.O_NONBLOCK))
