"""Many individuals' values as one: where thousands of taskers log, a person wants their mean, least and greatest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lezea_mlops._bounded import BoundedTable
from lezea_mlops.events import INDIVIDUAL_LEVELS, FoldLogged, as_number, number_text

# Of a metric whose name ends so, the least value is the best.
_LESS_IS_BETTER = ("loss", "error", "cost")

Key = tuple[str, "str | None", str]


class Fold:
    """The values that individuals logged of one metric at one step."""

    __slots__ = ("count", "maximum", "maximum_id", "minimum", "minimum_id", "step", "total")

    def __init__(self) -> None:
        self.restart(-1)

    def restart(self, step: int) -> None:
        """Begin anew at *step*."""
        self.step = step
        self.count, self.total = 0, 0.0
        self.minimum, self.minimum_id = float("inf"), ""
        self.maximum, self.maximum_id = float("-inf"), ""

    def add(self, identity: str, value: float) -> None:
        """Take one individual's value."""
        self.count += 1
        self.total += value
        if value < self.minimum:
            self.minimum, self.minimum_id = value, identity
        if value > self.maximum:
            self.maximum, self.maximum_id = value, identity

    def event(self, key: Key) -> FoldLogged:
        """Return the fold as an event."""
        level, split, metric = key
        best = self.minimum_id if metric.lower().endswith(_LESS_IS_BETTER) else self.maximum_id
        fields: dict[str, Any] = {
            "level": level, "metric": metric, "step": self.step, "count": self.count,
            "mean": number_text(self.total / self.count), "min": self.minimum, "max": self.maximum, "best_id": best,
        }  # fmt: skip
        if split is not None:
            fields["split"] = split
        return FoldLogged(**fields)


class Folds:
    """Folds the values of individuals, step by step; a step is done when the next one begins."""

    def __init__(self) -> None:
        self._folds: BoundedTable[Key, Fold] = BoundedTable(Fold)

    def take(self, fields: Mapping[str, Any], scope: tuple[tuple[str, str], ...]) -> Iterator[FoldLogged]:
        """Take the metrics of one call, and yield the folds of steps that it ends."""
        # The innermost: a builder's taskers are folded, and their builders with them.
        individual = next((pair for pair in reversed(scope) if pair[0] in INDIVIDUAL_LEVELS), None)
        metrics, step = fields.get("metrics"), fields.get("step", 0)
        if individual is None or not isinstance(metrics, Mapping):
            return
        level, identity = individual
        rest = (pair for pair in scope if pair is not individual)
        # The ids of individuals around it would make as many names as there are individuals.
        inner = "".join(
            f"{pair[0]}/" if pair[0] in INDIVIDUAL_LEVELS else f"{pair[0]}:{pair[1]}/" for pair in rest
        )
        for name, value in metrics.items():
            number = as_number(value)
            if number is None or not abs(number) < float("inf"):
                continue
            key = (level, fields.get("data_split"), inner + name)
            fold = self._folds[key]
            if fold.step != step:
                if fold.count:
                    yield fold.event(key)
                fold.restart(step)
            fold.add(identity, number)

    def finish(self) -> Iterator[FoldLogged]:
        """Yield the folds that are still open."""
        for key, fold in self._folds.items():
            if fold.count:
                yield fold.event(key)
                fold.restart(fold.step)
