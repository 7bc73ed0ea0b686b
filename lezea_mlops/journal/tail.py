"""The end of a journal file: where its last whole line is, and which record it holds."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from lezea_mlops._files import read_at
from lezea_mlops.errors import JournalError
from lezea_mlops.events import MAX_LINE_BYTES, Envelope, NotARecord, decode_line
from lezea_mlops.journal.cursor import Position
from lezea_mlops.journal.layout import RunFolder

_TAIL_CHUNK = 64 * 1024


def cut_torn_tail(fd: int) -> tuple[int, int]:
    """Cut an unfinished last line off, and return the size of the file and how many bytes were cut."""
    end = os.fstat(fd).st_size
    whole = last_newline_before(fd, end)
    if whole != end:
        os.ftruncate(fd, whole)
    return whole, end - whole


def last_newline_before(fd: int, end: int) -> int:
    """Return the offset just behind the last newline before *end*; 0 if there is none."""
    while end > 0:
        start = max(0, end - _TAIL_CHUNK)
        found = read_at(fd, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def last_numbers(fd: int, end: int) -> tuple[int, int]:
    """Return seq and attempt of the last readable record before *end*; (0, 0) if there is none."""
    record = _last_before(fd, end)
    return (record.seq, record.att) if record is not None else (0, 0)


def last_record(folder: RunFolder, wid: str) -> Envelope | None:
    """Return the last readable record of a writer; None if there is none.

    Raises:
        JournalError: the file cannot be read.
    """
    path = folder.journal(wid)
    try:
        with path.open("rb", buffering=0) as file:
            return _last_before(file.fileno(), os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise JournalError(f"cannot read the journal {path}: {error}") from error


def _last_before(fd: int, end: int) -> Envelope | None:
    """Return the last record before *end*, which is behind a newline or in a line that is not looked at."""
    end = last_newline_before(fd, end)
    while end > 0:
        floor = max(0, end - _TAIL_CHUNK)
        block = read_at(fd, end - floor, floor)
        # Line by line within the block: a file may end in millions of lines that are no records.
        stop = len(block)
        while start := block.rfind(b"\n", 0, max(0, stop - 1)) + 1:
            if (record := _decoded(block[start:stop])) is not None:
                return record
            stop = start
        end = floor + stop
        start = last_newline_before(fd, end - 1)
        if (
            end - start <= MAX_LINE_BYTES
            and (record := _decoded(read_at(fd, end - start, start))) is not None
        ):
            return record
        end = start
    return None


def _decoded(line: bytes) -> Envelope | None:
    with contextlib.suppress(NotARecord):
        return decode_line(line)
    return None


def stands_behind(path: Path, position: Position) -> bool:
    """Tell whether *position* is the end of a line of *path*, and the record before it has that number.

    It is not where a power loss took the end of the file, whatever was appended since, or where the file was replaced.

    Raises:
        OSError: the file cannot be read.
    """
    if position.offset == 0:
        return True
    with path.open("rb", buffering=0) as file:
        fd = file.fileno()
        if os.fstat(fd).st_size < position.offset or read_at(fd, 1, position.offset - 1) != b"\n":
            return False
        return last_numbers(fd, position.offset)[0] == position.seq
