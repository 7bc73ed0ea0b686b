"""JSON in pure Python, byte for byte what msgspec writes and as strict in reading, for interpreters without msgspec.

Only cleaned values are written here (see ``values``): None, bool, int, finite float, str, list, tuple and dict with
text keys. Python's own encoder differs from msgspec in the form of large and small floats and in escapes; its
decoder takes NaN, numbers that no float holds, and lone surrogates.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

_ESCAPED = re.compile(r'[\x00-\x1f"\\]')
_SHORT = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def encode_plain(value: Any) -> bytes:
    """Encode a cleaned value as compact JSON in UTF-8."""
    return _text(value).encode()


def _text(value: Any) -> str:
    if isinstance(value, str):
        return _string(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_string(key)}:{_text(item)}" for key, item in value.items()) + "}"
    return "[" + ",".join(map(_text, value)) + "]"


def _string(value: str) -> str:
    return '"' + _ESCAPED.sub(lambda m: _SHORT.get(m[0]) or f"\\u{ord(m[0]):04x}", value) + '"'


def _float(value: float) -> str:
    """Write the shortest digits that read back equal, in the form that msgspec chooses."""
    digits, exponent = _shortest(abs(value))
    sign = "-" if str(value).startswith("-") else ""
    return sign + _place_point(digits, exponent)


def _shortest(value: float) -> tuple[str, int]:
    """Return digits d1d2d3… and the exponent e of d1.d2d3… × 10**e."""
    mantissa, _, exponent = f"{value!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    leading = len(whole) - 1 if whole != "0" else -1 - (len(fraction) - len(fraction.lstrip("0")))
    return (digits.rstrip("0") or "0", leading + int(exponent or 0)) if digits else ("0", 0)


def _place_point(digits: str, exponent: int) -> str:
    if 0 <= exponent < 16:
        whole = digits[: exponent + 1].ljust(exponent + 1, "0")
        return f"{whole}.{digits[exponent + 1 :] or '0'}"
    if -6 < exponent < 0:
        return "0." + "0" * (-exponent - 1) + digits
    fraction = "." + digits[1:] if len(digits) > 1 else ""
    return f"{digits[0]}{fraction}e{exponent}"


def decode_plain(line: bytes) -> Any:
    """Decode strict JSON in UTF-8.

    Raises:
        ValueError: it is something else.
    """
    text = str(line, "utf-8")
    value = _DECODER.decode(text)
    if _SURROGATE.search(text):
        # A pair is a character; one alone is none, and UTF-8 cannot hold it.
        encode_plain(value)
    return value


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number is out of range")
    return number


_DECODER = json.JSONDecoder(parse_constant=_no_number, parse_float=_finite)
