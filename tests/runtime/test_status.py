"""How a run stands: what is delivered, waiting, refused; and whatever is out of order is said in words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lezea_mlops.delivery import Shipper, Step
from lezea_mlops.journal import Cursor, CursorState, JournalWriter, Position, RunFolder
from lezea_mlops.runtime.status import UNREADABLE, DeliveryStatus, RunStatus, read_status
from lezea_mlops.runtime.survey import MAX_GAPS, survey
from lezea_mlops.sinks.base import destination_id
from lezea_mlops.sinks.memory import MemorySink
from lezea_mlops.testing import FakeClock

DESTINATION = destination_id(MemorySink())
RECORDS = 12


def write(
    folder: RunFolder, wid: str = "main", metrics: int = RECORDS - 2, status: str = "completed"
) -> None:
    """Let a writer record a whole attempt: its start, metrics, its end."""
    writer = JournalWriter(folder, wid, durability="process")
    writer.append("run_started", {"experiment_name": "Digits"})
    for step in range(metrics):
        writer.append("metric", {"step": step, "metrics": {"loss": 0.5}})
    writer.append("run_finished", {"status": status})
    writer.close()


def ship(folder: RunFolder) -> None:
    """Deliver all that waits."""
    shipper = Shipper(folder, MemorySink(), FakeClock())
    while shipper.ship_once() is Step.SHIPPED:
        pass


def look(folder: RunFolder) -> RunStatus:
    """Return how the run stands for the one destination that is configured."""
    return read_status(folder, {"memory": DESTINATION})


def the_delivery(folder: RunFolder) -> DeliveryStatus:
    """Return how the one destination stands."""
    [delivery] = look(folder).deliveries
    return delivery


def numbers(folder: RunFolder) -> tuple[int, int, int]:
    """Return how many records are delivered, waiting, refused."""
    delivery = the_delivery(folder)
    return delivery.delivered, delivery.waiting, delivery.rejected


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run that ended, and was not delivered."""
    folder = RunFolder(tmp_path / "run-1")
    folder.create()
    write(folder)
    return folder


def test_an_undelivered_run_waits_whole(folder: RunFolder) -> None:
    """Name, state, attempts and records are told; nothing is delivered; nothing is out of order."""
    assert look(folder) == RunStatus(
        "run-1", str(folder.path), "Digits", "completed", 1, RECORDS,
        [DeliveryStatus("memory", DESTINATION, True, 0, RECORDS, 0)], [],
    )  # fmt: skip


def test_a_delivered_run_waits_no_more_and_one_that_went_on_waits_for_the_rest(folder: RunFolder) -> None:
    """Counted over all writers and attempts."""
    ship(folder)
    assert numbers(folder) == (RECORDS, 0, 0)
    write(folder, "rank1", metrics=1)
    write(folder, metrics=0, status="failed")
    assert numbers(folder) == (RECORDS, 5, 0)
    assert (look(folder).attempts, look(folder).records, look(folder).state) == (2, RECORDS + 5, "failed")
    ship(folder)
    assert numbers(folder) == (RECORDS + 5, 0, 0)


def test_looking_changes_nothing(folder: RunFolder) -> None:
    """No file is made, written or touched."""
    ship(folder)

    def files() -> dict[Path, tuple[int, int]]:
        return {
            path: (path.stat().st_mtime_ns, path.stat().st_size)
            for path in folder.path.rglob("*")
            if path.is_file()
        }

    before = files()
    look(folder)
    assert files() == before


def test_records_far_behind_are_told_by_their_numbers(folder: RunFolder) -> None:
    """Megabytes are not read for it."""
    ship(folder)
    writer = JournalWriter(folder, "main", durability="process")
    for _ in range(30):
        writer.append("comment", {"text": "x" * 100_000})
    writer.close()
    assert numbers(folder) == (RECORDS, 30, 0)


def test_a_destination_of_former_days_is_shown_too(folder: RunFolder) -> None:
    """Whatever has a cursor; it is marked as not configured."""
    ship(folder)
    found = read_status(folder, {"mlflow": "mlflow-12345678"}).deliveries
    assert found == [
        DeliveryStatus("mlflow", "mlflow-12345678", True, 0, RECORDS, 0),
        DeliveryStatus("memory", DESTINATION, False, RECORDS, 0, 0),
    ]


