"""When to try again: arithmetic on times that the caller passes; nothing here waits, sleeps or looks at a clock."""

from __future__ import annotations

from random import Random

TRIP_AFTER = 3
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
RETRY_PAUSE_S = 0.25
JITTER = 0.2


class Breaker:
    """Counts failures in a row; after *trip_after* of them it is open for ever longer pauses.

    Args:
        random: spreads the pauses of many processes by ±20 %; its own, so that nobody's numbers change.
    """

    def __init__(self, trip_after: int = TRIP_AFTER, random: Random | None = None) -> None:
        self._trip_after = trip_after
        self._random = random or Random()
        self._failures = 0
        self._closed_until_s = 0.0

    @property
    def open(self) -> bool:
        """Whether it has tripped: nobody should wait for the destination."""
        return self._failures >= self._trip_after

    def allows(self, now_s: float) -> bool:
        """Tell whether a try is due at *now_s* (monotonic seconds)."""
        return now_s >= self._closed_until_s

    def pause_s(self, now_s: float) -> float:
        """Return the seconds until the next try is due."""
        return max(0.0, self._closed_until_s - now_s)

    def failed(self, now_s: float) -> None:
        """Take note of a failure at *now_s*."""
        self._failures += 1
        beyond = self._failures - self._trip_after
        pause = RETRY_PAUSE_S if beyond < 0 else min(FIRST_PAUSE_S * 2.0 ** min(beyond, 16), LONGEST_PAUSE_S)
        self._closed_until_s = now_s + pause * self._random.uniform(1 - JITTER, 1 + JITTER)

    def succeeded(self) -> None:
        """Take note of a success: all is forgotten."""
        self._failures = 0
        self._closed_until_s = 0.0

    def retry_now(self) -> None:
        """Let the next try happen at once, for instance before closing."""
        self._closed_until_s = 0.0
