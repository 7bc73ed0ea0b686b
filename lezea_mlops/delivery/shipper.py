"""The only code that moves records: from the journal, past a cursor, to a sink."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from enum import Enum
from typing import Any

from lezea_mlops._clock import MonotonicClock, now_us
from lezea_mlops._files import make_private_folder
from lezea_mlops.delivery.breaker import Breaker
from lezea_mlops.delivery.health import SinkHealth
from lezea_mlops.errors import JournalError
from lezea_mlops.events import Envelope, encode_envelope
from lezea_mlops.journal import Cursor, CursorState, Position, RunFolder, read_chunk
from lezea_mlops.sinks.base import Rejected, Run, Sink, Unavailable, destination_id

log = logging.getLogger("lezea_mlops")

BATCH_BYTES = 1024 * 1024


class Step(Enum):
    """What one step of a shipper did."""

    SHIPPED = "shipped"
    IDLE = "idle"
    PAUSED = "paused"
    FAILED = "failed"


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
        self.health = SinkHealth(destination_id(sink))
        self._folder = folder
        self._clock = clock
        self._cursor = Cursor(folder.cursor(destination_id(sink)))
        self._open = False

    @property
    def positions(self) -> dict[str, Position]:
        """Where the destination stands, by writer."""
        return dict(self._cursor.state.positions)

    @property
    def sink_state(self) -> dict[str, Any]:
        """What the sink remembers, for instance the id of its run."""
        return dict(self._cursor.state.sink)

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
                return Step.IDLE
            records, positions, damaged = batch
            self._hand_over(records)
            self._cursor.save(CursorState(positions, dict(self.sink.state())))
        except Unavailable as error:
            return self._failed(error.reason, str(error))
        except (JournalError, OSError) as error:
            return self._failed("journal", str(error))
        self.breaker.succeeded()
        self.health.took(len(records))
        self.health.stepped_over(damaged)
        return Step.SHIPPED

    def close(self) -> None:
        """Close the sink."""
        if self._open:
            self._open = False
            self.sink.close()

    def _next_batch(self) -> tuple[list[Envelope], dict[str, Position], int] | None:
        """Read on where the cursor stands: the first writer that has something new, ``main`` first."""
        for wid, path in self._folder.journals().items():
            at = self._cursor.state.positions.get(wid, Position())
            chunk = read_chunk(path, at.offset, BATCH_BYTES)
            if chunk.after == at.offset:
                continue
            seq = chunk.records[-1].seq if chunk.records else at.seq
            for damage in chunk.damage:
                log.warning("stepped over damage: %s", damage)
            positions = self.positions | {wid: Position(chunk.after, seq)}
            return chunk.records, positions, len(chunk.damage)
        return None

    def _hand_over(self, records: Sequence[Envelope]) -> None:
        """Give *records* to the sink; the one place where a sink's surprises end."""
        try:
            if not self._open:
                self.sink.open(Run(self._folder.run_id, self._folder.path), self._cursor.state.sink)
                self._open = True
            if records:
                self._deliver(records)
        except Unavailable:
            raise
        except Exception as error:
            log.exception("the sink %s failed in a way it does not declare", self.sink.name)
            raise Unavailable(f"{type(error).__name__}: {error}", "error") from error

    def _deliver(self, records: Sequence[Envelope]) -> None:
        """Deliver, and on ``Rejected`` halve until each bad record stands alone."""
        refused: list[tuple[Envelope, str]] = []
        self._deliver_or_halve(records, refused)
        if len(refused) == len(records) > 1:
            raise Unavailable(f"every one of {len(records)} records was refused: {refused[0][1]}", "refusing")
        for record, reason in refused:
            self._set_aside(record, reason)

    def _deliver_or_halve(self, records: Sequence[Envelope], refused: list[tuple[Envelope, str]]) -> None:
        try:
            self.sink.deliver(records)
        except Rejected as error:
            if len(records) == 1:
                refused.append((records[0], str(error)))
                return
            middle = len(records) // 2
            self._deliver_or_halve(records[:middle], refused)
            self._deliver_or_halve(records[middle:], refused)

    def _set_aside(self, record: Envelope, reason: str) -> None:
        path = self._folder.rejected(destination_id(self.sink))
        make_private_folder(path.parent)
        note = json.dumps({"at": now_us(), "reason": reason, "wid": record.wid, "seq": record.seq})
        with path.open("ab") as file:
            file.write(note[:-1].encode() + b', "record": ' + encode_envelope(record) + b"}\n")
        self.health.refused(f"{record.wid}/{record.seq} ({record.type})", reason)

    def _failed(self, reason: str, message: str) -> Step:
        self.breaker.failed(self._clock())
        self.health.failed(reason, message)
        return Step.FAILED
