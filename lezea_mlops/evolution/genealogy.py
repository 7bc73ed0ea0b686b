"""Who comes from whom: what modifications and networks have in common, asked by id."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, NamedTuple

from lezea_mlops.evolution.graph import Graph
from lezea_mlops.evolution.versions import Versions

# So many ids are named in a sentence.
_NAMED = 5


class Problem(NamedTuple):
    """Something that cannot be as it was logged; what was logged is kept all the same.

    Attributes:
        kind: ``unknown_parent``, ``cycle``, ``duplicate`` or ``not_understood``.
        id: what it is about; of an unknown parent the id that never came, of a cycle the first one of it.
        text: what is wrong, as a sentence.
    """

    kind: str
    id: str
    text: str


class Genealogy:
    """Nodes by id, in the order in which they were logged, with their parents and children.

    All methods that take an id raise KeyError where it was not logged.
    """

    _NOUN: ClassVar[str] = "node"

    def __init__(self) -> None:
        self._graph = Graph()
        self._versions = Versions(lambda moment: self._graph.moments[moment].order)

    def __len__(self) -> int:
        return len(self._graph.sequence())

    def __contains__(self, node_id: object) -> bool:
        return isinstance(node_id, str) and self._graph.find(node_id) is not None

    def __iter__(self) -> Iterator[str]:
        """Yield the ids in the order in which they were logged."""
        return map(self._graph.ids.__getitem__, self._graph.sequence())

    def roots(self) -> list[str]:
        """Return those without a known parent."""
        return self._named(self._graph.roots())

    def children(self, node_id: str) -> list[str]:
        """Return those that name this one as a parent."""
        return self._named(self._graph.children(self._graph.needed(node_id)))

    def lineage(self, node_id: str) -> list[str]:
        """Return the line to a node: its first ancestor, …, itself, along the first parent of each.

        A parent that is not known, or was on the line already, ends it.
        """
        return self._named(self._graph.line(self._graph.needed(node_id)))

    def ancestors(self, node_id: str) -> list[str]:
        """Return all that a node came from, along all parents, in logged order; never itself."""
        return self._named(self._graph.above(self._graph.needed(node_id)))

    def descendants(self, node_id: str) -> list[str]:
        """Return all that came from a node, in logged order; never itself."""
        return self._named(self._graph.below(self._graph.needed(node_id)))

    def common_ancestor(self, one: str, other: str) -> str | None:
        """Return the nearest common ancestor: the fewest generations from both together, the newest of several.

        A node counts as an ancestor of itself here; None: they have none in common.
        """
        graph = self._graph
        found = graph.nearest_common(graph.needed(one), graph.needed(other))
        return None if found is None else graph.ids[found]

    def depth(self, node_id: str) -> int:
        """Return how many nodes the longest line to this one has, itself included: 1 for a root."""
        return self._graph.depths()[self._graph.needed(node_id)]

    def parents(self, node_id: str) -> list[str]:
        """Return the parents of a node as they were logged, also those that never came."""
        return self._named(self._graph.parents(self._graph.needed(node_id)))

    def parents_first(self) -> Iterator[str]:
        """Yield all ids, parents before their children but for the links that close a cycle."""
        return map(self._graph.ids.__getitem__, self._graph.downward())

    def known_parents(self, node_id: str) -> list[str]:
        """Return the parents that were logged, without those that close a cycle."""
        return self._named(self._graph.upper(self._graph.needed(node_id)))

    def problems(self) -> list[Problem]:
        """Return what cannot be as it was logged: ``unknown_parent``, ``duplicate`` and ``cycle``."""
        graph = self._graph
        found = [
            self._unknown_parent(graph.ids[node], self._named(graph.children(node)))
            for node in graph.missing()
        ]
        found += [self._duplicate(node, count) for node, count in self._versions.several()]
        found += [self._cycle(self._named(group)) for group in graph.cycles()]
        return found

    def _named(self, numbers: Iterable[int]) -> list[str]:
        return [self._graph.ids[number] for number in numbers]

    def _unknown_parent(self, missing: str, children: Sequence[str]) -> Problem:
        return Problem(
            "unknown_parent", missing,
            f"the parent {missing} of {_listed(children)} was never logged; it is passed over",
        )  # fmt: skip

    def _duplicate(self, node: int, count: int) -> Problem:
        name, step = self._graph.ids[node], self._graph.moment_of(node).step
        where = "" if step is None else f", that of step {step}"
        return Problem(
            "duplicate", name,
            f"the {self._NOUN} {name} was logged with {count:,} different contents; the newest counts{where}",
        )  # fmt: skip

    def _cycle(self, members: Sequence[str]) -> Problem:
        said = "is its own ancestor" if len(members) == 1 else "are ancestors of each other"
        return Problem("cycle", members[0], f"the {self._NOUN} {_listed(members)} {said}")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
