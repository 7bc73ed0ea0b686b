"""Tables whose size is bounded: the least recently used key leaves first, and is counted.

A table can be stored as JSON and restored. What is read back is believed only where it is what was stored.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

MAX_KEYS = 10_000

_NONFINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
# Beyond it an integer cannot be divided into a floating-point number.
_LARGEST_INTEGER = 2**1023

Stored = dict[str, Any]


class BoundedTable(Generic[K, V]):
    """A mapping of at most *limit* keys that makes missing values itself.

    Attributes:
        evicted: how many keys had to leave; above zero, what the table says is partial.
    """

    def __init__(self, make: Callable[[], V], limit: int = MAX_KEYS) -> None:
        self.evicted = 0
        self._make = make
        self._limit = limit
        self._items: OrderedDict[K, V] = OrderedDict()

    def __getitem__(self, key: K) -> V:
        """Return the value of *key*, made now if it is new, and count the key as used."""
        try:
            self._items.move_to_end(key)
        except KeyError:
            self[key] = value = self._make()
            return value
        return self._items[key]

    def __setitem__(self, key: K, value: V) -> None:
        self._items[key] = value
        self._items.move_to_end(key)
        if len(self._items) > self._limit:
            self.pop_oldest()

    def __contains__(self, key: K) -> bool:
        return key in self._items

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[K]:
        """Yield the keys, the least recently used first."""
        # Without this Python would ask for the keys 0, 1, 2, … and the table would make them for ever.
        return iter(list(self._items))

    def items(self) -> Iterator[tuple[K, V]]:
        """Yield keys and values, the least recently used first."""
        return iter(list(self._items.items()))

    def pop_oldest(self) -> V:
        """Remove the least recently used key and return its value."""
        self.evicted += 1
        return self._items.popitem(last=False)[1]

    def state(self, value_state: Callable[[V], Any]) -> Stored:
        """Return the table as JSON, the least recently used key first; *value_state* makes JSON of a value."""
        # Keys and values apart: a list for each pair would be most of the time that reading takes.
        return {
            "evicted": self.evicted,
            "keys": list(self._items),
            "values": [value_state(value) for value in self._items.values()],
        }

    def restore(self, state: Stored, key_from: Callable[[Any], K], value_from: Callable[[Any], V]) -> None:
        """Take over what ``state`` returned, in the same order; a smaller limit lets the oldest keys go.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        self._items = OrderedDict()
        self.evicted = stored_count(state["evicted"])
        for key, value in zip(state["keys"], state["values"], strict=True):
            self[key_from(key)] = value_from(value)


def number_state(number: float) -> float | str:
    """Return *number* as JSON can hold it: itself, or the text of a non-finite one."""
    if math.isfinite(number):
        return number
    return "NaN" if number != number else "Infinity" if number > 0 else "-Infinity"


def stored_number(value: Any) -> float:
    """Return the number that ``number_state`` stored.

    Raises:
        ValueError: it is none.
    """
    kind = type(value)
    if kind is float or (kind is int and abs(value) < _LARGEST_INTEGER):
        return value  # type: ignore[no-any-return]
    if kind is str and value in _NONFINITE:
        return _NONFINITE[value]
    raise ValueError(f"expected a number, found {value!r:.80}")


def stored_count(value: Any) -> int:
    """Return a stored count.

    Raises:
        ValueError: it is no whole number from 0 on.
    """
    if type(value) is int and 0 <= value < _LARGEST_INTEGER:
        return value
    raise ValueError(f"expected a count, found {value!r:.80}")


def stored_step(value: Any) -> int:
    """Return a stored step, or time.

    Raises:
        ValueError: it is no whole number.
    """
    if type(value) is int and abs(value) < _LARGEST_INTEGER:
        return value
    raise ValueError(f"expected a whole number, found {value!r:.80}")


def stored_text(value: Any) -> str:
    """Return a stored text.

    Raises:
        ValueError: it is none.
    """
    if type(value) is str:
        return value
    raise ValueError(f"expected a text, found {value!r:.80}")
