"""Nodes and their parents as numbers in arrays, so that millions fit, and the lines through them.

Nothing here calls itself: a line may be hundreds of thousands of nodes long, and a node may have a million children.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from itertools import compress
from operator import sub
from typing import Any, NamedTuple, TypeVar

from lezea_mlops.events import ScopePairs
from lezea_mlops.evolution.cycles import Untangled, untangled

_NONE = -1
T = TypeVar("T")


class Moment(NamedTuple):
    """Where and when a record was logged.

    Attributes:
        order: its place among all records, ``Envelope.order_key``.
        step: the step it names.
        scope: the scopes it was logged in, outermost first.
        ts: UTC microseconds.
    """

    order: tuple[Any, ...]
    step: int | None
    scope: ScopePairs
    ts: int


class Graph:
    """Nodes and their parents.

    A node that was named as a parent and never came itself has a number too, and is not ``known``.

    Attributes:
        ids: the id of each number.
        known: one byte for each number, 1 if the node came.
        moments: when nodes were logged; those of one record share a moment.
        moment_numbers: for each number the place of its moment, -1 if the node did not come.
    """

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.known = bytearray()
        self.moments: list[Moment] = []
        self.moment_numbers = array("i")
        self._numbers: dict[str, int] = {}
        self._first = array("i")
        self._further: dict[int, tuple[int, ...]] = {}
        self._arrival = array("i")
        self._arrivals = 0
        self._ascending = True
        self._derived: dict[str, Any] = {}

    # ------------------------------------------------------------------ building

    def moment(self, moment: Moment) -> int:
        """Return a number for *moment*, for ``put``; the last one again where it is the same."""
        moments = self.moments
        if moments:
            last = moments[-1]
            if last == moment:
                return len(moments) - 1
            self._ascending = self._ascending and last.order <= moment.order
        moments.append(moment)
        return len(moments) - 1

    def put(self, node_id: str, parent_ids: Sequence[str], moment: int) -> int:
        """Make a node known, with these parents (each once), as of this moment, and return its number."""
        if self._derived:
            self._derived = {}
        numbers, number = self._numbers, self._number
        node = numbers.get(node_id, _NONE)
        if node < 0:
            node = number(node_id)
        if not parent_ids:
            first = _NONE
        else:
            first = numbers.get(parent_ids[0], _NONE)
            if first < 0:
                first = number(parent_ids[0])
        if len(parent_ids) > 1:
            self._further[node] = tuple(map(number, parent_ids[1:]))
        elif self.known[node]:
            self._further.pop(node, None)
        self._first[node] = first
        self.moment_numbers[node] = moment
        self._arrival[node] = self._arrivals
        self._arrivals += 1
        self.known[node] = 1
        if moment < len(self.moments) - 1:
            self._ascending = False
        return node

    def _number(self, node_id: str) -> int:
        """Return the number of an id, given now if it is new."""
        new = len(self.ids)
        number = self._numbers.setdefault(node_id, new)
        if number == new:
            self.ids.append(node_id)
            self.known.append(0)
            self._first.append(_NONE)
            self.moment_numbers.append(_NONE)
            self._arrival.append(_NONE)
        return number

    # ------------------------------------------------------------------ nodes

    def find(self, node_id: str) -> int | None:
        """Return the number of a node that came; None if it did not."""
        number = self._numbers.get(node_id)
        return number if number is not None and self.known[number] else None

    def needed(self, node_id: str) -> int:
        """Return the number of a node that came.

        Raises:
            KeyError: it did not.
        """
        number = self.find(node_id)
        if number is None:
            raise KeyError(f"nothing with the id {node_id!r} was logged")
        return number

    def moment_of(self, node: int) -> Moment:
        """Return when the node was logged."""
        return self.moments[self.moment_numbers[node]]

    def parents(self, node: int) -> tuple[int, ...]:
        """Return the parents of a node, unknown ones too."""
        first = self._first[node]
        if first < 0:
            return ()
        return (first, *self._further[node]) if node in self._further else (first,)

    def sequence(self) -> Sequence[int]:
        """Return the nodes that came, in the order in which they were logged."""
        return self.derive("sequence", self._sorted)

    def derive(self, name: str, make: Callable[[], T]) -> T:
        """Return what *make* returns, made once until another node comes."""
        if name not in self._derived:
            self._derived[name] = make()
        return self._derived[name]  # type: ignore[no-any-return]

    def _sorted(self) -> Sequence[int]:
        nodes = list(compress(range(len(self.ids)), self.known))
        nodes.sort(key=self._arrival.__getitem__)
        if not self._ascending:
            orders = [moment.order for moment in self.moments]
            nodes.sort(key=lambda node: orders[self.moment_numbers[node]])
        return array("i", nodes)

    def rank(self) -> array[int]:
        """Return the place of each number in ``sequence``; -1 for one that never came."""
        return self.derive("rank", self._ranked)

    def _ranked(self) -> array[int]:
        rank = array("i", [_NONE]) * len(self.ids)
        for place, node in enumerate(self.sequence()):
            rank[node] = place
        return rank

    def in_order(self, nodes: Iterable[int]) -> list[int]:
        """Return nodes in the order in which they were logged."""
        return sorted(nodes, key=self.rank().__getitem__)

    def roots(self) -> list[int]:
        """Return the nodes without a known parent, in logged order."""
        return [node for node in self.sequence() if not any(self.known[p] for p in self.parents(node))]

    # ------------------------------------------------------------------ children

    def children(self, node: int) -> Sequence[int]:
        """Return the nodes that name *node* as a parent, in logged order."""
        starts, children = self._all_children()
        return children[starts[node] : starts[node + 1]]

    def family_sizes(self) -> list[int]:
        """Return how many children each of those that came and have children has."""
        starts, _ = self._all_children()
        return [size for node, size in enumerate(map(sub, starts[1:], starts)) if size and self.known[node]]

    def _all_children(self) -> tuple[array[int], array[int]]:
        """Return where each node's children begin, and all children one after the other."""
        return self.derive("children", self._gathered_children)

    def _gathered_children(self) -> tuple[array[int], array[int]]:
        first, further = self._first, self._further
        starts = array("i", bytes(4 * (len(self.ids) + 2)))
        for parent in first:
            starts[parent + 2] += 1
        # Those without a parent were counted for number -1.
        starts[1] = 0
        for others in further.values():
            for parent in others:
                starts[parent + 2] += 1
        for index in range(2, len(starts)):
            starts[index] += starts[index - 1]
        children = array("i", bytes(4 * starts[-1]))
        for node in self.sequence():
            if first[node] < 0:
                continue
            for parent in self.parents(node):
                children[starts[parent + 1]] = node
                starts[parent + 1] += 1
        return starts, children

    # ------------------------------------------------------------------ lines

    def missing(self) -> list[int]:
        """Return the numbers of those that were named as parents and never came."""
        return [number for number, known in enumerate(self.known) if not known and len(self.children(number))]

    def line(self, node: int) -> list[int]:
        """Return the line of first parents down to *node*; a cycle or an unknown parent ends it."""
        seen = {node}
        found = [node]
        parent = self._first[node]
        while parent >= 0 and self.known[parent] and parent not in seen:
            seen.add(parent)
            found.append(parent)
            parent = self._first[parent]
        return found[::-1]

    def above(self, node: int) -> list[int]:
        """Return all ancestors, in logged order; a node is none of its own."""
        seen = bytearray(len(self.ids))
        seen[node] = 1
        found, waiting = [], [node]
        while waiting:
            for parent in self.parents(waiting.pop()):
                if not seen[parent]:
                    seen[parent] = 1
                    if self.known[parent]:
                        found.append(parent)
                        waiting.append(parent)
        return self.in_order(found)

    def below(self, node: int) -> list[int]:
        """Return all descendants, in logged order; a node is none of its own."""
        seen = bytearray(len(self.ids))
        seen[node] = 1
        found, waiting = [], [node]
        while waiting:
            for child in self.children(waiting.pop()):
                if not seen[child]:
                    seen[child] = 1
                    found.append(child)
                    waiting.append(child)
        return self.in_order(found)

    def nearest_common(self, one: int, other: int) -> int | None:
        """Return the common ancestor with the fewest generations to both together, the latest of several.

        A node counts as an ancestor of itself here.
        """
        from_one, from_other = self._distances(one), self._distances(other)
        rank = self.rank()
        common = from_one.keys() & from_other.keys()
        return min(common, key=lambda node: (from_one[node] + from_other[node], -rank[node]), default=None)

    def _distances(self, node: int) -> dict[int, int]:
        """Return the fewest generations from *node* up to each ancestor."""
        distance = {node: 0}
        waiting, generation = [node], 0
        while waiting:
            generation += 1
            above = {p for n in waiting for p in self.parents(n) if self.known[p] and p not in distance}
            distance |= dict.fromkeys(above, generation)
            waiting = list(above)
        return distance

    def longest(self, weights: bytes) -> array[int]:
        """Return for each number the greatest sum of weights along a line down to it, its own included."""
        total = array("i", bytes(4 * len(self.ids)))
        for node in self.downward():
            above = [total[parent] for parent in self.upper(node)]
            total[node] = weights[node] + (max(above) if above else 0)
        return total

    def depths(self) -> array[int]:
        """Return for each number how many nodes the longest line down to it has."""
        return self.derive("depths", lambda: self.longest(b"\1" * len(self.ids)))

    # ------------------------------------------------------------------ cycles

    def downward(self) -> Sequence[int]:
        """Return the nodes that came with every parent before its children, but for the links in ``cut``."""
        return self._untangled().order

    def cut(self) -> frozenset[tuple[int, int]]:
        """Return the links (child, parent) of cycles whose parent was not logged before the child."""
        return self._untangled().cut

    def cycles(self) -> list[list[int]]:
        """Return the nodes that are ancestors of each other, a list for each such group, in logged order."""
        return self._untangled().groups

    def upper(self, node: int) -> tuple[int, ...]:
        """Return the known parents of a node without those that close a cycle."""
        parents = self.parents(node)
        if not parents or self.derive("plain", self._is_plain):
            return parents
        cut = self.cut()
        return tuple(p for p in parents if self.known[p] and (node, p) not in cut)

    def _is_plain(self) -> bool:
        return len(self.sequence()) == len(self.ids) and not self.cut()

    def _untangled(self) -> Untangled:
        return self.derive("untangled", lambda: untangled(self))
