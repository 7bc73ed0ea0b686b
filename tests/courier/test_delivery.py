"""A courier that delivers to a real server: what arrives there whoever is killed, stopped or in a hurry."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient

from lezea_mlops.journal import Cursor, RunFolder
from lezea_mlops.sinks.base import destination_named
from lezea_mlops.tracker import ExperimentTracker
from tests.conftest import ROOT, MlflowServer
from tests.courier.conftest import Watch, deadline, ends_of


@pytest.fixture
def server(shared_mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """Return a client of a server that answers; it is the tracking URI."""
    monkeypatch.setenv("LEZEA_MLFLOW_TRACKING_URI", shared_mlflow_server.uri)
    return MlflowClient(shared_mlflow_server.uri)


@pytest.fixture
def tracker(server: MlflowClient) -> Iterator[ExperimentTracker]:
    """A run whose calls wait, with a courier that has reached the server."""
    tracker = ExperimentTracker("Demo", auto_start=True, settings={"start_timeout_s": 100})
    yield tracker
    if tracker.status == "running":
        tracker.end()


def run_of(run_dir: Path, uri: str) -> str:
    """Return MLflow's id of a run, as its cursor knows it."""
    cursor = Cursor(RunFolder(run_dir).cursor(destination_named("mlflow", uri)))
    return str(cursor.state.sink["run_id"])


def steps(server: MlflowClient, run_id: str, name: str = "loss") -> list[int]:
    """Return the steps of all points of a metric, in order."""
    return sorted(point.step for point in server.get_metric_history(run_id, name))


def test_calls_wait_for_their_records(tracker: ExperimentTracker, server: MlflowClient) -> None:
    """What a call logged is on the server when it returns, or the next one does not wait any more."""
    for step in range(20):
        waits = tracker._driver.due_us == 0
        tracker.log_training_step(step, {"loss": 0.5})
        if waits and tracker._driver.due_us == 0:
            assert tracker.health()["sinks"]["mlflow"]["waiting"] == 0
    assert tracker.flush(100)
    assert steps(server, str(tracker.mlflow_run_id)) == list(range(20))


@pytest.mark.chaos
def test_a_killed_courier_loses_and_repeats_nothing(
    tracker: ExperimentTracker, server: MlflowClient, watch: Watch
) -> None:
    """The next one goes on where its cursor stands, while the program logs on."""
    for step in range(1_000):
        tracker.log_training_step(step, {"loss": 0.5})
        if step == 500:
            killed = watch(tracker)
            killed.signal(signal.SIGKILL)
            assert killed.ended()
    assert tracker.flush(100)
    run_id = str(tracker.mlflow_run_id)
    tracker.end()
    assert steps(server, run_id) == list(range(1_000))
    assert server.get_run(run_id).info.status == "FINISHED"


@pytest.mark.chaos
def test_a_stopped_courier_costs_one_wait_and_not_one_per_call(
    tracker: ExperimentTracker, server: MlflowClient, watch: Watch
) -> None:
    """When it goes on, calls wait again, and all has come."""
    courier = watch(tracker)
    tracker.flush(100)
    courier.signal(signal.SIGSTOP)
    within = deadline()
    for step in range(5_000):
        tracker.log_training_step(step, {"loss": 0.5})
    # At 50 ms for each call it would be 250 s.
    assert not within.passed()
    courier.signal(signal.SIGCONT)
    assert tracker.flush(100)
    # Its answer to the call that waited came too late for it, and says that it is there again.
    while tracker._driver.due_us != 0:
        assert tracker.flush(100)
    assert steps(server, str(tracker.mlflow_run_id)) == list(range(5_000))


def test_many_threads_log_at_once(tracker: ExperimentTracker, server: MlflowClient) -> None:
    """Each waits for its own records; none is lost, and waiting still makes sense after it."""

    def log(thread: int) -> None:
        for step in range(25):
            tracker.log_training_step(thread * 25 + step, {"loss": 0.5})

    with ThreadPoolExecutor(8) as threads:
        flushing = threads.submit(tracker.flush, 100)
        list(threads.map(log, range(8)))
        assert flushing.result()
    assert tracker.flush(100)
    assert steps(server, str(tracker.mlflow_run_id)) == list(range(200))


