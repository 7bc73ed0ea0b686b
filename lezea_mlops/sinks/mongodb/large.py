"""Values that are too large for a document: moved to GridFS, with head, digest and address in their place."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import bson
import gridfs

from lezea_mlops.events import LARGE, Envelope, encode_json, from_document
from lezea_mlops.sinks.mongodb.documents import Document
from lezea_mlops.sinks.mongodb.values import to_bson

BUCKET = "large_values"
# A quarter of what a server takes: nothing that a person adds later may make a document impossible.
MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
# Below it moving a value out gains nothing.
MIN_MOVED_BYTES = 1024
HEAD_CHARACTERS = 200
_STAYS = frozenset({"_id", "run_id", "wid", "seq", "att", "ts", "at", "id", "index", "attempts", "lezea"})


def may_be_large(record: Envelope) -> bool:
    """Tell whether a document of *record* may be larger than it should; BSON takes up to six times a line's bytes."""
    return not 0 < record.size_bytes <= MAX_DOCUMENT_BYTES // 8


class LargeValues:
    """The large values of a run in one database.

    Args:
        database: a pymongo ``Database``.
        run_id: the experiment id, which begins the address of each.
    """

    def __init__(self, database: Any, run_id: str) -> None:
        self._bucket = gridfs.GridFSBucket(database, BUCKET)
        self._run_id = run_id

    def fitted(self, document: Document, *, store: bool = True) -> bytes:
        """Return *document* as BSON of bounded size; its largest values are moved to GridFS until it is.

        Args:
            document: as it would stand if nothing of it were large.
            store: False: only the document is made, and nothing is written.
        """
        content = bson.encode(document)
        if len(content) <= MAX_DOCUMENT_BYTES:
            return content
        slim = {name: dict(value) if isinstance(value, dict) else value for name, value in document.items()}
        size = len(content)
        for length, place, name in sorted(_movable(slim), key=lambda found: -found[0]):
            if size <= MAX_DOCUMENT_BYTES:
                break
            if length >= MIN_MOVED_BYTES:
                place[name] = self._moved(place[name], store)
                size -= length
        for name, value in slim.items():
            # Many small values are moved together.
            if size > MAX_DOCUMENT_BYTES and name not in _STAYS and isinstance(value, (dict, list)):
                size -= _length(value)
                slim[name] = self._moved(value, store)
        return bson.encode(slim)

    def expanded(self, document: Mapping[str, Any]) -> Document:
        """Return a document with its large values in their places again, as BSON values."""
        return {name: self._expanded(value) for name, value in document.items()}

    def delete_unless(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """Delete the large values of a document that its newer form does not name any more."""
        for address in set(addresses_in(before)) - set(addresses_in(after)):
            self._delete(address)

    def read(self, address: str) -> bytes:
        """Return the JSON of a large value."""
        return self._bucket.open_download_stream(address).read()

    def _delete(self, address: str) -> None:
        # What is gone already need not be deleted; its pieces are, even where the file was never completed.
        with contextlib.suppress(gridfs.NoFile):
            self._bucket.delete(address)

    def missing(self, addresses: Iterable[str]) -> list[str]:
        """Return those of the addresses under which no value is stored."""
        asked = list(addresses)
        there = {each._id for each in self._bucket.find({"_id": {"$in": asked}})} if asked else set()
        return [address for address in asked if address not in there]

    def _moved(self, value: Any, store: bool) -> dict[str, Any]:
        content = encode_json(from_document(value, self.read))
        digest = hashlib.sha256(content).hexdigest()
        address = f"{self._run_id}/{digest}"
        if store and self.missing([address]):
            # A delivery that was cut short leaves pieces without their file.
            self._delete(address)
            self._bucket.upload_from_stream_with_id(
                address, "value.json", content, metadata={"run_id": self._run_id}
            )
        head = content[: HEAD_CHARACTERS * 4].decode(errors="ignore")[:HEAD_CHARACTERS]
        return {LARGE: {"file": address, "sha256": digest, "bytes": len(content), "head": head}}

    def _expanded(self, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        if len(value) == 1 and isinstance(pointer := value.get(LARGE), Mapping):
            return to_bson(json.loads(self.read(pointer["file"])))
        return {name: self._expanded(item) for name, item in value.items()}


def _movable(document: Document) -> Iterator[tuple[int, dict[str, Any], str]]:
    """Yield length, holder and name of each value that may leave the document."""
    for name, value in document.items():
        if name in _STAYS:
            continue
        if isinstance(value, dict):
            for inner, item in value.items():
                yield _length(item), value, inner
        else:
            yield _length(value), document, name


def _length(value: Any) -> int:
    return len(bson.encode({"": value}))


def addresses_in(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the addresses of the large values of a document."""
    for value in document.values():
        if not isinstance(value, Mapping):
            continue
        pointer = value.get(LARGE)
        if len(value) == 1 and isinstance(pointer, Mapping):
            yield pointer["file"]
        else:
            yield from addresses_in(value)
