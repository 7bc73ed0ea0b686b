"""Values cleaned once, at the edge: whatever a user passes becomes what strict JSON can hold.

numpy, torch and the like are recognised by what they can do, never imported. The caller's object is not changed.
Nothing here raises for an odd value of a known kind; a foreign object whose own methods raise lets that error
through, and the facade turns it into a ``rejected_input`` event.
"""

from __future__ import annotations

import base64
import dataclasses
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set, ValuesView
from enum import Enum
from os import PathLike, fsdecode
from typing import Any

from lezea_mlops.events.codec import encode_json
from lezea_mlops.events.conversions import (
    CONVERSIONS,
    MAX_ARRAY_ELEMENTS,
    NUMBER_KINDS,
    digits,
    host_array,
    is_long_range,
    listed,
)
from lezea_mlops.events.numeric import (
    INT_RANGE,
    NotANumber,
    clean_number,
    described,
    element_count,
    element_kind,
    number_text,
)
from lezea_mlops.events.redaction import SHORTEST_SECRET, Redactor

MAX_TEXT_BYTES = 1024 * 1024
MAX_DEPTH = 100
MAX_REPR_CHARACTERS = 1_000
MAX_NAMES_REMEMBERED = 10_000
# Longer names are judged each time: what is remembered stays small.
MAX_NAME_REMEMBERED = 200
_LOWEST, _HIGHEST = -sys.float_info.max, sys.float_info.max
_LEAST, _GREATEST = INT_RANGE[0], INT_RANGE[-1]

CYCLE = "<cycle>"
TOO_DEEP = "<too deep>"

# Stores bytes under their hash and returns {"$blob": sha256, "size": …}.
StoreBlob = Callable[[bytes], "dict[str, Any]"]


