"""What modifications are in numbers: acceptance, gain, depth, branching, of a whole tree or while they pass."""

from __future__ import annotations

import math
from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any

from lezea_mlops._bounded import MAX_KEYS, BoundedTable
from lezea_mlops.events import Envelope, Modification, ModificationTreeLogged, ScopePairs, number_text
from lezea_mlops.evolution.modifications import MAX_ID_CHARACTERS, shown_type
from lezea_mlops.evolution.records import content_of, modifications_of, moment_of


def scope_name(scope: ScopePairs) -> str:
    """Return scopes as one text, such as ``builder:42/layer:3``; empty where there is none."""
    return "/".join(f"{level}:{identity}" for level, identity in scope)


class Acceptance:
    """How many modifications were accepted, rejected, and neither yet, and what they gained."""

    __slots__ = ("accepted", "best", "gains", "rejected", "total", "undecided")

    def __init__(self) -> None:
        self.accepted = self.rejected = self.undecided = self.gains = 0
        self.total, self.best = 0.0, -math.inf

    def add(self, accepted: bool | None, count: int = 1) -> None:
        """Count so many of one verdict."""
        if accepted is None:
            self.undecided += count
        elif accepted:
            self.accepted += count
        else:
            self.rejected += count

    def gained(self, gain: float) -> None:
        """Take the gain of one that was counted."""
        self.gains += 1
        self.total += gain
        self.best = max(self.best, gain)

    def as_dict(self) -> dict[str, Any]:
        """Return the counts, and the rate of the accepted among the decided; None while nothing is decided."""
        decided = self.accepted + self.rejected
        return {
            "count": decided + self.undecided, "accepted": self.accepted, "rejected": self.rejected,
            "undecided": self.undecided, "accept_rate": self.accepted / decided if decided else None,
        }  # fmt: skip

    def gain(self) -> dict[str, Any]:
        """Return how many gains are known, their mean and the best; there must be one."""
        return {"count": self.gains, "mean": number_text(self.total / self.gains), "best": self.best}


class Figures:
    """What can be counted of modifications one by one, in all, by type, and by level and id of the scopes."""

    def __init__(
        self,
        by_type: MutableMapping[str, Acceptance] | BoundedTable[str, Acceptance],
        by_scope: MutableMapping[tuple[str, str], Acceptance] | BoundedTable[tuple[str, str], Acceptance],
    ) -> None:
        """Begin.

        Args:
            by_type: an empty table that makes missing values itself.
            by_scope: another one.
        """
        self.all = Acceptance()
        self.by_type = by_type
        self.by_scope = by_scope

    def count(self, accepted: bool | None, kind: str | None, scope: ScopePairs, count: int = 1) -> None:
        """Take so many modifications of one verdict, type and scope."""
        self.all.add(accepted, count)
        self.by_type[shown_type(kind)].add(accepted, count)
        for pair in set(scope):
            self.by_scope[pair].add(accepted, count)

    def gained(self, kind: str | None, gain: float) -> None:
        """Take the gain of one that was counted."""
        self.by_type[shown_type(kind)].gained(gain)

    def as_dict(self) -> dict[str, Any]:
        """Return all counts."""
        by_scope: dict[str, dict[str, Any]] = {}
        for (level, identity), acceptance in self.by_scope.items():
            by_scope.setdefault(level, {})[identity] = acceptance.as_dict()
        types = dict(self.by_type.items())
        return self.all.as_dict() | {
            "by_type": {kind: acceptance.as_dict() for kind, acceptance in types.items()},
            "by_scope": by_scope,
            "gain_by_type": {
                kind: acceptance.gain() for kind, acceptance in types.items() if acceptance.gains
            },
        }


def gain_over(score: float, parents: Sequence[float]) -> float | None:
    """Return *score* less the best finite score of its parents; None where that is not known, or no finite number."""
    best = parents[0] if len(parents) == 1 else max(filter(math.isfinite, parents), default=math.nan)
    gain = score - best
    return gain if math.isfinite(gain) else None


def score_of(modification: Modification) -> float:
    """Return a score as a float; NaN where there is none that a float could hold."""
    try:
        return math.nan if modification.score is None else float(modification.score)
    except OverflowError:
        return math.nan


def branching(links: int, parents: int, most: int) -> dict[str, Any]:
    """Return how many children those with children have, on average and at most."""
    return {"mean": links / parents if parents else 0.0, "max": most}


