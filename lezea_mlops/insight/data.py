"""How data was used: splits, uses per sample, relevance per sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lezea_mlops._bounded import BoundedTable
from lezea_mlops.events import as_number

SHOWN = 10


class DataUsage:
    """Counts of uses and the relevance of samples; at most 10,000 samples are remembered."""

    def __init__(self) -> None:
        self.splits: dict[str, int] = {}
        self.uses = 0
        self.last_epoch: int | None = None
        self.scores = 0
        self.improved = 0
        self._uses_of: BoundedTable[str, list[int]] = BoundedTable(lambda: [0])
        self._relevance_of: BoundedTable[str, list[float]] = BoundedTable(lambda: [0.0, 0.0])

    def observe_splits(self, fields: Mapping[str, Any]) -> None:
        """Take the sizes of the splits."""
        self.splits = dict(fields.get("sizes") or {})

    def observe_usage(self, fields: Mapping[str, Any]) -> None:
        """Take the samples that an epoch used."""
        samples = fields.get("sample_ids")
        self.uses += fields.get("count") or 0
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
