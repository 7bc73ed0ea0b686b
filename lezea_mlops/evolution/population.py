"""Populations and networks: the newest generation, the best fitness, how many networks there are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from lezea_mlops._bounded import (
    MAX_KEYS,
    BoundedTable,
    number_state,
    stored_count,
    stored_number,
    stored_text,
)
from lezea_mlops.events import as_number


def scores_by_individual(fitness_scores: Any) -> Iterator[tuple[str, float]]:
    """Yield (individual, score) of a mapping or a list of scores; what is no finite number is left out.

    An array that was so large that it became a blob says nothing here.
    """
    if isinstance(fitness_scores, Mapping):
        if "$blob" in fitness_scores and "size" in fitness_scores:
            return
        pairs = list(fitness_scores.items())
    elif isinstance(fitness_scores, (list, tuple)):
        pairs = [(str(index), score) for index, score in enumerate(fitness_scores)]
    else:
        return
    for individual, score in pairs:
        number = as_number(score)
        if number is not None and abs(number) < float("inf"):
            yield str(individual), float(number)


# What is a number of the newest snapshot and of the best individual; the rest of them is as it was logged.
_NUMBERS = ("last_diversity", "mean_fitness", "best_fitness", "fitness")


class PopulationHistory:
    """The newest snapshot, and the best fitness of all generations; higher is better."""

    def __init__(self, limit: int = MAX_KEYS) -> None:
        self._last: dict[str, Any] = {}
        self._best: dict[str, Any] = {}
        self._snapshots = 0
        self._networks: BoundedTable[str, list[int]] = BoundedTable(lambda: [0], limit)
        self._first_diversity: float | None = None

    def observe(self, fields: Mapping[str, Any]) -> None:
        """Take one snapshot."""
        self._snapshots += 1
        scores = list(scores_by_individual(fields.get("fitness_scores")))
        self._last = {name: fields.get(name) for name in ("generation", "tasker_count", "builder_count")}
        diversity = as_number(fields.get("diversity_metric"))
        if diversity is not None and not math.isfinite(diversity):
            diversity = None
        self._last["last_diversity"] = diversity
        if self._first_diversity is None:
            self._first_diversity = diversity
        if not scores:
            return
        best_id, best = max(scores, key=lambda pair: pair[1])
        self._last |= {"mean_fitness": sum(s for _, s in scores) / len(scores), "best_fitness": best}
        if not self._best or best > self._best["fitness"]:
            self._best = {"fitness": best, "id": best_id, "generation": fields.get("generation")}

    def observe_network(self, fields: Mapping[str, Any]) -> None:
        """Take one registered network."""
        self._networks[str(fields.get("network_type"))][0] += 1

    def as_dict(self) -> dict[str, Any]:
        """Return the newest snapshot, the best ever, and counts."""
        networks = {kind: count[0] for kind, count in self._networks.items()}
        return self._last | {
            "snapshots": self._snapshots, "best": self._best, "first_diversity": self._first_diversity,
            "networks": networks, "partial": bool(self._networks.evicted),
        }  # fmt: skip

    def state(self) -> dict[str, Any]:
        """Return all of it as JSON, for ``restore``."""
        first = self._first_diversity
        return {
            "last": _numbers_stored(self._last), "best": _numbers_stored(self._best), "snapshots": self._snapshots,
            "first_diversity": None if first is None else number_state(first),
            "networks": self._networks.state(lambda count: count[0]),
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        first = state["first_diversity"]
        self._last, self._best = _numbers_read(state["last"]), _numbers_read(state["best"])
        if self._best:
            # The next best is compared with it.
            stored_number(self._best["fitness"])
        self._snapshots = stored_count(state["snapshots"])
        self._first_diversity = None if first is None else stored_number(first)
        self._networks.restore(state["networks"], stored_text, lambda count: [stored_count(count)])


def _numbers_stored(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return *fields* with its numbers as JSON can hold them: a mean of very large scores may be infinite."""
    return {
        name: number_state(value) if name in _NUMBERS and value is not None else value
        for name, value in fields.items()
    }


def _numbers_read(state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: stored_number(value) if name in _NUMBERS and value is not None else value
        for name, value in state.items()
    }
