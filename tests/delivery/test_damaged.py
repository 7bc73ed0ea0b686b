"""Journals that were cut, damaged, replaced or copied: a clear report, the best possible delivery, nothing twice."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient

from lezea_mlops.config import load_settings
from lezea_mlops.delivery import Shipper, Step
from lezea_mlops.errors import ConfigurationError
from lezea_mlops.journal import Cursor, CursorState, JournalReader, Position, RunFolder, read_run
from lezea_mlops.runtime.audit import audit_run
from lezea_mlops.runtime.replay import deliver_run
from lezea_mlops.sinks.base import Run, destination_id
from lezea_mlops.testing import FakeClock, MemorySink
from lezea_mlops.tracker import ExperimentTracker
from tests.delivery.shipping import LONGER_THAN_ANY_PAUSE_S, numbers, ship_all, stored_cursor, write
from tests.journal.lines import line
from tests.sinks.mlflow.seen import history, seen, the_run

MIB = 1024 * 1024


def delivered(folder: RunFolder, sink: MemorySink) -> Shipper:
    """Ship all that waits, as a process of its own does, and return its shipper."""
    clock = FakeClock()
    shipper = Shipper(folder, sink, clock)
    ship_all(shipper, clock)
    return shipper


# ---------------------------------------------------------------------- any damage at all

damages = st.sampled_from(
    [b"garbage\n", b"\x00" * 50 + b"\n", b'{"v":1,"t":"metric","m":{"se\n', b"\n", b"[1]\n"]
)
pieces = st.one_of(damages, st.builds(line, st.integers(1, 9)))


@dataclass
class Place:
    """A run folder and a sink, without fixtures: one for each example."""

    root: Path
    sink: MemorySink = field(default_factory=MemorySink)

    @property
    def folder(self) -> RunFolder:
        """The run."""
        return RunFolder(self.root / "run-1")


@settings(deadline=None)
@given(
    content=st.lists(pieces, max_size=10), more=st.lists(pieces, max_size=6),
    half=st.sampled_from([b"", b'{"v"', b"\x00"]),
    lost=st.sampled_from(["nothing", "cursor", "folder", "half of the cursor"]),
)  # fmt: skip
def test_every_record_that_can_be_read_is_delivered_whatever_stands_beside_it(
    content: list[bytes], more: list[bytes], half: bytes, lost: str
) -> None:
    """Garbage, zeros, half lines, doubled lines, lines out of order, a lost cursor: the sink has each number once."""
    with tempfile.TemporaryDirectory() as root:
        place = Place(Path(root))
        place.folder.path.mkdir()
        path = place.folder.journal("main")
        path.write_bytes(b"".join(content) + half)
        bad = [piece for piece in content if piece.strip() and not piece.startswith(line(1)[:30])]
        assert delivered(place.folder, place.sink).health.damaged == len(bad)
        if lost == "folder":
            shutil.rmtree(place.folder.cursors, ignore_errors=True)
        elif lost != "nothing":
            for cursor in place.folder.cursors.glob("*.json"):
                cursor.write_bytes(
                    cursor.read_bytes()[:20]
                ) if lost == "half of the cursor" else cursor.unlink()
        path.write_bytes(b"".join(content) + b"".join(more))
        delivered(place.folder, place.sink)
        there = {record.seq for record in JournalReader(place.folder)}
        assert set(numbers(place.sink)) == there
        assert delivered(place.folder, place.sink).health.delivered == 0


def test_a_line_of_a_hundred_megabytes_is_passed_in_little_memory(
    folder: RunFolder, sink: MemorySink, clock: FakeClock
) -> None:
    """What stands behind it is delivered, and its place and length are told."""
    with folder.journal("main").open("ab") as file:
        size = file.tell()
        for _ in range(100):
            file.write(b"\x00" * MIB)
        file.write(b"\n" + line(6))
    shipper = Shipper(folder, sink, clock)
    tracemalloc.start()
    try:
        ship_all(shipper, clock)
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()
    assert numbers(sink) == [1, 2, 3, 4, 5, 6]
    assert shipper.health.damaged == 1
    assert stored_cursor(folder, sink)["positions"]["main"] == [size + 100 * MIB + 1 + len(line(6)), 6]


# ---------------------------------------------------------------------- cursors that do not fit


def test_a_cursor_past_the_end_is_told_and_the_file_delivered_from_its_beginning(
    folder: RunFolder, sink: MemorySink, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing waits at a place that will never come."""
    Cursor(folder.cursor(destination_id(sink))).save(CursorState({"main": Position(9_999, 80)}))
    shipper = delivered(folder, sink)
    assert numbers(sink) == [1, 2, 3, 4, 5]
    assert shipper.health.damaged == 1
    [said] = [message for message in caplog.messages if "stepped over" in message]
    assert f"{folder.journal('main')}: at byte 9999: record 80 does not end here" in said
    assert "delivered from its beginning" in said
    assert delivered(folder, sink).health.damaged == 0


