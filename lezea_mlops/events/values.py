"""Values cleaned once, at the edge: whatever a user passes becomes what strict JSON can hold.

numpy, torch and the like are recognised by what they can do, never imported. The caller's object is not changed.
Nothing here raises for an odd value of a known kind; a foreign object whose own methods raise lets that error
through, and the facade turns it into a ``rejected_input`` event.
"""

from __future__ import annotations

import base64
import dataclasses
import math
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Set
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from os import PathLike, fspath
from typing import Any
from uuid import UUID

from lezea_mlops.events.redaction import Redactor

MAX_TEXT_BYTES = 1024 * 1024
MAX_ARRAY_ELEMENTS = 10_000
MAX_DEPTH = 100
MAX_REPR_CHARACTERS = 1_000
MAX_NAMES_REMEMBERED = 10_000
_LOWEST, _HIGHEST = -sys.float_info.max, sys.float_info.max

CYCLE = "<cycle>"
TOO_DEEP = "<too deep>"

_TEXT_OF_NONFINITE = {math.inf: "Infinity", -math.inf: "-Infinity"}
_NUMBER_OF_TEXT = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_INT_RANGE = range(-(2**63), 2**64)

# Stores bytes under their hash and returns {"$blob": sha256, "size": …}.
StoreBlob = Callable[[bytes], "dict[str, Any]"]


class NotANumber(ValueError):
    """A value that was to be a number is none; the text says what it is."""


def number_text(value: float) -> float | str:
    """Return *value* as it stands where a number is expected: itself, or the text for a non-finite one."""
    if math.isfinite(value):
        return value
    return _TEXT_OF_NONFINITE.get(value, "NaN")


def as_number(value: Any) -> float | None:
    """Read a number of a payload back; None if it is none."""
    if isinstance(value, (int, float)):
        return value
    return _NUMBER_OF_TEXT.get(value) if isinstance(value, str) else None


def clean_number(value: Any) -> int | float | str:
    """Turn anything that is one number into a JSON number (or the text of a non-finite one).

    Raises:
        NotANumber: it is text, None, complex, an array of more than one element or something else.
    """
    if isinstance(value, (bool, int)):
        value = int(value)
        return value if value in _INT_RANGE else _float_of(value)
    if isinstance(value, float):
        return number_text(float(value))
    if isinstance(value, (Decimal, Fraction)):
        return _float_of(value)
    if value is None or isinstance(value, (str, bytes, complex)):
        raise NotANumber(f"is {_described(value)}, and a number was expected")
    return clean_number(_single_element(value))


def _float_of(value: Any) -> float | str:
    try:
        return number_text(float(value))
    except OverflowError:
        raise NotANumber("is too large for a floating-point number") from None


def _single_element(value: Any) -> Any:
    """Take the one element out of a numpy scalar, a 0-d tensor or an array with one element."""
    item = getattr(value, "item", None)
    if not callable(item):
        raise NotANumber(f"is {_described(value)}, and a number was expected")
    if (count := element_count(value)) not in (None, 1):
        raise NotANumber(f"has {count} elements, and one number was expected")
    element = item()
    if type(element) is type(value):
        raise NotANumber(f"is {_described(value)}, and a number was expected")
    return element


def _described(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, str):
        return "text"
    return f"of type {type(value).__name__}"


def element_count(value: Any) -> int | None:
    """Return how many elements an array-like *value* has; None if it has no shape."""
    shape = getattr(value, "shape", None)
    if not isinstance(shape, (tuple, list)):
        return None
    return math.prod(int(extent) for extent in shape)


