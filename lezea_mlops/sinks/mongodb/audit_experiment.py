"""The one document of a run, compared with what the records say of the run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lezea_mlops.events import Envelope
from lezea_mlops.sinks.base import AuditCounts, Finding
from lezea_mlops.sinks.mongodb.audit_piece import shown
from lezea_mlops.sinks.mongodb.documents import EXPERIMENTS
from lezea_mlops.sinks.mongodb.experiment import Experiment, Order, Path
from lezea_mlops.sinks.mongodb.large import LargeValues


class ExperimentAudit:
    """Follows the records, and compares in the end.

    Args:
        database: a pymongo ``Database``, asked at once.
        run_id: the experiment id.
        large: where the document's large values are.
        counts: receives how many values were compared.
    """

    def __init__(self, database: Any, run_id: str, large: LargeValues, counts: AuditCounts) -> None:
        stored = database[EXPERIMENTS].find_one({"_id": run_id})
        self._found = None if stored is None else Experiment(run_id, large.expanded(stored))
        self._owed, self._all = Experiment(run_id), Experiment(run_id)
        self._first: Envelope | None = None
        self._counts = counts

    def take(self, record: Envelope, owed: bool) -> None:
        """Take one record."""
        self._all.observe(record)
        if owed:
            self._first = self._first or record
            self._owed.observe(record)

    def findings(self) -> Iterator[Finding]:
        """Yield the differences."""
        if self._first is None:
            return
        if self._found is None:
            what = f"{EXPERIMENTS} {self._owed.run_id}"
            yield Finding("missing", what, self._first.wid, self._first.seq, "one", mendable=True)
            return
        found = {path: (order, value) for path, order, value in self._found.items()}
        newest = {path: order for path, order, _ in self._all.items()}
        for path, order, value in self._owed.items():
            self._counts.checked += 1
            yield from self._compared(path, order, value, found.get(path), newest[path])

    def _compared(
        self, path: Path, order: Order, value: Any, found: tuple[Order, Any] | None, newest: Order
    ) -> Iterator[Finding]:
        what, (wid, seq) = f"{EXPERIMENTS} {'.'.join(path)}", order[-2:]
        if found is None:
            yield Finding("missing", what, wid, seq, shown(value), mendable=True)
        elif order < found[0] <= newest:
            # A record that waits, or was written while this went on, has come already.
            return
        elif shown(found[1]) != shown(value):
            yield Finding("altered", what, wid, seq, shown(value), shown(found[1]), mendable=True)