def test_a_file_that_was_cut_to_nothing_is_told(
    folder: RunFolder, sink: MemorySink, caplog: pytest.LogCaptureFixture
) -> None:
    """Though there is nothing to deliver that it could be told with."""
    delivered(folder, sink)
    os.truncate(folder.journal("main"), 0)
    shipper = delivered(folder, sink)
    assert (shipper.health.damaged, shipper.health.delivered) == (1, 0)
    assert "the file was cut or replaced" in caplog.text
    assert numbers(sink) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "wrong", [(-1, 5), (+1, 5), (0, 4), (0, 6)], ids=["earlier", "later", "lower", "higher"]
)
def test_a_position_within_the_file_that_is_none_is_noticed(
    folder: RunFolder, sink: MemorySink, wrong: tuple[int, int]
) -> None:
    """In the middle of a line, or behind another record: a file that was replaced looks like this."""
    write(folder, 3)
    after_five = len(b"".join(folder.journal("main").read_bytes().splitlines(keepends=True)[:5]))
    offset, seq = after_five + wrong[0], wrong[1]
    Cursor(folder.cursor(destination_id(sink))).save(CursorState({"main": Position(offset, seq)}))
    shipper = delivered(folder, sink)
    assert numbers(sink) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert shipper.health.damaged == 1


def test_a_cursor_in_the_middle_that_fits_is_believed(folder: RunFolder, sink: MemorySink) -> None:
    """Only what stands behind it is delivered."""
    after_five = folder.journal("main").stat().st_size
    write(folder, 3)
    Cursor(folder.cursor(destination_id(sink))).save(CursorState({"main": Position(after_five, 5)}))
    assert delivered(folder, sink).health.damaged == 0
    assert numbers(sink) == [6, 7, 8]


def test_a_file_that_is_cut_while_it_is_delivered_is_noticed(
    shipper: Shipper, sink: MemorySink, folder: RunFolder, clock: FakeClock
) -> None:
    """A shipper at work does not go on behind the end of another file."""
    shipper.ship_once()
    folder.journal("main").write_bytes(line(1) + line(2))
    assert shipper.ship_once() is Step.FAILED
    assert "cut or replaced" in str(shipper.health.last_error)
    ship_all_from(shipper, clock)
    assert sink.batches == [5, 2]
    assert shipper.health.state == "ok"


def ship_all_from(shipper: Shipper, clock: FakeClock) -> None:
    """Let the pause pass, and ship all."""
    clock.advance(LONGER_THAN_ANY_PAUSE_S)
    ship_all(shipper, clock)


