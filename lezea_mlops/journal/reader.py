"""Reading journals: from a position, up to so many bytes, following a file that grows.

Reading never trusts: an unfinished last line is left for later, a whole line that is no record is reported with its
place, counted and stepped over, and a line beyond the limit is stepped over without being held in memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lezea_mlops.errors import JournalError
from lezea_mlops.events import MAX_LINE_BYTES, Envelope, NotARecord, decode_line
from lezea_mlops.journal.layout import RunFolder

CHUNK_BYTES = 1024 * 1024
MAX_DAMAGE_NOTES = 100


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
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if offset > size:
                raise JournalError(
                    f"{path} has {size} bytes, and the reader's position is {offset}: the file was cut or replaced"
                )
            return _read_lines(path, file.fileno(), offset, min(size, offset + max_bytes), size, max_line)
    except OSError as error:
        raise JournalError(f"cannot read the journal {path}: {error}") from error


def _read_lines(path: Path, fd: int, offset: int, end: int, size: int, max_line: int) -> Chunk:
    data = _read_exactly(fd, offset, end)
    # A line longer than the chunk: read on until its newline, or give it up beyond the limit.
    while (cut := data.rfind(b"\n")) < 0 and end < size:
        if len(data) > max_line:
            return _step_over(path, fd, offset, end, size)
        end = min(size, end + CHUNK_BYTES)
        data = _read_exactly(fd, offset, end)
    chunk = Chunk(after=offset + cut + 1)
    position = offset
    for line in data[: cut + 1].split(b"\n")[:-1]:
        start, position = position, position + len(line) + 1
        try:
            record = decode_line(line)
        except NotARecord as error:
            if line.strip():
                chunk.damage.append(Damage(path, start, str(error)))
            continue
        chunk.records.append(record)
        chunk.ends.append(position)
    return chunk


def _read_exactly(fd: int, start: int, end: int) -> bytes:
    parts = []
    while start < end and (part := os.pread(fd, end - start, start)):
        parts.append(part)
        start += len(part)
    return b"".join(parts)


def _step_over(path: Path, fd: int, start: int, position: int, size: int) -> Chunk:
    """Find the end of a line that is too long to be one of ours, holding one chunk of it at a time."""
    while position < size:
        part = os.pread(fd, CHUNK_BYTES, position)
        found = part.find(b"\n")
        if found >= 0:
            after = position + found + 1
            return Chunk(after=after, damage=[Damage(path, start, f"a line of {after - start} bytes")])
        position += len(part)
    return Chunk(after=start)


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
        """Yield the records up to the present end, writer by writer, and move the positions."""
        for wid, path in self.folder.journals().items():
            while chunk := self.next_chunk(wid, path):
                yield from chunk.records

    def next_chunk(self, wid: str, path: Path, max_bytes: int = CHUNK_BYTES) -> Chunk | None:
        """Read on in one file; None if there is nothing new."""
        offset = self.positions.get(wid, 0)
        chunk = read_chunk(path, offset, max_bytes)
        if chunk.after == offset:
            return None
        self.positions[wid] = chunk.after
        self.damaged += len(chunk.damage)
        self.damage.extend(chunk.damage[: MAX_DAMAGE_NOTES - len(self.damage)])
        return chunk


def read_run(run_dir: str | os.PathLike[str]) -> Iterator[Envelope]:
    """Yield every record of a run folder, writer by writer (``main`` first), in bounded memory.

    Raises:
        JournalError: the folder holds no journal, or one cannot be read.
    """
    folder = RunFolder(Path(run_dir))
    if not folder.journals():
        raise JournalError(f"{folder.path} holds no journal (events.jsonl)")
    return iter(JournalReader(folder))
