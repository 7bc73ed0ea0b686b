"""The end of an attempt whose process died without telling one, written down by whoever delivers or resumes the run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lezea_mlops._files import Holder, LifeLock, read_holder
from lezea_mlops._process import boot_id
from lezea_mlops.errors import JournalError
from lezea_mlops.events import Cleaner, Envelope, ResourceTotals, RunFinished
from lezea_mlops.journal import (
    COURIER_WRITER,
    MAIN_WRITER,
    Attempt,
    BlobStore,
    JournalWriter,
    RunFolder,
    SignOfLife,
    is_writing,
    last_record,
    read_attempts,
    read_sign_of_life,
)
from lezea_mlops.runtime.files import FileCapture
from lezea_mlops.runtime.snapshot import catch_up
from lezea_mlops.runtime.totals import with_totals

log = logging.getLogger("lezea_mlops")

# Reading more takes longer than the truth about the end may wait.
MAX_SUMMARY_BYTES = 64 * 1024 * 1024
# What a signal handler notes in the writer's lock; see ``signals``.
SIGNAL_NOTE = "signal"


@dataclass(frozen=True)
class LeftBehind:
    """What the process of an attempt left when it was gone: its name in the lock, its last record and sign of life."""

    holder: Holder | None
    last: Envelope | None
    sign: SignOfLife | None

    @classmethod
    def read(cls, folder: RunFolder) -> LeftBehind:
        """Read it.

        Raises:
            JournalError: the journal cannot be read.
        """
        holder = read_holder(folder.lock(MAIN_WRITER))
        return cls(holder, last_record(folder, MAIN_WRITER), read_sign_of_life(folder))


def write_missing_ends(folder: RunFolder, lock: LifeLock) -> int:
    """Journal ``run_finished`` for every attempt that has none and whose process is gone, one for each.

    Args:
        folder: the run.
        lock: the right to deliver it, which is the right to write as ``courier``.

    Returns:
        How many ends were written.

    Raises:
        JournalError: a journal cannot be read, or not be written.
        OSError: the file system refuses.
    """
    left = LeftBehind.read(folder) if is_writing(folder) is False else None
    if left is None and not _was_resumed(folder):
        return 0
    attempts = read_attempts(folder)
    # Asked once more behind the journal: a process that resumed the run meanwhile is not gone.
    gone = left is not None and is_writing(folder) is False
    return _write_missing_ends(folder, lock, attempts, left, newest_too=gone, with_summary=gone)


def newest_attempt(folder: RunFolder) -> tuple[int, bool] | None:
    """Return the number of the newest attempt and whether its process is gone: while both stay, no end becomes missing.

    None if the journal cannot be read, or holds nothing.
    """
    try:
        last = last_record(folder, MAIN_WRITER)
    except JournalError:
        return None
    return None if last is None else (last.att, is_writing(folder) is False)


def write_ends_before_resuming(folder: RunFolder, left: LeftBehind) -> None:
    """Journal the missing end of the attempts before the one that this process is about to begin.

    It holds the lock of ``main`` by now, so the process before it is gone; why, stands in what it left, and nowhere
    else any more. Where a courier of that process still delivers, it has told the end itself. Where the end cannot be
    written down, a warning says so, and the run goes on.

    Args:
        folder: the run.
        left: what was there before this process took the lock.
    """
    if left.last is None or left.last.type == RunFinished.type:
        return
    try:
        lock = LifeLock.take(folder.lock(COURIER_WRITER))
        if lock is None:
            return
        try:
            _write_missing_ends(folder, lock, read_attempts(folder), left, newest_too=True)
        finally:
            lock.release()
    except (JournalError, OSError) as error:
        warn_of_missing_end(folder, error)


def warn_of_missing_end(folder: RunFolder, error: Exception) -> None:
    """Say that an end cannot be written down, for whoever has better things to do than to raise."""
    log.warning("the end of the run in %s cannot be written down: %s", folder.path, error)


def _write_missing_ends(
    folder: RunFolder,
    lock: LifeLock,
    attempts: Mapping[int, Attempt],
    left: LeftBehind | None,
    *,
    newest_too: bool,
    with_summary: bool = False,
) -> int:
    newest = max(attempts, default=0)
    missing = [
        attempt
        for number, attempt in sorted(attempts.items())
        if attempt.status is None and (newest_too or number < newest)
    ]
    for attempt in missing:
        seen = left is not None and left.last is not None and left.last.att == attempt.number
        fields = _end_of(attempt, left) if left is not None and seen else _end_unseen()
        if with_summary and attempt.number == newest:
            fields |= _summary(folder, attempt.number)
        writer = JournalWriter(folder, COURIER_WRITER, attempt=attempt.number, lock=lock)
        try:
            writer.append(RunFinished.type, fields)
        finally:
            writer.close()
    return len(missing)


def _summary(folder: RunFolder, attempt: int) -> dict[str, Any]:
    """Return the summary of a run that could not write one itself; nothing of a run that takes long to read."""
    if folder.journal(MAIN_WRITER).stat().st_size > MAX_SUMMARY_BYTES:
        return {}
    clean = Cleaner(FileCapture(BlobStore(folder.blobs), "copy", 0).store_blob, None).clean
    summary = catch_up(folder).summary()
    totals = last_record(folder, COURIER_WRITER)
    if totals is not None and totals.type == ResourceTotals.type and totals.att == attempt:
        # What was sampled stands in no record of ``main``.
        summary = with_totals(summary, totals.payload)
    return {"summary": clean(summary)}


def _was_resumed(folder: RunFolder) -> bool:
    """Tell whether the run has a second attempt, so that an earlier one may lack its end while this one lives."""
    last = last_record(folder, MAIN_WRITER)
    return last is not None and last.att > 1


def _end_of(attempt: Attempt, left: LeftBehind) -> dict[str, Any]:
    """Return the fields of an attempt's end, from what its process left behind."""
    fields: dict[str, Any] = {"status": "killed", "reason": _reason(left.holder), "inferred": True}
    seen = max(sign.ts for sign in (left.last, left.sign) if sign is not None)
    fields["ended_at"] = seen
    if attempt.started_ts is not None:
        fields["duration_ms"] = max(0, seen - attempt.started_ts) // 1_000
    return fields


def _end_unseen() -> dict[str, Any]:
    reason = "the process ended without a word, and the run was resumed before anybody wrote that down"
    return {"status": "killed", "reason": reason, "inferred": True}


def _reason(holder: Holder | None) -> str:
    if holder is None:
        return "the process ended without a word"
    noted = holder.note.get(SIGNAL_NOTE)
    if isinstance(noted, str):
        return noted
    process = holder.process
    if process.exists() is None:
        return f"no sign of life from process {process.pid} on {process.host}"
    if process.boot_id != boot_id():
        return "the machine was restarted"
    return "the process ended without a word: by SIGKILL, for want of memory, by a crash or by os._exit"
