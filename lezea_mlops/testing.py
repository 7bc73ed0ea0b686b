"""Helpers for tests of programs that track experiments: a sink in memory, a clock that stands still."""

from __future__ import annotations

from lezea_mlops.sinks.memory import MemorySink

__all__ = ["FakeClock", "MemorySink"]


class FakeClock:
    """A monotonic clock that moves only when told.

    Attributes:
        now_s: what it shows, in seconds.
    """

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        """Return what it shows."""
        return self.now_s

    def advance(self, seconds: float) -> None:
        """Move it forward."""
        self.now_s += seconds