@pytest.mark.slow
def test_after_the_end_the_courier_goes_on_with_what_waits(
    server: MlflowClient, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    """``end`` comes at its deadline and says who goes on; then all of it is on the server."""
    tracker = ExperimentTracker("Demo", async_mode=True, auto_start=True, settings={"close_timeout_s": 2.0})
    assert tracker.flush(100)
    courier = watch(tracker)
    for step in range(12_000):
        tracker.log_training_step(step, {"loss": 0.5})
    within = deadline()
    tracker.end()
    assert within.left_s() > 60 - 5 * 2.0
    [told] = [record.getMessage() for record in caplog.records if "records wait in /" in record.getMessage()]
    assert f"(the courier, process {courier.pid}, goes on for ten minutes at most)" in told
    assert f"lezea sync {tracker.experiment_id}" in told
    assert courier.ended(200)
    run_id = str(tracker.mlflow_run_id)
    assert server.get_run(run_id).info.status == "FINISHED"
    assert server.get_run(run_id).data.metrics["loss"] == 0.5
    assert len(server.get_metric_history(run_id, "loss")) == 12_000


def test_the_last_process_to_end_delivers_what_the_others_left(
    tracker: ExperimentTracker, server: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its courier takes over while it is asked to close, and does not leave before it has delivered."""
    monkeypatch.setenv("RANK", "1")
    other = ExperimentTracker(
        "Demo", experiment_id=tracker.experiment_id, auto_start=True, settings={"close_timeout_s": 100}
    )
    assert other.health()["sinks"]["mlflow"]["state"] == "elsewhere"
    tracker.end()
    other.log_training_step(7, {"loss": 0.5})
    other.end()
    assert other.health()["sinks"]["mlflow"]["waiting"] == 0
    assert steps(server, str(other.mlflow_run_id), "rank1/loss") == [7]


PROGRAM = """
import os, signal
from lezea_mlops.tracker import ExperimentTracker
from tests.courier.conftest import courier_of

tracker = ExperimentTracker("Demo", settings={"start_timeout_s": 100})
tracker.start(prometheus_port=None)
print(courier_of(tracker.run_dir), tracker.run_dir, flush=True)
for step in range(500):
    tracker.log_training_step(step, {"loss": 0.5})
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_program(folder: Path) -> tuple[int, Path]:
    """Run a program that kills itself after its last call; return its courier's process id and its run folder."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid, run_dir = done.stdout.split()
    return int(pid), Path(run_dir)


def ended(pid: int, watch: Watch) -> bool:
    """Wait for a process that may have ended already."""
    try:
        return watch(pid).ended(100)
    except ProcessLookupError:
        return True


@pytest.mark.chaos
def test_a_killed_program_is_delivered_whole_with_its_end(
    server: MlflowClient, tmp_path: Path, watch: Watch
) -> None:
    """Nobody has to do anything: the courier delivers the last record, and that the run was killed."""
    pid, run_dir = killed_program(tmp_path)
    assert ended(pid, watch)
    run_id = run_of(run_dir, os.environ["LEZEA_MLFLOW_TRACKING_URI"])
    assert steps(server, run_id) == list(range(500))
    assert server.get_run(run_id).info.status == "KILLED"
    [end] = ends_of(run_dir)
    assert (end["status"], end["inferred"]) == ("killed", True)


@pytest.mark.chaos
def test_what_a_killed_program_could_not_deliver_is_delivered_by_sync(
    shared_mlflow_server: MlflowServer, nowhere: str, tmp_path: Path, watch: Watch
) -> None:
    """The courier finds its destination down and leaves; later there is one, and the end is there once."""
    pid, run_dir = killed_program(tmp_path)
    assert ended(pid, watch)
    subprocess.run(
        [sys.executable, "-m", "lezea_mlops.cli", "sync", run_dir.name], cwd=tmp_path, check=True, capture_output=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "LEZEA_MLFLOW_TRACKING_URI": shared_mlflow_server.uri},
    )  # fmt: skip
    server = MlflowClient(shared_mlflow_server.uri)
    run_id = run_of(run_dir, shared_mlflow_server.uri)
    assert steps(server, run_id) == list(range(500))
    assert server.get_run(run_id).info.status == "KILLED"
    assert len(ends_of(run_dir)) == 1