def test_refused_records_are_counted_once_each(folder: RunFolder) -> None:
    """A delivery that was killed may have noted one twice."""
    ship(folder)
    path = folder.rejected(DESTINATION)
    path.parent.mkdir()
    path.write_text('{"wid":"main","seq":3}\n{"wid":"main","seq":3}\n{"wid":"main","seq":4}\n{"wid":"ma')
    assert numbers(folder) == (RECORDS - 2, 0, 2)


def test_a_retry_that_was_cut_short_is_said(folder: RunFolder) -> None:
    """With the command that goes on, wherever it is typed."""
    ship(folder)
    path = folder.rejected(DESTINATION).with_suffix(".0a.retried")
    path.parent.mkdir()
    path.write_text('{"wid":"main","seq":3}\n')
    [note] = look(folder).notes
    assert f"lezea sync {folder.path} goes on with it" in note
    assert path.name in note


@pytest.mark.parametrize(
    ("state", "shown"), [("down", "connection refused"), ("refusing", "connection refused"), ("ok", None)]
)
def test_the_drivers_last_error_is_told_while_it_stands(
    folder: RunFolder, state: str, shown: str | None
) -> None:
    """What is well again is no news."""
    health = {DESTINATION: {"state": state, "last_error": "connection refused"}, "other-1": {"state": "down"}}
    folder.alive.write_text(json.dumps({"ts": 1, "pid": 1, "sinks": health}))
    assert (the_delivery(folder).state, the_delivery(folder).last_error) == (state, shown)


@pytest.mark.parametrize("state", ["starting", "down"])
def test_an_outage_of_former_days_is_not_told(folder: RunFolder, state: str) -> None:
    """What the run's driver said last is true while something waits; somebody else may have delivered that."""
    health = {DESTINATION: {"state": state, "last_error": "connection refused"}}
    folder.alive.write_text(json.dumps({"ts": 1, "pid": 1, "sinks": health}))
    assert (the_delivery(folder).state, the_delivery(folder).last_error) == (state, "connection refused")
    ship(folder)
    assert (the_delivery(folder).state, the_delivery(folder).last_error) == ("ok", None)


# ---------------------------------------------------------------------- out of order


def cut(folder: RunFolder) -> None:
    """Take the end of the file away, as a power loss does."""
    lines = folder.journal("main").read_bytes().splitlines(keepends=True)
    folder.journal("main").write_bytes(b"".join(lines[:5]))


def vanish(folder: RunFolder) -> None:
    """Remove a further writer's file."""
    folder.journal("rank1").unlink()


def spoil_cursor(folder: RunFolder) -> None:
    """Let the cursor be no JSON."""
    folder.cursor(DESTINATION).write_bytes(b"\x00" * 40)


def replace(folder: RunFolder) -> None:
    """Put another file in the place of the journal."""
    folder.journal("main").write_bytes(folder.journal("main").read_bytes()[7:] * 2)


OUT_OF_ORDER: list[tuple[Callable[[RunFolder], None], tuple[str, ...]]] = [
    (cut, ("events.jsonl was cut or replaced", f"had it up to record {RECORDS},", "from its beginning")),
    (replace, ("events.jsonl was cut or replaced",)),
    (vanish, ("events.rank1.jsonl is gone", "has it up to record 3")),
    (spoil_cursor, (f"cursors/{DESTINATION}.json cannot be read", "all records again")),
    (lambda folder: folder.journal("main").write_bytes(b"\x00" * 99) and None, ("no record that can be read (99 b",)),
    (lambda folder: folder.journal("main").write_bytes(b"") and None, ("events.jsonl is empty",)),
]  # fmt: skip


@pytest.mark.parametrize(("harm", "words"), OUT_OF_ORDER)
def test_what_is_out_of_order_is_said_in_words(
    folder: RunFolder, harm: Callable[[RunFolder], None], words: tuple[str, ...]
) -> None:
    """One note that names the file and what will come of it."""
    write(folder, "rank1", metrics=1)
    ship(folder)
    assert look(folder).notes == []
    harm(folder)
    notes = " ".join(look(folder).notes)
    assert all(word in notes for word in words), notes


