"""Costs as the calls of spec 1.7 report them, summed over the run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lezea_mlops._bounded import MAX_KEYS, BoundedTable, number_state, stored_number, stored_text
from lezea_mlops.events import as_number


class CostTotals:
    """Sums of what ``log_resource_cost`` reported, and the last of each business metric."""

    def __init__(self, limit: int = MAX_KEYS) -> None:
        self._sums = {"cpu_hours": 0.0, "mem_gb": 0.0, "io_bytes": 0.0}
        self._business: BoundedTable[str, list[Any]] = BoundedTable(lambda: [None], limit)

    def observe_cost(self, fields: Mapping[str, Any]) -> None:
        """Take one report of consumed resources."""
        for name in self._sums:
            number = as_number(fields.get(name))
            # One report that is no finite number must not make the whole sum one.
            if number is not None and math.isfinite(number):
                self._sums[name] += number

    def observe_business(self, fields: Mapping[str, Any]) -> None:
        """Take business metrics by name."""
        metrics = fields.get("metrics")
        if isinstance(metrics, Mapping) and "$blob" not in metrics:
            for name, value in metrics.items():
                self._business[name][0] = value

    def as_dict(self) -> dict[str, Any]:
        """Return the sums and the last business metrics."""
        business = {name: last[0] for name, last in self._business.items()}
        return dict(self._sums) | {"business": business, "partial": bool(self._business.evicted)}

    def state(self) -> dict[str, Any]:
        """Return all of it as JSON, for ``restore``."""
        return {
            "sums": {name: number_state(total) for name, total in self._sums.items()},
            "business": self._business.state(lambda last: last[0]),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        self._sums = {name: stored_number(state["sums"][name]) for name in self._sums}
        self._business.restore(state["business"], stored_text, lambda value: [value])
