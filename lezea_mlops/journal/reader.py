"""Reading journals: from a position, up to so many bytes, following a file that grows.

Reading never trusts: an unfinished last line is left for later, a whole line that is no record is reported with its
place, counted and stepped over, and a line beyond the limit is stepped over without being held in memory.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lezea_mlops._files import read_at
from lezea_mlops.errors import JournalError
from lezea_mlops.events import MAX_LINE_BYTES, Envelope, NotARecord, decode_line
from lezea_mlops.journal.layout import RunFolder

log = logging.getLogger("lezea_mlops")

CHUNK_BYTES = 1024 * 1024
# So much at a time suits the processor's cache.
STREAM_BYTES = 64 * 1024
MAX_DAMAGE_NOTES = 100
_RUN_ID = re.compile(r"[A-Za-z0-9_\-]{1,128}")


@dataclass(frozen=True)
class Damage:
    """A place in a journal that holds no record."""

    path: Path
    offset: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: at byte {self.offset}: {self.reason}"


@dataclass(frozen=True)
class Chunk:
    """What one reading brought.

    Attributes:
        records: the envelopes, in the file's order.
        ends: for each of them, the offset behind its line.
        after: the position to go on from; behind all whole lines that were looked at.
        damage: what was stepped over.
    """

    records: list[Envelope] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    after: int = 0
    damage: list[Damage] = field(default_factory=list)


def read_chunk(
    path: Path, offset: int, max_bytes: int = CHUNK_BYTES, max_line: int = MAX_LINE_BYTES
) -> Chunk:
    """Read whole lines of *path* from *offset* on, about *max_bytes* of them (at least one line, if there is one).

    Raises:
        JournalError: the file cannot be read, or is shorter than *offset*.
    """
    lines, after, damage = _read_lines(path, offset, max_bytes, max_line)
    records, ends = [], []
    for record, end in _decoded(path, offset, lines, damage, max_line):
        records.append(record)
        ends.append(end)
    return Chunk(records, ends, after, damage)


def _read_lines(path: Path, offset: int, max_bytes: int, max_line: int) -> tuple[bytes, int, list[Damage]]:
    """Return whole lines, the offset behind them, and the note of a line that was too long to be held."""
    try:
        with path.open("rb", buffering=0) as file:
            fd = file.fileno()
            size = os.fstat(fd).st_size
            if offset > size:
                raise JournalError(
                    f"{path} has {size} bytes, and the reader's position is {offset}: the file was cut or replaced"
                )
            end = min(size, offset + max_bytes)
            lines = _read_exactly(fd, offset, end)
            if (length := lines.rfind(b"\n") + 1) == 0 and end < size:
                length = _length_of_line(fd, offset, end, size)
                if length > max_line:
                    return b"", offset + length, [_too_long(path, offset, length)]
                lines = _read_exactly(fd, offset, offset + length)
            return lines[:length], offset + length, []
    except OSError as error:
        raise JournalError(f"cannot read the journal {path}: {error}") from error


def _read_exactly(fd: int, start: int, end: int) -> bytes:
    parts = []
    while start < end and (part := read_at(fd, end - start, start)):
        parts.append(part)
        start += len(part)
    return b"".join(parts)


def _length_of_line(fd: int, start: int, position: int, size: int) -> int:
    """Return the length of the line from *start* on, newline included, holding little of it; 0 if it is unfinished."""
    while position < size and (part := read_at(fd, STREAM_BYTES, position)):
        found = part.find(b"\n")
        if found >= 0:
            return position + found + 1 - start
        position += len(part)
    return 0


def _decoded(
    path: Path, offset: int, lines: bytes, damage: list[Damage], max_line: int
) -> Iterator[tuple[Envelope, int]]:
    """Yield the records of whole lines, each with the offset behind it, and note the damage between them."""
    start = offset
    for line in lines[:-1].split(b"\n") if lines else ():
        end = start + len(line) + 1
        try:
            if end - start > max_line:
                damage.append(_too_long(path, start, end - start))
            else:
                yield decode_line(line), end
        except NotARecord as error:
            if line.strip():
                damage.append(Damage(path, start, str(error)))
        start = end


def _too_long(path: Path, offset: int, length: int) -> Damage:
    return Damage(path, offset, f"a line of {length} bytes is too long for a record")


class JournalReader:
    """Reads all journal files of a run, each from its own position.

    Attributes:
        positions: for each writer, the offset to go on from.
        damaged: how many places were stepped over.
        damage: the first of them.
    """

    def __init__(self, folder: RunFolder, positions: Mapping[str, int] | None = None) -> None:
        self.folder = folder
        self.positions: dict[str, int] = dict(positions or {})
        self.damaged = 0
        self.damage: list[Damage] = []

    def __iter__(self) -> Iterator[Envelope]:
        """Yield the records up to the present end, writer by writer; the positions move with each of them.

        What was stepped over is told in one line of the log at the end.
        """
        told = self.damaged
        for wid, path in self.folder.journals().items():
            yield from self._records(wid, path)
        if self.damaged > told:
            log.warning(
                "%d places in the journals of %s hold no record and were stepped over; the first: %s",
                self.damaged - told, self.folder.path, self.damage[0],
            )  # fmt: skip

    def _records(self, wid: str, path: Path) -> Iterator[Envelope]:
        positions = self.positions
        offset = positions.get(wid, 0)
        while True:
            lines, after, damage = _read_lines(path, offset, STREAM_BYTES, MAX_LINE_BYTES)
            if after == offset:
                return
            try:
                for record, positions[wid] in _decoded(path, offset, lines, damage, MAX_LINE_BYTES):
                    yield record
            finally:
                self.damaged += len(damage)
                self.damage.extend(damage[: MAX_DAMAGE_NOTES - len(self.damage)])
            offset = positions[wid] = after


def recorded_run_id(folder: RunFolder) -> str | None:
    """Return the run id that the first record of the run carries; None if there is none that is text.

    It differs from the folder's name where the folder was copied or renamed; an event's identity is what it carries.
    """
    for path in folder.journals().values():
        # One that cannot be read says nothing of the others; whoever reads on is told so.
        with contextlib.suppress(JournalError):
            if (record := _first_record(path)) is not None:
                run_id = record.payload.get("run_id")
                return run_id if isinstance(run_id, str) and _RUN_ID.fullmatch(run_id) else None
    return None


def _first_record(path: Path) -> Envelope | None:
    """Return the first record of a file, whatever stands before it."""
    after, chunk = -1, read_chunk(path, 0, STREAM_BYTES)
    while not chunk.records and chunk.after != after:
        after = chunk.after
        chunk = read_chunk(path, after, STREAM_BYTES)
    return chunk.records[0] if chunk.records else None


def read_run(run_dir: str | os.PathLike[str]) -> Iterator[Envelope]:
    """Yield every record of a run folder, writer by writer (``main`` first), in bounded memory.

    Raises:
        JournalError: the folder holds no journal, or one cannot be read.
    """
    folder = RunFolder(Path(run_dir))
    if not folder.journals():
        raise JournalError(f"{folder.path} holds no journal (events.jsonl)")
    return iter(JournalReader(folder))
