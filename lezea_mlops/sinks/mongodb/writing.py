"""Documents on their way into a database: in batches, unordered, each as often as it comes and once in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import bson
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import ReplaceOne
from pymongo.errors import BulkWriteError

# So many documents go at once; the next ones are made while the server takes these.
BATCH_DOCUMENTS = 2_000
# A message takes 48 MB, and BSON up to six times the bytes of JSON. What may be larger alone comes as BSON already.
MAX_BATCH_JSON_BYTES = 4 * 1024 * 1024
DUPLICATE_KEY = 11000
T = TypeVar("T")
RAW = CodecOptions(document_class=RawBSONDocument)


# A document as fields, or as BSON that was made of them to see how large it is.
AnyDocument = Mapping[str, Any]


def raw(content: bytes) -> RawBSONDocument:
    """Return BSON as a document that pymongo sends as it is."""
    return RawBSONDocument(content)


def raw_of(document: AnyDocument | None) -> bytes | None:
    """Return a document as BSON, for comparison; None for none."""
    if isinstance(document, RawBSONDocument):
        return bytes(document.raw)
    return None if document is None else bson.encode(document)


class Batches:
    """Inserts documents by collection while further ones are made.

    What is there already is compared, and replaced where it differs: the journal is right.

    Args:
        database: a pymongo ``Database``.
        worker: inserts; a thread of its own.
    """

    def __init__(self, database: Any, worker: ThreadPoolExecutor) -> None:
        self._database = database
        self._worker = worker
        self._waiting: dict[str, list[AnyDocument]] = {}
        self._futures: list[Future[None]] = []

    def add(self, collection: str, document: AnyDocument) -> None:
        """Take one document."""
        batch = self._waiting.get(collection)
        if batch is None:
            batch = self._waiting[collection] = []
        batch.append(document)
        if len(batch) >= BATCH_DOCUMENTS:
            self._futures.append(begun(self._worker, self._insert, collection, self._waiting.pop(collection)))

    def send(self) -> None:
        """Let what waits be inserted now."""
        for collection in list(self._waiting):
            self._futures.append(begun(self._worker, self._insert, collection, self._waiting.pop(collection)))

    def finish(self) -> None:
        """Insert what is left, and wait until all of it is taken."""
        try:
            for collection, batch in self._waiting.items():
                self._insert(collection, batch)
        finally:
            # Nothing may go on in the background when the caller hears that it failed.
            failed = [future.exception() for future in self._futures]
        for error in failed:
            if error is not None:
                raise error

    def _insert(self, collection: str, batch: Sequence[AnyDocument]) -> None:
        twice = insert_new(self._database[collection], batch)
        if twice:
            mend(self._database[collection], twice)


def begun(worker: ThreadPoolExecutor, insert: Callable[..., T], *arguments: Any) -> Future[T]:
    """Let *worker* insert; where it takes nothing any more, since the interpreter is ending, insert now."""
    try:
        return worker.submit(insert, *arguments)
    except RuntimeError:
        done: Future[T] = Future()
        done.set_result(insert(*arguments))
        return done


def insert_new(collection: Any, batch: Sequence[AnyDocument]) -> list[AnyDocument]:
    """Insert documents; return those whose ``_id`` is there already.

    The command itself, since for each document ``insert_many`` takes as long as making it: it looks for an ``_id`` and
    keeps a list of them. Its second try after a lost connection is the shipper's.

    Raises:
        BulkWriteError: something else is wrong with one of them, or with the destination.
        PyMongoError: the destination cannot be used.
    """
    twice: list[AnyDocument] = []
    for some in _fitting(batch):
        answer = collection.database.command(
            "insert", collection.name, documents=some, ordered=False,
            writeConcern=collection.write_concern.document,
        )  # fmt: skip
        wrong = answer.get("writeErrors", [])
        concern = answer.get("writeConcernError")
        if concern or any(each["code"] != DUPLICATE_KEY for each in wrong):
            raise BulkWriteError({"writeErrors": wrong, "writeConcernErrors": [concern] if concern else []})
        twice += [some[each["index"]] for each in wrong]
    return twice


def _fitting(batch: Sequence[AnyDocument]) -> Iterator[Sequence[AnyDocument]]:
    """Yield a batch in pieces of which each fits into one message."""
    large = [document for document in batch if isinstance(document, RawBSONDocument)]
    if not large:
        yield batch
        return
    yield from ([document] for document in large)
    if len(large) < len(batch):
        yield [document for document in batch if not isinstance(document, RawBSONDocument)]


def mend(collection: Any, documents: Sequence[AnyDocument]) -> None:
    """Replace those documents that stand there with other content."""
    wanted = {document["_id"]: document for document in documents}
    there = found_raw(collection, wanted)
    differing: list[ReplaceOne[Any]] = [
        ReplaceOne({"_id": identity}, document, upsert=True)
        for identity, document in wanted.items()
        if raw_of(there.get(identity)) != raw_of(document)
    ]
    if differing:
        collection.bulk_write(differing, ordered=False)


def found_raw(collection: Any, identities: Iterable[Any]) -> dict[Any, RawBSONDocument]:
    """Return the documents of these ``_id`` as they stand there."""
    query = {"_id": {"$in": list(identities)}}
    return {each["_id"]: each for each in collection.with_options(RAW).find(query)}
