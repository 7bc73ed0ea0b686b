"""JSON values of a journal as values of BSON: readable in a shell, sortable, and reversible by ``from_document``."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any

from bson.decimal128 import Decimal128

from lezea_mlops.events import CLASS_OF_TYPE, as_number, deep_text, encode_json, escape_name

# BSON nests no deeper than 100 levels, of which a document of ours takes some itself.
MAX_DEPTH = 80
_LOWEST, _HIGHEST = -(2**63), 2**63 - 1
# Names that need no escape: nearly all, and the same ones in every record.
MAX_NAMES_REMEMBERED = 10_000
MAX_NAME_REMEMBERED = 200
_KNOWN_NAMES: set[str] = set()
_PLAIN_TYPES = frozenset({str, float, bool, type(None)})
_NONFINITE = frozenset({"NaN", "Infinity", "-Infinity"})


def to_bson(value: Any, depth: int = MAX_DEPTH) -> Any:
    """Return a JSON value as BSON holds it; the value itself where nothing of it has to change.

    Integers of more than 64 bits with a sign become Decimal128, ``{"$num": …}`` a double, ``{"$b64": …}`` bytes; names
    are escaped, and what nests too deep becomes its JSON text.
    """
    kind = type(value)
    if kind in _PLAIN_TYPES:
        return value
    if kind is int:
        return value if _LOWEST <= value <= _HIGHEST else Decimal128(str(value))
    if depth <= 0:
        return deep_text(encode_json(value).decode())
    if kind is dict:
        return _object(value, depth)
    for item in value:
        if type(item) not in _PLAIN_TYPES:
            return [to_bson(item, depth - 1) for item in value]
    return value


def to_number(value: Any) -> Any:
    """Return a field that holds a number, or numbers by name, as BSON: the texts of non-finite ones become doubles."""
    kind = type(value)
    if kind is str:
        return as_number(value) if value in _NONFINITE else value
    if kind is not dict:
        return to_bson(value)
    for name, item in value.items():
        if type(item) is not float or name not in _KNOWN_NAMES:
            return {
                to_name(name): to_number(item) if type(item) is str else to_bson(item)
                for name, item in value.items()
            }
    return value


def _object(value: dict[str, Any], depth: int) -> Any:
    if _KNOWN_NAMES.issuperset(value):
        if _PLAIN_TYPES.issuperset(map(type, value.values())):
            return value
    elif len(value) == 1 and (marked := _marked(value)) is not None:
        return marked
    return {to_name(name): to_bson(item, depth - 1) for name, item in value.items()}


def to_name(name: str) -> str:
    """Return ``escape_name`` of *name*, remembered where it is the name itself."""
    if name in _KNOWN_NAMES:
        return name
    escaped = escape_name(name)
    if escaped == name and len(_KNOWN_NAMES) < MAX_NAMES_REMEMBERED and len(name) <= MAX_NAME_REMEMBERED:
        _KNOWN_NAMES.add(name)
    return escaped


def _marked(value: Mapping[str, Any]) -> Any:
    """Return what a JSON object stands for that is only a mark of what it was; None if it is an object."""
    number = value.get("$num")
    if type(number) is str and number in _NONFINITE:
        return as_number(number)
    encoded = value.get("$b64")
    if type(encoded) is str:
        try:
            content = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            return None
        return content if base64.b64encode(content).decode() == encoded else None
    return None


def _number_fields() -> Iterator[tuple[str, frozenset[str]]]:
    for name, event in CLASS_OF_TYPE.items():
        hints = event.__annotations__
        yield name, frozenset(field for field, hint in hints.items() if "Number" in str(hint))


# Fields that hold numbers, by type of event; there, and only there, is the text "NaN" a number.
NUMBER_FIELDS: dict[str, frozenset[str]] = dict(_number_fields())
# What events call their fields; none of it needs an escape.
FIELD_NAMES = frozenset(name for event in CLASS_OF_TYPE.values() for name in event.__annotations__)
