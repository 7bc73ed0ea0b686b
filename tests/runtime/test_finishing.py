"""When finishers run: at the end of a run that threads deliver, or by the next delivery; and what they may cost."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from subprocess import CompletedProcess

import pytest
from mlflow import MlflowClient

from lezea_mlops.config import load_settings
from lezea_mlops.journal import RunFolder, read_run
from lezea_mlops.runtime import assembly
from lezea_mlops.runtime.audit import audit_run
from lezea_mlops.runtime.delivering import take_delivery_lock
from lezea_mlops.runtime.replay import Delivered, Order, deliver_run
from lezea_mlops.tracker import ExperimentTracker
from tests.finishers import BROKEN, NOTHING, OF_TREES, PAGE, WAITING, calls
from tests.gate import Gate
from tests.sinks.mlflow.seen import artifacts, the_run

PATIENCE_S = 60.0
PATIENT = {"close_timeout_s": PATIENCE_S}
TREE = [{"type": "widen", "accepted": True}]


def ended_run(
    monkeypatch: pytest.MonkeyPatch, *finishers: str, trees: bool = True, **settings: object
) -> ExperimentTracker:
    """Return the tracker of a run that has ended, with these finishers registered."""
    monkeypatch.setattr(assembly, "FINISHERS", finishers)
    tracker = ExperimentTracker("Finished", auto_start=True, settings=PATIENT | settings)
    tracker.log_metrics({"loss": 0.5}, step=1)
    if trees:
        tracker.log_modification_tree(1, TREE)
    if WAITING in finishers:
        os.mkfifo(tracker.run_dir / "gate")
        # Its short end is for the finisher alone.
        assert tracker._capturing is not None
        tracker._capturing.join()
        assert tracker.flush(PATIENCE_S)
    tracker.end()
    return tracker


def let_threads_end() -> None:
    """Wait for threads that a deadline left behind at their work."""
    for thread in threading.enumerate():
        if thread.name.startswith(("lezea-finishing", "lezea-mlflow-")):
            thread.join(PATIENCE_S)


def pages(uri: str, tracker: ExperimentTracker) -> list[str]:
    """Return the pages that MLflow has of a run."""
    client = MlflowClient(uri)
    return [name for name in artifacts(client, the_run(client, tracker.experiment_id)) if "evolution" in name]


def sync(tracker: ExperimentTracker, finishers: Sequence[str]) -> Delivered:
    """Deliver what is left, as ``lezea sync`` does."""
    order = Order(finishers=finishers, wait=lambda seconds: None)
    [report] = deliver_run(RunFolder(tracker.run_dir), load_settings(), order)
    return report


def test_what_is_made_is_delivered_when_end_returns(
    mlflow_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the deadline of the end; every later delivery finds nothing left, and the audit nothing wrong."""
    tracker = ended_run(monkeypatch, PAGE, NOTHING)
    assert pages(mlflow_store, tracker) == ["evolution/tree.html"]
    assert the_run(MlflowClient(mlflow_store), tracker.experiment_id).info.status == "FINISHED"
    assert sync(tracker, [PAGE]).records == 0
    [report] = audit_run(RunFolder(tracker.run_dir), load_settings())
    assert report.is_right
    assert calls(RunFolder(tracker.run_dir)) == ["page", "nothing"]
    assert "finisher_failed" not in tracker.health()["counts"]


def test_a_run_with_modifications_has_the_page_of_its_tree(mlflow_store: str) -> None:
    """Nobody has to ask for it; a run without one has none."""
    for trees in ([TREE], []):
        with ExperimentTracker("Grown", settings=PATIENT) as tracker:
            for step, tree in enumerate(trees):
                tracker.log_modification_tree(step, tree)
        assert pages(mlflow_store, tracker) == ["evolution/tree.html"] * len(trees)
        assert "finisher_failed" not in tracker.health()["counts"]


@pytest.mark.parametrize("trees", [True, False])
def test_a_finisher_finds_out_whether_there_is_anything_for_it(
    mlflow_store: str, monkeypatch: pytest.MonkeyPatch, trees: bool
) -> None:
    """A run without a modification has no page of them."""
    tracker = ended_run(monkeypatch, OF_TREES, trees=trees)
    assert pages(mlflow_store, tracker) == (["evolution/tree.html"] if trees else [])


