"""Some records in a row, and the documents that they should have made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from bson import json_util
from bson.raw_bson import RawBSONDocument

from lezea_mlops.events import Envelope
from lezea_mlops.sinks.base import AuditCounts, Finding
from lezea_mlops.sinks.mongodb.documents import MODIFICATIONS, documents_of
from lezea_mlops.sinks.mongodb.large import LargeValues, addresses_in
from lezea_mlops.sinks.mongodb.modifications import content_of
from lezea_mlops.sinks.mongodb.writing import RAW, found_raw, raw

MAX_SHOWN = 300
_PLACE = ("wid", "seq", "index")


class Piece:
    """The documents that some records should have made, compared with those that are there.

    Attributes:
        documents: how many there are.
    """

    def __init__(self, database: Any, run_id: str, large: LargeValues, counts: AuditCounts) -> None:
        self.documents = 0
        self._database = database
        self._run_id = run_id
        self._large = large
        self._counts = counts
        self._wanted: dict[str, dict[str, RawBSONDocument]] = {}
        self._modifications: dict[str, list[RawBSONDocument]] = {}

    def take(self, record: Envelope, owed: bool) -> None:
        """Take a record; what is not owed may be there or not."""
        if not owed:
            return
        for collection, document in documents_of(record, self._run_id):
            self.documents += 1
            self._counts.checked += 1
            fitted = raw(self._large.fitted(document, store=False))
            if collection == MODIFICATIONS:
                self._modifications.setdefault(document["id"], []).append(fitted)
            else:
                self._wanted.setdefault(collection, {})[document["_id"]] = fitted

    def findings(self) -> Iterator[Finding]:
        """Yield the differences."""
        for collection, wanted in self._wanted.items():
            there = found_raw(self._database[collection], wanted)
            for identity, document in wanted.items():
                yield from _compared(f"{collection} {identity}", document, there.get(identity))
        if self._modifications:
            yield from self._of_modifications()
        yield from self._of_large_values()

    def _of_modifications(self) -> Iterator[Finding]:
        query = {"run_id": self._run_id, "id": {"$in": list(self._modifications)}}
        there: dict[str, list[RawBSONDocument]] = {}
        for each in self._database[MODIFICATIONS].with_options(RAW).find(query):
            there.setdefault(each["id"], []).append(each)
        for identity, logged in self._modifications.items():
            stored = there.get(identity, [])
            yield from _doubled(identity, stored)
            # What was logged again unchanged is one document.
            for document in {content_of(each): each for each in reversed(logged)}.values():
                found = _of_content(document, stored) or _of_place(document, stored)
                # The same content of another record stands for this one too.
                if found is None or _place(found) == _place(document):
                    yield from _compared(f"modification {identity}", document, found)

    def _of_large_values(self) -> Iterator[Finding]:
        """Yield the values beside the documents that are not there."""
        owners = {address: document for document in self._all() for address in addresses_in(document)}
        for address in self._large.missing(owners):
            owner = owners[address]
            yield Finding(
                "missing", f"large value {address} of {owner['_id']}", owner["wid"], owner["seq"], "a file in GridFS",
                mendable=True,
            )  # fmt: skip

    def _all(self) -> Iterable[RawBSONDocument]:
        for wanted in self._wanted.values():
            yield from wanted.values()
        for logged in self._modifications.values():
            yield from logged


def _compared(what: str, wanted: RawBSONDocument, found: RawBSONDocument | None) -> Iterator[Finding]:
    wid, seq = wanted["wid"], wanted["seq"]
    if found is None:
        yield Finding("missing", what, wid, seq, shown(wanted), mendable=True)
    elif _without_id(found) != _without_id(wanted):
        yield Finding("altered", what, wid, seq, shown(wanted), shown(found), mendable=True)


def _doubled(identity: str, stored: list[RawBSONDocument]) -> Iterator[Finding]:
    contents = [content_of(each) for each in stored]
    for position, each in enumerate(stored):
        if contents[position] in contents[:position]:
            yield Finding("doubled", f"modification {identity}", None, None, None, str(each["_id"]))


def _of_content(document: RawBSONDocument, stored: list[RawBSONDocument]) -> RawBSONDocument | None:
    content = content_of(document)
    return next((each for each in stored if content_of(each) == content), None)


def _of_place(document: RawBSONDocument, stored: list[RawBSONDocument]) -> RawBSONDocument | None:
    return next((each for each in stored if _place(each) == _place(document)), None)


def _place(document: RawBSONDocument) -> list[Any]:
    return [document.get(name) for name in _PLACE]


def _without_id(document: RawBSONDocument) -> dict[str, Any]:
    # Under which name a modification stands depends on the others of its id.
    return {name: repr(value) for name, value in document.items() if name != "_id"}


def shown(value: Any) -> str:
    """Return a document or a value as text for people, of bounded length."""
    text = json_util.dumps(value, sort_keys=True)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
