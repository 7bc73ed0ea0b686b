"""The one document of a run in ``experiments``: what was said of it last, whatever order the records come in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import bson

from lezea_mlops.events import Envelope, from_document
from lezea_mlops.sinks.mongodb.documents import Document, moment
from lezea_mlops.sinks.mongodb.values import NUMBER_FIELDS, to_bson, to_name, to_number

# Where a value stands in the document, and how new it is: attempt, rank of an end, time, writer, number.
Path = tuple[str, ...]
Order = list[Any]
Said = Iterator[tuple[Path, Any]]

# Our own bookkeeping in the document.
BOOKKEEPING = "lezea"
# One value, whose parts stand at the top: of a resumed run nothing of the former end may stay.
OUTCOME = ("outcome",)
OUTCOME_FIELDS = ("status", "reason", "error", "finished_at", "duration_ms", "inferred")


class Experiment:
    """All that is known of a run as a whole, each value with the order key of the record that said it.

    Args:
        run_id: the experiment id.
        stored: the document as it stands in MongoDB; None if there is none yet.

    Attributes:
        revision: grows with every stored change, so that a write that comes too late can be told.
    """

    def __init__(self, run_id: str, stored: Mapping[str, Any] | None = None) -> None:
        self.run_id = run_id
        self.revision = 0
        self._values: dict[Path, tuple[Order, Any]] = {}
        bookkeeping = None if stored is None else stored.get(BOOKKEEPING)
        if stored is not None and isinstance(bookkeeping, Mapping):
            self.revision = int(bookkeeping["revision"])
            for names, order in bookkeeping["written"]:
                self._restore(stored, tuple(names), from_document(order))

    def observe(self, record: Envelope) -> bool:
        """Take one record; tell whether it said anything new."""
        changed = False
        for path, order, value in said_of_the_run(record):
            known = self._values.get(path)
            # Of the very same record the journal is right, not what a person wrote over it.
            if known is None or known[0] < order or (known[0] == order and _differ(known[1], value)):
                self._values[path] = (order, value)
                changed = True
        return changed

    def items(self) -> Iterator[tuple[Path, Order, Any]]:
        """Yield every value with its place and its order key."""
        for path, (order, value) in sorted(self._values.items(), key=lambda item: item[0]):
            yield path, order, value

    def document(self) -> Document:
        """Return the document as it should stand, under the next revision."""
        document: Document = {"_id": self.run_id, "run_id": self.run_id}
        written = []
        for path, order, value in self.items():
            written.append([list(path), to_bson(order)])
            if path == OUTCOME:
                document |= value
                continue
            place = document
            for name in path[:-1]:
                place = place.setdefault(to_name(name), {})
            place[to_name(path[-1])] = value
        document[BOOKKEEPING] = {"revision": self.revision + 1, "written": written}
        return document

    def _restore(self, stored: Mapping[str, Any], path: Path, order: Order) -> None:
        """Read one value back; what a person took out of the document is not there any more."""
        if path == OUTCOME:
            outcome = {name: stored[name] for name in OUTCOME_FIELDS if name in stored}
            self._values[path] = (order, outcome)
            return
        place: Any = stored
        for name in path:
            if not isinstance(place, Mapping) or to_name(name) not in place:
                return
            place = place[to_name(name)]
        self._values[path] = (order, place)


def _differ(one: Any, other: Any) -> bool:
    """Tell whether two values are stored differently; NaN is stored as NaN."""
    return bson.encode({"": one}) != bson.encode({"": other})


def said_of_the_run(record: Envelope) -> Iterator[tuple[Path, Order, Any]]:
    """Yield place, order key and value of all that a record says of the run as a whole."""
    say = _SAYS.get(record.type)
    if say is None:
        return
    for path, value in say(record):
        # A newer attempt beats an older one, an end a start, and a real end one that others inferred.
        rank = 0
        if record.type == "run_finished" and path[-1] in ("outcome", "end"):
            rank = 1 if record.payload.get("inferred") else 2
        yield path, [record.att, rank, record.ts, record.wid, record.seq], value


def _started(record: Envelope) -> Said:
    payload = record.payload
    for name in ("purpose", "source", "env"):
        if payload.get(name) is not None:
            yield (name,), to_bson(payload[name])
    yield ("name",), to_bson(payload.get("experiment_name"))
    yield from _each(record, "tags", "tags")
    yield OUTCOME, {"status": "running"}
    yield ("attempts", str(record.att), "started_at"), moment(record.ts)


def _finished(record: Envelope) -> Said:
    payload = record.payload
    ended = payload.get("ended_at")
    at = moment(ended if type(ended) is int else record.ts)
    told = {name: to_bson(payload[name]) for name in OUTCOME_FIELDS if payload.get(name) is not None}
    yield OUTCOME, told | {"finished_at": at}
    brief = {name: told[name] for name in ("status", "reason", "inferred") if name in told}
    yield ("attempts", str(record.att), "end"), brief | {"at": at}
    if payload.get("summary") is not None:
        yield ("summary",), to_bson(payload["summary"])


def _params(record: Envelope) -> Said:
    yield from _each(record, "params", "params")
    if "key" in record.payload:
        nested = record.payload.get("nested_key")
        path = [record.payload["key"], *(nested if isinstance(nested, list) else [])]
        yield ("params", ".".join(map(str, path))), to_bson(record.payload.get("value"))


def _fields(place: str) -> Callable[[Envelope], Said]:
    """Return what says every field of a record at a place of the document."""

    def say(record: Envelope) -> Said:
        numbers = NUMBER_FIELDS[record.type]
        for name, value in record.payload.items():
            if name not in ("run_id", "scope"):
                yield (place, name), to_number(value) if name in numbers else to_bson(value)

    return say


def _business(record: Envelope) -> Said:
    yield from _each(record, "metrics", "costs")


def _totals(record: Envelope) -> Said:
    """Say what the run used and cost in all; the tables by component stand in ``resources``."""
    for place, field, names in _TOTALS:
        told = record.payload.get(field)
        if isinstance(told, dict):
            yield place, to_bson({name: told[name] for name in names if name in told})


def _environment(record: Envelope) -> Said:
    yield from _each(record, "facts", "environment")


def _conclusion(record: Envelope) -> Said:
    yield ("conclusion",), to_bson(record.payload.get("text"))


def _each(record: Envelope, field: str, place: str) -> Said:
    """Yield every item of a field by name; the field as one value where it was too large for its line."""
    values = record.payload.get(field)
    if not isinstance(values, dict):
        return
    if "$blob" in values:
        yield (place, f"({record.wid}/{record.seq})"), to_bson(values)
        return
    for name, value in values.items():
        yield (place, name), to_bson(value)


_TOTALS = (
    (("resources",), "resources", ("total", "process", "unattributed", "gpus", "partial")),
    (
        ("costs", "computed"),
        "costs",
        ("eur", "parts", "modifications", "co2_g", "energy_kwh", "unpriced", "partial"),
    ),
)

_SAYS: dict[str, Callable[[Envelope], Said]] = {
    "run_started": _started,
    "run_finished": _finished,
    "param": _params,
    "lezea_config": _fields("config"),
    "constraints": _fields("constraints"),
    "environment": _environment,
    "conclusion": _conclusion,
    "resource_cost": _fields("costs"),
    "business": _business,
    "resource_totals": _totals,
}

# All other types say nothing of the run as a whole.
TYPES_OF_THE_RUN = frozenset(_SAYS)
