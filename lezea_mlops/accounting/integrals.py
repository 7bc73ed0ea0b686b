"""Integrals over time: of one quantity between its samples, and of a process as it grew."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from math import inf
from typing import Any

from lezea_mlops._bounded import stored_number, stored_step
from lezea_mlops.accounting.quantities import stored_amount

US_PER_S = 1_000_000
# Two samples further apart do not tell what was used between them.
LONGEST_GAP_US = 10 * 60 * US_PER_S
# So many moments of a process are remembered; at a sample each 5 s, the last hours exactly.
MAX_KNOTS = 2_000


def seconds_between(before: int | None, ts: int) -> float:
    """Return the seconds from *before* to *ts* (UTC microseconds); 0 where they say nothing about what lies between."""
    if before is None or not 0 < ts - before <= LONGEST_GAP_US:
        return 0.0
    return (ts - before) / US_PER_S


class Integral:
    """One quantity integrated over time, by the trapezoid between its own samples."""

    __slots__ = ("_last", "_ts")

    def __init__(self) -> None:
        self._ts: int | None = None
        self._last = 0.0

    def add(self, ts: int, value: float | None) -> float:
        """Take a sample at *ts* (UTC microseconds), and return what it adds, in units × seconds."""
        if value is None:
            # A call that does not speak of this quantity says nothing about it, least of all that it is zero.
            return 0.0
        before, last = self._ts, self._last
        self._ts, self._last = ts, value
        return seconds_between(before, ts) * (value + last) / 2

    def restart(self) -> None:
        """Forget the last sample: nothing was used between two attempts."""
        self._ts = None

    def state(self) -> list[Any]:
        """Return time and value of the last sample as JSON, for ``restored``."""
        return [self._ts, self._last]

    @classmethod
    def restored(cls, state: Any) -> Integral:
        """Return an integral that goes on from a state.

        Raises:
            TypeError, ValueError: it is damaged.
        """
        ts, last = state
        integral = cls()
        integral._ts = None if ts is None else stored_step(ts)
        integral._last = stored_amount(last)
        return integral


class Knots:
    """Several integrals as they grew together: straight lines between the moments that are remembered.

    Beyond the limit every second of the older half is forgotten: the longer ago, the coarser; sums stay as they are.
    """

    __slots__ = ("_columns", "_times")

    def __init__(self) -> None:
        self._times = array("d")
        self._columns: list[array[float]] = []

    @property
    def last_us(self) -> float | None:
        """The newest moment, UTC microseconds; None if there is none yet."""
        return self._times[-1] if self._times else None

    def grow(self, ts: int, growth: Sequence[float]) -> None:
        """Say that until *ts* the integrals grew by so much; further integrals may come at the end of *growth*.

        A clock that went back begins the line anew: what is older than *ts* belongs to no time any more.
        """
        while len(self._columns) < len(growth):
            self._columns.append(array("d", bytes(8 * len(self._times))))
        totals = [column[-1] if column else 0.0 for column in self._columns]
        for number, part in enumerate(growth):
            totals[number] += part
        if self._times and ts <= self._times[-1]:
            self._restart_at(ts)
        self._times.append(float(ts))
        for column, total in zip(self._columns, totals, strict=True):
            column.append(total)
        if len(self._times) > MAX_KNOTS:
            self._thin()

    def between(self, from_us: int, to_us: int) -> list[float]:
        """Return how much each integral grew from one moment to another; nothing where nothing is known."""
        if not self._times:
            return []
        start, end = self._place(from_us), self._place(to_us)
        return [max(0.0, _at(column, end) - _at(column, start)) for column in self._columns]

    def _place(self, ts: int) -> tuple[int, float]:
        """Return the number of the moment before *ts*, and which share of the way to the next has passed."""
        times = self._times
        right = bisect_right(times, ts)
        if right == 0:
            return 0, 0.0
        if right == len(times):
            return right - 1, 0.0
        return right - 1, (ts - times[right - 1]) / (times[right] - times[right - 1])

    def _restart_at(self, ts: int) -> None:
        if ts == self._times[-1]:
            self._times.pop()
            for column in self._columns:
                column.pop()
        else:
            self._times = array("d")
            self._columns = [array("d") for _ in self._columns]

    def _thin(self) -> None:
        half = len(self._times) // 2
        # The first stays, so that the line begins where it began.
        del self._times[1:half:2]
        for column in self._columns:
            del column[1:half:2]

    def state(self) -> list[Any]:
        """Return all of it as JSON, for ``restored``."""
        return [list(self._times), [list(column) for column in self._columns]]

    @classmethod
    def restored(cls, state: Any) -> Knots:
        """Return what goes on from a state.

        Raises:
            TypeError, ValueError: it is damaged.
        """
        times, columns = state
        knots = cls()
        knots._times = array("d", map(stored_number, times))
        knots._columns = [array("d", map(stored_amount, column)) for column in columns]
        if any(len(column) != len(times) for column in knots._columns):
            raise ValueError("expected as many values as moments in each integral")
        if not all(a < b < inf for a, b in pairwise(knots._times)):
            raise ValueError("expected moments one after the other")
        return knots


def _at(column: array[float], place: tuple[int, float]) -> float:
    number, share = place
    value = column[number]
    return value + (column[number + 1] - value) * share if share else value