class Cleaner:
    """Turns values into JSON values, and counts what it had to change.

    Args:
        store_blob: where large arrays and texts go; without it they stay inline.
        redactor: removes secrets from texts; None leaves them.

    Attributes:
        counts: how often each kind of change was made, by its name.
    """

    def __init__(self, store_blob: StoreBlob | None = None, redactor: Redactor | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self._store_blob = store_blob
        self._redactor = redactor
        self._plain_names: set[str] = set()

    def clean(self, value: Any) -> Any:
        """Return *value* as JSON: None, bool, number, text, list or dict with text keys."""
        return self._clean(value, [])

    def clean_mapping(self, value: Any) -> dict[str, Any]:
        """Return a mapping (or what can be seen as one) as a JSON object.

        Raises:
            TypeError: *value* is no mapping.
        """
        cleaned = self.clean(value)
        if not isinstance(cleaned, dict):
            raise TypeError(f"is {_described(value)}, and a mapping of names to values was expected")
        return cleaned

    def text(self, value: Any) -> str:
        """Return *value* as text that UTF-8 can hold, with secrets removed."""
        text = value if isinstance(value, str) else str(value)
        if not text.isascii():
            text = self._without_surrogates(text)
        if self._redactor is not None:
            text, removed = self._redactor.redact(text)
            self.counts["redacted"] += removed
        return text

    def name(self, value: Any) -> str:
        """Return the text of a metric's name or a key; names are never redacted."""
        text = value if isinstance(value, str) else str(value)
        return text if text.isascii() else self._without_surrogates(text)

    def metrics(self, metrics: Mapping[Any, Any]) -> tuple[dict[str, Any], list[tuple[str, Any, str]]]:
        """Clean numbers by name.

        Returns:
            The good ones, and for each of the others its name, its value and the reason.
        """
        good: dict[str, Any] = {}
        bad: list[tuple[str, Any, str]] = []
        for key, value in metrics.items():
            name = self._metric_name(key)
            try:
                number = clean_number(value)
            except NotANumber as error:
                bad.append((name, value, str(error)))
                continue
            if name in good:
                bad.append((name, value, "has the same name as another metric of this call"))
            else:
                good[name] = number
        return good, bad

    def plain_metrics(self, metrics: Any) -> dict[str, Any] | None:
        """Return a copy of *metrics* if it needs no cleaning: finite floats under names that were cleaned before.

        Nearly every call of a training loop is so, and this is on its path.
        """
        if type(metrics) is not dict:
            return None
        copy = metrics.copy()
        if not self._plain_names.issuperset(copy):
            return None
        for value in copy.values():
            if type(value) is not float or not _LOWEST <= value <= _HIGHEST:
                return None
        return copy

    def _metric_name(self, key: Any) -> str:
        name = self.name(key)
        if type(key) is str and name == key and len(self._plain_names) < MAX_NAMES_REMEMBERED:
            self._plain_names.add(key)
        return name

    def _clean(self, value: Any, path: list[int]) -> Any:
        if value is None or value is True or value is False:
            return value
        if isinstance(value, Enum):
            return self._clean(value.value, path)
        if isinstance(value, str):
            return self._text_or_blob(value)
        if isinstance(value, int):
            return int(value) if value in _INT_RANGE else _digits(value)
        if isinstance(value, float):
            number = number_text(float(value))
            return {"$num": number} if isinstance(number, str) else number
        return self._clean_composite(value, path)

    def _clean_composite(self, value: Any, path: list[int]) -> Any:
        if id(value) in path:
            self.counts["cycle"] += 1
            return CYCLE
        if len(path) >= MAX_DEPTH:
            self.counts["too_deep"] += 1
            return TOO_DEEP
        path.append(id(value))
        try:
            return self._converted(value, path)
        finally:
            path.pop()

    def _converted(self, value: Any, path: list[int]) -> Any:
        if isinstance(value, Mapping):
            return self._object(value, path)
        if isinstance(value, (list, tuple)):
            return [self._clean(item, path) for item in value]
        if isinstance(value, Set):
            return _sorted([self._clean(item, path) for item in value])
        for kind, convert in _CONVERSIONS:
            if isinstance(value, kind):
                return convert(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return self._bytes(bytes(value))
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = dataclasses.fields(value)
            return self._object({field.name: getattr(value, field.name) for field in fields}, path)
        if isinstance(value, Namespace):
            return self._object(vars(value), path)
        if isinstance(value, PathLike):
            return self.text(fspath(value))
        return self._foreign(value, path)

    def _object(self, value: Mapping[Any, Any], path: list[int]) -> dict[str, Any]:
        cleaned: dict[str, Any] = {}
        for key, item in value.items():
            name = self.name(key)
            if name in cleaned:
                self.counts["key_renamed"] += 1
                name = _free_name(f"{name} ({type(key).__name__})", cleaned)
            if self._redactor is not None and isinstance(item, str) and self._redactor.is_secret_name(name):
                self.counts["redacted"] += 1
                cleaned[name] = self._redactor.MASK
            else:
                cleaned[name] = self._clean(item, path)
        return cleaned

    def _foreign(self, value: Any, path: list[int]) -> Any:
        """Clean an object of a library: arrays, tensors, data frames, models of settings; else its repr."""
        count = element_count(value)
        if count is not None and callable(getattr(value, "tolist", None)):
            if count > MAX_ARRAY_ELEMENTS and self._store_blob is not None:
                return self._array_blob(value)
            return self._clean(value.tolist(), path)
        for method in ("to_dict", "model_dump", "tolist"):
            convert = getattr(value, method, None)
            if callable(convert) and not isinstance(value, type):
                return self._clean(convert(), path)
        self.counts["unknown_type"] += 1
        return self.text(repr(value)[:MAX_REPR_CHARACTERS])

    def _array_blob(self, value: Any) -> dict[str, Any]:
        assert self._store_blob is not None
        array = _host_array(value)
        self.counts["blob"] += 1
        shape = [int(extent) for extent in array.shape]
        return self._store_blob(array.tobytes()) | {
            "format": "raw", "dtype": array.dtype.str, "shape": shape,
        }  # fmt: skip

    def _text_or_blob(self, value: str) -> Any:
        text = self.text(value)
        if len(text) <= MAX_TEXT_BYTES // 4 or self._store_blob is None:
            return text
        encoded = text.encode()
        if len(encoded) <= MAX_TEXT_BYTES:
            return text
        self.counts["blob"] += 1
        return self._store_blob(encoded) | {"format": "text"}

    def _bytes(self, value: bytes) -> dict[str, Any]:
        if len(value) > MAX_TEXT_BYTES and self._store_blob is not None:
            self.counts["blob"] += 1
            return self._store_blob(value) | {"format": "bytes"}
        return {"$b64": base64.b64encode(value).decode("ascii")}

    def _without_surrogates(self, text: str) -> str:
        try:
            text.encode()
        except UnicodeEncodeError:
            self.counts["surrogate"] += 1
            return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace_surrogates")
        return text


def _replace_surrogates(error: UnicodeError) -> tuple[str, int]:
    """Put one U+FFFD where the three bytes of an encoded surrogate stand."""
    assert isinstance(error, UnicodeDecodeError)
    return "\ufffd", error.start + 3


def _register_error_handler() -> None:
    import codecs

    codecs.register_error("replace_surrogates", _replace_surrogates)


_register_error_handler()


def _digits(value: int) -> str:
    """Write an integer beyond 64 bits as text: many JSON readers would round it."""
    # Python refuses to write more than 4,300 decimal digits at once; hexadecimal has no such limit.
    return str(value) if value.bit_length() < 14_000 else hex(value)


def _decimal(value: Decimal) -> Any:
    """Return a number if it is exactly one, else the text."""
    if not value.is_finite():
        return {"$num": "NaN" if value.is_nan() else number_text(math.copysign(math.inf, value))}
    if abs(value.adjusted()) > 400:
        return str(value)
    if value == value.to_integral_value():
        return int(value) if int(value) in _INT_RANGE else str(value)
    return float(value) if Decimal(float(value)) == value else str(value)


def _moment(value: datetime) -> str:
    """Return ISO 8601 in UTC; a time without a zone is taken as local time."""
    return value.astimezone(timezone.utc).isoformat()


_CONVERSIONS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (datetime, _moment),
    (date, date.isoformat),
    (timedelta, timedelta.total_seconds),
    (Decimal, _decimal),
    (Fraction, str),
    (complex, lambda value: {"$complex": [number_text(value.real), number_text(value.imag)]}),
    (UUID, str),
)


def _host_array(value: Any) -> Any:
    """Return a tensor as an array in this machine's memory; an array as it is."""
    if callable(getattr(value, "tobytes", None)):
        return value
    return value.detach().cpu().numpy()


def _sorted(items: Iterable[Any]) -> list[Any]:
    return sorted(
        items, key=lambda item: (type(item).__name__, repr(item) if isinstance(item, (list, dict)) else item)
    )


def _free_name(name: str, taken: Mapping[str, Any]) -> str:
    number = 1
    candidate = name
    while candidate in taken:
        number += 1
        candidate = f"{name} {number}"
    return candidate
