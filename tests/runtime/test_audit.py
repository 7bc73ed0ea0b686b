"""Audits of runs that wait, are refused, written meanwhile or kept by others; and repairs, under the delivery lock."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient

from lezea_mlops.config import load_settings
from lezea_mlops.delivery import Shipper, Step
from lezea_mlops.events import Envelope
from lezea_mlops.journal import JournalWriter, RunFolder, read_run
from lezea_mlops.runtime import audit as audits
from lezea_mlops.runtime import replay
from lezea_mlops.runtime.audit import AuditReport, audit_run
from lezea_mlops.runtime.delivering import take_delivery_lock
from lezea_mlops.sinks.base import AuditCounts, AuditedJournal, Finding, Run, Sink
from lezea_mlops.sinks.memory import MemorySink
from lezea_mlops.testing import FakeClock
from lezea_mlops.tracker import ExperimentTracker
from tests.gate import Gate
from tests.sinks.mlflow.auditing import audit, deliver, offline
from tests.sinks.mlflow.seen import the_run

PATIENCE_S = 60.0


def journaled(folder: Path, records: int = 20) -> RunFolder:
    """Return the folder of a run that has ended, with so many records."""
    run = RunFolder(folder)
    run.create()
    append(run, ("run_started", {"experiment_name": "Audited"}))
    append(run, *(("metric", {"step": step, "metrics": {"loss": 0.5}}) for step in range(2, records)))
    append(run, ("run_finished", {"status": "completed"}))
    return run


def append(run: RunFolder, *records: tuple[str, dict[str, Any]]) -> None:
    """Append records of the writer ``main``."""
    writer = JournalWriter(run, "main", attempt=1, durability="process")
    for kind, fields in records:
        writer.append(kind, fields)
    writer.close()


def ship(folder: RunFolder, sink: Sink) -> None:
    """Deliver all that waits."""
    shipper = Shipper(folder, sink, FakeClock())
    while shipper.ship_once() is Step.SHIPPED:
        pass


@pytest.fixture
def destinations(monkeypatch: pytest.MonkeyPatch) -> list[Sink]:
    """The sinks that are configured; a test puts its own in."""
    sinks: list[Sink] = []
    monkeypatch.setattr(audits, "build_sinks", lambda settings: sinks)
    monkeypatch.setattr(replay, "build_sinks", lambda settings: sinks)
    return sinks


# ---------------------------------------------------------------------- what is compared


def test_a_run_of_which_nothing_was_delivered_waits(mlflow_store: str) -> None:
    """Nothing is called missing that nobody tried to deliver; a repair delivers it."""
    with offline() as tracker:
        tracker.log_metrics({"loss": 0.5}, step=1)
    folder = RunFolder(tracker.run_dir)
    report = audit(folder)
    assert (report.waiting, report.findings, report.is_right) == (len(list(read_run(folder.path))), [], False)
    repaired = audit(folder, repair=True)
    assert repaired.is_right
    assert repaired.delivered == report.waiting


def test_what_came_after_the_last_delivery_waits(mlflow_store: str) -> None:
    """The part before it is compared."""
    folder = journaled(Path("runs/run-1").absolute())
    deliver(folder)
    append(folder, *(("comment", {"text": f"{number}"}) for number in range(3)))
    report = audit(folder)
    assert (report.waiting, report.findings, report.is_right) == (3, [], False)
    assert report.checked > 0


def test_what_was_set_aside_is_not_missing(mlflow_store: str, tmp_path: Path) -> None:
    """It is counted; the rest is compared."""
    (tmp_path / "a.bin").write_text("a")
    with offline(capture="reference") as tracker:
        tracker.log_artifact("a.bin")
        tracker.log_metrics({"loss": 0.5}, step=1)
    (tmp_path / "a.bin").unlink()
    folder = RunFolder(tracker.run_dir)
    deliver(folder)
    report = audit(folder)
    assert report.is_right
    assert report.rejected == 1
    MlflowClient(mlflow_store).delete_tag(
        the_run(MlflowClient(mlflow_store), folder.run_id).info.run_id, "lezea.hostname"
    )
    repaired = audit(folder, repair=True)
    assert (repaired.is_right, repaired.rejected) == (True, 1)


def test_a_run_that_is_written_meanwhile_is_compared_as_far_as_it_was_delivered(mlflow_store: str) -> None:
    """Points, tags and files that arrive during an audit are neither missing nor strangers."""
    logged, enough = threading.Event(), threading.Event()

    def go_on(tracker: ExperimentTracker) -> None:
        step = 0
        while not enough.is_set():
            step += 1
            tracker.log_metrics({"loss": 1 / step}, step=step)
            tracker.log_params({"step": step})
            tracker.log_text("x" * step, "notes.md")
            if step % 20 == 0:
                # Audits slow the delivery down; it must not fall behind by more than an end waits for.
                tracker.flush(PATIENCE_S)
                logged.set()

    with ExperimentTracker(
        "Audited", settings={"courier": "thread", "close_timeout_s": PATIENCE_S}
    ) as tracker:
        thread = threading.Thread(target=go_on, args=(tracker,))
        thread.start()
        logged.wait()
        reports = [audit(RunFolder(tracker.run_dir)) for _ in range(5)]
        enough.set()
        thread.join()
    assert [report.findings for report in reports] == [[]] * 5
    assert audit(RunFolder(tracker.run_dir), repair=True).is_right


def test_damaged_places_of_the_journal_are_counted(mlflow_store: str) -> None:
    """What they held is unknown; it is no finding."""
    with offline() as tracker:
        tracker.log_metrics({"loss": 0.5}, step=1)
    folder = RunFolder(tracker.run_dir)
    with folder.journal("main").open("a") as file:
        file.write("no record\n")
    deliver(folder)
    report = audit(folder)
    assert (report.damaged, report.findings, report.waiting) == (1, [], 0)


def test_a_cursor_that_speaks_of_another_file_counts_as_none(mlflow_store: str) -> None:
    """As for the delivery, which begins anew there."""
    folder = journaled(Path("runs/run-1").absolute(), 30)
    deliver(folder)
    lines = folder.journal("main").read_bytes().splitlines(keepends=True)
    folder.journal("main").write_bytes(b"".join(lines[:10]))
    report = audit(folder)
    assert (report.waiting, report.missing) == (10, 0)


def test_what_the_journal_itself_lacks_is_counted_and_no_fault_of_the_destination(mlflow_store: str) -> None:
    """A disk was full twice; of a gap without a number nothing is known but that it was."""
    folder = journaled(Path("runs/run-1").absolute())
    append(folder, *(("gap", {"count": count, "reason": "No space left"}) for count in (3, 4, "many")))
    deliver(folder)
    report = audit(folder)
    assert (report.never_written, report.is_right) == (7, True)


# ---------------------------------------------------------------------- what cannot be asked


def test_a_server_that_is_not_there_is_an_error_with_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says nothing about the run."""
    nobody = Gate()
    monkeypatch.setenv("LEZEA_MLFLOW_TRACKING_URI", nobody.uri)
    [report] = audit_run(journaled(Path("runs/run-1").absolute()), load_settings(), repair=True)
    assert nobody.uri in str(report.error)
    assert (report.reason, report.audited, report.is_right, report.delivered) == (
        "unreachable", False, False, 0,
    )  # fmt: skip


