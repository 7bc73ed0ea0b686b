"""Finishers: functions that make files of a run that has ended, such as the page of its modification tree.

A finisher is named as ``package.module:function``, so that no layer imports one above it, and is called with the run
folder. It returns what it made; nothing, where the run holds nothing for it. Whoever has the right to deliver the run
runs it, once for each attempt, journals what it made as the writer ``courier``, and delivers that like every record.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from lezea_mlops._files import LifeLock
from lezea_mlops._lazy import require
from lezea_mlops.delivery import surprises_end_here
from lezea_mlops.errors import JournalError
from lezea_mlops.events import ArtifactLogged, RunFinished
from lezea_mlops.journal import (
    COURIER_WRITER,
    MAIN_WRITER,
    BlobStore,
    JournalWriter,
    RunFolder,
    is_writing,
    last_record,
    read_chunk,
    state_of,
)
from lezea_mlops.runtime.remembered import sync_command
from lezea_mlops.sinks.base import Unavailable

log = logging.getLogger("lezea_mlops")

ENDED = ("completed", "failed", "killed")
# The field of an artifact that says which finisher made it, and of how many files it is one.
MADE_BY = "finisher"
_BLOCK_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Made:
    """A file that a finisher made of a run.

    Attributes:
        name: where it stands among the run's files, such as ``evolution/tree.html``.
        content: its bytes; or the path of the file, which is taken as relative to the run folder.
        role: what it is, in a word.
    """

    name: str
    content: bytes | Path
    role: str


Finisher: TypeAlias = Callable[[RunFolder], Iterable[Made]]
# Gives None where another process has the right.
Right: TypeAlias = Callable[[], AbstractContextManager[LifeLock | None]]


@dataclass
class Finished:
    """What came of a run's finishers.

    Attributes:
        made: how many files were journaled now.
        failed: how many finishers raised, or made what cannot be kept.
    """

    made: int = 0
    failed: int = 0


def holds_events(folder: RunFolder, types: Collection[str]) -> bool:
    """Tell whether a run that has ended holds an event of one of these types, without decoding its journal.

    The summary of its end says so of ``main``. Only where there is none, or it is partial, and for further writers, the
    files are searched for the types' names, at the speed of the disk; then it may say so of one that is only named.

    Raises:
        JournalError: a journal cannot be read.
    """
    counts, is_whole = _counted(folder)
    if any(counts.get(name) for name in types):
        return True
    words = [f'"{name}"'.encode() for name in types]
    return any(
        _holds(path, words)
        for wid, path in folder.journals().items()
        if wid != COURIER_WRITER and not (wid == MAIN_WRITER and is_whole)
    )


def run_finishers(
    folder: RunFolder, right: Right, names: Sequence[str], *, main_is_closing: bool = False
) -> Finished:
    """Run the finishers of a run whose newest attempt has ended, and journal what they made; each at most once.

    The right to deliver is needed before and after a finisher, not while it works: a run that is resumed meanwhile need
    not wait for a page. One that fails costs a warning, and is tried again when the run is delivered the next time.

    Args:
        folder: the run.
        right: takes the right to deliver it, which is the right to write as ``courier``, for a with-block.
        names: the finishers, each as ``package.module:function``.
        main_is_closing: the process of ``main`` has told its end and waits for this; else it must be gone.
    """
    finished = Finished()
    try:
        with right() as lock:
            attempt = _attempt_to_finish(folder, main_is_closing) if names and lock is not None else None
            before = _made_before(folder, attempt) if attempt is not None else {}
    except (JournalError, OSError) as error:
        log.warning("what is made of the run in %s at its end cannot be made: %s", folder.path, error)
        return finished
    if attempt is None:
        return finished
    for name in names:
        if before.get(name, _Earlier()).is_all:
            continue
        try:
            with surprises_end_here(f"the finisher {name}"):
                finished.made += _run(folder, right, attempt, name)
        except Unavailable as error:
            _tell(folder, name, error)
            finished.failed += 1
    return finished


@dataclass
class _Earlier:
    """What a finisher made of an attempt before.

    Attributes:
        names: of its files, as many as were journaled.
        files: how many it made.
    """

    names: list[str] = field(default_factory=list)
    files: int = 1

    @property
    def is_all(self) -> bool:
        """Whether all of it was journaled: who did that may have been killed in the middle."""
        return len(self.names) >= self.files


def _attempt_to_finish(folder: RunFolder, main_is_closing: bool) -> int | None:
    """Return the number of the newest attempt if it has ended; None if it has not, or its process still writes."""
    if state_of(folder) not in ENDED or not (main_is_closing or is_writing(folder) is False):
        return None
    last = last_record(folder, MAIN_WRITER)
    return None if last is None else last.att


def _made_before(folder: RunFolder, attempt: int) -> dict[str, _Earlier]:
    """Return what was made of an attempt before, by finisher."""
    path, found = folder.journal(COURIER_WRITER), dict[str, _Earlier]()
    if not path.exists() or not _holds(path, [f'"{MADE_BY}"'.encode()]):
        return found
    offset, after = -1, 0
    while offset != after:
        offset = after
        chunk = read_chunk(path, offset)
        after = chunk.after
        for record in chunk.records:
            by = record.payload.get(MADE_BY)
            if record.type == ArtifactLogged.type and record.att == attempt and isinstance(by, Mapping):
                earlier = found.setdefault(str(by.get("name")), _Earlier())
                earlier.names.append(str(record.payload.get("name")))
                files = by.get("files")
                earlier.files = files if isinstance(files, int) else 1
    return found


def _run(folder: RunFolder, right: Right, attempt: int, name: str) -> int:
    """Run one finisher, journal those of its files that are not there yet, and return how many these are."""
    module, _, function = name.partition(":")
    needed_for = f"the finisher {name}"
    finisher: Finisher = getattr(require(module, package="lezea-mlops", needed_for=needed_for), function)
    made = list(finisher(folder))
    if not made:
        return 0
    with right() as lock:
        if lock is None:
            # Whoever has it now does this in the end.
            return 0
        return _journal(folder, lock, attempt, name, made)


def _journal(folder: RunFolder, lock: LifeLock, attempt: int, name: str, made: Sequence[Made]) -> int:
    there = _made_before(folder, attempt).get(name, _Earlier()).names
    blobs = BlobStore(folder.blobs)
    # All are captured before the first is journaled, so that hardly anything can come between the records.
    fields = [
        _captured(folder, blobs, one) | {MADE_BY: {"name": name, "files": len(made)}}
        for one in made
        if one.name not in there
    ]
    if fields:
        writer = JournalWriter(folder, COURIER_WRITER, attempt=attempt, lock=lock)
        try:
            for one in fields:
                writer.append(ArtifactLogged.type, one)
        finally:
            writer.close()
    return len(fields)


def _captured(folder: RunFolder, blobs: BlobStore, made: Made) -> dict[str, Any]:
    if isinstance(made.content, Path):
        path = folder.path / made.content
        captured = blobs.put_file(path, sys.maxsize)
        assert captured is not None, "no file is larger than that"
    else:
        path, captured = Path(made.name), blobs.put_bytes(made.content)
    return {
        "path": str(path), "name": made.name, "size": captured.size, "blob": captured.sha256,
        "sha256": captured.sha256, "role": made.role,
    }  # fmt: skip


def _tell(folder: RunFolder, name: str, error: Unavailable) -> None:
    log.warning(
        "the finisher %s failed for the run in %s, which is complete without it (%s); %s tries it again",
        name, folder.path, error, sync_command(folder),
    )  # fmt: skip


def _counted(folder: RunFolder) -> tuple[Mapping[str, Any], bool]:
    """Return how many events of each type ``main`` logged, as its end says, and whether these are all."""
    newest = last_record(folder, MAIN_WRITER)
    # The courier tells the end of an attempt that could not tell it itself.
    for last in (newest, last_record(folder, COURIER_WRITER)):
        if newest is None or last is None or last.type != RunFinished.type or last.att != newest.att:
            continue
        summary = last.payload.get("summary")
        if isinstance(summary, Mapping) and isinstance(counts := summary.get("events"), Mapping):
            return counts, not summary.get("partial")
    return {}, False


def _holds(path: Path, words: Sequence[bytes]) -> bool:
    """Tell whether a file holds one of *words*, in bounded memory."""
    return any(word in block for block in _overlapping(path, max(map(len, words))) for word in words)


def _overlapping(path: Path, overlap: int) -> Iterator[bytes]:
    """Yield a file in blocks, each of which begins with the last bytes of the one before."""
    try:
        with path.open("rb", buffering=0) as file:
            rest = b""
            while block := file.read(_BLOCK_BYTES):
                block = rest + block
                yield block
                rest = block[-overlap:]
    except OSError as error:
        raise JournalError(f"cannot read the journal {path}: {error}") from error
