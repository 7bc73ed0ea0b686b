"""The only code that moves records: from the journal, past a cursor, to a sink."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from lezea_mlops._clock import MonotonicClock, now_us
from lezea_mlops._files import make_private_folder, open_private
from lezea_mlops.delivery.breaker import Breaker
from lezea_mlops.delivery.health import SinkHealth, without_secrets
from lezea_mlops.delivery.surprises import surprises_end_here
from lezea_mlops.errors import JournalError
from lezea_mlops.events import FORMAT_VERSION, Envelope, encode_envelope
from lezea_mlops.journal import (
    MAIN_WRITER,
    Cursor,
    CursorState,
    Damage,
    Position,
    RunFolder,
    read_chunk,
    recorded_run_id,
    stands_behind,
)
from lezea_mlops.sinks.base import Rejected, Run, Sink, Unavailable, destination_id

log = logging.getLogger("lezea_mlops")

BATCH_BYTES = 1024 * 1024

# A record that a sink never takes, and why.
Refused = tuple[Envelope, str]


class Step(Enum):
    """What one step of a shipper did."""

    SHIPPED = "shipped"
    IDLE = "idle"
    PAUSED = "paused"
    FAILED = "failed"


@dataclass(frozen=True)
class _Batch:
    """The records that one writer's file holds beyond the cursor, and where the cursor is to go."""

    wid: str
    records: list[Envelope]
    after: Position
    damage: list[Damage]