def test_a_run_that_a_person_deleted_is_an_error_with_the_remedy(mlflow_store: str) -> None:
    """Restoring it or making it anew is for that person to say."""
    folder = journaled(Path("runs/run-1").absolute())
    deliver(folder)
    client = MlflowClient(mlflow_store)
    client.delete_run(the_run(client, folder.run_id).info.run_id)
    [report] = audit_run(folder, load_settings(), repair=True)
    assert report.reason == "removed"
    assert f"lezea sync --recreate {folder.run_id}" in str(report.error)


def test_a_repair_waits_for_nobody(mlflow_store: str) -> None:
    """While another process has the right to deliver, it says so, and what was found stays found."""
    with offline() as tracker:
        tracker.log_params({"lr": 0.1})
    folder = RunFolder(tracker.run_dir)
    lock = take_delivery_lock(folder)
    assert lock is not None
    [report] = audit_run(folder, load_settings(), repair=True)
    lock.release()
    assert "another process delivers this run now" in str(report.repair_error)
    assert (report.delivered, report.is_right) == (0, False)


class Unnamed(MemorySink):
    """A second kind of destination."""

    name = "other"


class Plain:
    """A sink without an audit."""

    name = "plain"
    destination = "plain://"

    def open(self, run: Run, state: Mapping[str, Any]) -> None:
        """Need nothing."""

    def deliver(self, records: Sequence[Envelope]) -> None:
        """Take everything."""

    def state(self) -> Mapping[str, Any]:
        """Return nothing."""
        return {}

    def close(self) -> None:
        """Hold nothing."""


