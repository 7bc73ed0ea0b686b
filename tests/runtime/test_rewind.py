"""A destination is set back to a record: that record and what follows come again, nothing is left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.delivery import Shipper, Step
from lezea_mlops.errors import JournalError
from lezea_mlops.journal import Cursor, CursorState, JournalWriter, Position, RunFolder, read_chunk
from lezea_mlops.runtime.rewind import position_before, rewind
from lezea_mlops.sinks.base import destination_id
from lezea_mlops.sinks.memory import MemorySink
from lezea_mlops.testing import FakeClock

RECORDS = 20
DESTINATION = destination_id(MemorySink())


def journaled(path: Path, *wids: str) -> RunFolder:
    """Return a run folder in which each writer has written ``RECORDS`` records."""
    folder = RunFolder(path)
    folder.create()
    for wid in wids:
        writer = JournalWriter(folder, wid, attempt=1, durability="process")
        for step in range(RECORDS):
            writer.append("metric", {"step": step, "metrics": {"loss": 0.5}})
        writer.close()
    return folder


def delivered(folder: RunFolder) -> list[tuple[str, int]]:
    """Ship what waits to a sink that knows nothing yet, and return what came."""
    sink = MemorySink()
    shipper = Shipper(folder, sink, FakeClock())
    while shipper.ship_once() is Step.SHIPPED:
        pass
    return sorted((wid, seq) for _, wid, seq in sink.records)


def numbers(wid: str, first: int) -> list[tuple[str, int]]:
    """Return writer and number of all its records from *first* on."""
    return [(wid, seq) for seq in range(first, RECORDS + 1)]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run of two writers, delivered whole."""
    folder = journaled(tmp_path / "run-1", "main", "rank1")
    assert delivered(folder) == numbers("main", 1) + numbers("rank1", 1)
    return folder


@given(seq=st.integers(1, RECORDS))
def test_from_any_record_on_all_come_again(tmp_path_factory: pytest.TempPathFactory, seq: int) -> None:
    """The named record is the first that comes, the last of its writer's file the last."""
    folder = journaled(tmp_path_factory.mktemp("runs") / "run-1", "main")
    delivered(folder)
    rewind(folder, DESTINATION, {"main": seq})
    assert Cursor(folder.cursor(DESTINATION)).state.positions["main"].seq == seq - 1
    assert delivered(folder) == numbers("main", seq)


def test_each_writer_goes_back_to_a_record_of_its_own(folder: RunFolder) -> None:
    """Writers that are not named stay where they are."""
    rewind(folder, DESTINATION, {"rank1": 7})
    assert delivered(folder) == numbers("rank1", 7)
    rewind(folder, DESTINATION, {"main": 20, "rank1": 19})
    assert delivered(folder) == numbers("main", 20) + numbers("rank1", 19)


def test_what_the_sink_remembers_stays(folder: RunFolder) -> None:
    """Its ids are stored with the position, and are not lost with it."""
    cursor = Cursor(folder.cursor(DESTINATION))
    cursor.save(CursorState(cursor.state.positions, {"run_id": "abc"}))
    rewind(folder, DESTINATION, {"main": 3})
    assert Cursor(folder.cursor(DESTINATION)).state.sink == {"run_id": "abc"}


def test_a_cursor_is_never_moved_forward(folder: RunFolder) -> None:
    """A record that waits anyway leaves the cursor, even the file, as it is."""
    rewind(folder, DESTINATION, {"main": 3})
    before = folder.cursor(DESTINATION).stat().st_ino
    rewind(folder, DESTINATION, {"main": 9})
    assert folder.cursor(DESTINATION).stat().st_ino == before
    assert delivered(folder) == numbers("main", 3)


def test_a_destination_without_a_cursor_stays_at_the_beginning(tmp_path: Path) -> None:
    """Everything waits for it already."""
    folder = journaled(tmp_path / "run-1", "main")
    rewind(folder, DESTINATION, {"main": 9})
    assert not folder.cursor(DESTINATION).exists()
    assert delivered(folder) == numbers("main", 1)


def test_a_writer_is_found_whatever_its_name(tmp_path: Path) -> None:
    """Characters that a file name may not have are others there, and so in the cursor."""
    folder = journaled(tmp_path / "run-1", "main", "rank/1")
    delivered(folder)
    rewind(folder, DESTINATION, {"rank/1": 12})
    assert delivered(folder) == numbers("rank/1", 12)


def test_damaged_lines_before_the_record_are_left_behind(folder: RunFolder) -> None:
    """A damaged place counts neither as the record nor as one before it."""
    lines = folder.journal("main").read_bytes().splitlines(keepends=True)
    lines[4] = b"x" * (len(lines[4]) - 1) + b"\n"
    folder.journal("main").write_bytes(b"".join(lines))
    assert position_before(folder.journal("main"), 5) == Position(sum(map(len, lines[:4])), 4)
    rewind(folder, DESTINATION, {"main": 5})
    assert delivered(folder) == numbers("main", 6)


def test_a_journal_of_many_chunks_is_read_through(tmp_path: Path) -> None:
    """The record may stand anywhere in a long file."""
    folder = RunFolder(tmp_path / "run-1")
    folder.create()
    writer = JournalWriter(folder, "main", attempt=1, durability="process")
    for _ in range(40):
        writer.append("comment", {"text": "x" * 100_000})
    writer.close()
    path = folder.journal("main")
    assert read_chunk(path, position_before(path, 33).offset).records[0].seq == 33


@pytest.mark.parametrize("wid", ["main", "rank9"])
def test_a_record_that_is_not_there_is_an_error_and_moves_nothing(folder: RunFolder, wid: str) -> None:
    """A file that is too short, or none at all: its path is named."""
    with pytest.raises(JournalError, match=folder.journal(wid).name):
        rewind(folder, DESTINATION, {"rank1": 3, wid: RECORDS + 1})
    assert delivered(folder) == []