class Shipper:
    """Carries one run's records to one sink.

    Attributes:
        health: what is known of this delivery.
        breaker: when the next try is due.
    """

    def __init__(
        self, folder: RunFolder, sink: Sink, clock: MonotonicClock, breaker: Breaker | None = None
    ) -> None:
        self.sink = sink
        self.breaker = breaker or Breaker()
        self.health = SinkHealth(destination_id(sink), clock)
        self._batch_bytes: int = getattr(sink, "batch_bytes", BATCH_BYTES)
        self._folder = folder
        self._clock = clock
        self._open = False
        # It was asked to open, and may hold connections though that failed.
        self._to_close = False
        self._last_writer = ""
        # Writers whose file could not be read when it was tried last.
        self._unreadable: set[str] = set()
        self.read_cursor()

    def read_cursor(self) -> None:
        """Take the stored position: at first, and where another process may have moved it."""
        self._cursor = Cursor(self._folder.cursor(self.health.destination))
        # Writers whose file was found to be the one that the cursor speaks of.
        self._trusted: set[str] = set()

    @property
    def positions(self) -> dict[str, Position]:
        """Where the destination stands, by writer."""
        return dict(self._cursor.state.positions)

    def ship_once(self) -> Step:
        """Move at most one batch.

        Returns:
            SHIPPED: a batch was taken and the cursor moved. IDLE: nothing is waiting. PAUSED: a pause after
            failures lasts on. FAILED: the sink did not take it; the same records come again.
        """
        if not self.breaker.allows(self._clock()):
            return Step.PAUSED
        try:
            batch = self._next_batch()
            if batch is None:
                self.health.has_all()
                return Step.IDLE
            refused, state = self._hand_over(batch.records)
            for record, reason in refused:
                self._set_aside(record, reason)
            self._cursor.save(CursorState(self.positions | {batch.wid: batch.after}, state))
        except Unavailable as error:
            # Half a batch may have been taken; the sink looks anew at what is there.
            self._open = False
            return self._failed(error.reason, str(error))
        except (JournalError, OSError) as error:
            return self._failed("journal", str(error))
        self._last_writer = batch.wid
        self.breaker.succeeded()
        self.health.took(len(batch.records) - len(refused), is_well=not self._unreadable)
        self.health.stepped_over(batch.damage)
        self._tell_of_newer_formats(batch.records)
        for record, reason in refused:
            self.health.refused(f"{record.wid}/{record.seq} ({record.type})", reason)
        return Step.SHIPPED

    def look(self) -> Step:
        """Let the sink open the run though nothing waits, so that one which is not there any more is noticed.

        Returns:
            IDLE: it is there. FAILED: it is not, or the destination cannot be asked.
        """
        try:
            self._hand_over([])
        except Unavailable as error:
            self._open = False
            return self._failed(error.reason, str(error))
        return Step.IDLE

    def _tell_of_newer_formats(self, records: Sequence[Envelope]) -> None:
        if newer := [record for record in records if record.version > FORMAT_VERSION]:
            self.health.told_once(
                "version",
                f"{self._folder.path} holds records of format version {newer[0].version}, and this program knows "
                f"{FORMAT_VERSION}; they are delivered as far as they are understood. Update lezea-mlops",
            )

    def close(self) -> None:
        """Close the sink."""
        if self._to_close:
            self._open = self._to_close = False
            try:
                with surprises_end_here(f"the sink {self.sink.name}", self.health.last_error):
                    self.sink.close()
            except Unavailable as error:
                log.debug("closing %s: %s", self.health.destination, error)

    def _next_batch(self) -> _Batch | None:
        """Read on where the cursor stands: the writers take turns, and ``main`` is the first.

        Raises:
            JournalError, OSError: a file cannot be read, and no other one holds anything that waits.
        """
        journals = self._folder.journals()
        for wid in self._cursor.state.positions.keys() - journals.keys():
            self.health.told_once(
                f"gone {wid}", f"{self._folder.journal(wid)} is gone; it was delivered in part"
            )
        wrong: JournalError | OSError | None = None
        self._unreadable &= journals.keys()
        for wid in self._turns(list(journals)):
            try:
                at = self._position(wid, journals[wid])
                chunk = read_chunk(journals[wid], at.offset, self._batch_bytes)
            except (JournalError, OSError) as error:
                self._trusted.discard(wid)
                self._unreadable.add(wid)
                wrong = wrong or error
                continue
            self._unreadable.discard(wid)
            if chunk.after != at.offset:
                seq = chunk.records[-1].seq if chunk.records else at.seq
                return _Batch(wid, chunk.records, Position(chunk.after, seq), chunk.damage)
        if wrong is not None:
            raise wrong
        return None

    def _position(self, wid: str, path: Path) -> Position:
        """Return where to go on in a writer's file: at its beginning if it is not the file that the cursor knows."""
        at = self._cursor.state.positions.get(wid, Position())
        if wid in self._trusted:
            return at
        known = stands_behind(path, at)
        self._trusted.add(wid)
        if known:
            return at
        reason = f"record {at.seq} does not end here: the file was cut or replaced, and is delivered from its beginning"
        self._cursor.forget(wid)
        # Told now, for a file that was cut to nothing brings no batch to tell it with.
        self.health.stepped_over([Damage(path, at.offset, reason)])
        return Position()

    def _turns(self, writers: list[str]) -> list[str]:
        """Return the writers, the one after the last that was served first."""
        # A writer that never rests must not keep the others waiting for ever.
        if MAIN_WRITER in self._cursor.state.positions and self._last_writer in writers:
            after = writers.index(self._last_writer) + 1
            return writers[after:] + writers[:after]
        return writers

    def _hand_over(self, records: Sequence[Envelope]) -> tuple[list[Refused], dict[str, Any]]:
        """Give *records* to the sink; return those that it refused, and what it remembers now."""
        with surprises_end_here(f"the sink {self.sink.name}", self.health.last_error):
            if not self._open:
                self._to_close = True
                self.sink.open(Run(self._identity(), self._folder.path), self._cursor.state.sink)
                self._open = True
            refused: list[Refused] = []
            if records:
                self._deliver_or_halve(records, refused)
            if len(refused) == len(records) > 1:
                raise Unavailable(
                    f"every one of {len(records)} records was refused: {refused[0][1]}", "refusing"
                )
            return refused, dict(self.sink.state())

    def _identity(self) -> str:
        """Return the run id that the records carry, which a copied or renamed folder does not change."""
        recorded = recorded_run_id(self._folder)
        if recorded not in (None, self._folder.run_id):
            self.health.told_once(
                "copied",
                f"{self._folder.path} holds the run {recorded}: the folder was copied or renamed. Its records are "
                "delivered as that run's",
            )
        return recorded or self._folder.run_id

    def _deliver_or_halve(self, records: Sequence[Envelope], refused: list[Refused]) -> None:
        """Deliver, and on ``Rejected`` halve until each bad record stands alone."""
        try:
            self.sink.deliver(records)
        except Rejected as error:
            if len(records) == 1:
                refused.append((records[0], without_secrets(str(error))))
                return
            middle = len(records) // 2
            self._deliver_or_halve(records[:middle], refused)
            self._deliver_or_halve(records[middle:], refused)

    def _set_aside(self, record: Envelope, reason: str) -> None:
        """Append a record that the sink never takes to its file, whole and with the reason."""
        path = self._folder.rejected(self.health.destination)
        make_private_folder(path.parent)
        note = json.dumps({"at": now_us(), "reason": reason, "wid": record.wid, "seq": record.seq})
        line = note[:-1].encode() + b', "record": ' + encode_envelope(record) + b"}\n"
        with os.fdopen(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab") as file:
            file.write(line)

    def _failed(self, reason: str, message: str) -> Step:
        self.breaker.failed(self._clock())
        self.health.failed(reason, message)
        return Step.FAILED
