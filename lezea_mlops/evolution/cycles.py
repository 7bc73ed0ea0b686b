"""Graphs whose lines come back to themselves: which nodes, and which links to pass over to have an order."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from lezea_mlops.evolution.graph import Graph

Link = tuple[int, int]


class Untangled(NamedTuple):
    """A graph in an order.

    Attributes:
        order: all nodes, every parent before its children, but for the links in ``cut``.
        cut: links (child, parent) of cycles whose parent was not logged before the child.
        groups: the nodes that are ancestors of each other, each group in logged order.
    """

    order: Sequence[int]
    cut: frozenset[Link]
    groups: list[list[int]]


def untangled(graph: Graph) -> Untangled:
    """Put the nodes of *graph* into an order in which parents come first.

    Almost always they were logged so. Of a cycle the links against the logged order are cut; what is left of it runs
    along that order, and has no cycle.
    """
    rank, nothing = graph.rank(), frozenset[Link]()
    logged = graph.sequence()
    if not any(rank[parent] >= rank[node] for node in logged for parent in graph.parents(node)):
        return Untangled(logged, nothing, [])
    order = _parents_first(graph, nothing)
    if len(order) == len(logged):
        return Untangled(order, nothing, [])
    groups = [graph.in_order(group) for group in _tangles(graph, set(logged) - set(order))]
    groups.sort(key=lambda group: rank[group[0]])
    group_of = {node: number for number, group in enumerate(groups) for node in group}
    cut = frozenset(
        (node, parent)
        for node, number in group_of.items()
        for parent in graph.parents(node)
        if group_of.get(parent) == number and rank[parent] >= rank[node]
    )
    return Untangled(_parents_first(graph, cut), cut, groups)


def _parents_first(graph: Graph, cut: frozenset[Link]) -> list[int]:
    """Return the nodes, parents before children; those in and below cycles that are not cut are left out."""
    waiting_for: dict[int, int] = {}
    order = []
    for node in graph.sequence():
        count = sum(1 for parent in graph.parents(node) if graph.known[parent] and (node, parent) not in cut)
        if count:
            waiting_for[node] = count
        else:
            order.append(node)
    for node in order:
        for child in graph.children(node):
            if (child, node) not in cut:
                waiting_for[child] -= 1
                if not waiting_for[child]:
                    order.append(child)
    return order


class _Search:
    """A search for strong components, after Tarjan, that keeps its own stack."""

    def __init__(self, graph: Graph, among: Collection[int]) -> None:
        self._graph = graph
        self._among = among
        self._met: dict[int, int] = {}
        self._lowest: dict[int, int] = {}
        self._path: list[int] = []
        self._on_path: set[int] = set()
        self.groups: list[list[int]] = []

    def start(self, node: int) -> None:
        """Search from *node* on, unless it was met before."""
        if node in self._met:
            return
        work = [(node, self._enter(node))]
        while work:
            node, above = work[-1]
            entered = next((parent for parent in above if self._is_new(node, parent)), None)
            if entered is not None:
                work.append((entered, self._enter(entered)))
                continue
            work.pop()
            if work:
                below = work[-1][0]
                self._lowest[below] = min(self._lowest[below], self._lowest[node])
            if self._lowest[node] == self._met[node]:
                self._leave(node)

    def _enter(self, node: int) -> Iterator[int]:
        self._met[node] = self._lowest[node] = len(self._met)
        self._path.append(node)
        self._on_path.add(node)
        return iter(self._graph.parents(node))

    def _is_new(self, node: int, parent: int) -> bool:
        if parent in self._among and parent not in self._met:
            return True
        if parent in self._on_path:
            self._lowest[node] = min(self._lowest[node], self._met[parent])
        return False

    def _leave(self, node: int) -> None:
        group: list[int] = []
        while not group or group[-1] != node:
            group.append(self._path.pop())
        self._on_path.difference_update(group)
        if len(group) > 1 or node in self._graph.parents(node):
            self.groups.append(group)


def _tangles(graph: Graph, among: Collection[int]) -> list[list[int]]:
    """Return the groups of nodes that are ancestors of each other."""
    search = _Search(graph, among)
    for node in among:
        search.start(node)
    return search.groups