_NEVER_TEXT = frozenset({float, int, bool, type(None), dict})


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
        self._secret_names: dict[str, bool] = {}

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
            raise TypeError(f"is {described(value)}, and a mapping of names to values was expected")
        return cleaned

    def text(self, value: Any) -> str:
        """Return *value* as text that UTF-8 can hold, with secrets removed."""
        text = _exact(value if isinstance(value, str) else str(value))
        if not text.isascii():
            text = self._without_surrogates(text)
        if self._redactor is not None:
            text, removed = self._redactor.redact(text)
            if removed:
                self.counts["redacted"] += removed
        return text

    def stored(self, cleaned: Any) -> Any:
        """Return the pointer of a cleaned value that is too large for its place, whose JSON becomes a blob.

        Raises:
            OSError: the file system refuses.
        """
        if self._store_blob is None:
            return cleaned
        self.counts["blob"] += 1
        return self._store_blob(encode_json(cleaned)) | {"format": "json"}

    def name(self, value: Any) -> str:
        """Return the text of a metric's name or a key; names are never redacted."""
        if isinstance(value, Enum):
            value = value.value
        if isinstance(value, int) and not isinstance(value, bool):
            value = digits(value)
        text = _exact(value if isinstance(value, str) else str(value))
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
        # By exact types, for nearly every value is of one of these and a call may hold a hundred thousand.
        kind = type(value)
        if kind is str:
            return (
                self._text_or_blob(value) if len(value) >= SHORTEST_SECRET or not value.isascii() else value
            )
        if kind is float:
            return value if _LOWEST <= value <= _HIGHEST else {"$num": number_text(value)}
        if kind is int:
            return value if _LEAST <= value <= _GREATEST else digits(value)
        if kind is dict or kind is list:
            return self._clean_composite(value, path)
        if value is None or kind is bool:
            return value
        return self._clean_other(value, path)

    def _clean_other(self, value: Any, path: list[int]) -> Any:
        """Clean a value of a derived class, or of none that JSON knows."""
        if isinstance(value, Enum):
            return self._clean(value.value, path)
        if isinstance(value, str):
            return self._text_or_blob(value)
        if isinstance(value, int):
            number = int(value)
            return number if number in INT_RANGE else digits(number)
        if isinstance(value, float):
            number_or_text = number_text(float(value))
            return {"$num": number_or_text} if isinstance(number_or_text, str) else number_or_text
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
        # The exact type before its kin, which takes longer to tell.
        if type(value) is dict or isinstance(value, Mapping):
            return self._object(value, path)
        if isinstance(value, (list, tuple)):
            return [self._clean(item, path) for item in value]
        if isinstance(value, Set):
            return _sorted([self._clean(item, path) for item in value])
        for kind, convert in CONVERSIONS:
            if isinstance(value, kind):
                return convert(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return self._bytes(bytes(value))
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in dataclasses.fields(value) if hasattr(value, field.name)]
            return self._object({name: getattr(value, name) for name in names}, path)
        if isinstance(value, Namespace):
            return self._object(vars(value), path)
        if isinstance(value, PathLike):
            return self.text(fsdecode(value))
        if isinstance(value, (Sequence, ValuesView)) and not is_long_range(value):
            return [self._clean(item, path) for item in value]
        return self._foreign(value, path)

    def _object(self, value: Mapping[Any, Any], path: list[int]) -> dict[str, Any]:
        cleaned: dict[str, Any] = {}
        redactor = self._redactor
        for key, item in value.items():
            name = key if type(key) is str and key.isascii() else self.name(key)
            if name in cleaned:
                self.counts["key_renamed"] += 1
                name = _free_name(f"{name} ({type(key).__name__})", cleaned)
            if (
                redactor
                and type(item) not in _NEVER_TEXT
                and self._is_secret(name, redactor)
                and _is_text(item)
            ):
                self.counts["redacted"] += 1
                cleaned[name] = redactor.masked(name)
            else:
                cleaned[name] = self._clean(item, path)
        return cleaned

    def _is_secret(self, name: str, redactor: Redactor) -> bool:
        """Tell whether a text under *name* is one; what names are is remembered, for they come again."""
        secret = self._secret_names.get(name)
        if secret is None:
            secret = redactor.is_secret_name(name)
            if len(name) <= MAX_NAME_REMEMBERED and len(self._secret_names) < MAX_NAMES_REMEMBERED:
                self._secret_names[name] = secret
        return secret

    def _foreign(self, value: Any, path: list[int]) -> Any:
        """Clean an object of a library: arrays, tensors, data frames, models of settings; else its repr."""
        for kind, convert in NUMBER_KINDS:
            # numpy takes its durations for integers.
            if isinstance(value, kind) and element_kind(value) != "m":
                return self._clean(convert(value), path)
        if not isinstance(value, type):
            if (count := element_count(value)) is not None and callable(getattr(value, "tolist", None)):
                if count > MAX_ARRAY_ELEMENTS and self._store_blob is not None:
                    return self._array_blob(value, self._store_blob, path)
                return self._clean(listed(value), path)
            for method in ("to_dict", "model_dump", "tolist"):
                if callable(make := getattr(value, method, None)):
                    return self._clean(make(), path)
        self.counts["unknown_type"] += 1
        return self.text(repr(value)[:MAX_REPR_CHARACTERS])

    def _array_blob(self, value: Any, store: StoreBlob, path: list[int]) -> dict[str, Any]:
        self.counts["blob"] += 1
        array = host_array(value)
        if array is None or array.dtype.hasobject:
            # Its memory holds addresses, which say nothing to anybody else.
            return store(encode_json(self._clean(value.tolist(), path))) | {"format": "json"}
        shape = [int(extent) for extent in array.shape]
        dtype = array.dtype.str if array.dtype.names is None else self._clean(array.dtype.descr, path)
        return store(array.tobytes()) | {"format": "raw", "dtype": dtype, "shape": shape}

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


def _is_text(item: Any) -> bool:
    """Tell whether *item* is text, or bytes, which may be one too, or holds one in a list."""
    if isinstance(item, Enum):
        item = item.value
    if isinstance(item, (list, tuple)):
        return any(isinstance(part, (str, bytes, bytearray)) for part in item)
    return isinstance(item, (str, bytes, bytearray, memoryview))


def _exact(text: str) -> str:
    """Return a text of a derived class, such as numpy's, as a plain one: encoders know no other."""
    return str.__str__(text)


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
