"""Tables whose size is bounded: the least recently used key leaves first, and is counted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

MAX_KEYS = 10_000


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

    def peek(self, key: K) -> V | None:
        """Return the value of *key* without making one and without counting a use."""
        return self._items.get(key)

    def items(self) -> Iterator[tuple[K, V]]:
        """Yield keys and values, the least recently used first."""
        return iter(list(self._items.items()))

    def pop_oldest(self) -> V:
        """Remove the least recently used key and return its value."""
        self.evicted += 1
        return self._items.popitem(last=False)[1]