def test_one_that_fails_at_the_end_is_counted(
    mlflow_store: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The run ends as ever, and the next delivery tries it again and says so."""
    tracker = ended_run(monkeypatch, BROKEN, PAGE)
    assert tracker.health()["counts"]["finisher_failed"] == 1
    assert len([message for message in caplog.messages if "complete without it" in message]) == 1
    assert pages(mlflow_store, tracker) == ["evolution/tree.html"]
    report = sync(tracker, [BROKEN, PAGE])
    assert (report.error, report.finisher_failed, report.records) == (None, 1, 0)


def test_one_that_takes_long_does_not_keep_the_end_waiting(
    mlflow_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on beside the program, and what it makes arrives; others may deliver meanwhile, as a resumed run does."""
    tracker = ended_run(monkeypatch, WAITING, close_timeout_s=5.0)
    assert tracker.status == "completed"
    assert pages(mlflow_store, tracker) == []
    lock = take_delivery_lock(RunFolder(tracker.run_dir))
    assert lock is not None
    lock.release()
    (tracker.run_dir / "gate").write_bytes(b"<p>late</p>")
    let_threads_end()
    assert pages(mlflow_store, tracker) == ["evolution/late.html"]


def test_with_no_time_left_it_is_the_next_deliverys(
    mlflow_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that must be gone at once is."""
    tracker = ended_run(monkeypatch, PAGE, close_timeout_s=0.3)
    assert calls(RunFolder(tracker.run_dir)) == []
    let_threads_end()
    assert sync(tracker, [PAGE]).error is None
    assert pages(mlflow_store, tracker) == ["evolution/tree.html"]


def test_offline_nothing_is_made_before_the_delivery(
    mlflow_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor by a delivery before the end."""
    monkeypatch.setattr(assembly, "FINISHERS", (PAGE,))
    tracker = ExperimentTracker("Later", auto_start=True, settings={"mode": "offline"})
    tracker.log_modification_tree(1, TREE)
    assert sync(tracker, [PAGE]).error is None
    tracker.end()
    folder = RunFolder(tracker.run_dir)
    assert calls(folder) == []
    assert [sync(tracker, [PAGE]).records > 0 for _ in range(2)] == [True, False]
    assert calls(folder) == ["page"]
    assert pages(mlflow_store, tracker) == ["evolution/tree.html"]


def test_an_outage_is_told_once_although_something_was_made(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is made waits with the other records."""
    tracker = ended_run(monkeypatch, PAGE, mlflow_tracking_uri=Gate().uri)
    assert len([message for message in caplog.messages if " is down (" in message]) == 1
    assert [record.payload["name"] for record in read_run(tracker.run_dir) if record.wid == "courier"] == [
        "evolution/tree.html"
    ]


def test_a_rank_leaves_a_run_that_goes_on_as_it_is(
    mlflow_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only when ``main`` has ended something is made, by the last that delivers."""
    monkeypatch.setattr(assembly, "FINISHERS", (PAGE,))
    main = ExperimentTracker("Demo", experiment_id="job", settings={"mode": "offline"})
    monkeypatch.setenv("RANK", "1")
    ExperimentTracker("Demo", experiment_id="job", auto_start=True, settings=PATIENT).end()
    assert calls(RunFolder(main.run_dir)) == []
    main.end()
    ExperimentTracker("Demo", resume="job", auto_start=True, settings=PATIENT).end()
    assert calls(RunFolder(main.run_dir)) == ["page"]
    assert pages(mlflow_store, main) == ["evolution/tree.html"]


FORK = """
import os, threading
from pathlib import Path
from lezea_mlops._clock import Deadline
from lezea_mlops.events import RunFinished
from lezea_mlops.journal import RunFolder
from lezea_mlops.runtime.delivering import take_delivery_lock
from lezea_mlops.runtime.driver import ThreadDriver
from lezea_mlops.runtime.recorder import Recorder
from lezea_mlops.testing import MemorySink

folder = RunFolder(Path("run-1").absolute())
folder.create()
os.mkfifo(folder.path / "gate")
recorder = Recorder(folder, "main", "process", lambda content: {})
recorder.record(RunFinished(status="completed"))
driver = ThreadDriver(recorder, [MemorySink()], finishers=["tests.finishers:waiting"])
driver.start()
closing = threading.Thread(target=driver.close, args=(Deadline.after(60),))
closing.start()
while not (folder.path / "calls.txt").exists():
    threading.Event().wait(0.01)
[finishing] = [thread for thread in threading.enumerate() if thread.name == "lezea-finishing"]
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    os.close(writing)
    os.read(reading, 1)
    os._exit(0)
(folder.path / "gate").write_bytes(b"x")
finishing.join()
closing.join()
lock = take_delivery_lock(folder)
os.close(writing)
os.waitpid(child, 0)
print("free" if lock is not None else "held")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_does_not_keep_the_right_to_deliver(
    run_python: Callable[..., CompletedProcess[str]],
) -> None:
    """Though it was forked while a finisher ran, and lives on."""
    assert run_python(FORK).stdout == "free\n"