class _Remembered:
    """What those that build on a modification need to know of it."""

    __slots__ = (
        "accepted",
        "accepted_line",
        "built_on",
        "children",
        "depth",
        "fingerprint",
        "parents",
        "score",
    )

    def __init__(self, accepted: bool, score: float, fingerprint: int, parents: list[str]) -> None:
        self.accepted, self.score, self.fingerprint = accepted, score, fingerprint
        # By id: objects would keep their own parents, and so on up to the first, after these were forgotten.
        self.parents = parents
        self.built_on = False
        self.depth = self.accepted_line = self.children = 0


def _nothing() -> _Remembered:
    return _Remembered(False, math.nan, 0, [])


class StreamingStatistics:
    """The figures of ``ModificationTree.statistics``, in one pass and bounded memory.

    They are the same where every parent comes before its children, no id comes twice with different contents and
    nothing had to be forgotten; else ``partial`` is true: only the modifications that were used last are remembered, a
    parent that is not among them counts as unknown, and an id that comes again counts as it came first.
    """

    def __init__(self, limit: int = MAX_KEYS) -> None:
        """Begin.

        Args:
            limit: how many modifications, types and scopes are remembered.
        """
        self._types: BoundedTable[str, Acceptance] = BoundedTable(Acceptance, limit)
        self._scopes: BoundedTable[tuple[str, str], Acceptance] = BoundedTable(Acceptance, limit)
        # Only asked for what is in it.
        self._nodes: BoundedTable[str, _Remembered] = BoundedTable(_nothing, limit)
        self._figures = Figures(self._types, self._scopes)
        self._roots = self._depth = self._survivors = self._longest = 0
        self._links = self._parents = self._most = 0
        self._partial = False

    def observe(self, record: Envelope) -> None:
        """Take a record; those that hold no modifications change nothing."""
        if record.type == ModificationTreeLogged.type:
            self.add_all(modifications_of(record), moment_of(record).scope)

    def add_all(self, modifications: Iterable[Modification], scope: ScopePairs) -> None:
        """Take modifications as they were logged in these scopes."""
        counts: dict[tuple[bool | None, str | None], int] = {}
        for modification in modifications:
            if self._is_new(modification):
                alike = (modification.accepted, modification.type)
                counts[alike] = counts.get(alike, 0) + 1
        for (accepted, kind), count in counts.items():
            self._figures.count(accepted, kind, scope, count)

    def _is_new(self, modification: Modification) -> bool:
        """Take a modification, but for what is counted by verdict, type and scope, unless its id came before."""
        name, parent_ids, kind, accepted, *_ = modification
        nodes, fingerprint = self._nodes, hash(content_of(modification))
        if name in nodes:
            self._partial = self._partial or nodes[name].fingerprint != fingerprint
            return False
        known = [parent for parent in parent_ids if parent in nodes]
        above = [nodes[parent] for parent in known]
        own = _Remembered(accepted is True, score_of(modification), fingerprint, known)
        self._place(own, above)
        if (gain := gain_over(own.score, [each.score for each in above])) is not None:
            self._figures.gained(kind, gain)
        if own.accepted:
            self._survivors += 1
            self._build_on(known)
        if len(name) <= MAX_ID_CHARACTERS:
            nodes[name] = own
        else:
            self._partial = True
        return True

    def _place(self, own: _Remembered, above: list[_Remembered]) -> None:
        """Count what the place of a new modification says of the tree."""
        self._roots += not above
        self._links += len(above)
        for parent in above:
            self._parents += not parent.children
            parent.children += 1
            self._most = max(self._most, parent.children)
            own.depth = max(own.depth, parent.depth)
            own.accepted_line = max(own.accepted_line, parent.accepted_line)
        own.depth += 1
        own.accepted_line += own.accepted
        self._depth = max(self._depth, own.depth)
        self._longest = max(self._longest, own.accepted_line)

    def _build_on(self, waiting: list[str]) -> None:
        """Mark all that an accepted modification builds on, each once in its life."""
        nodes = self._nodes
        waiting = list(waiting)
        while waiting:
            name = waiting.pop()
            if name in nodes and not (node := nodes[name]).built_on:
                node.built_on = True
                self._survivors -= node.accepted
                waiting.extend(node.parents)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures so far, and whether they are ``partial``."""
        evicted = self._nodes.evicted + self._types.evicted + self._scopes.evicted
        return self._figures.as_dict() | {
            "roots": self._roots, "depth": self._depth,
            "branching": branching(self._links, self._parents, self._most),
            "longest_accepted_path": self._longest, "survivors": self._survivors,
            "partial": self._partial or evicted > 0,
        }  # fmt: skip
