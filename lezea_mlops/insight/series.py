"""Running figures of every metric: count, last, least, greatest, mean, per scope, split and name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lezea_mlops._bounded import MAX_KEYS, BoundedTable

ScopePairs = tuple[tuple[str, str], ...]
_INFINITE = math.inf

GroupKey = tuple[ScopePairs, "str | None"]


class Figures:
    """What is known of one metric; non-finite values are counted and otherwise left out."""

    __slots__ = (
        "count", "first", "last", "last_step", "maximum", "maximum_step", "minimum", "minimum_step",
        "nonfinite", "total",
    )  # fmt: skip

    def __init__(self, first: Any) -> None:
        self.count = self.nonfinite = 0
        self.first = None if type(first) is str else first
        self.last: float | None = None
        self.last_step: int | None = None
        self.minimum, self.minimum_step = math.inf, 0
        self.maximum, self.maximum_step = -math.inf, 0
        self.total = 0.0

    def observe(self, step: int, value: Any) -> None:
        """Take one more value; the text of a non-finite number counts as such."""
        self.count += 1
        self.last_step = step
        if type(value) is str:
            self.nonfinite += 1
            return
        self.last = value
        self.total += value
        if value < self.minimum:
            self.minimum, self.minimum_step = value, step
        if value > self.maximum:
            self.maximum, self.maximum_step = value, step

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name; ``mean`` is over the finite values."""
        finite = self.count - self.nonfinite
        known: dict[str, Any] = {
            "count": self.count,
            "last_step": self.last_step,
            "nonfinite": self.nonfinite,
        }
        if finite:
            known |= {
                "first": self.first, "last": self.last, "mean": self.total / finite,
                "min": self.minimum, "min_step": self.minimum_step,
                "max": self.maximum, "max_step": self.maximum_step,
            }  # fmt: skip
        return known


class SeriesGroup:
    """The metrics of one scope and split, and the last loss among them."""

    __slots__ = ("figures", "previous_loss", "_table")

    def __init__(self, table: SeriesTable) -> None:
        self.figures: dict[str, Figures] = {}
        self.previous_loss: float | None = None
        self._table = table

    def take_step(self, step: int, metrics: Mapping[str, Any]) -> float | None:
        """Take the metrics of a training step, and return their ``delta_loss``.

        It is previous loss − this loss, positive when it improved; None on the first, where a loss is not finite,
        and where the metrics bring a ``delta_loss`` of their own.
        """
        figures = self.figures
        for name, value in metrics.items():
            known = figures.get(name)
            if known is None:
                known = self._new(name, value)
            # Written out, as in ``Figures.observe``: this runs for every value of every training step.
            known.count += 1
            known.last_step = step
            if type(value) is str:
                known.nonfinite += 1
                continue
            known.last = value
            known.total += value
            if value < known.minimum:
                known.minimum, known.minimum_step = value, step
            if value > known.maximum:
                known.maximum, known.maximum_step = value, step
        loss = metrics.get("loss")
        if loss is None or type(loss) is str:
            return None
        previous, self.previous_loss = self.previous_loss, loss
        if previous is None or "delta_loss" in metrics:
            return None
        delta = previous - loss
        if not -_INFINITE < delta < _INFINITE:
            return None
        (figures.get("delta_loss") or self._new("delta_loss", delta)).observe(step, delta)
        return delta  # type: ignore[no-any-return]

    def observe(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Take the metrics of one call; the text of a non-finite number counts as such."""
        for name, value in metrics.items():
            (self.figures.get(name) or self._new(name, value)).observe(step, value)

    def _new(self, name: str, first: Any) -> Figures:
        figures = self.figures[name] = Figures(first)
        self._table.name_added(self)
        return figures

    def next_step(self, name: str) -> int:
        """Return the running count that a call without a step gets, from 1."""
        known = self.figures.get(name)
        return 1 if known is None else known.count + 1


class SeriesTable:
    """All metrics of a run, at most *limit* names; the least recently used group leaves first.

    Attributes:
        steps: training steps that were taken.
        evicted: names that had to leave.
        names_seen: names there were so far; one that left and came back counts twice.
    """

    def __init__(self, limit: int = MAX_KEYS) -> None:
        self.steps = self.evicted = self.names_seen = 0
        self._limit = limit
        self._names = 0
        self._last_scope: ScopePairs = ()
        self._last_split: str | None = None
        self._last_group: SeriesGroup | None = None
        self._groups: BoundedTable[GroupKey, SeriesGroup] = BoundedTable(lambda: SeriesGroup(self), limit)

    def group(self, scope: ScopePairs, split: str | None) -> SeriesGroup:
        """Return the group of *scope* and *split*, new if need be."""
        group = self._groups[scope, split]
        self._last_scope, self._last_split, self._last_group = scope, split, group
        return group

    def take_step(
        self, scope: ScopePairs, split: str | None, step: int, metrics: Mapping[str, Any]
    ) -> float | None:
        """Take the metrics of a training step, and return their ``delta_loss``; see ``SeriesGroup.take_step``."""
        self.steps += 1
        # The same group as in the call before is the most recently used one already.
        if scope is self._last_scope and split is self._last_split and self._last_group is not None:
            return self._last_group.take_step(step, metrics)
        return self.group(scope, split).take_step(step, metrics)

    def name_added(self, group: SeriesGroup) -> None:
        """Make room after *group* gained a name."""
        self._names += 1
        self.names_seen += 1
        if self._names <= self._limit:
            return
        oldest = self._groups.pop_oldest() if len(self._groups) > 1 else group
        if oldest is group:
            del group.figures[next(iter(group.figures))]
            leaving = 1
        else:
            leaving = len(oldest.figures)
        self._names -= leaving
        self.evicted += leaving

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Return the figures of every metric by ``<scope>/<split>/<name>``."""
        return {
            metric_name(scope, split, name): figures.as_dict()
            for (scope, split), group in self._groups.items()
            for name, figures in group.figures.items()
        }


def metric_name(scope: Any, split: str | None, name: str) -> str:
    """Return a metric's whole name: ``builder:42/layer:3/val/loss``."""
    parts = [f"{level}:{identity}" for level, identity in scope]
    return "/".join([*parts, *([split] if split else []), name])
