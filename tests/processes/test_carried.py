"""A tracker that is carried to another process is a further writer of the same run, and ends it nowhere."""

from __future__ import annotations

import copy
import pickle
import re
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from lezea_mlops.journal import MAIN_WRITER, RunFolder
from lezea_mlops.tracker import ExperimentTracker
from tests.processes.jobs import by_writer, run_script, steps_of, the_run

WORKERS = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from lezea_mlops.tracker import ExperimentTracker

def work(tracker, number):
    with tracker, tracker.tasker_scope(number):
        tracker.log_training_step(number, {"loss": 1.0})
        tracker.log_text(str(number), f"{number}.txt")
    return tracker.health()["journal"]["path"]

def nest(tracker, context, depth):
    tracker.log_training_step(100 + depth, {"loss": 1.0})
    if depth < 3:
        process = context.Process(target=nest, args=(tracker, context, depth + 1))
        process.start()
        process.join()
        assert process.exitcode == 0

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    tracker = ExperimentTracker("Demo", auto_start=True)
    processes = [context.Process(target=work, args=(tracker, number)) for number in range(4)]
    processes.append(context.Process(target=nest, args=(tracker, context, 1)))
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    with ProcessPoolExecutor(2, context) as executor:
        paths = set(executor.map(work, [tracker] * 8, range(4, 12)))
    # A worker gets a tracker of its own with each job; fork shares one.
    assert tracker.health()["journal"]["path"] not in paths
    tracker.log_training_step(12, {"loss": 1.0})
    tracker.end()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.skipif(sys.platform == "win32", reason="Windows only spawns")
def test_workers_of_every_kind_write_to_the_run(method: str, tmp_path: Path) -> None:
    """Processes, their children's children, and pools: each record once, names that tell the descent, one end."""
    run_script(WORKERS, tmp_path, method)
    writers = by_writer(the_run(tmp_path))
    children = {wid: records for wid, records in writers.items() if wid != MAIN_WRITER}
    steps = [step for records in children.values() for step in steps_of(records)]
    assert sorted(steps) == [*range(12), 101, 102, 103]
    for wid in children:
        assert re.fullmatch(r"main(\.[0-9a-f]{8})+", wid)
    nested = {step: wid for wid, records in children.items() for step in steps_of(records) if step > 100}
    assert nested[102].startswith(nested[101] + ".")
    assert nested[103].startswith(nested[102] + ".")
    ends = [record.wid for records in writers.values() for record in records if record.type == "run_finished"]
    assert ends == [MAIN_WRITER]
    assert steps_of(writers[MAIN_WRITER]) == [12]


LOADER = """
import multiprocessing
from lezea_mlops.tracker import ExperimentTracker

class Dataset:
    def __init__(self, tracker):
        self.tracker = tracker

    def __getitem__(self, index):
        return index * 2

def load(dataset, indices, batches):
    for index in indices:
        batches.put(dataset[index])

if __name__ == "__main__":
    tracker = ExperimentTracker("Demo", auto_start=True)
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        batches = context.Queue()
        workers = [
            context.Process(target=load, args=(Dataset(tracker), range(n, 40, 4), batches), daemon=True)
            for n in range(4)
        ]
        for worker in workers:
            worker.start()
        assert sorted(batches.get() for _ in range(40)) == list(range(0, 80, 2))
        for worker in workers:
            worker.join()
            assert worker.exitcode == 0
    tracker.end()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows only spawns")
def test_workers_that_carry_a_tracker_and_never_log_leave_no_file(tmp_path: Path) -> None:
    """As the workers of a data loader whose dataset has one; they are daemons, and hang nowhere."""
    run_script(LOADER, tmp_path)
    run = the_run(tmp_path)
    assert by_writer(run).keys() == {MAIN_WRITER}
    assert [path.name for path in (run.path / "locks").iterdir()] == ["main.lock"]


@pytest.mark.parametrize(
    "through", [copy.deepcopy, copy.copy, lambda tracker: pickle.loads(pickle.dumps(tracker))]
)
def test_a_copy_in_the_same_process_is_a_writer_of_its_own(through: object) -> None:
    """Its records are its own, its scopes too, and its end ends nothing: the run is the original's."""
    assert callable(through)
    tracker = ExperimentTracker("Demo", settings={"mode": "offline"}, auto_start=True)
    with tracker.builder_scope("1"):
        other = through(tracker)
        assert (other.experiment_id, other.run_dir) == (tracker.experiment_id, tracker.run_dir)
        tracker.log_training_step(1, {"loss": 0.5})
        other.log_training_step(2, {"loss": 0.5})
    other.end("failed")
    assert (tracker.status, other.status) == ("running", "running")
    with through(other) as third:
        third.log_training_step(3, {"loss": 0.5})
    tracker.log_training_step(4, {"loss": 0.5})
    tracker.end()
    writers = by_writer(RunFolder(tracker.run_dir))
    assert sorted(map(steps_of, writers.values())) == [[1, 4], [2], [3]]
    assert sorted(wid.count(".") for wid in writers) == [0, 1, 2]
    ends = [
        (r.wid, r.event.status) for records in writers.values() for r in records if r.type == "run_finished"
    ]
    assert ends == [(MAIN_WRITER, "completed")]


