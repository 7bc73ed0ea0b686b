"""Setting a destination back, so that records which it should have are delivered to it once more."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lezea_mlops.errors import JournalError
from lezea_mlops.journal import Cursor, CursorState, Position, RunFolder, read_chunk


def rewind(folder: RunFolder, destination: str, numbers: Mapping[str, int]) -> None:
    """Set the cursor of *destination* back, so that the delivery goes on with the records of these numbers.

    What the sink remembers stays. A cursor that stands before a record already is not moved: nothing is ever left out
    by this. Sinks are idempotent, so what comes a second time behind the record changes nothing. The caller holds the
    delivery lock, for a shipper at work would store its own position over this one.

    Args:
        folder: the run.
        destination: the name of its cursor, such as ``mlflow-1a2b3c4d``.
        numbers: by writer, the number of the first record that is to come again.

    Raises:
        JournalError: a journal cannot be read, or holds no such record.
        OSError: the file system refuses to store the cursor; it stays as it was.
    """
    cursor = Cursor(folder.cursor(destination))
    names = {path: name for name, path in folder.journals().items()}
    positions = dict(cursor.state.positions)
    for wid, seq in numbers.items():
        path = folder.journal(wid)
        # The cursor knows a writer by the name of its file, which has no other characters than a file may have.
        name = names.get(path, wid)
        before = position_before(path, seq)
        if before.offset < positions.get(name, Position()).offset:
            positions[name] = before
    if positions != cursor.state.positions:
        cursor.save(CursorState(positions, cursor.state.sink))


def position_before(path: Path, seq: int) -> Position:
    """Return the position from which the first record numbered *seq* or higher is read next.

    Raises:
        JournalError: the journal cannot be read, or holds no such record.
    """
    at = Position()
    while (chunk := read_chunk(path, at.offset)).after != at.offset:
        for record, end in zip(chunk.records, chunk.ends, strict=True):
            if record.seq >= seq:
                return at
            at = Position(end, record.seq)
        at = Position(chunk.after, at.seq)
    raise JournalError(
        f"{path} holds no record numbered {seq} or higher, the last is {at.seq}; was the journal cut or replaced?"
    )
