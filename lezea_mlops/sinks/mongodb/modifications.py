"""One document for each modification, also where one id was logged several times.

What is logged again unchanged adds nothing: its first logging stands. Other content under the same id gets a document
of its own, with ``#`` and the number of its record behind the id. Which of them is the first follows from the order of
the records, never from the order in which they arrive.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import bson
from pymongo import DeleteOne, ReplaceOne

from lezea_mlops.sinks.mongodb.documents import MODIFICATIONS, Document, modification_key
from lezea_mlops.sinks.mongodb.writing import (
    BATCH_DOCUMENTS,
    RAW,
    AnyDocument,
    begun,
    found_raw,
    insert_new,
    raw_of,
)

_CONTENT = ("id", "parent_ids", "type", "accepted", "score", "target", "params", "data")


class ModificationBatches:
    """Inserts the modifications of one delivery while further ones are made.

    Args:
        database: a pymongo ``Database``.
        run_id: the experiment id.
        worker: inserts; a thread of its own.
    """

    def __init__(self, database: Any, run_id: str, worker: ThreadPoolExecutor) -> None:
        self._collection = database[MODIFICATIONS]
        self._run_id = run_id
        self._worker = worker
        self._seen: set[str] = set()
        self._batch: list[AnyDocument] = []
        self._again: list[AnyDocument] = []
        self._futures: list[Future[list[AnyDocument]]] = []

    def add(self, document: AnyDocument) -> None:
        """Take one document, under the plain ``_id`` of its modification."""
        identity = document["_id"]
        if identity in self._seen:
            self._again.append(document)
            return
        self._seen.add(identity)
        self._batch.append(document)
        if len(self._batch) >= BATCH_DOCUMENTS:
            self.send()

    def send(self) -> None:
        """Let what waits be inserted now."""
        if self._batch:
            self._futures.append(begun(self._worker, insert_new, self._collection, self._batch))
            self._batch = []

    def finish(self) -> None:
        """Insert what is left, wait until all of it is taken, and settle what came again."""
        try:
            again = insert_new(self._collection, self._batch) if self._batch else []
        finally:
            failed = [future.exception() for future in self._futures]
        for error in failed:
            if error is not None:
                raise error
        for future in self._futures:
            again += future.result()
        again += self._again
        for start in range(0, len(again), BATCH_DOCUMENTS):
            self._settle(again[start : start + BATCH_DOCUMENTS])

    def _settle(self, again: Sequence[AnyDocument]) -> None:
        """Give each content of an id its document; those that are there already as they should be stay untouched."""
        there = found_raw(self._collection, {each["_id"] for each in again})
        open_questions = [each for each in again if raw_of(each) != raw_of(there.get(each["_id"]))]
        if not open_questions:
            return
        by_id: dict[str, list[AnyDocument]] = {}
        for each in open_questions:
            by_id.setdefault(each["id"], []).append(each)
        stored: dict[str, list[AnyDocument]] = {}
        query = {"run_id": self._run_id, "id": {"$in": list(by_id)}}
        for each in self._collection.with_options(RAW).find(query):
            stored.setdefault(each["id"], []).append(each)
        changes = [
            change for identity, new in by_id.items() for change in _changes(stored.get(identity, []), new)
        ]
        if changes:
            # In this order nothing is gone before it stands elsewhere.
            self._collection.bulk_write(changes, ordered=True)


def _changes(
    stored: Sequence[AnyDocument], new: Sequence[AnyDocument]
) -> Iterator[ReplaceOne[Any] | DeleteOne]:
    """Yield what must be written so that the documents of one id are those of all that was logged under it."""
    # The journal is right where a stored document of the very same place says something else.
    again = {_order(each) for each in new}
    wanted = settled([*(each for each in stored if _order(each) not in again), *new])
    there = {each["_id"]: each for each in stored}
    # The one with the plain name last: until then the former one stands under it.
    for identity, document in reversed(wanted.items()):
        if raw_of(there.get(identity)) != raw_of(document):
            yield ReplaceOne({"_id": identity}, document, upsert=True)
    for identity in there.keys() - wanted.keys():
        yield DeleteOne({"_id": identity})


def settled(logged: Sequence[Mapping[str, Any]]) -> dict[str, Document]:
    """Return the documents of one id by their ``_id``: one for each content, the earliest one under the plain name."""
    earliest: dict[bytes, Mapping[str, Any]] = {}
    for each in sorted(logged, key=_order):
        earliest.setdefault(content_of(each), each)
    wanted: dict[str, Document] = {}
    for each in earliest.values():
        plain = modification_key(each["run_id"], each["id"])
        wanted[_name(each, plain, wanted)] = dict(each)
    return {identity: {**document, "_id": identity} for identity, document in wanted.items()}


def _name(document: Mapping[str, Any], plain: str, taken: Mapping[str, Any]) -> str:
    if plain not in taken:
        return plain
    writer = "" if document["wid"] == "main" else f"{document['wid']}/"
    name = f"{plain}#{writer}{document['seq']}"
    return name if name not in taken else f"{name}.{document['index']}"


def _order(document: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(document[name] for name in ("att", "ts", "wid", "seq", "index"))


def content_of(document: Mapping[str, Any]) -> bytes:
    """Return what was logged of a modification, without when, where and by whom, for comparison."""
    return bson.encode({name: document[name] for name in _CONTENT})