class Faulty(MemorySink):
    """A destination whose audit has a fault."""

    def audit(
        self, run: Run, state: Mapping[str, Any], journal: AuditedJournal, counts: AuditCounts
    ) -> Iterator[Finding]:
        """Fail."""
        raise ZeroDivisionError("a fault")


def test_a_destination_that_cannot_be_asked_says_how_much_waits(
    tmp_path: Path, destinations: list[Sink]
) -> None:
    """It is reported, and not called right or wrong beyond that."""
    folder = journaled(tmp_path / "run-1")
    destinations.append(Plain())
    [report] = audit_run(folder, load_settings())
    assert (report.audited, report.error, report.waiting, report.is_right) == (False, None, 20, False)
    ship(folder, destinations[0])
    [report] = audit_run(folder, load_settings())
    assert (report.audited, report.waiting, report.is_right) == (False, 0, True)


def test_a_fault_of_a_sink_is_an_error_of_its_report(tmp_path: Path, destinations: list[Sink]) -> None:
    """The other destinations are compared."""
    folder = journaled(tmp_path / "run-1")
    destinations += [Faulty("faulty://"), MemorySink()]
    faulty, other = audit_run(folder, load_settings())
    assert (faulty.error, faulty.reason) == ("ZeroDivisionError: a fault", "error")
    assert (other.error, other.waiting) == (None, 20)


# ---------------------------------------------------------------------- any destination


def by_number(report: AuditReport, kind: str) -> list[int | None]:
    """Return the numbers of the records of one kind of finding."""
    return [finding.seq for finding in report.findings if finding.kind == kind]


@settings(deadline=None, max_examples=40)
@given(lost=st.sets(st.integers(1, 20)), changed=st.sets(st.integers(1, 20)), strangers=st.integers(0, 3))
def test_exactly_what_differs_is_found_and_mended(
    tmp_path_factory: pytest.TempPathFactory, lost: set[int], changed: set[int], strangers: int
) -> None:
    """Whichever records a destination lost or has otherwise; those of no journal stay."""
    folder, sink = journaled(tmp_path_factory.mktemp("runs") / "run-1"), MemorySink()
    ship(folder, sink)
    for seq in changed - lost:
        sink.records["run-1", "main", seq] = Envelope("metric", {"seq": seq, "ts": 1, "wid": "main"}, {})
    for seq in lost:
        del sink.records["run-1", "main", seq]
    for seq in range(100, 100 + strangers):
        sink.records["run-1", "main", seq] = Envelope("metric", {"seq": seq, "ts": 1, "wid": "main"}, {})
    with pytest.MonkeyPatch.context() as patch:
        for module in (audits, replay):
            patch.setattr(module, "build_sinks", lambda settings: [sink])
        [report] = audit_run(folder, load_settings())
        assert by_number(report, "missing") == sorted(lost)
        assert by_number(report, "altered") == sorted(changed - lost) + [None] * strangers
        [repaired] = audit_run(folder, load_settings(), repair=True)
    assert (repaired.missing, repaired.altered) == (0, strangers)
    assert repaired.delivered == (20 - min(lost | changed) + 1 if lost | changed else 0)


def test_only_the_chosen_destination_is_compared_and_repaired(
    tmp_path: Path, destinations: list[Sink]
) -> None:
    """Another one is left as it is."""
    folder = journaled(tmp_path / "run-1")
    chosen, other = MemorySink("memory://one"), Unnamed("memory://other")
    destinations += [chosen, other]
    [report] = audit_run(folder, load_settings(), sinks=["memory"], repair=True)
    assert (report.sink, report.is_right, len(chosen.records)) == ("memory", True, 20)
    assert other.records == {}


def test_findings_beyond_the_limit_are_counted(
    tmp_path: Path, destinations: list[Sink], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A destination that lost everything does not fill the memory, and all of it comes again."""
    folder, sink = journaled(tmp_path / "run-1"), MemorySink()
    ship(folder, sink)
    sink.records.clear()
    destinations.append(sink)
    monkeypatch.setattr(audits, "MAX_FINDINGS", 3)
    [report] = audit_run(folder, load_settings())
    assert (report.missing, len(report.findings), report.unlisted) == (20, 3, 17)
    [repaired] = audit_run(folder, load_settings(), repair=True)
    assert (repaired.is_right, repaired.delivered) == (True, 20)
