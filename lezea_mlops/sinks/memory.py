"""The reference sink: records kept in memory, each once, by (writer, number)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lezea_mlops.events import Envelope
from lezea_mlops.sinks.base import AuditCounts, AuditedJournal, Finding, Rejected, Run, Unavailable


class MemorySink:
    """Keeps what it was given; tests switch it off, or make it refuse.

    Attributes:
        records: what was taken, by (run, writer, number).
        down: text of the outage while there is one; None when it is up.
        refuses: (writer, number) of records that it never takes.
        batches: sizes of the batches that were taken.
    """

    name = "memory"

    def __init__(self, destination: str = "memory://") -> None:
        self.destination = destination
        self.records: dict[tuple[str, str, int], Envelope] = {}
        self.down: str | None = None
        self.refuses: set[tuple[str, int]] = set()
        self.batches: list[int] = []
        self.status: str | None = None
        self.opened = 0
        self._status_order: tuple[Any, ...] = ()

    def open(self, run: Run, state: Mapping[str, Any]) -> None:
        """Count the opening; fail while ``down``."""
        self._check_up()
        self.opened += 1

    def deliver(self, records: Sequence[Envelope]) -> None:
        """Keep *records*, each once; the run's status follows the newest start or end."""
        self._check_up()
        for record in records:
            if (record.wid, record.seq) in self.refuses:
                raise Rejected(f"record {record.seq} of {record.wid} is on the list of refused records")
        for record in records:
            self.records[record.run_id, record.wid, record.seq] = record
            if record.type in ("run_started", "run_finished") and record.order_key > self._status_order:
                self._status_order = record.order_key
                self.status = record.payload.get("status", "running")
        self.batches.append(len(records))

    def state(self) -> Mapping[str, Any]:
        """Nothing needs to be remembered."""
        return {}

    def close(self) -> None:
        """Nothing is held."""

    def audit(
        self, run: Run, state: Mapping[str, Any], journal: AuditedJournal, counts: AuditCounts
    ) -> Iterator[Finding]:
        """Compare record by record; what no record of the journal brought is an alteration too."""
        self._check_up()
        unknown = {(wid, seq) for run_id, wid, seq in self.records if run_id == run.run_id}
        for record, owed in journal():
            unknown.discard((record.wid, record.seq))
            counts.checked += owed
            kept = self.records.get((run.run_id, record.wid, record.seq))
            what = f"record {record.wid}/{record.seq} ({record.type})"
            if kept is None and owed:
                yield Finding("missing", what, record.wid, record.seq, repr(record), mendable=True)
            elif kept is not None and kept != record:
                yield Finding(
                    "altered", what, record.wid, record.seq, repr(record), repr(kept), mendable=True
                )
        for wid, seq in sorted(unknown):
            kept = self.records[run.run_id, wid, seq]
            yield Finding("altered", f"record {wid}/{seq} ({kept.type})", None, None, None, repr(kept))

    def contents(self) -> dict[Any, Any]:
        """Return what a person would find here, for comparison."""
        kept = {key: (record.type, dict(record.payload)) for key, record in self.records.items()}
        return kept | {"status": self.status}

    def _check_up(self) -> None:
        if self.down is not None:
            raise Unavailable(self.down)
