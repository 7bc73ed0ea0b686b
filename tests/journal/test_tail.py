"""The end of a journal file: its last record, whatever stands behind it, and whether a position is one of this file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lezea_mlops.errors import JournalError
from lezea_mlops.events import MAX_LINE_BYTES
from lezea_mlops.journal import (
    Position,
    RunFolder,
    last_numbers,
    last_record,
    read_chunk,
    stands_behind,
)
from lezea_mlops.journal import tail as tail_module
from tests.journal.lines import line


def numbers(path: Path) -> tuple[int, int]:
    """Return seq and attempt of the last record of a file."""
    with path.open("rb") as file:
        return last_numbers(file.fileno(), path.stat().st_size)


lines = st.one_of(
    st.builds(
        line, st.integers(1, 99), att=st.integers(1, 9), text=st.sampled_from(["", "x" * 10, "x" * 300])
    ),
    st.sampled_from([b"\n", b"garbage\n", b"\x00" * 40 + b"\n", b"[]\n", b'{"v":1,"t":"x"\n', b" \r\n"]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(lines, max_size=12),
    st.sampled_from([b"", b"{", line(7)[:-1], b"\x00" * 90]),
    st.integers(1, 200),
)
def test_the_last_record_is_the_last_that_the_reader_gives(
    folder: RunFolder, path: Path, content: list[bytes], unfinished: bytes, block: int
) -> None:
    """Whatever stands between and behind the records, and however much is read at a time."""
    path.write_bytes(b"".join(content) + unfinished)
    records = read_chunk(path, 0).records
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tail_module, "_TAIL_CHUNK", block)
        last = last_record(folder, "main")
        assert numbers(path) == ((last.seq, last.att) if last is not None else (0, 0))
    assert last == (records[-1] if records else None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(lines, min_size=1, max_size=8), st.data())
def test_a_position_stands_behind_a_line_and_its_number(
    path: Path, content: list[bytes], data: st.DataObject
) -> None:
    """Every position that reading reports is one; no other offset is, and no other number."""
    whole = b"".join(content)
    path.write_bytes(whole)
    offset = data.draw(st.integers(1, len(whole)))
    before = read_chunk(path, 0).records if offset == len(whole) else _records_before(path, whole[:offset])
    seq = before[-1].seq if before else 0
    assert stands_behind(path, Position(offset, seq)) == whole[:offset].endswith(b"\n")
    assert not stands_behind(path, Position(offset, seq + 1))
    assert not stands_behind(path, Position(len(whole) + 1, seq))


def _records_before(path: Path, content: bytes) -> list[object]:
    shorter = path.with_name("shorter")
    shorter.write_bytes(content)
    return list(read_chunk(shorter, 0).records)


def test_the_beginning_is_a_position_of_every_file(tmp_path: Path) -> None:
    """Also of one that is not there."""
    assert stands_behind(tmp_path / "missing", Position())
    assert stands_behind(tmp_path / "missing", Position(0, 7))


def test_another_file_of_the_same_length_is_noticed(path: Path) -> None:
    """A file that was replaced has a line end at the same place, and another record before it."""
    path.write_bytes(line(1) + line(2))
    at = Position(path.stat().st_size, 2)
    assert stands_behind(path, at)
    path.write_bytes(line(1) + line(3))
    assert not stands_behind(path, at)


@pytest.mark.parametrize("harm", ["missing", "a folder"])
def test_what_cannot_be_read_is_an_error(folder: RunFolder, path: Path, harm: str) -> None:
    """A position is not trusted, and not given up either, because the file system refuses."""
    if harm == "a folder":
        path.mkdir()
        with pytest.raises(JournalError, match=r"cannot read the journal .*events\.jsonl: "):
            last_record(folder, "main")
    else:
        assert last_record(folder, "main") is None
    with pytest.raises(OSError, match="directory"):
        stands_behind(path, Position(1, 1))


def test_a_line_without_an_end_and_lines_without_number_hide_no_record(path: Path) -> None:
    """Behind a record: 20 MiB in one line, a million blank lines, and half a line of zeros; it is found at once.

    Looked for line by line from the end of the file, each time with a block of its own, it would take minutes.
    """
    read = os.pread
    calls: list[int] = []

    def counting(descriptor: int, count: int, offset: int) -> bytes:
        calls.append(count)
        return read(descriptor, count, offset)

    path.write_bytes(
        line(1) + line(2, att=3) + b"y" * 20 * 2**20 + b"\n" + b"\n" * 1_000_000 + b"\x00" * 300_000
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pread", counting)
        assert numbers(path) == (2, 3)
    assert sum(calls) < 2 * path.stat().st_size
    assert max(calls) <= MAX_LINE_BYTES


def test_records_longer_than_a_block_are_found(path: Path) -> None:
    """A line that is longer than what is read at a time is put together."""
    content = [line(1), line(2, text="x" * 200_000), line(3, text="x" * 100)]
    for count in (1, 2, 3):
        path.write_bytes(b"".join(content[:count]) + b"garbage\n")
        assert numbers(path) == (count, 1)
