"""What is known of one destination's delivery, and what is said of it: one log line per change of state."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from lezea_mlops._clock import MonotonicClock
from lezea_mlops.events import Redactor

log = logging.getLogger("lezea_mlops")


class SinkHealth:
    """State, counts and the last error of one destination; safe to read from any thread.

    States: ``starting`` (nothing delivered yet), ``ok``, ``down`` (failing, trying again), ``refusing`` (takes no
    record of a whole batch), ``removed`` (the run was deleted there).
    """

    def __init__(self, destination: str, clock: MonotonicClock = time.monotonic) -> None:
        self.destination = destination
        self._clock = clock
        self._had_all_at_s = clock()
        self.state = "starting"
        self.delivered = 0
        self.rejected = 0
        self.damaged = 0
        self.failures: Counter[str] = Counter()
        self.last_error: str | None = None
        self._lock = threading.Lock()
        self._told: set[str] = set()

    def took(self, records: int, *, is_well: bool = True) -> None:
        """Count delivered records; say so if the destination was not well before.

        Args:
            records: how many.
            is_well: False: something else keeps failing, and the state stays what it is.
        """
        with self._lock:
            self.delivered += records
            if not is_well:
                return
            before, self.state = self.state, "ok"
        if before not in ("starting", "ok"):
            log.warning("%s takes records again", self.destination)

    def has_all(self) -> None:
        """Take note that nothing waits now."""
        self._had_all_at_s = self._clock()

    def failed(self, reason: str, message: str) -> None:
        """Count a failure; say so if it is the first of its state.

        What a library says of an address may hold its password; what is kept and told does not.
        """
        message = without_secrets(message)
        state = reason if reason in ("refusing", "removed") else "down"
        with self._lock:
            self.failures[reason] += 1
            self.last_error = message
            before, self.state = self.state, state
        if before != state:
            log.warning(
                "%s is %s%s: %s (nothing is lost, the records wait in the journal)",
                self.destination, state, "" if reason == state else f" ({reason})", message,
            )  # fmt: skip

    def refused(self, identity: str, reason: str) -> None:
        """Count a record that was set aside."""
        with self._lock:
            self.rejected += 1
            first = self.rejected == 1
        if first:
            log.warning(
                "%s can never take the record %s: %s; it was set aside", self.destination, identity, reason
            )

    def stepped_over(self, damage: Sequence[object]) -> None:
        """Count damaged places of the journal, and tell the first of them."""
        if damage:
            with self._lock:
                self.damaged += len(damage)
            log.warning("stepped over %d damaged places of the journal, the first %s", len(damage), damage[0])

    def told_once(self, kind: str, message: str) -> None:
        """Log a warning, once per kind."""
        with self._lock:
            first = kind not in self._told
            self._told.add(kind)
        if first:
            log.warning("%s", message)

    def as_dict(self, waiting: int) -> dict[str, Any]:
        """Return all of it by name, with the number of records that wait.

        ``lag_s``: how many seconds ago the destination last had everything; 0 while nothing waits.
        """
        lag_s = round(self._clock() - self._had_all_at_s, 3) if waiting else 0.0
        with self._lock:
            return {
                "state": self.state, "delivered": self.delivered, "waiting": waiting, "lag_s": lag_s,
                "rejected": self.rejected, "damaged": self.damaged, "failures": dict(self.failures),
                "last_error": self.last_error,
            }  # fmt: skip


def without_secrets(text: str) -> str:
    """Return *text* with secrets masked, whether or not the run's own records are redacted."""
    return Redactor().redact(text)[0]
