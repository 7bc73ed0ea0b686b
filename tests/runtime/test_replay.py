"""Later delivery: a run's journal shipped until nothing waits, to a real store."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from mlflow import MlflowClient

from lezea_mlops.config import load_settings
from lezea_mlops.errors import JournalError
from lezea_mlops.journal import JournalWriter, RunFolder
from lezea_mlops.runtime.delivering import take_delivery_lock
from lezea_mlops.runtime.replay import Delivered, Order, deliver_run
from lezea_mlops.tracker import ExperimentTracker
from tests.gate import Gate
from tests.sinks.mlflow.seen import history, runs_of, the_run


def offline_run(steps: int = 10) -> RunFolder:
    """Return a run that was only journaled."""
    with ExperimentTracker("Later", settings={"mode": "offline"}) as tracker:
        tracker.log_params({"lr": 0.1})
        for step in range(steps):
            tracker.log_metrics({"loss": 1.0 / (step + 1)}, step=step)
    return RunFolder(tracker.run_dir)


def no_wait(seconds: float) -> None:
    """Fail: nothing should have to pause."""
    raise AssertionError(f"a pause of {seconds} s")


QUIET = Order(wait=no_wait)


def cursors(folder: RunFolder) -> list[Path]:
    """Return the files that say how far the destinations are."""
    return list((folder.path / "cursors").glob("*.json"))


def steps_of(uri: str, folder: RunFolder) -> list[int]:
    """Return the steps of ``loss`` that MLflow has, each point once."""
    client = MlflowClient(uri)
    return sorted(step for step, _, _ in history(client, the_run(client, folder.run_id), "loss"))


def test_all_of_it_is_delivered_and_reported(mlflow_store: str) -> None:
    """Records, none rejected, no error; a second call has nothing to do."""
    folder = offline_run()
    [report] = deliver_run(folder, load_settings(), QUIET)
    assert (report.run_id, report.sink, report.rejected, report.error) == (folder.run_id, "mlflow", 0, None)
    assert report.records >= 12
    assert steps_of(mlflow_store, folder) == list(range(10))
    assert the_run(MlflowClient(mlflow_store), folder.run_id).info.status == "FINISHED"
    assert deliver_run(folder, load_settings(), QUIET) == [Delivered(folder.run_id, "mlflow", 0, 0, None)]


def test_what_is_set_aside_is_counted(mlflow_store: str, tmp_path: Path) -> None:
    """A file by reference that is gone: the rest is delivered, and it is no error of the delivery."""
    (tmp_path / "a.bin").write_text("a")
    with ExperimentTracker("Later", capture="reference", settings={"mode": "offline"}) as tracker:
        tracker.log_artifact(tmp_path / "a.bin")
    (tmp_path / "a.bin").unlink()
    [report] = deliver_run(RunFolder(tracker.run_dir), load_settings(), QUIET)
    assert (report.rejected, report.error) == (1, None)


def test_it_gives_up_when_the_breaker_opens_and_says_why() -> None:
    """Three tries with two pauses between them, which the caller lets pass; the journal keeps all."""
    folder, pauses, nobody = offline_run(), [], Gate()

    def wait(seconds: float) -> None:
        pauses.append(seconds)
        threading.Event().wait(seconds)

    [report] = deliver_run(folder, load_settings({"mlflow_tracking_uri": nobody.uri}), Order(wait=wait))
    assert report.records == 0
    assert nobody.uri in str(report.error)
    assert 2 <= len(pauses) <= 10
    assert all(0 <= pause < 1 for pause in pauses)
    assert cursors(folder) == []


def test_a_run_that_another_process_delivers_is_left_to_it(mlflow_store: str) -> None:
    """Nothing is delivered twice at once."""
    folder = offline_run()
    lock = take_delivery_lock(folder)
    assert lock is not None
    [report] = deliver_run(folder, load_settings(), QUIET)
    assert report.error == "another process delivers this run now"
    lock.release()
    assert deliver_run(folder, load_settings(), QUIET)[0].error is None


def test_a_run_that_cannot_be_locked_is_an_error_in_words(mlflow_store: str) -> None:
    """The reason of the file system is told."""
    folder = offline_run()
    folder.lock("courier").mkdir()
    [report] = deliver_run(folder, load_settings(), QUIET)
    assert "cannot be locked" in str(report.error)


def test_a_deleted_run_is_made_anew_on_request_only(mlflow_store: str) -> None:
    """Without the request: removed, with the command that asks for it. With it: a new run with everything."""
    folder, client = offline_run(), MlflowClient(mlflow_store)
    deliver_run(folder, load_settings(), QUIET)
    old = the_run(client, folder.run_id).info.run_id
    client.delete_run(old)
    for cursor in cursors(folder):
        cursor.unlink()
    [report] = deliver_run(folder, load_settings(), Order(wait=lambda seconds: None))
    assert f"lezea sync --recreate {folder.run_id}" in str(report.error)
    [report] = deliver_run(folder, load_settings(), Order(recreate=True, wait=no_wait))
    assert report.error is None
    runs = {run.info.run_id: run.info.lifecycle_stage for run in runs_of(client, folder.run_id)}
    [new] = [run_id for run_id, stage in runs.items() if stage == "active"]
    assert runs == {old: "deleted", new: "active"}
    assert len(client.get_metric_history(new, "loss")) == 10
    assert deliver_run(folder, load_settings(), QUIET) == [Delivered(folder.run_id, "mlflow", 0, 0, None)]


def test_asking_for_a_new_run_where_none_was_deleted_makes_no_second_one(mlflow_store: str) -> None:
    """Everything is delivered again to the run that is there."""
    folder = offline_run()
    for recreate in (False, True, True):
        assert deliver_run(folder, load_settings(), Order(recreate=recreate))[0].error is None
    assert steps_of(mlflow_store, folder) == list(range(10))


def test_the_caller_is_told_how_far_it_is(mlflow_store: str) -> None:
    """Bytes of journal that the sink has, and all of them; at last they are equal."""
    folder, told = offline_run(), []
    order = Order(wait=no_wait, progress=lambda sink, done, total: told.append((sink, done, total)))
    deliver_run(folder, load_settings(), order)
    size = sum(path.stat().st_size for path in folder.journals().values())
    assert told[-1] == ("mlflow", size, size)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_a_run_that_is_written_faster_than_it_is_delivered_comes_to_an_end(mlflow_store: str) -> None:
    """What was there at the call arrives; what comes meanwhile is for the next time."""
    with ExperimentTracker("Now", settings={"mode": "offline"}) as tracker:
        tracker.log_metrics({"loss": 0.5}, step=0)
        folder, came = RunFolder(tracker.run_dir), []

        def write_on(sink: str, done: int, total: int) -> None:
            came.append(done)
            tracker.log_metrics({"loss": 0.5}, step=len(came))

        [report] = deliver_run(folder, load_settings(), Order(wait=no_wait, progress=write_on))
        assert report.error is None
        assert 0 in steps_of(mlflow_store, folder)
        assert len(came) < 5
    assert deliver_run(folder, load_settings(), QUIET)[0].error is None
    assert steps_of(mlflow_store, folder) == list(range(len(came) + 1))


def test_only_the_sinks_that_are_named_get_something(mlflow_store: str) -> None:
    """Others keep waiting."""
    folder = offline_run()
    assert deliver_run(folder, load_settings(), Order(sinks=["another"])) == []
    assert cursors(folder) == []
    assert [report.sink for report in deliver_run(folder, load_settings(), Order(sinks=["mlflow"]))] == [
        "mlflow"
    ]


def test_an_end_that_cannot_be_written_down_is_told_and_the_rest_delivered(
    mlflow_store: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As what is wrong with the delivery, once; here the disk is full."""

    def refuse(writer: JournalWriter, *record: object) -> None:
        raise JournalError(f"cannot write to the journal {writer.path}: No space left on device")

    folder = offline_run()
    lines = folder.journal("main").read_bytes().splitlines(keepends=True)
    folder.journal("main").write_bytes(b"".join(line for line in lines if b'"run_finished"' not in line))
    monkeypatch.setattr(JournalWriter, "append", refuse)
    [report] = deliver_run(folder, load_settings(), Order(wait=lambda seconds: None))
    assert str(report.error).startswith("the end of the run cannot be written down: ")
    assert str(folder.journal("courier")) in str(report.error)
    assert caplog.messages == []
    assert steps_of(mlflow_store, folder) == list(range(10))