def test_a_copy_that_is_forgotten_ends_nothing(tmp_path: Path) -> None:
    """At the end of the interpreter the original's end is the only one."""
    code = """
import copy
from lezea_mlops.tracker import ExperimentTracker
tracker = ExperimentTracker("Demo")
other = copy.deepcopy(tracker)
other.log_comment("of the copy")
tracker.end("failed", "no data")
"""
    run_script(code, tmp_path)
    everything = [record for records in by_writer(the_run(tmp_path)).values() for record in records]
    assert [r.event.reason for r in everything if r.type == "run_finished"] == ["no data"]


@pytest.mark.parametrize("mode", ["off", "online"])
def test_what_is_carried_keeps_its_settings(mode: str, tmp_path: Path) -> None:
    """A tracker that is switched off stays so elsewhere; a copy has no driver, and its process starts none."""
    settings = {"mode": mode, "courier": "thread", "mlflow_tracking_uri": "http://127.0.0.1:9"}
    tracker = ExperimentTracker("Demo", settings=settings, strict=True)
    other = pickle.loads(pickle.dumps(tracker))
    assert other.health()["mode"] == mode
    assert other.health()["driver"] is None
    with pytest.raises(TypeError):
        other.log_training_step(1, {"loss": []})
    tracker.end()
    assert (tmp_path / "runs").exists() is (mode == "online")


IN_MLFLOW = """
import multiprocessing, os
from lezea_mlops.tracker import ExperimentTracker

def work(tracker, number):
    tracker.log_training_step(number, {"loss": 1.0 / (number + 1)})
    tracker.log_params({"workers": 3})
    tracker.end("failed")

if __name__ == "__main__":
    with ExperimentTracker("Demo", async_mode=True) as tracker:
        tracker.log_training_step(7, {"loss": 0.5})
        for number, method in enumerate(("fork", "fork", "spawn")):
            process = multiprocessing.get_context(method).Process(target=work, args=(tracker, number))
            process.start()
            process.join()
            assert process.exitcode == 0
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows only spawns")
def test_mlflow_shows_one_run_for_all_processes(mlflow_store: str, tmp_path: Path) -> None:
    """Only ``main`` has plain names; the others' stand below their writers, and none of them ends the run."""
    run_script(IN_MLFLOW, tmp_path, LEZEA_MODE="online", LEZEA_COURIER="thread", LEZEA_CLOSE_TIMEOUT_S="100")
    writers = by_writer(the_run(tmp_path))
    assert len(writers) == 4
    client = MlflowClient(mlflow_store)
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert run.info.status == "FINISHED"
    assert run.data.tags["lezea.experiment_id"] == the_run(tmp_path).run_id
    points = {
        name: [p.step for p in client.get_metric_history(run.info.run_id, name)] for name in run.data.metrics
    }
    expected = {f"{wid}/loss": steps_of(records) for wid, records in writers.items() if wid != MAIN_WRITER}
    assert points == {"loss": [7]} | expected