def test_a_cursor_beyond_the_end_means_that_all_waits(folder: RunFolder) -> None:
    """The shipper begins anew there; so many records wait."""
    ship(folder)
    cut(folder)
    assert numbers(folder) == (0, 5, 0)


def test_a_cursor_for_a_new_run_is_none_that_cannot_be_read(folder: RunFolder) -> None:
    """It has no positions, and means it."""
    Cursor(folder.cursor(DESTINATION)).save(CursorState(sink={"recreate": True}))
    assert look(folder).notes == []
    Cursor(folder.cursor(DESTINATION)).save(CursorState({"main": Position()}))
    assert look(folder).notes == []


def test_a_copied_folder_is_told(folder: RunFolder, tmp_path: Path) -> None:
    """Its records say whose they are."""
    shutil.copytree(folder.path, tmp_path / "copy")
    [note] = look(RunFolder(tmp_path / "copy")).notes
    assert "the run run-1" in note
    assert "copy" in note


def test_half_a_line_at_the_end_of_a_dead_writers_file_is_told(folder: RunFolder) -> None:
    """Nothing that a call returned for is in it, so nothing waits there."""
    ship(folder)
    with folder.journal("main").open("ab") as file:
        file.write(b'{"v":1,"t":"met')
    [note] = look(folder).notes
    assert "15 bytes of an unfinished line" in note
    assert numbers(folder) == (RECORDS, 0, 0)


def test_a_run_that_cannot_be_read_is_a_line_like_any_other(folder: RunFolder) -> None:
    """Here a folder stands where the journal should be."""
    folder.journal("main").unlink()
    folder.journal("main").mkdir()
    found = look(folder)
    assert (found.state, found.records, found.experiment) == (UNREADABLE, 0, None)
    [note] = found.notes
    assert note == "events.jsonl cannot be read: Is a directory"


# ---------------------------------------------------------------------- read whole


def test_reading_all_of_it_counts_records_by_type(folder: RunFolder) -> None:
    """Of a journal in order there is nothing else to say."""
    found = survey(folder)
    assert found.by_type == {"run_started": 1, "metric": RECORDS - 2, "run_finished": 1}
    assert (found.records, found.damaged, found.lost, found.missing) == (RECORDS, 0, 0, 0)
    assert (found.out_of_order, found.newer) == (0, 0)


def test_damage_missing_numbers_and_order_are_told_apart(folder: RunFolder) -> None:
    """A spoiled line, a line that is gone, one that stands twice, one of a later format."""
    path = folder.journal("main")
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = b"x" * 10 + b"\n"
    lines[5] = lines[5].replace(b'"v":1', b'"v":2')
    del lines[7]
    path.write_bytes(b"".join([*lines, lines[8]]))
    found = survey(folder)
    assert (found.damaged, found.missing, found.out_of_order, found.newer) == (1, 2, 1, 1)
    assert found.damage[0].startswith(f"{path}: at byte {sum(map(len, lines[:3]))}: ")


def test_a_gap_that_the_writer_tells_of_is_lost_and_not_missing(folder: RunFolder) -> None:
    """A disk was full; of a rubbish gap only the type counts."""
    path = folder.journal("main")
    [*lines, last] = path.read_bytes().splitlines(keepends=True)
    gap = {"count": 4, "first_seq": 12, "last_seq": 15, "reason": "No space left on device"}
    line = {"v": 1, "t": "gap", "m": {"seq": 16, "ts": 1, "wid": "main", "att": 1}, "p": gap}
    path.write_bytes(b"".join(lines) + json.dumps(line).encode() + b"\n")
    found = survey(folder)
    assert (found.lost, found.missing) == (4, 0)
    told = {"wid": "main", "first_seq": 12, "last_seq": 15, "reason": "No space left on device"}
    assert found.gaps == [told]
    rubbish = json.dumps(line | {"p": {"count": "x"}}).encode() + b"\n"
    path.write_bytes(last + rubbish * (MAX_GAPS + 5))
    assert (survey(folder).lost, len(survey(folder).gaps)) == (0, MAX_GAPS)
