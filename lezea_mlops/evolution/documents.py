"""Modifications, networks and populations as documents of MongoDB, and what a journal holds of them, read back.

Nothing here imports a driver: a database is whatever has the methods of pymongo's ``Database``.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from lezea_mlops.events import (
    Envelope,
    Modification,
    ModificationTreeLogged,
    NetworkRegistered,
    PopulationLogged,
    as_id,
    as_number,
    from_document,
)
from lezea_mlops.evolution.graph import Moment
from lezea_mlops.evolution.history import Evolution
from lezea_mlops.evolution.records import moment_of
from lezea_mlops.evolution.tree import Node

MODIFICATIONS, NETWORKS, POPULATIONS = "modifications", "networks", "populations"
# So many documents come, and so many values are asked for, at once.
BATCH = 1_000

# A document's place among all records, and of a modification its place in the record.
ORDER_FIELDS = ("att", "ts", "wid", "seq", "index")
Document = Mapping[str, Any]
Order = tuple[Any, ...]


def order_of(document: Document) -> Order:
    """Return where a document stands in logged order."""
    att, ts, seq = document["att"], document["ts"], document["seq"]
    if not (isinstance(att, int) and isinstance(ts, int) and isinstance(seq, int)):
        att, ts, seq = from_document(att), from_document(ts), from_document(seq)
    return att, ts, document["wid"], seq, document.get("index", 0)


def in_batches(values: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield *values* in lists that are not too long for one request."""
    batch: list[Any] = []
    for value in values:
        batch.append(value)
        if len(batch) >= BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def newest_by_id(documents: Iterable[Document], name_of: Callable[[Document], str]) -> dict[str, Document]:
    """Return of the documents of each id the one that counts: that of the content that was new last."""
    found: dict[str, Document] = {}
    for document in documents:
        name = name_of(document)
        known = found.get(name)
        if known is None or order_of(known) < order_of(document):
            found[name] = document
    return found


def not_logged(node_id: str) -> KeyError:
    """Return the error that nothing with an id was logged."""
    return KeyError(f"nothing with the id {node_id!r} was logged, or none of it is in MongoDB yet")


def parents_of(database: Any, stored: Any) -> list[str]:
    """Return the ids in a field of parents as a journal's reader understands them, each once."""
    if isinstance(stored, Mapping):
        stored = from_document(stored, partial(read_large, database))
    several = stored if isinstance(stored, list) else [stored]
    return list(dict.fromkeys(text for text in map(as_id, several) if text is not None))


def as_stored(text: str) -> list[Any]:
    """Return the values that have this text as an id: itself, and the number that other programs may have written."""
    try:
        number = json.loads(text)
    except (ValueError, RecursionError):
        return [text]
    return [text, number] if isinstance(number, (int, float)) and as_id(number) == text else [text]


def read_large(database: Any, address: str) -> bytes:
    """Return the JSON of a value that was too large for its document, from GridFS."""
    pieces = database["large_values.chunks"].find({"files_id": address}, {"data": 1}).sort("n", 1)
    return b"".join(piece["data"] for piece in pieces)


def node_of(database: Any, document: Document) -> Node:
    """Return a document as a modification and where it was logged."""
    moment = moment_of(record_of(document, ModificationTreeLogged.type, {}))
    return Node(modification_of(database, document), moment.step, moment.scope, moment.ts)


def modification_of(database: Any, document: Document) -> Modification:
    """Return the modification in a document; values that were too large for it stay pointers."""
    score = from_document(document["score"])
    return Modification(
        id=document["id"],
        parent_ids=tuple(parents_of(database, document["parent_ids"])),
        type=document["type"],
        accepted=document["accepted"],
        score=as_number(score["$num"]) if isinstance(score, Mapping) else score,
        target=document["target"],
        params=from_document(document["params"]),
        data=from_document(document["data"]),
    )


def record_of(document: Document, kind: str, fields: Mapping[str, Any]) -> Envelope:
    """Return the head of a document as the record it was made of, with these fields beside step and scope."""
    meta = {name: from_document(document[name]) for name in ("seq", "ts", "wid", "att")}
    beside = {name: from_document(document[name]) for name in ("step", "scope") if name in document}
    return Envelope(kind, meta, {"run_id": document["run_id"], **beside, **fields})


def network_of(database: Any, document: Document) -> tuple[Mapping[str, Any], Moment]:
    """Return a document as a registered network's fields, and when it was logged; its large values are read."""
    return _whole(database, document, NetworkRegistered.type)


def population_of(database: Any, document: Document) -> tuple[Mapping[str, Any], Moment]:
    """Return a document as a population's fields, and when it was logged; its large values are read."""
    return _whole(database, document, PopulationLogged.type)


def _whole(database: Any, document: Document, kind: str) -> tuple[Mapping[str, Any], Moment]:
    fields = from_document(document["data"], partial(read_large, database))
    return fields, moment_of(record_of(document, kind, {}))


def read_evolution_from_mongo(database: Any, run_id: str) -> Evolution:
    """Return the modifications and networks of a run as MongoDB holds them, like ``read_evolution`` of its folder.

    The server sorts, on its disk where there are many, and the documents come in batches. A value that was too large
    for its document stays a pointer, but for fitness and parents of networks. What the journal tells of records that
    hold no list of modifications is not in MongoDB.

    Args:
        database: a pymongo ``Database``.
        run_id: the experiment id; of a run that is not there the evolution is empty.
    """
    check_text("run_id", run_id)
    evolution = Evolution()
    modifications = _sorted(database[MODIFICATIONS], run_id)
    for _, of_record in itertools.groupby(modifications, key=lambda each: (each["wid"], each["seq"])):
        first = next(of_record)
        moment = moment_of(record_of(first, ModificationTreeLogged.type, {}))
        logged = (modification_of(database, each) for each in itertools.chain([first], of_record))
        evolution.modifications.add_all(logged, moment)
    for document in _sorted(database[NETWORKS], run_id):
        evolution.networks.register(*network_of(database, document))
    for document in _sorted(database[POPULATIONS], run_id):
        evolution.networks.observe_population(*population_of(database, document))
    return evolution


def _sorted(collection: Any, run_id: str) -> Iterator[Document]:
    """Yield the documents of a run in logged order."""
    order = [(name, 1) for name in ORDER_FIELDS]
    found = collection.find({"run_id": run_id}, allow_disk_use=True, batch_size=BATCH)
    return iter(found.sort(order))


def check_text(name: str, value: Any) -> None:
    """Refuse what is no text: in a query a mapping would be an operator.

    Raises:
        TypeError: *value* is no text.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r:.100} of type {type(value).__name__}; pass the id as text")
