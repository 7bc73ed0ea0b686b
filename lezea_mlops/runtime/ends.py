"""The end of an attempt whose process died without telling one, written down by whoever delivers the run."""

from __future__ import annotations

import logging
import signal
from typing import Any

from lezea_mlops._files import LifeLock, read_holder
from lezea_mlops._process import boot_id
from lezea_mlops.errors import JournalError
from lezea_mlops.events import RunFinished
from lezea_mlops.journal import (
    COURIER_WRITER,
    MAIN_WRITER,
    Attempt,
    JournalWriter,
    RunFolder,
    is_writing,
    last_record,
    read_attempts,
    read_sign_of_life,
)

log = logging.getLogger("lezea_mlops")

# What a signal handler notes in the writer's lock; see ``signals``.
SIGNAL_NOTE = "signal"


def write_missing_ends(folder: RunFolder, lock: LifeLock) -> int:
    """Journal ``run_finished`` for every attempt that has none and whose process is gone, one for each.

    Where that cannot be done, a warning says so, and the rest of the run can be delivered nevertheless.

    Args:
        folder: the run.
        lock: the right to deliver it, which is the right to write as ``courier``.

    Returns:
        How many ends were written.
    """
    try:
        return _write_missing_ends(folder, lock)
    except (JournalError, OSError) as error:
        log.warning("the end of the run in %s cannot be written down: %s", folder.path, error)
        return 0


def _write_missing_ends(folder: RunFolder, lock: LifeLock) -> int:
    if is_writing(folder) is not False and not _was_resumed(folder):
        return 0
    attempts = read_attempts(folder)
    gone = is_writing(folder) is False
    missing = [
        attempt
        for number, attempt in sorted(attempts.items())
        if attempt.status is None and (gone or number < max(attempts))
    ]
    for attempt in missing:
        is_newest = attempt.number == max(attempts)
        fields = _end_of(folder, attempt) if is_newest else _end_unseen()
        writer = JournalWriter(folder, COURIER_WRITER, attempt=attempt.number, lock=lock)
        try:
            writer.append(RunFinished.type, fields)
        finally:
            writer.close()
    return len(missing)


def _was_resumed(folder: RunFolder) -> bool:
    """Tell whether the run has a second attempt, so that an earlier one may lack its end while this one lives."""
    last = last_record(folder, MAIN_WRITER)
    return last is not None and last.att > 1


def _end_of(folder: RunFolder, attempt: Attempt) -> dict[str, Any]:
    """Return the fields of the newest attempt's end, from what its process left behind."""
    last = last_record(folder, MAIN_WRITER)
    sign = read_sign_of_life(folder)
    seen = max(last.ts if last is not None else 0, sign.ts if sign is not None else 0)
    fields: dict[str, Any] = {"status": "killed", "reason": _reason(folder), "inferred": True}
    if seen:
        fields["ended_at"] = seen
        if attempt.started_ts is not None:
            fields["duration_ms"] = max(0, seen - attempt.started_ts) // 1_000
    return fields


def _end_unseen() -> dict[str, Any]:
    reason = "the process ended without a word, and the run was resumed before anybody wrote that down"
    return {"status": "killed", "reason": reason, "inferred": True}


def _reason(folder: RunFolder) -> str:
    holder = read_holder(folder.lock(MAIN_WRITER))
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
    return f"the process ended without a word: {signal.Signals(9).name}, out of memory, or os._exit"
