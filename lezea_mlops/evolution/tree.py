"""The modifications of a run as one tree, or rather graph: a crossover has several parents."""

from __future__ import annotations

import json
from array import array
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from math import isfinite, isnan, nan
from typing import Any, ClassVar, NamedTuple

from lezea_mlops.events import Modification, ScopePairs, as_number, encode_json, number_text
from lezea_mlops.evolution.genealogy import Genealogy
from lezea_mlops.evolution.graph import Moment
from lezea_mlops.evolution.records import content_of
from lezea_mlops.evolution.statistics import Acceptance, Figures, branching, gain_over, score_of

_UNDECIDED = 2
_CODE_OF = {True: 1, False: 0, None: _UNDECIDED}
_ACCEPTED_OF = (False, True, None)
# So many texts are looked up before new ones of equal content are kept.
_MAX_SHARED = 100_000


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


class ModificationTree(Genealogy):
    """All modifications of a run, by id, in the order in which they were logged.

    Where an id was logged with several contents, the newest counts; ``versions`` has the others. A parent that never
    came and a cycle are told by ``problems``, and nothing is left out because of them: a node without a known parent
    is a root, and of a cycle the links whose parent was logged after its child are passed over where a question needs
    an order (depth, gain, survivors, statistics).

    Only what the questions need stays as objects; the rest of each modification is kept as JSON and decoded by
    ``tree[id]``, so that a million fit into a few hundred megabytes. What needs the whole tree, such as its order and
    the children, is computed at the first question and again when modifications came in between.
    """

    _NOUN: ClassVar[str] = "modification"

    def __init__(self) -> None:
        super().__init__()
        self._accepted = bytearray()
        self._scores = array("d")
        self._types: list[str | None] = []
        self._targets: list[str | None] = []
        # Params, all else, and the score where a float does not say what it was; None where there is none of it.
        self._rest: list[bytes | None] = []
        self._shared: dict[str, str] = {}

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
        self.add_all((modification,), Moment(order, step, scope, ts))

    def add_all(self, modifications: Iterable[Modification], moment: Moment) -> None:
        """Take the modifications of one record, in their order."""
        if len(self._shared) > _MAX_SHARED:
            self._shared.clear()
        graph = self._graph
        number, find, put, keep = graph.moment(moment), graph.find, graph.put, self._keep
        for modification in modifications:
            as_of: int | None = number
            if (known := find(modification[0])) is not None:
                as_of = self._versions.newest(
                    known, content_of(self._modification(known)), graph.moment_numbers[known],
                    content_of(modification), number,
                )  # fmt: skip
            if as_of is not None:
                keep(put(modification[0], modification[1], as_of), modification)

    def _keep(self, node: int, modification: Modification) -> None:
        if len(self._graph.ids) > len(self._types):
            self._make_room(len(self._graph.ids) - len(self._types))
        _, _, kind, accepted, score, target, params, data = modification
        share = self._shared.setdefault
        self._accepted[node] = _CODE_OF[accepted]
        self._types[node] = None if kind is None else share(kind, kind)
        self._targets[node] = None if target is None else share(target, target)
        if score is None or (type(score) is float and isfinite(score)):
            self._scores[node] = nan if score is None else score
            self._rest[node] = encode_json((params, data)) if data or params is not None else None
        else:
            self._scores[node] = score_of(modification)
            told = number_text(score) if type(score) is float else score
            self._rest[node] = encode_json((params, data, told))

    def _make_room(self, count: int) -> None:
        if count == 1:
            self._accepted.append(_UNDECIDED)
            self._scores.append(nan)
            self._types.append(None)
            self._targets.append(None)
            self._rest.append(None)
            return
        self._accepted.extend(b"\2" * count)
        self._scores.extend((nan,) * count)
        for texts in (self._types, self._targets, self._rest):
            texts.extend((None,) * count)

    # ------------------------------------------------------------------ nodes

    def __getitem__(self, modification_id: str) -> Node:
        """Return a modification and where it was logged."""
        node = self._graph.needed(modification_id)
        return _node(self._modification(node), self._graph.moment_of(node))

    def versions(self, modification_id: str) -> list[Node]:
        """Return all contents that were logged under an id, that which counts last."""
        node = self._graph.needed(modification_id)
        moments = self._graph.moments
        found = [
            _node(_decoded(modification_id, content), moments[moment])
            for content, moment in self._versions.of(node)
        ]
        return found or [self[modification_id]]

    def _modification(self, node: int) -> Modification:
        graph, score = self._graph, self._scores[node]
        rest = self._rest[node]
        params, data, *odd = (None, {}) if rest is None else json.loads(rest)
        return Modification(
            graph.ids[node], tuple(self._named(graph.parents(node))), self._types[node],
            _ACCEPTED_OF[self._accepted[node]], as_number(odd[0]) if odd else None if isnan(score) else score,
            self._targets[node], params, data,
        )  # fmt: skip

    # ------------------------------------------------------------------ what was accepted and gained

    def best(self) -> str | None:
        """Return the accepted modification with the highest finite score, the first of equals; None without any."""
        scores, accepted = self._scores, self._accepted
        scored = (n for n in self._graph.sequence() if accepted[n] == 1 and isfinite(scores[n]))
        found = max(scored, key=scores.__getitem__, default=None)
        return None if found is None else self._graph.ids[found]

    def gain(self, modification_id: str) -> float | None:
        """Return the score less the best score among the known parents; None where either is unknown or not finite."""
        return self._gain(self._graph.needed(modification_id))

    def _gain(self, node: int) -> float | None:
        scores = self._scores
        return gain_over(scores[node], [scores[parent] for parent in self._graph.upper(node)])

    def survivors(self) -> list[str]:
        """Return the accepted modifications that no accepted one builds on."""
        return self._named(self._survivors())

    def _survivors(self) -> list[int]:
        graph, accepted = self._graph, self._accepted
        built_on = bytearray(len(graph.ids))
        for node in reversed(graph.downward()):
            if built_on[node] or accepted[node] == 1:
                for parent in graph.upper(node):
                    built_on[parent] = 1
        return [n for n in graph.sequence() if accepted[n] == 1 and not built_on[n]]

    def accepted_paths(self) -> Iterator[list[str]]:
        """Yield, for each survivor, the accepted modifications on its lineage, the first one first."""
        for survivor in self._survivors():
            line = self._graph.line(survivor)
            yield self._named(node for node in line if self._accepted[node] == 1)

    def targeting(self, network_ids: Collection[str]) -> dict[str, list[str]]:
        """Return the modifications whose target is one of these networks, by network, in logged order."""
        found: dict[str, list[str]] = {network: [] for network in network_ids}
        targets, ids = self._targets, self._graph.ids
        for node in self._graph.sequence():
            target = targets[node]
            if target in found:
                found[target].append(ids[node])
        return found

    def verdicts(self) -> Iterator[tuple[int | None, str | None, bool | None]]:
        """Yield step, type and verdict of each modification in logged order; much faster than ``tree[id]`` for all."""
        moments, numbers = self._graph.moments, self._graph.moment_numbers
        for node in self._graph.sequence():
            yield moments[numbers[node]].step, self._types[node], _ACCEPTED_OF[self._accepted[node]]

    def statistics(self) -> dict[str, Any]:
        """Return the figures of the tree, computed from what was logged and never from what was said of it.

        ``count``, ``accepted``, ``rejected``, ``undecided`` and ``accept_rate`` (of the decided ones, None without
        any); the same ``by_type``, and ``by_scope`` by level and id; ``gain_by_type`` (count, mean, best); ``roots``;
        ``depth``; ``branching`` (mean and max children of those with children); ``longest_accepted_path`` (the most
        accepted modifications on a line of parents); ``survivors``, their number.
        """
        graph, types, scores = self._graph, self._types, self._scores
        figures = Figures(defaultdict(Acceptance), defaultdict(Acceptance))
        nodes = graph.sequence()
        alike = Counter(zip(self._accepted, types, graph.moment_numbers, strict=True))
        for (code, kind, moment), count in alike.items():
            # One that was only named as a parent has no moment.
            if moment >= 0:
                figures.count(_ACCEPTED_OF[code], kind, graph.moments[moment].scope, count)
        upper = graph.upper
        for node in nodes:
            gain = gain_over(scores[node], [scores[parent] for parent in upper(node)])
            if gain is not None:
                figures.gained(types[node], gain)
        sizes = graph.family_sizes()
        accepted = bytes(code == 1 for code in self._accepted)
        return figures.as_dict() | {
            "roots": len(graph.roots()), "depth": max(graph.depths(), default=0),
            "branching": branching(sum(sizes), len(sizes), max(sizes, default=0)),
            "longest_accepted_path": max(graph.longest(accepted), default=0),
            "survivors": len(self._survivors()),
        }  # fmt: skip


def _node(modification: Modification, moment: Moment) -> Node:
    return Node(modification, moment.step, moment.scope, moment.ts)


def _decoded(modification_id: str, content: Any) -> Modification:
    parents, kind, accepted, score, target, params, data = json.loads(content)
    return Modification(
        modification_id, tuple(parents), kind, accepted, as_number(score), target, params, data
    )
