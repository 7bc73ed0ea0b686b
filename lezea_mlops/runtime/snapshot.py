"""The stored figures of a run: what ``main`` journaled up to a position, so that nobody has to read it again.

``figures.json`` in the run folder is replaced as a whole. It is a shortcut and no promise: without it the figures come
from the journal again, by ``catch_up``.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from lezea_mlops._files import replace_atomically
from lezea_mlops.errors import JournalError
from lezea_mlops.journal import MAIN_WRITER, Position, RunFolder, last_numbers, read_chunk, stands_behind
from lezea_mlops.journal.tail import last_newline_before
from lezea_mlops.runtime.figures import RunFigures

log = logging.getLogger("lezea_mlops")

SNAPSHOT_VERSION = 1
# A constructor reads the file: one beyond this size is not of our making, or took too long to be of use.
MAX_SNAPSHOT_BYTES = 64 * 1024 * 1024
# So much of the journal is held at a time.
CHUNK_BYTES = 64 * 1024

START = Position()


def snapshot_file(folder: RunFolder) -> Path:
    """Return the file that holds the stored figures."""
    return folder.path / "figures.json"


def journal_end(folder: RunFolder) -> Position:
    """Return where the journal of ``main`` ends: behind its last whole line; the start if there is no journal.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with folder.journal(MAIN_WRITER).open("rb", buffering=0) as file:
            fd = file.fileno()
            end = last_newline_before(fd, os.fstat(fd).st_size)
            return Position(end, last_numbers(fd, end)[0])
    except FileNotFoundError:
        return START


def save_snapshot(folder: RunFolder, figures: RunFigures, position: Position) -> None:
    """Store *figures*, which count the journal of ``main`` up to *position*.

    Raises:
        OSError: the file system refuses; the stored figures stay as they were.
    """
    content = {"v": SNAPSHOT_VERSION, "main": [position.offset, position.seq], "figures": figures.state()}
    # Without fsync: what a power loss takes is read from the journal again.
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    replace_atomically(snapshot_file(folder), text.encode())


def load_snapshot(folder: RunFolder) -> tuple[RunFigures, Position]:
    """Return the stored figures and their position, in a time that does not grow with the journal.

    They are marked partial where they do not count the whole journal: it goes on behind them, was cut or replaced, or
    there are none although there is a journal. Called before a new attempt writes its first record.
    """
    figures, position = _stored(folder)
    try:
        end = journal_end(folder)
        if position != end:
            if not _fits(folder, position):
                figures, position = RunFigures(), START
            figures.mark_partial()
    except OSError as error:
        log.warning("the journal of %s cannot be read (%s); its summary is partial", folder.path, error)
        figures, position = RunFigures(), START
        figures.mark_partial()
    return figures, position


def catch_up(folder: RunFolder) -> RunFigures:
    """Return the figures of the whole journal of ``main``, and store them; in bounded memory.

    Reads what stands behind the stored figures; all of it where they are partial because events were not observed, or
    do not fit the journal. Where they cannot be stored that is logged, and the figures are returned all the same.

    Raises:
        JournalError: the journal cannot be read.
    """
    figures, position = _stored(folder)
    try:
        if figures.incomplete or not _fits(folder, position):
            figures, position = RunFigures(), START
    except OSError as error:
        raise JournalError(f"cannot read the journal {folder.journal(MAIN_WRITER)}: {error}") from error
    after = _read_on(folder, figures, position)
    if after != position:
        try:
            save_snapshot(folder, figures, after)
        except OSError as error:
            log.warning("the figures of %s cannot be stored: %s", folder.path, error)
    return figures


def _read_on(folder: RunFolder, figures: RunFigures, position: Position) -> Position:
    """Take the records behind *position*, and return where they end."""
    path = folder.journal(MAIN_WRITER)
    if not path.exists():
        return position
    damaged, first = 0, ""
    while True:
        chunk = read_chunk(path, position.offset, CHUNK_BYTES)
        if chunk.damage:
            damaged, first = damaged + len(chunk.damage), first or str(chunk.damage[0])
        if chunk.after == position.offset:
            break
        figures.read(chunk.records)
        position = Position(chunk.after, chunk.records[-1].seq if chunk.records else position.seq)
    if damaged:
        log.warning(
            "%d places in %s hold no record and are missing in its figures; the first: %s",
            damaged,
            path,
            first,
        )
    return position


def _fits(folder: RunFolder, position: Position) -> bool:
    """Tell whether *position* is a place of the journal as it is now; OSError if that cannot be read."""
    try:
        return stands_behind(folder.journal(MAIN_WRITER), position)
    except FileNotFoundError:
        return False


def _stored(folder: RunFolder) -> tuple[RunFigures, Position]:
    """Return what is stored; empty figures at the start if there is nothing, or nothing that can be used."""
    path = snapshot_file(folder)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SNAPSHOT_BYTES + 1)
        if len(content) > MAX_SNAPSHOT_BYTES:
            raise ValueError(f"it has more than {MAX_SNAPSHOT_BYTES} bytes")
        return _decoded(json.loads(content))
    except FileNotFoundError:
        return RunFigures(), START
    except (OSError, ValueError, RecursionError) as error:
        log.warning("the stored figures %s cannot be used (%s); they begin anew", path, error)
        return RunFigures(), START


def _decoded(content: Any) -> tuple[RunFigures, Position]:
    version = content.get("v") if isinstance(content, dict) else None
    if version != SNAPSHOT_VERSION:
        raise ValueError(f"expected stored figures of version {SNAPSHOT_VERSION}, found {version!r:.80}")
    position = content.get("main")
    whole = isinstance(position, list) and [type(number) for number in position] == [int, int]
    if not whole or min(position) < 0:
        raise ValueError(f"expected offset and number of the last record, found {position!r:.80}")
    return RunFigures.restored(content.get("figures")), Position(*position)
