"""Nodes that were logged more than once: which of their contents counts, in whichever order the records come."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeVar

Order = tuple[Any, ...]
C = TypeVar("C", bound=Hashable)


class Versions:
    """The contents of nodes that came again.

    The content that was logged last counts, as of the moment at which that same content was first logged: logging a
    modification again unchanged changes nothing.
    """

    def __init__(self, order_of: Callable[[int], Order]) -> None:
        """Begin.

        Args:
            order_of: the place of a moment, given as a number, among all records.
        """
        self._order_of = order_of
        # For each node its contents, each with the first and the last moment at which it was logged.
        self._seen: dict[int, dict[Hashable, tuple[int, int]]] = {}

    def newest(self, node: int, current: Hashable, placed: int, content: Hashable, moment: int) -> int | None:
        """Note that a node came again; return the moment as of which this content counts, None if nothing changes.

        Args:
            node: its number.
            current: the content that counts so far.
            placed: the moment as of which it does.
            content: the content that came.
            moment: when that was logged.
        """
        order_of = self._order_of
        seen = self._seen.setdefault(node, {current: (placed, placed)})
        first, last = seen.get(content, (moment, moment))
        first = moment if order_of(moment) < order_of(first) else first
        last = last if order_of(moment) < order_of(last) else moment
        seen[content] = first, last
        if content == current:
            return first if first != placed else None
        # One that came late says nothing new of who was last, also where both were logged by one record.
        is_last = last == moment and order_of(last) >= order_of(seen[current][1])
        return first if is_last else None

    def of(self, node: int) -> list[tuple[Hashable, int]]:
        """Return the contents of a node that came again, each with its first moment, the last logged last."""
        seen = self._seen.get(node, {})
        return [
            (content, seen[content][0])
            for content in sorted(seen, key=lambda content: self._order_of(seen[content][1]))
        ]

    def several(self) -> Iterator[tuple[int, int]]:
        """Yield the nodes with more than one content, and how many they have."""
        return ((node, len(seen)) for node, seen in self._seen.items() if len(seen) > 1)
