"""Running figures of every metric: count, last, least, greatest, mean, per scope, split and name."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

from lezea_mlops._bounded import MAX_KEYS, BoundedTable
from lezea_mlops.events import ScopePairs

_LOWEST, _HIGHEST = -sys.float_info.max, sys.float_info.max

GroupKey = tuple[ScopePairs, "str | None"]
# The integers that every reader of a line can hold.
_INT_RANGE = range(-(2**63), 2**64)


class Figures:
    """What is known of one metric; non-finite values are counted and otherwise left out."""

    __slots__ = (
        "count", "count_when_looked_at", "first", "last", "last_step", "maximum", "maximum_step", "minimum",
        "minimum_step", "nonfinite", "total",
    )  # fmt: skip

    def __init__(self, first: Any) -> None:
        self.count = self.nonfinite = 0
        self.first = None if type(first) is str else first
        self.last: float | None = None
        self.last_step: int | None = None
        self.minimum, self.minimum_step = math.inf, 0
        self.maximum, self.maximum_step = -math.inf, 0
        self.total = 0.0
        # A name that was logged once is the first to leave, see ``SeriesTable``.
        self.count_when_looked_at = 1

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
            if self.first is None:
                self.first = value
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
    """The metrics of one scope and split, and the last loss among them.

    Attributes:
        figures: by name of the metric.
        previous_loss: what the next ``delta_loss`` is measured from.
        calls: where a call's step is not counted by name: how many calls there were.
    """

    __slots__ = ("calls", "figures", "previous_loss", "_table")

    def __init__(self, table: SeriesTable) -> None:
        self.calls = 0
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
                # The first finite value is always the least so far.
                if known.first is None:
                    known.first = value
            if value > known.maximum:
                known.maximum, known.maximum_step = value, step
        loss = metrics.get("loss")
        if loss is None or type(loss) is str:
            return None
        previous, self.previous_loss = self.previous_loss, loss
        if previous is None or "delta_loss" in metrics:
            return None
        delta = previous - loss
        if not _LOWEST <= delta <= _HIGHEST:
            return None
        if type(delta) is int and delta not in _INT_RANGE:
            delta = float(delta)
        known = figures.get("delta_loss")
        if known is None:
            known = self._new("delta_loss", delta)
        known.observe(step, delta)
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

    def let_one_go(self) -> None:
        """Remove the name that came first of those that were not logged since this was asked last."""
        figures = self.figures
        while True:
            name, oldest = next(iter(figures.items()))
            del figures[name]
            if oldest.count == oldest.count_when_looked_at:
                return
            # It is in use: it goes to the end, and leaves when it comes up again without having been logged.
            oldest.count_when_looked_at = oldest.count
            figures[name] = oldest


class SeriesTable:
    """All metrics of a run, at most *limit* names; the least recently used group leaves first.

    Where all names stand in one group, those leave first that were not logged for long.

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
        # Groups leave by ``_let_group_go``, which counts their names, hence one more than there may be.
        self._groups: BoundedTable[GroupKey, SeriesGroup] = BoundedTable(lambda: SeriesGroup(self), limit + 1)

    def group(self, scope: ScopePairs, split: str | None) -> SeriesGroup:
        """Return the group of *scope* and *split*, new if need be."""
        group = self._groups[scope, split]
        self._last_scope, self._last_split, self._last_group = scope, split, group
        if len(self._groups) > self._limit:
            self._let_group_go()
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
        """Make room after *group*, the most recently used one, gained a name."""
        self._names += 1
        self.names_seen += 1
        while self._names > self._limit:
            if len(self._groups) > 1:
                self._let_group_go()
            else:
                group.let_one_go()
                self._names -= 1
                self.evicted += 1

    def restart(self) -> None:
        """Begin a new attempt: its first losses are compared with none of the attempt before."""
        for _key, group in self._groups.items():  # noqa: PERF102 (a bounded table has no ``values``)
            group.previous_loss = None

    def _let_group_go(self) -> None:
        names = len(self._groups.pop_oldest().figures)
        self._names -= names
        self.evicted += names

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