@settings(deadline=None)
@given(taken=st.integers(1, 5), cut=st.integers(0, 500), between=st.booleans(), more=st.integers(1, 4))
def test_what_a_power_loss_took_stays_delivered_and_what_is_new_is_added(
    taken: int, cut: int, between: bool, more: int
) -> None:
    """The sink holds what was delivered before, what the file still held, and what came later, each under its number.

    Whether somebody delivers between the loss and the next writer, as a watch does, makes no difference.
    """
    with tempfile.TemporaryDirectory() as root:
        place = Place(Path(root))
        place.folder.create()
        write(place.folder, taken)
        delivered(place.folder, place.sink)
        before = dict(place.sink.records)
        os.truncate(place.folder.journal("main"), min(cut, place.folder.journal("main").stat().st_size))
        if between:
            delivered(place.folder, place.sink)
        write(place.folder, more)
        delivered(place.folder, place.sink)
        kept = {record.seq: record for record in read_run(place.folder.path)}
        assert {key: place.sink.records[key] for key in before} == before
        assert all(place.sink.records["run-1", "main", seq] == record for seq, record in kept.items())
        assert set(numbers(place.sink)) == set(kept) | set(range(1, taken + 1))


# ---------------------------------------------------------------------- files that vanish or cannot be read


def test_a_writers_file_that_vanished_is_told_once_and_the_others_go_on(
    shipper: Shipper, sink: MemorySink, folder: RunFolder, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """What it brought stays; if it comes back it goes on where it was."""
    write(folder, 3, wid="rank1")
    ship_all(shipper, clock)
    away = folder.journal("rank1").rename(folder.path / "away")
    for _ in range(3):
        write(folder, 1)
        ship_all(shipper, clock)
    told = [message for message in caplog.messages if "is gone" in message]
    assert told == [f"{folder.journal('rank1')} is gone; it was delivered in part"]
    assert numbers(sink) == [1, 2, 3, 4, 5, 6, 7, 8]
    away.rename(folder.journal("rank1"))
    write(folder, 1, wid="rank1")
    ship_all(shipper, clock)
    assert numbers(sink, "rank1") == [1, 2, 3, 4]
    assert sink.batches[-1] == 1


def test_main_may_vanish_too(shipper: Shipper, sink: MemorySink, folder: RunFolder, clock: FakeClock) -> None:
    """The run keeps its name, and the other writers are delivered."""
    write(folder, 3, wid="rank1")
    folder.journal("main").unlink()
    ship_all(shipper, clock)
    assert set(sink.records) == {("run-1", "rank1", seq) for seq in (1, 2, 3)}


@pytest.mark.parametrize("unreadable", ["main", "rank1", "rank9"])
def test_a_file_that_cannot_be_read_does_not_keep_the_others_waiting(
    unreadable: str, folder: RunFolder, sink: MemorySink, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """They are delivered, also what comes later; the file is told once, and counts until it can be read."""
    writers = ["main", "rank1", "rank2", "rank9"]
    others = [wid for wid in writers if wid != unreadable]
    for wid in others[1 if "main" in others else 0 :]:
        write(folder, 2, wid=wid)
    folder.journal(unreadable).unlink(missing_ok=True)
    folder.journal(unreadable).mkdir()
    shipper = Shipper(folder, sink, clock)
    for _ in range(4):
        for _ in writers:
            shipper.ship_once()
            clock.advance(LONGER_THAN_ANY_PAUSE_S)
        for wid in others:
            write(folder, 1, wid=wid)
    steps = [shipper.ship_once() for _ in others]
    assert steps == [Step.SHIPPED] * len(others)
    for wid in others:
        assert numbers(sink, wid) == list(range(1, len(list(numbers(sink, wid))) + 1))
        assert len(numbers(sink, wid)) >= 6
    assert shipper.ship_once() is Step.FAILED
    assert shipper.health.state == "down"
    assert shipper.health.failures.keys() == {"journal"}
    told = [message for message in caplog.messages if "cannot read the journal" in message]
    assert len(told) == 1
    assert str(folder.journal(unreadable)) in told[0]
    folder.journal(unreadable).rmdir()
    write(folder, 1, wid=unreadable)
    clock.advance(LONGER_THAN_ANY_PAUSE_S)
    ship_all(shipper, clock)
    assert numbers(sink, unreadable) == [1]
    assert shipper.health.state == "ok"


# ---------------------------------------------------------------------- formats, copies, two at once


class NamedSink(MemorySink):
    """Remembers for which run it was opened."""

    run: Run | None = None

    def open(self, run: Run, state: object) -> None:
        """Remember the run."""
        super().open(run, {})
        self.run = run


def test_a_newer_format_is_told_once_and_delivered_as_far_as_it_is_understood(
    folder: RunFolder, sink: MemorySink, caplog: pytest.LogCaptureFixture
) -> None:
    """With the version that it is of, the one that is known, and what to do."""
    with folder.journal("main").open("ab") as file:
        file.write(line(6, version=3) + line(7) + line(8, version=2))
    delivered(folder, sink)
    assert numbers(sink) == [1, 2, 3, 4, 5, 6, 7, 8]
    [told] = [message for message in caplog.messages if "format version" in message]
    assert f"{folder.path} holds records of format version 3, and this program knows 1" in told
    assert "Update lezea-mlops" in told


@pytest.mark.parametrize("how", ["renamed", "copied"])
def test_a_copied_folder_is_delivered_as_the_run_that_its_records_name(
    how: str, folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """A second delivery of the copy changes nothing: it is no second run."""
    sink = NamedSink()
    delivered(folder, sink)
    copy = RunFolder(folder.path.with_name("backup"))
    (shutil.copytree if how == "copied" else shutil.move)(folder.path, copy.path)
    shutil.rmtree(copy.cursors)
    before = sink.contents()
    delivered(copy, sink)
    assert sink.run == Run("run-1", copy.path)
    assert sink.contents() == before
    [told] = [message for message in caplog.messages if "copied or renamed" in message]
    assert f"{copy.path} holds the run run-1" in told


def test_a_copied_folder_cannot_be_resumed(tmp_path: Path) -> None:
    """Two folders would go on with the same numbers; the error says which name the folder must have."""
    with ExperimentTracker("Original", settings={"mode": "offline"}) as tracker:
        tracker.log_metrics({"loss": 1.0}, step=1)
    copy = tracker.run_dir.with_name("copy")
    shutil.copytree(tracker.run_dir, copy)
    before = (copy / "events.jsonl").read_bytes()
    with pytest.raises(
        ConfigurationError, match=f"Rename it to {tracker.experiment_id} to continue that run"
    ):
        ExperimentTracker("Original", resume="copy", settings={"mode": "offline"})
    assert (copy / "events.jsonl").read_bytes() == before
    ExperimentTracker("Original", resume=tracker.experiment_id, settings={"mode": "offline"}).end()


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["write", "write rank1", "first", "second"]), max_size=25),
    st.sets(st.tuples(st.sampled_from(["main", "rank1"]), st.integers(1, 6)), max_size=3),
)
def test_two_couriers_on_one_run_deliver_what_one_would(
    moves: list[str], refused: set[tuple[str, int]]
) -> None:
    """Where no lock keeps them apart: each stores its own position over the other's, and nothing is missing."""
    with tempfile.TemporaryDirectory() as root:
        place = Place(Path(root))
        place.folder.create()
        write(place.folder, 3)
        place.sink.refuses, clean = refused, MemorySink("memory://clean")
        clean.refuses = refused
        clocks = FakeClock(), FakeClock()
        shippers = {
            "first": Shipper(place.folder, place.sink, clocks[0]),
            "second": Shipper(place.folder, place.sink, clocks[1]),
        }
        for move in [*moves, "first", "second"]:
            if move in shippers:
                shippers[move].ship_once()
            else:
                write(place.folder, 1, wid=move.partition(" ")[2] or "main")
            for clock in clocks:
                clock.advance(LONGER_THAN_ANY_PAUSE_S)
        for last in (place.sink, clean):
            last.refuses = set()
            delivered(place.folder, last)
        missing = clean.contents().keys() - place.sink.contents().keys()
        assert {(wid, seq) for _, wid, seq in missing} <= refused
        assert all(clean.contents()[key] == kept for key, kept in place.sink.contents().items())


