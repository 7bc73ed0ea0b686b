"""What a record becomes in MongoDB: one document, or one for each modification of a tree.

A document's ``_id`` follows from the record, so that the same record again is the same document.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from typing import Any

from lezea_mlops.events import Envelope, ModificationTreeLogged, read_modification
from lezea_mlops.sinks.mongodb.values import FIELD_NAMES, NUMBER_FIELDS, to_bson, to_name, to_number

Document = dict[str, Any]

EXPERIMENTS = "experiments"
MODIFICATIONS = "modifications"
TREES = "modification_trees"
OTHER_EVENTS = "events"

# Types that have no collection here keep one document each among the other events.
COLLECTION_OF_TYPE = {
    "metric": "training_steps", "delta_loss": "training_steps", "training_step": "training_steps",
    "modification_tree": TREES, "modification_tree_stats": TREES, "modification_stats": TREES,
    "data_splits": "data_usage", "data_usage": "data_usage", "data_score": "data_usage",
    "resource": "resources", "resource_use": "resources", "resource_totals": "resources",
    "checkpoint": "checkpoints", "artifact": "checkpoints",
    "dataset_version": "datasets", "result": "results", "reward": "rewards",
    "population": "populations", "network": "networks",
    "resource_cost": "business", "business": "business", "rates": "business", "budget": "business",
    "budget_reached": "business", "comment": "comments", "conclusion": "comments",
}  # fmt: skip

# They are the run itself: its one document in ``experiments`` is made of them.
OF_THE_RUN = frozenset({"run_started", "run_finished", "param", "lezea_config", "constraints", "environment"})

# All other types are one document each.
MADE_OF_SEVERAL = OF_THE_RUN | {ModificationTreeLogged.type}

COLLECTIONS = (*dict.fromkeys(COLLECTION_OF_TYPE.values()), MODIFICATIONS, OTHER_EVENTS)

_ABSENT = object()
_TEXTS = frozenset({str})
_NO_FIELDS: frozenset[str] = frozenset()
_LARGEST = 2**63 - 1
_LAST_US = 253_402_300_799_000_000  # the end of the year 9999, where calendars end


def moment(ts_us: int) -> datetime:
    """Return a time in microseconds as a date, which in BSON has milliseconds, within what calendars hold."""
    return datetime.fromtimestamp(min(max(ts_us, 0), _LAST_US) / 1e6, timezone.utc)


def record_document(record: Envelope, run_id: str) -> Document:
    """Return the document of a record that is kept as one."""
    document = _head(record, run_id)
    document["_id"] = f"{run_id}/{document['wid']}/{document['seq']}"
    document["type"] = record.type
    data = dict(record.payload)
    data.pop("run_id", None)
    _put_place(document, data)
    if not data.keys() <= FIELD_NAMES:
        data = {to_name(name): value for name, value in data.items()}
    numbers = NUMBER_FIELDS.get(record.type, _NO_FIELDS)
    for name, value in data.items():
        # This is done for every field of every record; a number that is written as one stays as it is.
        if type(value) is not float:
            data[name] = to_number(value) if name in numbers else to_bson(value)
    document["data"] = data
    return document


def tree_document(record: Envelope, run_id: str) -> Document | None:
    """Return the one document of a logged tree: its statistics and counts; None for its further parts."""
    part = record.payload.get("part")
    if type(part) is int and part > 1:
        return None
    own = {name: value for name, value in record.payload.items() if name != "part"}
    if type(own.get("modifications")) is list:
        # They are documents of their own; a pointer to what was too large for its line stays.
        del own["modifications"]
    return record_document(Envelope(record.type, record.meta, own, record.version), run_id)


def modification_key(run_id: str, identity: str) -> str:
    """Return the plain ``_id`` of a modification; behind a ``#`` stands which further content of an id it is."""
    return f"{run_id}/{identity.replace('%', '%25').replace('#', '%23')}"


def modification_documents(record: Envelope, run_id: str) -> Iterator[Document]:
    """Yield a document for each modification of a logged tree, under the plain ``_id`` of its own id."""
    logged = record.payload.get("modifications")
    if type(logged) is not list:
        return
    head = _head(record, run_id)
    _put_place(head, dict(record.payload))
    prefix = f"{record.wid}.{record.seq}."
    for index, each in enumerate(logged):
        found = read_modification(each, f"{prefix}{index + 1}")
        document = head.copy()
        document["_id"] = modification_key(run_id, found.id)
        document["index"] = index
        document["id"] = found.id
        document["parent_ids"] = list(found.parent_ids)
        document["type"] = found.type
        document["accepted"] = found.accepted
        document["score"] = to_bson(found.score)
        document["target"] = found.target
        document["params"] = to_bson(found.params)
        document["data"] = to_bson(found.data)
        yield document


def documents_of(record: Envelope, run_id: str) -> Iterable[tuple[str, Document]]:
    """Return collection and document of all that a record brings, except what it says of the run as a whole."""
    kind = record.type
    if kind == ModificationTreeLogged.type:
        return _documents_of_tree(record, run_id)
    if kind in OF_THE_RUN:
        return ()
    return ((COLLECTION_OF_TYPE.get(kind, OTHER_EVENTS), record_document(record, run_id)),)


def _documents_of_tree(record: Envelope, run_id: str) -> Iterator[tuple[str, Document]]:
    tree = tree_document(record, run_id)
    if tree is not None:
        yield TREES, tree
    for modification in modification_documents(record, run_id):
        yield MODIFICATIONS, modification


def collections_of(record: Envelope) -> tuple[str, ...]:
    """Return the collections in which a record may have made documents of its own."""
    if record.type == ModificationTreeLogged.type:
        return (TREES, MODIFICATIONS)
    return () if record.type in OF_THE_RUN else (COLLECTION_OF_TYPE.get(record.type, OTHER_EVENTS),)


def _head(record: Envelope, run_id: str) -> Document:
    """Return the fields that every document begins with; its ``_id`` is yet to be filled in."""
    meta = record.meta
    seq, ts, att = meta["seq"], meta["ts"], meta.get("att") or 1
    if 0 < seq <= _LARGEST and 0 <= ts <= _LAST_US and 0 < att <= _LARGEST:
        at = datetime.fromtimestamp(ts / 1e6, timezone.utc)
    else:
        at, seq, ts, att = moment(ts), to_bson(seq), to_bson(ts), to_bson(att)
    wid = meta.get("wid") or "main"
    return {"_id": "", "run_id": run_id, "wid": wid, "seq": seq, "att": att, "ts": ts, "at": at}


def _put_place(document: Document, fields: Document) -> None:
    """Move step and scope from the fields of a record to the top of its document."""
    if "step" in fields:
        document["step"] = to_bson(fields.pop("step"))
    scope = fields.pop("scope", _ABSENT)
    if scope is not _ABSENT:
        document["scope"] = scope if _are_pairs(scope) else to_bson(scope)


def _are_pairs(scope: Any) -> bool:
    """Tell whether a scope is what it is in nearly every record: a list of levels and ids."""
    if type(scope) is not list:
        return False
    return all(type(pair) is list and _TEXTS.issuperset(map(type, pair)) for pair in scope)
