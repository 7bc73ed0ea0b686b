"""The writer of one journal file: a call that returned is in the file, whatever dies next.

Invariants of the file:

1. One record is one line of strict JSON, written by one ``os.write`` on an ``O_APPEND`` descriptor, newline last.
2. A line is whole when ``append`` returns. It survives the death of the process; it survives the death of the
   machine once it was fsynced, which is the durability policy's business.
3. An unfinished last line was never acknowledged. Opening for append cuts it off.
4. Numbers ``seq`` start at 1 and grow by 1. Where records could not be written (a full disk) a ``gap`` record
   follows, as soon as writing works again, that names the missing numbers.
5. One process writes one file; the lock beside it is held for life.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from time import time_ns
from typing import Any

from lezea_mlops._clock import now_us
from lezea_mlops._files import LifeLock, open_private, read_holder
from lezea_mlops._process import ProcessIdentity
from lezea_mlops.errors import JournalBusyError, JournalError, LineTooLongError, NotSyncedError
from lezea_mlops.events import (
    MAX_LINE_BYTES,
    Gap,
    ScopePairs,
    encode_json,
    line_template,
)
from lezea_mlops.journal.cursor import highest_delivered
from lezea_mlops.journal.layout import RunFolder
from lezea_mlops.journal.tail import cut_torn_tail, last_numbers

DURABILITY = ("process", "interval", "record")
_SYNC_AFTER_US = {"process": 2**63, "interval": 1_000_000, "record": 0}
# A line has room for the fields, and for the envelope around them.
MAX_ENVELOPE_BYTES = 64 * 1024
MAX_FIELDS_BYTES = MAX_LINE_BYTES - MAX_ENVELOPE_BYTES
MAX_TEMPLATES = 10_000


class JournalWriter:
    """Appends records to one journal file; not safe for several threads: the caller holds a lock.

    Args:
        folder: the run.
        wid: the writer's name.
        attempt: the attempt that records belong to; None: the one after the file's last.
        durability: when lines also survive a power loss.
        lock: the writer's lock where the caller holds it already, and keeps it; None takes it.

    Attributes:
        seq: number of the last record, written or lost.
        size_bytes: end of the last whole line.
        torn_bytes: what opening cut off from an unfinished last line.
        lost: records that could not be written since opening.
        last_ts: time stamp of the last record, UTC microseconds.
    """

    def __init__(
        self,
        folder: RunFolder,
        wid: str,
        *,
        attempt: int | None = None,
        durability: str = "interval",
        lock: LifeLock | None = None,
    ) -> None:
        self.wid = wid
        self.path = folder.journal(wid)
        self.lost = 0
        self._run_id = folder.run_id
        self._durability = durability
        self._sync_after_us = _SYNC_AFTER_US[durability]
        self._templates: dict[Any, bytes] = {}
        self._last_type, self._last_template = "", b""
        self._last_scope: ScopePairs = ()
        self._gap_first: int | None = None
        self._gap_reason = ""
        self._newline_first = False
        self._fd = -1
        self._lock = lock if lock is not None else _take_lock(folder, wid)
        self._owns_lock = lock is None
        try:
            self._fd = open_private(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            self.size_bytes, self.torn_bytes = cut_torn_tail(self._fd)
            self.seq, last_attempt = last_numbers(self._fd, self.size_bytes)
            self._never_number_twice(highest_delivered(folder, wid))
        except OSError as error:
            if self._owns_lock:
                # The lock names this process, which lives on: nobody may take it for the writer.
                self._lock.release()
            self.abandon()
            raise JournalError(f"cannot open the journal {self.path}: {error}") from error
        self.attempt = attempt if attempt is not None else last_attempt + 1
        self.last_ts = now_us()
        # With the policy ``process`` no sync is ever due, whatever the clock does.
        self._synced_us = 0 if durability == "process" else self.last_ts
        self._synced_size = self.size_bytes

    def append(
        self,
        type_name: str,
        fields: Mapping[str, Any],
        scope: ScopePairs = (),
        auto: bool = False,
        late: bool = False,
    ) -> None:
        """Write one record.

        Args:
            type_name: the event type.
            fields: the event's fields, cleaned; one at least.
            scope: (level, id) pairs, outermost first.
            auto: the step was counted by us.
            late: the record comes after the end of the run.

        Raises:
            LineTooLongError: nothing was written; the fields must become shorter.
            ValueError: nothing was written; there are no fields.
            JournalError: the record is not in the file; it is counted, and a ``gap`` record will say so. Or it is in
                the file and could not be fsynced, as the text then says.
        """
        # This is what every log call waits for: as few calls and look-ups as can be.
        encoded = encode_json(fields)
        if not 2 < len(encoded) <= MAX_FIELDS_BYTES:
            raise _unfit(type_name, len(encoded))
        if type_name is self._last_type and scope is self._last_scope and not auto and not late:
            template = self._last_template
        else:
            template = self._template(type_name, scope, auto, late)
        if self._gap_first is not None:
            self._close_gap()
        self.seq = seq = self.seq + 1
        self.last_ts = ts = time_ns() // 1_000
        line = template % (seq, ts, encoded[1:])
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            raise self._lost(error) from error
        if written != len(line):
            raise self._lost(self._take_back(written, len(line)))
        self.size_bytes += written
        # The wall clock may jump back; then a sync is due at once rather than in hours.
        if not 0 <= ts - self._synced_us < self._sync_after_us:
            self._sync_now()

    @property
    def sync_after_us(self) -> int:
        """How long after a sync an append syncs itself; a driver that syncs sets it higher.

        Only the policy ``interval`` lets it be set: ``record`` and ``process`` are what they are with any driver.
        """
        return self._sync_after_us

    @sync_after_us.setter
    def sync_after_us(self, value: int) -> None:
        if self._durability == "interval":
            self._sync_after_us = value

    def prepare_note(self, note: Mapping[str, str]) -> Callable[[], object]:
        """Return a function that notes something in the writer's lock by one system call."""
        return self._lock.prepare_note(note)

    def sync(self) -> None:
        """Make all lines survive a power loss, unless the policy is ``process``.

        Safe to call from another thread than ``append``.

        Raises:
            OSError: the file system refuses.
        """
        if self._durability == "process":
            return
        size = self.size_bytes
        if size != self._synced_size and self._fd >= 0:
            os.fsync(self._fd)
            self._synced_size = size
        self._synced_us = now_us()

    def _sync_now(self) -> None:
        try:
            self.sync()
        except OSError as error:
            raise NotSyncedError(f"what is in {self.path} could not be fsynced: {error}") from error

    def close(self) -> None:
        """Say what is missing, fsync unless the policy is ``process``, close the file, give the lock back.

        Raises:
            JournalError: the fsync failed; file and lock are closed nevertheless.
        """
        if self._fd < 0:
            return
        try:
            if self._gap_first is not None:
                # Where this fails too, those who lost records were told at each call.
                self._write_gap()
            self._sync_now()
        finally:
            if self._owns_lock:
                self._lock.release()
            self.abandon()

    def abandon(self) -> None:
        """Close the descriptors and do nothing else: what a forked child does with its parent's journal."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._owns_lock:
            self._lock.forget()

    def _never_number_twice(self, delivered: int) -> None:
        """Go on behind the last delivered number where the file, cut by a power loss, ends before it."""
        if delivered > self.seq:
            self._gap_first = self.seq + 1
            self._gap_reason = "these records were delivered, and a power loss took them from the journal"
            self.seq = delivered

    def _template(self, type_name: str, scope: ScopePairs, auto: bool, late: bool) -> bytes:
        key = (type_name, scope, auto, late)
        template = self._templates.get(key)
        if template is None:
            if len(self._templates) >= MAX_TEMPLATES:
                self._templates.clear()
            template = line_template(
                type_name,
                run_id=self._run_id,
                wid=self.wid,
                att=self.attempt,
                scope=scope,
                auto=auto,
                late=late,
            )
            # The numbers that it will be filled with are a few digits longer than their places.
            if len(template) > MAX_ENVELOPE_BYTES - 64:
                raise LineTooLongError(
                    f"{len(template)} bytes of scopes around {type_name} do not fit a line"
                )
            self._templates[key] = template
        if not auto and not late:
            self._last_type, self._last_scope, self._last_template = type_name, scope, template
        return template

    def _take_back(self, written: int, expected: int) -> OSError:
        """Cut off the part of a line that was written, and return what happened."""
        try:
            # The system's own size: ours may lag behind, if a signal's exception once came between write and count.
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
        except OSError:
            # The half line stays: a newline before the next record keeps it from damaging that one.
            self._newline_first = True
            self.size_bytes += written
        return OSError(f"only {written} of {expected} bytes were written")

    def _lost(self, error: OSError) -> JournalError:
        """Remember that the record with the present number is not in the file."""
        self.lost += 1
        if self._gap_first is None:
            self._gap_first, self._gap_reason = self.seq, str(error)
        return JournalError(f"cannot write to the journal {self.path}: {error}")

    def _close_gap(self) -> None:
        """Say which records are missing; while that cannot be written, the next record is missing too.

        A record that is shorter than the gap's might still fit. It would stand among the numbers that the gap
        later declares lost, and behind half a line that could not be cut off.
        """
        error = self._write_gap()
        if error is not None:
            self.seq += 1
            self.last_ts = now_us()
            raise self._lost(error)

    def _write_gap(self) -> OSError | None:
        """Try to write the ``gap`` record, and return why it cannot be done."""
        assert self._gap_first is not None
        first, last = self._gap_first, self.seq
        gap = {"count": last - first + 1, "first_seq": first, "last_seq": last, "reason": self._gap_reason}
        template = line_template(Gap.type, run_id=self._run_id, wid=self.wid, att=self.attempt)
        line = template % (last + 1, now_us(), encode_json(gap)[1:])
        if self._newline_first:
            line = b"\n" + line
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            return error
        if written != len(line):
            return self._take_back(written, len(line))
        self.seq = last + 1
        self.size_bytes += written
        self._gap_first, self._newline_first = None, False
        return None


def _unfit(type_name: str, encoded_bytes: int) -> Exception:
    if encoded_bytes > MAX_FIELDS_BYTES:
        return LineTooLongError(f"{encoded_bytes} bytes of {type_name} do not fit a line")
    return ValueError(f"a record of type {type_name!r} needs one field at least")


def _holds_itself(path: Path) -> bool:
    holder = read_holder(path)
    return holder is not None and holder.process == ProcessIdentity.of_this_process()


def _take_lock(folder: RunFolder, wid: str) -> LifeLock:
    try:
        lock = LifeLock.take(folder.lock(wid))
    except OSError as error:
        raise JournalError(f"cannot lock the journal in {folder.path}: {error}") from error
    if lock is None and _holds_itself(folder.lock(wid)):
        raise JournalBusyError(
            f"the run {folder.run_id} is open in this process already; call end() on its tracker first"
        )
    if lock is None:
        raise JournalBusyError(
            f"the writer {wid!r} of the run {folder.run_id} is alive in another process "
            f"({folder.lock(wid)} names it); give this one its own experiment_id, or wait for the other to end"
        )
    return lock
