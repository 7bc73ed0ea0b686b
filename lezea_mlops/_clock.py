"""Clocks and deadlines: wall time stamps events, the monotonic clock measures waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

MonotonicClock = Callable[[], float]


def now_us() -> int:
    """Return UTC microseconds since the Unix epoch."""
    return time.time_ns() // 1_000


@dataclass(frozen=True)
class Deadline:
    """A moment on the monotonic clock that several waits share."""

    at_s: float
    clock: MonotonicClock = time.monotonic

    @classmethod
    def after(cls, within_s: float, clock: MonotonicClock = time.monotonic) -> Deadline:
        """Return the deadline *within_s* seconds from now."""
        return cls(clock() + within_s, clock)

    def left_s(self) -> float:
        """Return the seconds that are left, never below zero."""
        return max(0.0, self.at_s - self.clock())

    def passed(self) -> bool:
        """Tell whether no time is left."""
        return self.clock() >= self.at_s
