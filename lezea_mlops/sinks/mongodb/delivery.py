"""The documents of one run, written into a database that answers."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pymongo import IndexModel
from pymongo.errors import DuplicateKeyError

from lezea_mlops.events import Envelope
from lezea_mlops.sinks.base import Unavailable
from lezea_mlops.sinks.mongodb.documents import (
    COLLECTION_OF_TYPE,
    COLLECTIONS,
    EXPERIMENTS,
    MADE_OF_SEVERAL,
    MODIFICATIONS,
    OTHER_EVENTS,
    documents_of,
    record_document,
)
from lezea_mlops.sinks.mongodb.experiment import BOOKKEEPING, TYPES_OF_THE_RUN, Experiment
from lezea_mlops.sinks.mongodb.large import LargeValues, may_be_large
from lezea_mlops.sinks.mongodb.modifications import ModificationBatches
from lezea_mlops.sinks.mongodb.writing import MAX_BATCH_JSON_BYTES, Batches, raw

# Beside ``_id``, which every collection has; each further one makes every write slower.
INDEXES: dict[str, tuple[tuple[str, ...], ...]] = {
    **dict.fromkeys(COLLECTIONS, (("run_id", "step"),)),
    EXPERIMENTS: (("name",),),
    MODIFICATIONS: (("run_id", "id"), ("run_id", "parent_ids"), ("run_id", "step"), ("run_id", "target")),
    "networks": (("run_id", "data.network_id"), ("run_id", "data.parent_ids")),
}


def make_indexes(database: Any) -> None:
    """Make the indexes that are missing; a server answers at once where they are there."""
    for collection, indexes in INDEXES.items():
        database[collection].create_indexes(
            [IndexModel([(field, 1) for field in fields]) for fields in indexes]
        )


class RunDelivery:
    """Writes the documents of one run.

    Args:
        database: a pymongo ``Database``.
        run_id: the experiment id.
        worker: inserts documents while further ones are made.

    Attributes:
        is_there: the run has its document.
    """

    def __init__(self, database: Any, run_id: str, worker: ThreadPoolExecutor) -> None:
        self._database = database
        self._run_id = run_id
        self._worker = worker
        self._large = LargeValues(database, run_id)
        make_indexes(database)
        self._stored = database[EXPERIMENTS].find_one({"_id": run_id})
        self._experiment = Experiment(run_id, self._stored and self._large.expanded(self._stored))
        self.is_there = self._stored is not None
        # It knows more than its document; also when a batch of records was refused and comes again in pieces.
        self._changed = False

    def take(self, records: Sequence[Envelope]) -> None:
        """Write all that *records* bring; again, where it is there already."""
        batches = Batches(self._database, self._worker)
        modifications = ModificationBatches(self._database, self._run_id, self._worker)
        with contextlib.ExitStack() as begun:
            # What was begun is waited for, whatever happens.
            begun.callback(batches.finish)
            begun.callback(modifications.finish)
            waiting_bytes = 0
            for record in records:
                waiting_bytes += record.size_bytes
                if waiting_bytes > MAX_BATCH_JSON_BYTES:
                    batches.send()
                    modifications.send()
                    waiting_bytes = record.size_bytes
                kind = record.type
                if kind not in MADE_OF_SEVERAL and not may_be_large(record):
                    # Nearly every record is such a one.
                    batches.add(
                        COLLECTION_OF_TYPE.get(kind, OTHER_EVENTS), record_document(record, self._run_id)
                    )
                else:
                    self._add_all(record, batches, modifications)
                if kind in TYPES_OF_THE_RUN:
                    self._changed = self._experiment.observe(record) or self._changed
        if self._changed or not self.is_there:
            self._store_experiment()

    def _add_all(self, record: Envelope, batches: Batches, modifications: ModificationBatches) -> None:
        large = may_be_large(record)
        for collection, document in documents_of(record, self._run_id):
            fitted = raw(self._large.fitted(document)) if large else document
            if collection == MODIFICATIONS:
                modifications.add(fitted)
            else:
                batches.add(collection, fitted)

    def _store_experiment(self) -> None:
        """Write the run's document, unless another write came between, or somebody deleted it."""
        content = raw(self._large.fitted(self._experiment.document()))
        revision = content[BOOKKEEPING]["revision"]
        newer_than = {"_id": self._run_id, f"{BOOKKEEPING}.revision": {"$lt": revision}}
        experiments = self._database[EXPERIMENTS]
        try:
            # It is made once: what somebody deleted must not come back without its documents.
            written = experiments.replace_one(newer_than, content, upsert=not self.is_there)
        except DuplicateKeyError:
            written = None
        if self.is_there and written is not None and written.matched_count == 0:
            if experiments.find_one({"_id": self._run_id}, {"_id": 1}) is None:
                raise removed(self._run_id)
            written = None
        if written is None:
            # One of ours that was thought lost, or somebody else's; what stands there is read again, and this repeated.
            raise Unavailable(
                f"the document of the run {self._run_id} was written by somebody else meanwhile", "waiting"
            )
        if self._stored is not None:
            self._large.delete_unless(self._stored, content)
        self._stored, self.is_there, self._changed = content, True, False
        self._experiment.revision = revision


def removed(run_id: str) -> Unavailable:
    """Return what is said of a run that was there and is not any more."""
    return Unavailable(
        f"the run {run_id} is not in MongoDB any more: somebody deleted it. "
        f"`lezea sync --recreate --to mongodb {run_id}` delivers it anew",
        "removed",
    )