# ---------------------------------------------------------------------- MLflow


def points_of(run_dir: Path) -> dict[int, float]:
    """Return the values of ``loss`` that a journal holds, by step."""
    return {
        record.payload["step"]: record.payload["metrics"]["loss"]
        for record in read_run(run_dir)
        if record.type == "metric"
    }


@pytest.mark.parametrize("seed", range(3))
def test_after_a_power_loss_mlflow_has_what_was_delivered_and_what_the_journal_holds(
    mlflow_store: str, seed: int
) -> None:
    """Delivered, cut at a random place, resumed, gone on with, delivered: each point once, and the audit explains.

    What the journal lost is in MLflow alone; the audit names these points and nothing else.
    """
    rng = random.Random(seed)
    offline = load_settings({"mode": "offline"})
    with ExperimentTracker("Power", settings=offline) as tracker:
        tracker.log_params({"lr": 0.1})
        for step in range(20):
            tracker.log_metrics({"loss": rng.random()}, step=step)
    folder = RunFolder(tracker.run_dir)
    before = points_of(folder.path)
    [outcome] = deliver_run(folder, offline)
    assert outcome.error is None
    lines = folder.journal("main").read_bytes().splitlines(keepends=True)
    beginning = len(b"".join(lines[:2]))
    os.truncate(folder.journal("main"), rng.randrange(beginning, len(b"".join(lines))))
    kept = points_of(folder.path)
    if seed == 1:
        assert deliver_run(folder, offline)[0].damaged == 1
    with ExperimentTracker("Power", resume=tracker.experiment_id, settings=offline) as resumed:
        for step in range(100, 110):
            resumed.log_metrics({"loss": rng.random()}, step=step)
    [gap] = [record for record in read_run(folder.path) if record.type == "gap"]
    assert gap.payload["first_seq"] <= gap.payload["last_seq"] == len(lines)
    seqs = [record.seq for record in read_run(folder.path) if record.wid == "main"]
    assert seqs == sorted(set(seqs))
    [outcome] = deliver_run(folder, offline)
    assert outcome.error is None
    client = MlflowClient(mlflow_store)
    after = points_of(folder.path)
    there = {step: float(value) for step, _, value in history(client, the_run(client, folder.run_id), "loss")}
    assert there == before | after
    assert the_run(client, folder.run_id).info.status == "FINISHED"
    [report] = audit_run(folder, offline)
    assert (report.error, report.missing, report.doubled, report.waiting) == (None, 0, 0, 0)
    lost = sorted(before.keys() - kept.keys())
    named = [finding.what for finding in report.findings if finding.what.startswith("metric loss")]
    assert sorted(named) == sorted(f"metric loss step {step}" for step in lost)
    assert all(
        finding.expected is None for finding in report.findings if finding.what.startswith("metric loss")
    )


def test_a_replay_after_the_cursors_were_deleted_doubles_nothing_in_mlflow(mlflow_store: str) -> None:
    """Points, params, tags, files and the status are what they were."""
    offline = load_settings({"mode": "offline"})
    with ExperimentTracker("Again", tags={"team": "a"}, settings=offline) as tracker:
        tracker.log_params({"lr": 0.1, "depth": 3})
        for step in range(10):
            tracker.log_training_step(step, {"loss": 1.0 / (step + 1)})
        tracker.log_metrics({"counted": 1.0})
        tracker.log_text("a plan", "plan.md")
        tracker.log_comment("well")
    folder = RunFolder(tracker.run_dir)
    deliver_run(folder, offline)
    client = MlflowClient(mlflow_store)
    before = seen(client, folder.run_id)
    assert len(before["metrics"]["loss"]) == 10
    shutil.rmtree(folder.cursors)
    [outcome] = deliver_run(folder, offline)
    assert (outcome.error, outcome.damaged) == (None, 0)
    assert outcome.records == len(list(read_run(folder.path)))
    assert seen(client, folder.run_id) == before
