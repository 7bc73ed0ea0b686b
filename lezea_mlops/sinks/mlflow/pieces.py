"""What one record brings to MLflow, and reading it out of payloads that any program may have written.

A journal holds what this package recorded, and what other programs brought through the protocol: fields may be missing
or of another type. Nothing here raises; what cannot be used is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lezea_mlops.events import INDIVIDUAL_LEVELS, Envelope, as_number
from lezea_mlops.sinks.mlflow.names import dotted, file_part, fit, metric_key

Payload = Mapping[str, Any]

# Deeper than any program's own data; Python's stack ends at 1,000.
MAX_DEPTH = 100
MAX_FOLDER_BYTES = 1_000
_INT64 = range(-(2**63), 2**63)
_LAST_MS = 253_402_300_799_999  # the end of the year 9999, where many programs' calendars end
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Point(NamedTuple):
    """One value of a metric.

    Attributes:
        key: its escaped name.
        value: the number; may be NaN or infinite.
        step: whole number of at most 64 bits.
        individual: the name is scoped by a builder or a tasker, of which there may be many.
    """

    key: str
    value: float
    step: int
    individual: bool = False


@dataclass(frozen=True)
class TextFile:
    """A small file that is made from an event."""

    path: str
    content: str


@dataclass(frozen=True)
class BlobFile:
    """A file: captured, then ``sha256`` finds its content, or where it stood at the call.

    Attributes:
        path: its name in MLflow.
        sha256: hash of the captured content; None for a file that was only referred to.
        source: where it stood.
        size: its size in bytes at the call, if known.
        mtime_ns: its time at the call, if known.
        checksum: SHA-256 of a file that was only referred to, if known.
    """

    path: str
    sha256: str | None
    source: str | None = None
    size: int | None = None
    mtime_ns: int | None = None
    checksum: str | None = None


@dataclass(frozen=True)
class Dataset:
    """A dataset of the run."""

    name: str
    digest: str
    source: str
    context: str
    metadata: str


@dataclass
class Translation:
    """All that one record brings to MLflow; names of params and tags are escaped.

    Attributes:
        step: the step of the program's own that it belongs to, if it has one.
        of_run: names of those tags and paths of those texts of which a run has one; the newest record's stands.
    """

    points: list[Point] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    texts: list[TextFile] = field(default_factory=list)
    blobs: list[BlobFile] = field(default_factory=list)
    datasets: list[Dataset] = field(default_factory=list)
    note: tuple[str, str] | None = None
    status: str | None = None
    step: int | None = None
    of_run: frozenset[str] = frozenset()


# ---------------------------------------------------------------------- values


def mapping_of(value: Any) -> Payload:
    """Return *value* if it is a mapping, not the pointer of one that was too large for a line; else an empty one."""
    # What JSON calls an object is a dict here; asking for any mapping takes several times as long.
    return value if isinstance(value, dict) and "$blob" not in value else {}


def text_of(value: Any) -> str:
    """Return text as it is, None as empty text, a number that is not finite as its name, all else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) and isinstance(value.get("$num"), str):
        return str(value["$num"])
    return "" if value is None else _json(value)


def whole_of(value: Any) -> int:
    """Return a whole number that a store can hold; 0 if it is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return int(value) if isinstance(value, int) and value in _INT64 else 0


def number_of(value: Any) -> float | None:
    """Return a number, which may be NaN or infinite; None if it is none."""
    number = as_number(value.get("$num") if isinstance(value, dict) else value)
    if number is None:
        return None
    try:
        return float(number)
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")


def sha256_of(value: Any) -> str | None:
    """Return a SHA-256 in hexadecimal, without the prefix that some programs write; None if it is none."""
    text = value.removeprefix("sha256:").lower() if isinstance(value, str) else ""
    return text if _SHA256.fullmatch(text) else None


def dump(value: Any) -> str:
    """Return *value* as JSON for people."""
    return _json(value, indent=2)


def _json(value: Any, indent: int | None = None) -> str:
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False)
    except RecursionError:
        return '"nested too deeply to be written out; the journal holds it"'


# ---------------------------------------------------------------------- payloads


def own_fields(payload: Payload) -> dict[str, Any]:
    """Return the fields without those that every record has."""
    return {name: value for name, value in payload.items() if name not in ("run_id", "scope")}


def scope_of(record: Envelope) -> list[tuple[str, str]]:
    """Return the scopes of a record as (level, id), outermost first."""
    scope = record.payload.get("scope")
    pairs = scope if isinstance(scope, list) else []
    return [
        (text_of(pair[0]), text_of(pair[1])) for pair in pairs if isinstance(pair, list) and len(pair) == 2
    ]


def scope_folder(record: Envelope) -> str:
    """Return the folder of a record's scopes with its closing slash; empty text without scopes."""
    folder = "".join(f"{file_part(level)}_{file_part(identity)}/" for level, identity in scope_of(record))
    return folder if len(folder.encode()) <= MAX_FOLDER_BYTES else fit(file_part(folder), 40) + "/"


