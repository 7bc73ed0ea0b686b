"""How data was used: splits, uses per sample, relevance per sample."""

from __future__ import annotations

import math
from collections.abc import Mapping
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

SHOWN = 10


class DataUsage:
    """Counts of uses and the relevance of samples; at most *limit* samples are remembered."""

    def __init__(self, limit: int = MAX_KEYS) -> None:
        self.splits: dict[str, int] = {}
        self.uses = 0
        self.last_epoch: int | None = None
        self.scores = 0
        self.improved = 0
        self._uses_of: BoundedTable[str, list[int]] = BoundedTable(lambda: [0], limit)
        self._relevance_of: BoundedTable[str, list[float]] = BoundedTable(lambda: [0.0, 0.0], limit)

    def observe_splits(self, fields: Mapping[str, Any]) -> None:
        """Take the sizes of the splits."""
        sizes = fields.get("sizes")
        self.splits = dict(sizes) if isinstance(sizes, Mapping) else {}

    def observe_usage(self, fields: Mapping[str, Any]) -> None:
        """Take the samples that an epoch used."""
        samples = fields.get("sample_ids")
        count = as_number(fields.get("count"))
        if count is not None and math.isfinite(count):
            self.uses += int(count)
        self.last_epoch = fields.get("epoch", self.last_epoch)
        if isinstance(samples, list):
            for sample in samples:
                self._uses_of[str(sample)][0] += 1

    def observe_score(self, fields: Mapping[str, Any]) -> None:
        """Take a sample's loss before and after."""
        delta = as_number(fields.get("delta"))
        if delta is None or delta != delta:
            return
        self.scores += 1
        self.improved += delta > 0
        known = self._relevance_of[str(fields.get("sample_id"))]
        known[0] += delta
        known[1] += 1

    def as_dict(self) -> dict[str, Any]:
        """Return totals, the samples used most and the samples that helped most and least."""
        relevance = sorted(
            ((total / count, sample) for sample, (total, count) in self._relevance_of.items()), reverse=True
        )
        uses = sorted(((count[0], sample) for sample, count in self._uses_of.items()), reverse=True)
        return {
            "splits": self.splits,
            "sample_uses": self.uses,
            "distinct_samples": len(self._uses_of),
            "last_epoch": self.last_epoch,
            "most_used": {sample: count for count, sample in uses[:SHOWN]},
            "scored": self.scores,
            "improved": self.improved,
            "most_relevant": {sample: mean for mean, sample in relevance[:SHOWN]},
            "least_relevant": {sample: mean for mean, sample in relevance[: -SHOWN - 1 : -1]},
            "partial": bool(self._uses_of.evicted or self._relevance_of.evicted),
        }

    def state(self) -> dict[str, Any]:
        """Return all of it as JSON, for ``restore``."""
        return {
            "splits": dict(self.splits), "uses": self.uses, "last_epoch": self.last_epoch,
            "scores": self.scores, "improved": self.improved,
            "uses_of": self._uses_of.state(lambda uses: uses[0]),
            "relevance_of": self._relevance_of.state(lambda known: [number_state(known[0]), known[1]]),
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        self.splits = dict(state["splits"])
        self.uses = stored_count(state["uses"])
        self.last_epoch = state["last_epoch"]
        self.scores, self.improved = stored_count(state["scores"]), stored_count(state["improved"])
        self._uses_of.restore(state["uses_of"], stored_text, lambda uses: [stored_count(uses)])
        self._relevance_of.restore(state["relevance_of"], stored_text, _stored_relevance)


def _stored_relevance(state: Any) -> list[float]:
    total, count = map(stored_number, state)
    if not count >= 1:
        raise ValueError(f"expected how often a sample was scored, found {count!r:.80}")
    return [total, count]
