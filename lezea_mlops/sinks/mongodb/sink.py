"""Delivers a run's records to MongoDB."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lezea_mlops.events import Envelope
from lezea_mlops.sinks.base import AuditCounts, AuditedJournal, Finding, Run
from lezea_mlops.sinks.mongodb.connection import address_of, close, connect, translated_errors

# While one batch waits for the server's disk, the next one can be on its way.
WORKERS = 2


class MongoSink:
    """One run in MongoDB: a document for each record, one for each modification, one for the run as a whole.

    Args:
        uri: of the server; its path names the database, its options stand above ours.
    """

    name = "mongodb"
    # A batch is made while another one is inserted; the more there are, the less is waited for at the end.
    batch_bytes = 4 * 1024 * 1024

    def __init__(self, uri: str) -> None:
        self.destination = address_of(uri)
        self._uri = uri
        self._database: Any = None
        self._worker: ThreadPoolExecutor | None = None
        self._delivery: Any = None
        self._begun = False

    def open(self, run: Run, state: Mapping[str, Any]) -> None:
        """Connect, make the indexes, and read what is known of the run there.

        Raises:
            Unavailable: also where the run was there before and is not any more.
        """
        if self._database is None:
            self._database = connect(self._uri)
        if self._worker is None:
            self._worker = ThreadPoolExecutor(WORKERS, "lezea-mongodb")
        # It imports the driver, which need not be installed where nobody delivers.
        from lezea_mlops.sinks.mongodb.delivery import RunDelivery, removed

        with translated_errors(self.destination):
            self._delivery = RunDelivery(self._database, run.run_id, self._worker)
        if state.get("begun") and not self._delivery.is_there:
            raise removed(run.run_id)
        self._begun = self._delivery.is_there

    def deliver(self, records: Sequence[Envelope]) -> None:
        """Take *records*: their documents first, what they say of the run as a whole last."""
        with translated_errors(self.destination):
            self._delivery.take(records)
        self._begun = self._delivery.is_there

    def state(self) -> Mapping[str, Any]:
        """Return whether the run is there, so that a later one can tell that it was deleted."""
        return {"begun": self._begun}

    def close(self) -> None:
        """Close the connections."""
        if self._worker is not None:
            self._worker.shutdown(wait=False)
        if self._database is not None:
            close(self._database)
        self._worker = self._database = self._delivery = None

    def audit(
        self, run: Run, state: Mapping[str, Any], journal: AuditedJournal, counts: AuditCounts
    ) -> Iterator[Finding]:
        """Compare what MongoDB holds of *run* with the journal."""
        # Here, since it imports the driver, and an audit is rare.
        from lezea_mlops.sinks.mongodb.audit import audited

        database = connect(self._uri)
        try:
            with translated_errors(self.destination):
                yield from audited(database, run, journal, counts)
        finally:
            close(database)
