"""JSON values as fields of a document database, and back: names that such a database reads as its own are escaped.

MongoDB takes a leading ``$`` for an operator, a dot for a path, and no NUL. These become ``%24``, ``%2E`` and ``%00``,
a literal ``%`` becomes ``%25``, and an empty name ``%``: different names stay different, and each comes back.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from lezea_mlops.events.numeric import number_text

_EMPTY = "%"
# Names of our own in documents; no escaped name looks so.
DEEP = "%json"
LARGE = "%large"
_SPECIAL = re.compile("^\\$|[.%\0]")
_ESCAPED = re.compile("%([0-9A-F]{2})")


def escape_name(name: str) -> str:
    """Return the field name under which a document holds what is called *name*."""
    if not name:
        return _EMPTY
    return _SPECIAL.sub(lambda found: f"%{ord(found[0]):02X}", name)


def unescape_name(name: str) -> str:
    """Return the name that ``escape_name`` was given."""
    if name == _EMPTY:
        return ""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), name) if "%" in name else name


def deep_text(json_text: str) -> dict[str, str]:
    """Return how a document holds a value that nests too deep for it: as its JSON text."""
    return {DEEP: json_text}


def from_document(value: Any, read_large: Callable[[str], bytes] | None = None) -> Any:
    """Return the JSON value that a document's field was made from, as a journal holds it.

    Numbers that are not finite come as ``{"$num": …}``, bytes as ``{"$b64": …}``. Nested deeper than a hundred levels
    nothing is stored, so this may call itself.

    Args:
        value: as pymongo returns it.
        read_large: returns the JSON of a value that was too large for the document, by its address; without it head,
            digest and address stand in its place.
    """
    if isinstance(value, Mapping):
        if len(value) == 1 and isinstance(text := value.get(DEEP), str):
            return json.loads(text)
        if len(value) == 1 and read_large is not None and isinstance(pointer := value.get(LARGE), Mapping):
            return json.loads(read_large(pointer["file"]))
        return {unescape_name(name): from_document(item, read_large) for name, item in value.items()}
    if isinstance(value, list):
        return [from_document(item, read_large) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        # pymongo has a kind of its own for 64 bits.
        return int(value)
    if isinstance(value, float) and not math.isfinite(value):
        return {"$num": number_text(value)}
    if isinstance(value, bytes):
        return {"$b64": base64.b64encode(value).decode("ascii")}
    if callable(to_decimal := getattr(value, "to_decimal", None)):
        # BSON's integers end at 64 bits with a sign; above that stands a Decimal128.
        return int(to_decimal())
    return value
