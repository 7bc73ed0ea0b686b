"""Who writes a run now, and how its attempts ended: read from locks, ``alive.json`` and the journal, never stored."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lezea_mlops._clock import now_us
from lezea_mlops._files import Holder, read_holder
from lezea_mlops._process import process_is_stopped
from lezea_mlops.errors import JournalError
from lezea_mlops.events import Envelope, NotARecord, decode_line
from lezea_mlops.journal.layout import COURIER_WRITER, MAIN_WRITER, RunFolder
from lezea_mlops.journal.tail import last_record

# A driver renews alive.json every 10 s.
STALLED_AFTER_US = 60 * 1_000_000
LOST_AFTER_US = 5 * 60 * 1_000_000
_BLOCK = 4 * 1024 * 1024
_NEAR_BYTES = 1024 * 1024
# No record is as long as this.
_KEPT_BYTES = 4 * _BLOCK
_ENDS = (b'"run_started"', b'"run_start"', b'"run_finished"', b'"run_end"')


@dataclass(frozen=True)
class SignOfLife:
    """What the driver of a run said of itself last: time (UTC microseconds), pid, and what it knows of each sink."""

    ts: int
    pid: int
    sinks: Mapping[str, Mapping[str, Any]]


def read_sign_of_life(folder: RunFolder) -> SignOfLife | None:
    """Return the content of ``alive.json``; None if there is none that can be read."""
    try:
        content = json.loads(folder.alive.read_bytes())
        told = content.get("sinks")
        sinks = told if isinstance(told, dict) else {}
        return SignOfLife(
            int(content["ts"]), int(content["pid"]),
            {name: health for name, health in sinks.items() if isinstance(health, dict)},
        )  # fmt: skip
    except (OSError, ValueError, OverflowError, RecursionError, KeyError, TypeError, AttributeError):
        return None


def is_writing(folder: RunFolder, wid: str = MAIN_WRITER) -> bool | None:
    """Tell whether the writer *wid* is alive; None if only its host could tell.

    A writer on another host counts as gone when its driver has been silent for five minutes.
    """
    return _is_alive(folder, read_holder(folder.lock(wid)))


def _is_alive(folder: RunFolder, holder: Holder | None) -> bool | None:
    exists = False if holder is None else holder.process.exists()
    return False if exists is None and _silent_us(folder) > LOST_AFTER_US else exists


def state_of(folder: RunFolder) -> str:
    """Return what a person would say of the run: ``running``, ``stalled``, ``lost``, or how its last attempt ended.

    ``stalled``: its process exists and is stopped, or runs on another host whose driver has been silent for a minute.
    ``lost``: its process is gone and nobody has written down the end, or the other host has been silent for five.

    Raises:
        JournalError: a journal cannot be read.
    """
    # Who lives is asked first: a run that ends while its journal is read would else seem to be lost.
    holder = read_holder(folder.lock(MAIN_WRITER))
    alive = _is_alive(folder, holder)
    # The end stands near the end of its file; only a run that seems lost is searched whole.
    ended = _newest_status(folder, _NEAR_BYTES) or (_newest_status(folder) if alive is False else None)
    if ended is not None:
        return ended
    if holder is None or alive is False:
        return "lost"
    stalled = process_is_stopped(holder.process.pid) if alive else _silent_us(folder) > STALLED_AFTER_US
    return "stalled" if stalled else "running"


def _silent_us(folder: RunFolder) -> int:
    sign = read_sign_of_life(folder)
    if sign is not None:
        return now_us() - sign.ts
    try:
        # No driver ever spoke; then the journal itself is the only sign.
        return now_us() - folder.journal(MAIN_WRITER).stat().st_mtime_ns // 1_000
    except OSError:
        return 0


@dataclass(frozen=True)
class Attempt:
    """One attempt of a run.

    Attributes:
        number: from 1.
        started_ts: UTC microseconds; None if its start is not in the journal.
        status: how it ended; None if nobody has written that down.
        inferred: the end was written by somebody else.
    """

    number: int
    started_ts: int | None = None
    status: str | None = None
    inferred: bool = False


def _newest_status(folder: RunFolder, near_bytes: int | None = None) -> str | None:
    """Return how the newest attempt ended, as far as the last *near_bytes* of the journal tell."""
    last = last_record(folder, MAIN_WRITER)
    if last is None:
        return None
    # An attempt that begins or ends there is the newest; else the last record belongs to it.
    near = [record.att for record in _starts_and_ends(folder.journal(MAIN_WRITER), near_bytes)]
    newest = _read_attempts(folder, near_bytes).get(max(near, default=last.att))
    return newest.status if newest is not None else None


def read_attempts(folder: RunFolder) -> dict[int, Attempt]:
    """Return the attempts of the run by number; a real end beats an inferred one of the same attempt.

    Only the lines that begin or end an attempt are decoded, so that a journal of gigabytes takes seconds.

    Raises:
        JournalError: a journal cannot be read.
    """
    return _read_attempts(folder, None)


def _read_attempts(folder: RunFolder, near_bytes: int | None) -> dict[int, Attempt]:
    attempts: dict[int, Attempt] = {}
    for path in (folder.journal(MAIN_WRITER), folder.journal(COURIER_WRITER)):
        for record in _starts_and_ends(path, near_bytes):
            known = attempts.get(record.att, Attempt(record.att))
            attempts[record.att] = _with(known, record)
    return attempts


def _with(known: Attempt, record: Envelope) -> Attempt:
    if record.type == "run_started":
        first = record.ts if known.started_ts is None else min(known.started_ts, record.ts)
        return Attempt(known.number, first, known.status, known.inferred)
    inferred = bool(record.payload.get("inferred"))
    if record.meta.get("late") or (known.status is not None and (inferred or not known.inferred)):
        return known
    return Attempt(known.number, known.started_ts, str(record.payload.get("status", "failed")), inferred)


def _starts_and_ends(path: Path, near_bytes: int | None) -> Iterator[Envelope]:
    for line in _lines_with(path, _ENDS, near_bytes):
        try:
            record = decode_line(line)
        except NotARecord:
            continue
        if record.type in ("run_started", "run_finished"):
            yield record


def _lines_with(path: Path, words: tuple[bytes, ...], near_bytes: int | None) -> Iterator[bytes]:
    """Yield the whole lines of a file that hold one of *words*, in bounded memory and without splitting the others.

    With *near_bytes* only so many of its last bytes are looked at; what is left of a line in front of them is no line.
    """
    try:
        with path.open("rb", buffering=0) as file:
            if near_bytes is not None:
                file.seek(max(0, os.fstat(file.fileno()).st_size - near_bytes))
            rest = b""
            while block := file.read(_BLOCK):
                block = rest + block
                end = block.rfind(b"\n") + 1
                yield from _matching(block, end, words)
                # A line that is longer than any record is let go; what it holds is none.
                rest = block[end:] if len(block) - end < _KEPT_BYTES else b""
    except FileNotFoundError:
        return
    except OSError as error:
        raise JournalError(f"cannot read the journal {path}: {error}") from error


def _matching(block: bytes, end: int, words: tuple[bytes, ...]) -> Iterator[bytes]:
    starts = set()
    for word in words:
        at = block.find(word, 0, end)
        while at >= 0:
            starts.add(block.rfind(b"\n", 0, at) + 1)
            at = block.find(word, block.find(b"\n", at, end), end)
    for start in sorted(starts):
        yield block[start : block.find(b"\n", start)]
