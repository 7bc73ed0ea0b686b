"""Running figures of every metric: count, last, least, greatest, mean, per scope, split and name."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

from lezea_mlops._bounded import (
    MAX_KEYS,
    BoundedTable,
    number_state,
    stored_count,
    stored_number,
    stored_step,
    stored_text,
)
from lezea_mlops.events import ScopePairs

_LOWEST, _HIGHEST = -sys.float_info.max, sys.float_info.max

GroupKey = tuple[ScopePairs, "str | None"]
# The integers that every reader of a line can hold.
_INT_RANGE = range(-(2**63), 2**64)
# In the place of a split where what is logged belongs to none: its steps are counts of its own.
_NO_SPLITS = frozenset({"reward", "modtree", "modification"})


class Figures:
    """What is known of one metric; non-finite values are counted and otherwise left out.

    ``count_before`` is the count of earlier attempts: running counts begin anew with each.
    """

    __slots__ = (
        "count", "count_before", "count_when_looked_at", "first", "last", "last_step", "maximum", "maximum_step",
        "minimum", "minimum_step", "nonfinite", "total",
    )  # fmt: skip

    def __init__(self, first: Any) -> None:
        self.count = self.nonfinite = self.count_before = 0
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

    def joined(self, later: Figures) -> Figures:
        """Return the figures of both together, where *later* is the one that was logged last."""
        both = Figures(self.first if self.first is not None else later.first)
        both.count, both.nonfinite = self.count + later.count, self.nonfinite + later.nonfinite
        both.last = later.last if later.last is not None else self.last
        both.last_step = later.last_step if later.last_step is not None else self.last_step
        least = self if self.minimum <= later.minimum else later
        greatest = self if self.maximum >= later.maximum else later
        both.minimum, both.minimum_step = least.minimum, least.minimum_step
        both.maximum, both.maximum_step = greatest.maximum, greatest.maximum_step
        both.total = self.total + later.total
        return both

    def state(self) -> list[Any]:
        """Return all of it as JSON, for ``restored``."""
        return [
            self.count, self.count_before, self.count_when_looked_at, self.nonfinite, self.last_step,
            self.first, self.last, number_state(self.minimum), self.minimum_step,
            number_state(self.maximum), self.maximum_step, number_state(self.total),
        ]  # fmt: skip

    @classmethod
    def restored(cls, state: Any) -> Figures:
        """Return what goes on from a state.

        Raises:
            TypeError, ValueError: it is damaged.
        """
        *counts, last_step, first, last, minimum, minimum_step, maximum, maximum_step, total = state
        figures = cls(None if first is None else stored_number(first))
        (figures.count, figures.count_before, figures.count_when_looked_at, figures.nonfinite) = map(
            stored_count, counts
        )
        figures.last_step = None if last_step is None else stored_step(last_step)
        figures.last = None if last is None else stored_number(last)
        figures.minimum, figures.minimum_step = stored_number(minimum), stored_step(minimum_step)
        figures.maximum, figures.maximum_step = stored_number(maximum), stored_step(maximum_step)
        figures.total = stored_number(total)
        if (figures.count > figures.nonfinite) != (figures.last is not None) or (first is None) != (
            last is None
        ):
            raise ValueError(
                f"{figures.count} values, {figures.nonfinite} not finite, do not go with {last!r:.80}"
            )
        return figures


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
        """Return the running count that a call without a step gets, from 1 in each attempt."""
        known = self.figures.get(name)
        return 1 if known is None else known.count - known.count_before + 1

    def restart(self) -> None:
        """Begin a new attempt."""
        self.previous_loss = None
        self.calls = 0
        for figures in self.figures.values():
            figures.count_before = figures.count

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

    def state(self) -> dict[str, Any]:
        """Return all of it as JSON, for ``restore``; the names in their order."""
        return {
            "calls": self.calls,
            "previous_loss": self.previous_loss,
            "figures": {name: figures.state() for name, figures in self.figures.items()},
        }

    def restore(self, state: Any) -> None:
        """Go on from a state.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        previous = state["previous_loss"]
        self.calls = stored_count(state["calls"])
        self.previous_loss = None if previous is None else stored_number(previous)
        self.figures = {
            stored_text(name): Figures.restored(known) for name, known in state["figures"].items()
        }


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
        self._make_room(group)

    def _make_room(self, group: SeriesGroup) -> None:
        while self._names > self._limit:
            if len(self._groups) > 1:
                self._let_group_go()
            else:
                group.let_one_go()
                self._names -= 1
                self.evicted += 1

    def restart(self) -> None:
        """Begin a new attempt: no loss is compared with one of the attempt before, and running counts begin anew."""
        for _key, group in self._groups.items():  # noqa: PERF102 (a bounded table has no ``values``)
            group.restart()

    def _let_group_go(self) -> None:
        names = len(self._groups.pop_oldest().figures)
        self._names -= names
        self.evicted += names

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Return the figures of every metric by ``<scope>/<split>/<name>``.

        This whole name is what a metric is known by, here and in every destination. What was logged under it in two
        ways (the reward of ``t0`` and a metric ``reward/t0``, the loss of split ``val`` and a metric ``val/loss``) is
        one metric, and has one set of figures; its first and last value are judged by which way was used last.
        """
        whole: dict[str, Figures] = {}
        for (scope, split), group in self._groups.items():
            for name, figures in group.figures.items():
                key = metric_name(scope, split, name)
                earlier = whole.get(key)
                whole[key] = figures if earlier is None else earlier.joined(figures)
        return {name: figures.as_dict() for name, figures in whole.items()}

    def last_step(self) -> int | None:
        """Return the greatest of the last steps of metrics; None if there are none.

        Rewards and statistics of modifications have counts of their own, and ``delta_loss`` may have epochs.
        """
        steps = (
            figures.last_step
            for (_scope, split), group in self._groups.items()
            if split not in _NO_SPLITS
            for name, figures in group.figures.items()
            if name != "delta_loss" and figures.last_step is not None
        )
        return max(steps, default=None)

    def state(self) -> dict[str, Any]:
        """Return all of it as JSON, for ``restore``."""
        return {
            "steps": self.steps, "evicted": self.evicted, "names_seen": self.names_seen,
            "groups": self._groups.state(SeriesGroup.state),
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        self.steps, self.evicted = stored_count(state["steps"]), stored_count(state["evicted"])
        self.names_seen = stored_count(state["names_seen"])
        self._last_group = None
        self._groups.restore(state["groups"], _stored_key, self._stored_group)
        self.evicted += self._groups.evicted - stored_count(state["groups"]["evicted"])
        self._names = sum(len(group.figures) for _key, group in self._groups.items())
        if self._names:
            # A state of a table with a greater limit is cut as if its names had just come.
            _key, newest = list(self._groups.items())[-1]
            self._make_room(newest)

    def _stored_group(self, state: Any) -> SeriesGroup:
        group = SeriesGroup(self)
        group.restore(state)
        return group


def _stored_key(key: Any) -> GroupKey:
    scope, split = key
    pairs = tuple((stored_text(level), stored_text(identity)) for level, identity in scope)
    return pairs, None if split is None else stored_text(split)


def metric_name(scope: Any, split: str | None, name: str) -> str:
    """Return a metric's whole name: ``builder:42/layer:3/val/loss``."""
    parts = [f"{level}:{identity}" for level, identity in scope]
    return "/".join([*parts, *([split] if split else []), name])
