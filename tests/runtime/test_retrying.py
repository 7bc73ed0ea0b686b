"""What was refused is offered again; cut short anywhere, it is offered again by whatever delivers next."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from mlflow import MlflowClient

from lezea_mlops.config import load_settings
from lezea_mlops.journal import Cursor, RunFolder
from lezea_mlops.runtime.replay import Delivered, Order, deliver_run
from lezea_mlops.runtime.retrying import (
    files_to_retry,
    forget_set_aside,
    refused_in,
    rewind_to_set_aside,
    set_aside_again,
)
from lezea_mlops.tracker import ExperimentTracker
from tests.sinks.mlflow.seen import artifacts, the_run

RETRY = Order(retry_rejected=True)


class Refused:
    """A delivered run of which MLflow refused two files: they were logged by reference, and are gone."""

    def __init__(self, folder: Path) -> None:
        self.files = [folder / "a.bin", folder / "b.bin"]
        for file in self.files:
            file.write_text(file.name)
        self._times = [file.stat().st_mtime_ns for file in self.files]
        with ExperimentTracker("Later", capture="reference", settings={"mode": "offline"}) as tracker:
            for file in self.files:
                tracker.log_artifact(file)
                tracker.log_metrics({"loss": 0.5}, step=1)
        for file in self.files:
            file.unlink()
        self.run = RunFolder(tracker.run_dir)
        assert self.deliver().rejected == 2
        [self.destination] = [path.stem for path in self.run.cursors.iterdir()]

    def deliver(self, order: Order | None = None) -> Delivered:
        """Deliver what waits."""
        [report] = deliver_run(self.run, load_settings(), order)
        return report

    def put_back(self, *numbers: int) -> None:
        """Put files back as they were."""
        for number in numbers:
            self.files[number].write_text(self.files[number].name)
            os.utime(self.files[number], ns=(self._times[number], self._times[number]))

    def arrived(self, uri: str) -> list[str]:
        """Return the names of the files that MLflow has."""
        client = MlflowClient(uri)
        paths = artifacts(client, the_run(client, self.run.run_id))
        return sorted(Path(path).name for path in paths if path.endswith(".bin"))

    def noted(self) -> int:
        """Return how many records are noted as refused."""
        return len(set(refused_in(self.run.rejected(self.destination))))


@pytest.fixture
def refused(mlflow_store: str, tmp_path: Path) -> Refused:
    """Such a run, in a real store."""
    return Refused(tmp_path)


def test_what_is_taken_now_is_not_noted_as_refused_any_more(refused: Refused, mlflow_store: str) -> None:
    """Both files are back and arrive; nothing of the retry lies about."""
    refused.put_back(0, 1)
    report = refused.deliver(RETRY)
    assert (report.rejected, report.error) == (0, None)
    assert refused.arrived(mlflow_store) == ["a.bin", "b.bin"]
    assert refused.noted() == 0
    assert list(refused.run.rejected(refused.destination).parent.iterdir()) == []


def test_what_is_refused_again_is_noted_again(refused: Refused, mlflow_store: str) -> None:
    """One file is back, the other stands in the new list."""
    refused.put_back(1)
    report = refused.deliver(RETRY)
    assert (report.rejected, report.error) == (1, None)
    assert refused.arrived(mlflow_store) == ["b.bin"]
    assert refused.noted() == 1
    assert files_to_retry(refused.run, refused.destination) == []


def test_without_the_request_nothing_is_offered_again(refused: Refused, mlflow_store: str) -> None:
    """The next delivery leaves the list alone."""
    refused.put_back(0, 1)
    assert refused.deliver().records == 0
    assert (refused.noted(), refused.arrived(mlflow_store)) == (2, [])


@pytest.mark.parametrize("reached", ["renamed", "rewound", "delivered"])
def test_a_retry_that_was_killed_is_ended_by_the_next_delivery(
    refused: Refused, mlflow_store: str, reached: str
) -> None:
    """Killed after any of its steps, it is taken up again without being asked for."""
    set_aside_again(refused.run, refused.destination)
    if reached != "renamed":
        rewind_to_set_aside(refused.run, refused.destination)
    refused.put_back(0, 1)
    if reached == "delivered":
        kept = files_to_retry(refused.run, refused.destination)[0].read_bytes()
        refused.deliver()
        refused.run.rejected(refused.destination).with_suffix(".0.retried").write_bytes(kept)
    assert refused.deliver().error is None
    assert refused.arrived(mlflow_store) == ["a.bin", "b.bin"]
    assert (refused.noted(), files_to_retry(refused.run, refused.destination)) == (0, [])


def test_two_retries_that_were_killed_are_both_ended(refused: Refused, mlflow_store: str) -> None:
    """The second does not take the first one's file away."""
    set_aside_again(refused.run, refused.destination)
    rewind_to_set_aside(refused.run, refused.destination)
    refused.run.rejected(refused.destination).write_text('{"wid": "main", "seq": 2}\n')
    set_aside_again(refused.run, refused.destination)
    assert len(files_to_retry(refused.run, refused.destination)) == 2
    refused.put_back(0, 1)
    assert refused.deliver().error is None
    assert refused.arrived(mlflow_store) == ["a.bin", "b.bin"]


def test_a_refused_record_that_left_the_journal_is_told_and_kept(refused: Refused) -> None:
    """The rest is delivered; the only copy of the record is not thrown away."""
    with refused.run.rejected(refused.destination).open("a") as file:
        file.write('{"wid": "main", "seq": 999}\n')
    report = refused.deliver(RETRY)
    assert "holds no record numbered 999" in str(report.error)
    [kept] = files_to_retry(refused.run, refused.destination)
    assert str(kept) in str(report.error)


def test_nothing_refused_is_nothing_to_do(mlflow_store: str) -> None:
    """Neither a file nor a cursor changes."""
    with ExperimentTracker("Later", settings={"mode": "offline"}) as tracker:
        tracker.log_metrics({"loss": 0.5}, step=1)
    folder = RunFolder(tracker.run_dir)
    deliver_run(folder, load_settings())
    [cursor] = folder.cursors.iterdir()
    before = Cursor(cursor).state
    [report] = deliver_run(folder, load_settings(), RETRY)
    assert (report.records, report.error) == (0, None)
    assert Cursor(cursor).state == before
    forget_set_aside(folder, cursor.stem)


def test_half_a_line_and_lines_of_others_are_stepped_over(tmp_path: Path) -> None:
    """What a killed process left does not stop a retry."""
    path = tmp_path / "refused.jsonl"
    path.write_bytes(b'{"wid": "main", "seq": 3}\n[]\nnull\n{"wid": "x"}\n\x00\x00\n{"wid": "main", "se')
    assert list(refused_in(path)) == [("main", 3)]
    assert list(refused_in(tmp_path / "missing")) == []