def time_ms(record: Envelope) -> int:
    """Return when a record was written, in milliseconds, within what calendars hold."""
    return _as_ms(record.ts)


def end_ms(finished: Envelope) -> int:
    """Return when a run ended, in milliseconds: for an end that others wrote down later, its last sign of life."""
    return _as_ms(whole_of(finished.payload.get("ended_at")) or finished.ts)


def _as_ms(ts: int) -> int:
    return min(max(ts // 1000, 0), _LAST_MS)


def identity(record: Envelope) -> str:
    """Return the record's number as a part of a file name, in the order of its writer."""
    return f"{record.seq:08d}"


def points(
    record: Envelope, values: Any, step: Any, folder: tuple[str, ...] = (), *, individual: bool = False
) -> Iterator[Point]:
    """Yield every number of a mapping as a point below *folder*; nested mappings are folders too."""
    found = mapping_of(values)
    if not found:
        return
    scope = scope_of(record)
    individual = individual or any(level in INDIVIDUAL_LEVELS for level, _ in scope)
    at = whole_of(step)
    for path, value in _leaves(found, folder):
        number = number_of(value)
        if number is not None:
            yield Point(metric_key(scope, path[:-1], path[-1], record.wid), number, at, individual)


def flatten(values: Any) -> dict[str, str]:
    """Return nested params as texts by escaped, dotted name; empty mappings and lists stay as they are.

    Where ``{"a.b": …}`` and ``{"a": {"b": …}}`` meet, the dots of the flatter name are escaped.
    """
    flat: dict[str, str] = {}
    for path, value in sorted(_leaves(mapping_of(values), ()), key=lambda leaf: -len(leaf[0])):
        name = dotted(path)
        flat[dotted(path, dots_escaped=True) if name in flat else name] = text_of(value)
    return flat


def holds_pointer(value: Any, depth: int = 0) -> bool:
    """Tell whether there may be something for ``blobs_in``; most records hold nothing of it."""
    if type(value) is dict:
        if "$blob" in value:
            return True
        value = value.values()
    elif type(value) is not list:
        return False
    return depth <= MAX_DEPTH and any(
        holds_pointer(item, depth + 1) for item in value if type(item) is dict or type(item) is list
    )


def blobs_in(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str, Payload]]:
    """Yield dotted name, hash and pointer of every value below *value* that was too large for a line."""
    if len(path) > MAX_DEPTH or not isinstance(value, (dict, list)):
        return
    sha256 = sha256_of(value.get("$blob")) if isinstance(value, dict) else None
    if sha256 is not None and isinstance(value, dict):
        yield ".".join(path), sha256, value
        return
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, item in items:
        if isinstance(item, (dict, list)) and item:
            yield from blobs_in(item, (*path, str(name)))


def _leaves(values: Payload, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield what is no further mapping, with the names that lead there."""
    for name, value in values.items():
        if isinstance(value, dict) and _is_nested(value) and len(path) < MAX_DEPTH:
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value


def _is_nested(value: Payload) -> bool:
    # {"$num": …}, {"$blob": …} and the like are one value each.
    return bool(value) and not any(str(name).startswith("$") for name in value)
