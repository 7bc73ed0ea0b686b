"""The modifications of a run as one tree, or rather graph: a crossover has several parents."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from lezea_mlops.events import Modification, ScopePairs, as_number, encode_json, number_text
from lezea_mlops.evolution.graph import Genealogy, Moment, Problem
from lezea_mlops.evolution.statistics import Figures, branching, gain_over

_ACCEPTED, _REJECTED, _UNDECIDED = 1, 0, 2
_CODE_OF = {True: _ACCEPTED, False: _REJECTED, None: _UNDECIDED}
_ACCEPTED_OF = (False, True, None)


class Node(NamedTuple):
    """A modification and where it was logged.

    Attributes:
        modification: the modification.
        step: the step of its tree.
        scope: the scopes it was logged in, outermost first.
        ts: when, in UTC microseconds.
    """

    modification: Modification
    step: int | None
    scope: ScopePairs
    ts: int


class ModificationTree:
    """All modifications of a run, by id, in the order in which they were logged.

    The newest content of an id counts; ``versions`` has the others. A parent that never came and a cycle are told by
    ``problems``, and nothing is left out because of them: a node without a known parent is a root, and of a cycle the
    links whose parent was logged after its child are passed over where a question needs an order (depth, accepted
    paths, statistics).
    """

    def __init__(self) -> None:
        self._graph = Genealogy()
        self._accepted = bytearray()
        self._scores = array("d")
        self._types: list[str | None] = []
        self._targets: list[str | None] = []

    # ------------------------------------------------------------------ building

    def add(
        self,
        modification: Modification,
        *,
        step: int | None,
        scope: ScopePairs,
        ts: int,
        order: tuple[Any, ...],
    ) -> None:
        """Take a modification as it was logged.

        Args:
            modification: the modification.
            step: the step of its tree.
            scope: the scopes it was logged in.
            ts: UTC microseconds.
            order: its place among all records, ``Envelope.order_key``.
        """
        graph = self._graph
        moment = graph.moment(Moment(order, step, scope, ts))
        node = graph.number(modification.id)
        counts = graph.offer(node, modification.parent_ids, _encoded(modification), moment)
        self._make_room()
        if not counts:
            return
        self._accepted[node] = _CODE_OF[modification.accepted]
        self._scores[node] = _score(modification.score)
        self._types[node] = modification.type
        self._targets[node] = modification.target

    def _make_room(self) -> None:
        missing = len(self._graph.ids) - len(self._accepted)
        if missing:
            self._accepted.extend(bytes([_UNDECIDED]) * missing)
            self._scores.extend([math.nan] * missing)
            self._types.extend([None] * missing)
            self._targets.extend([None] * missing)

    # ------------------------------------------------------------------ nodes

    def __len__(self) -> int:
        return len(self._graph.sequence())

    def __contains__(self, modification_id: object) -> bool:
        return isinstance(modification_id, str) and self._graph.find(modification_id) is not None

    def __iter__(self) -> Iterator[str]:
        """Yield the ids in the order in which they were logged."""
        return map(self._graph.ids.__getitem__, self._graph.sequence())

    def __getitem__(self, modification_id: str) -> Node:
        """Return a modification and where it was logged.

        Raises:
            KeyError: it was not logged. So do all methods that take an id.
        """
        return self._node(self._graph.needed(modification_id))

    def _node(self, number: int) -> Node:
        graph = self._graph
        return _node(graph.ids[number], graph.contents[number], graph.moment_of(number))

    def versions(self, modification_id: str) -> list[Node]:
        """Return all contents that were logged under an id, the one that counts last."""
        versions = self._graph.versions(self._graph.needed(modification_id))
        return [_node(modification_id, content, moment) for content, moment in versions]

    def roots(self) -> list[str]:
        """Return the modifications without a known parent."""
        return self._named(self._graph.roots())

    def children(self, modification_id: str) -> list[str]:
        """Return the modifications that name this one as a parent."""
        return self._named(self._graph.children(self._graph.needed(modification_id)))

    def problems(self) -> list[Problem]:
        """Return what cannot be as it was logged: ``unknown_parent``, ``cycle`` and ``duplicate``."""
        return self._graph.problems("modification")

    def _named(self, numbers: Iterable[int]) -> list[str]:
        return [self._graph.ids[number] for number in numbers]

    # ------------------------------------------------------------------ lines

    def lineage(self, modification_id: str) -> list[str]:
        """Return the line to a modification: its first ancestor, …, itself, along the first parent of each.

        A parent that is not known, or was on the line already, ends it.
        """
        return self._named(self._graph.line(self._graph.needed(modification_id)))

    def ancestors(self, modification_id: str) -> list[str]:
        """Return all that a modification builds on, along all parents, in logged order; never itself."""
        return self._named(self._graph.above(self._graph.needed(modification_id)))

    def descendants(self, modification_id: str) -> list[str]:
        """Return all that builds on a modification, in logged order; never itself."""
        return self._named(self._graph.below(self._graph.needed(modification_id)))

    def common_ancestor(self, one: str, other: str) -> str | None:
        """Return the nearest common ancestor: the fewest generations from both together, the newest of several.

        A modification counts as an ancestor of itself here; None: they have none in common.
        """
        graph = self._graph
        found = graph.nearest_common(graph.needed(one), graph.needed(other))
        return None if found is None else graph.ids[found]

    def depth(self, modification_id: str) -> int:
        """Return how many modifications the longest line to this one has, itself included: 1 for a root."""
        return self._depths()[self._graph.needed(modification_id)]

    def _depths(self) -> array[int]:
        return self._graph.derive("depths", lambda: self._graph.longest(b"\1" * len(self._graph.ids)))

    # ------------------------------------------------------------------ what was gained

    def best(self) -> str | None:
        """Return the accepted modification with the highest finite score, the first of equals; None without any."""
        scores, accepted = self._scores, self._accepted
        scored = (n for n in self._graph.sequence() if accepted[n] == _ACCEPTED and math.isfinite(scores[n]))
        found = max(scored, key=scores.__getitem__, default=None)
        return None if found is None else self._graph.ids[found]

    def gain(self, modification_id: str) -> float | None:
        """Return the score less the best score among the known parents; None where either is unknown or not finite."""
        return self._gain(self._graph.needed(modification_id))

    def _gain(self, node: int) -> float | None:
        return gain_over(self._scores[node], (self._scores[p] for p in self._graph.upper(node)))

    def survivors(self) -> list[str]:
        """Return the accepted modifications that no accepted one builds on."""
        return self._named(self._survivors())

    def _survivors(self) -> list[int]:
        graph, accepted = self._graph, self._accepted
        built_on = bytearray(len(graph.ids))
        for node in reversed(graph.downward()):
            if built_on[node] or accepted[node] == _ACCEPTED:
                for parent in graph.upper(node):
                    built_on[parent] = 1
        return [n for n in graph.sequence() if accepted[n] == _ACCEPTED and not built_on[n]]

    def accepted_paths(self) -> Iterator[list[str]]:
        """Yield, for each survivor, the accepted modifications on its lineage, the first one first."""
        for survivor in self._survivors():
            line = self._graph.line(survivor)
            yield self._named(node for node in line if self._accepted[node] == _ACCEPTED)

    def targeting(self, network_id: str) -> list[str]:
        """Return the modifications whose target is this network, in logged order."""
        return self._named(self._graph.derive("targets", self._gathered_targets).get(network_id, ()))

    def _gathered_targets(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for node in self._graph.sequence():
            if (target := self._targets[node]) is not None:
                found.setdefault(target, []).append(node)
        return found

    def statistics(self) -> dict[str, Any]:
        """Return the figures of the tree, computed from what was logged and never from what was said of it."""
        graph, figures = self._graph, Figures()
        for node in graph.sequence():
            figures.count(
                _ACCEPTED_OF[self._accepted[node]],
                self._types[node],
                graph.moment_of(node).scope,
                self._gain(node),
            )
        sizes = [size for node in graph.sequence() if (size := len(graph.children(node)))]
        accepted = bytes(code == _ACCEPTED for code in self._accepted)
        return figures.as_dict() | {
            "roots": len(graph.roots()), "depth": max(self._depths(), default=0),
            "branching": branching(sum(sizes), len(sizes), max(sizes, default=0)),
            "longest_accepted_path": max(graph.longest(accepted), default=0),
            "survivors": len(self._survivors()),
        }  # fmt: skip


def _encoded(modification: Modification) -> bytes:
    """Return all of a modification but its id, as JSON: a million of them would not fit as objects."""
    score = modification.score
    told = number_text(score) if isinstance(score, float) else score
    return encode_json((*modification[1:4], told, *modification[5:]))


def _node(modification_id: str, content: Any, moment: Moment) -> Node:
    parents, kind, accepted, score, target, params, data = json.loads(content)
    modification = Modification(
        modification_id, tuple(parents), kind, accepted, as_number(score), target, params, data
    )
    return Node(modification, moment.step, moment.scope, moment.ts)


def _score(score: float | None) -> float:
    """Return a score as a float; NaN where there is none."""
    try:
        return math.nan if score is None else float(score)
    except OverflowError:
        return math.nan
