"""Modifications of networks: their ids, and what is counted of them while they are logged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from math import isfinite
from typing import Any

from lezea_mlops._bounded import (
    MAX_KEYS,
    BoundedTable,
    number_state,
    stored_count,
    stored_number,
    stored_text,
)
from lezea_mlops.events import ScopePairs, number_text, read_modification
from lezea_mlops.events.numeric import INT_RANGE

# The figures of a tree stand in its line, in each of its parts: they tell of so many types and roots by name.
MAX_TYPES = 100
MAX_ROOT_IDS = 100
MAX_ROOT_CHARACTERS = 10_000
MAX_TYPE_CHARACTERS = 100
OTHER_TYPES = "(other types)"
# The scores of modifications with longer ids are not remembered.
MAX_ID_CHARACTERS = 1_000

Parents = Mapping[str, Sequence[str]]


# ---------------------------------------------------------------------- ids


def with_ids(modifications: Iterable[Mapping[str, Any]], prefix: str) -> list[Mapping[str, Any]]:
    """Return *modifications*, in which each has an id and a list of parents; copies where either was missing.

    Args:
        modifications: cleaned modifications.
        prefix: begins the ids that are given here; unique within the experiment.
    """
    return [
        modification if _is_whole(modification) else _completed(modification, f"{prefix}-{number}")
        for number, modification in enumerate(modifications, start=1)
    ]


def _is_whole(modification: Mapping[str, Any]) -> bool:
    """Tell whether id and parents are as they are to be; most modifications come so."""
    identity, parents = modification.get("id"), modification.get("parent_ids")
    if type(identity) is not str or not identity or type(parents) is not list or "parent_id" in modification:
        return False
    return "" not in parents and _all_text(parents)


def _all_text(values: Sequence[Any]) -> bool:
    # Of a million modifications nearly all have one parent, and a generator takes longer than this.
    return not values or (len(values) == 1 and type(values[0]) is str) or set(map(type, values)) == {str}


def _completed(modification: Mapping[str, Any], default_id: str) -> dict[str, Any]:
    copy = dict(modification)
    identity = copy.pop("id", None)
    parents = _as_list(copy.pop("parent_ids", None))
    parents += [parent for parent in _as_list(copy.pop("parent_id", None)) if parent not in parents]
    own = default_id if identity is None or identity == "" else str(identity)
    return {"id": own, **copy, "parent_ids": parents}


def _as_list(parents: Any) -> list[str]:
    several = parents if isinstance(parents, list) else [parents]
    return [str(parent) for parent in several if parent is not None and parent != ""]


# ---------------------------------------------------------------------- one tree


def tree_statistics(modifications: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what one logged tree says of itself, in bounded size.

    ``count`` modifications; ``roots``, those without a parent in this tree, the first of them by name in
    ``root_ids``; ``depth``, the modifications along the longest line of parents within this tree, where a line that
    comes back to itself ends; ``max_children``, the most modifications of this tree that name one parent; ``by_type``,
    how many of each type were proposed and accepted; and, where something is decided, ``accepted``, ``rejected`` and
    ``accept_rate``. Where an id comes twice, both are counted and the later one's parents hold.

    Args:
        modifications: as ``with_ids`` returns them.
    """
    parents: Parents = {m["id"]: m["parent_ids"] for m in modifications}
    known = parents.keys()
    roots = [identity for identity, above in parents.items() if known.isdisjoint(above)]
    children = Counter(chain.from_iterable(set(p) if len(p) > 1 else p for p in parents.values()))
    by_type, accepted, rejected = _acceptance(modifications)
    statistics: dict[str, Any] = {
        "count": len(modifications), "roots": len(roots), "depth": _depth(parents),
        "max_children": max(children.values(), default=0),
    }  # fmt: skip
    if decided := accepted + rejected:
        statistics |= {"accepted": accepted, "rejected": rejected, "accept_rate": accepted / decided}
    return statistics | {"by_type": by_type, "root_ids": _first_of(roots)}


def type_name(modification: Mapping[str, Any]) -> str:
    """Return the type under which a modification is counted; ``None`` as text where it has none."""
    kind = modification.get("type")
    if type(kind) is not str:
        if kind is None and "op" not in modification:
            return "None"
        kind = read_modification(modification, "").type
    return shown_type(kind)


def shown_type(kind: str | None) -> str:
    """Return a type as figures name it: ``None`` as text where there is none, and not longer than a row bears."""
    name = "None" if kind is None else kind
    return name if len(name) <= MAX_TYPE_CHARACTERS else name[: MAX_TYPE_CHARACTERS - 1] + "…"


def _acceptance(modifications: Iterable[Mapping[str, Any]]) -> tuple[dict[str, dict[str, int]], int, int]:
    """Return proposed and accepted by type, and how many were accepted and rejected in all."""
    by_type: dict[str, list[int]] = {}
    rejected = 0
    for modification in modifications:
        kind = type_name(modification)
        counts = by_type.get(kind)
        if counts is None:
            counts = by_type.setdefault(kind if len(by_type) < MAX_TYPES else OTHER_TYPES, [0, 0])
        decision = modification.get("accepted")
        counts[0] += 1
        if decision is True:
            counts[1] += 1
        elif decision is False:
            rejected += 1
    accepted = sum(counts[1] for counts in by_type.values())
    return {kind: {"proposed": p, "accepted": a} for kind, (p, a) in by_type.items()}, accepted, rejected


def _first_of(ids: Sequence[str]) -> list[str]:
    """Return the first of *ids*, as many as have room in a line beside others."""
    room = MAX_ROOT_CHARACTERS
    first = []
    for identity in ids[:MAX_ROOT_IDS]:
        room -= len(identity)
        if room < 0:
            break
        first.append(identity)
    return first


def _depth(parents: Parents) -> int:
    """Return the longest line of parents, without recursion: trees may be thousands deep."""
    depth: dict[str, int] = {}
    # Parents mostly come before their children, and then one look at each is enough.
    late = []
    for node, above in parents.items():
        deepest = 0
        for parent in above:
            if parent in depth:
                deepest = max(deepest, depth[parent])
            elif parent in parents:
                late.append(node)
                break
        else:
            depth[node] = deepest + 1
    for node in late:
        if node not in depth:
            _measure(node, parents, depth)
    return max(depth.values(), default=0)


def _measure(start: str, parents: Parents, depth: dict[str, int]) -> None:
    """Put the depths of *start* and of all above it into *depth*, looking at each parent once."""
    # Zero while the node's own parents are looked at, so that a line that comes back to itself ends there.
    depth[start] = 0
    stack = [(start, iter(parents[start]))]
    deepest = {start: 0}
    while stack:
        node, above = stack[-1]
        for parent in above:
            if parent not in parents:
                continue
            if parent not in depth:
                depth[parent] = deepest[parent] = 0
                stack.append((parent, iter(parents[parent])))
                break
            deepest[node] = max(deepest[node], depth[parent])
        else:
            stack.pop()
            depth[node] = deepest[node] + 1
            if stack:
                below = stack[-1][0]
                deepest[below] = max(deepest[below], depth[node])


# ---------------------------------------------------------------------- all trees of a run


class TypeCounts:
    """How many modifications of one type were proposed and accepted, and what they gained."""

    __slots__ = ("accepted", "best", "gains", "proposed", "total")

    def __init__(self) -> None:
        self.proposed = self.accepted = self.gains = 0
        self.total, self.best = 0.0, 0.0

    def gained(self, gain: float) -> None:
        """Take the gain of one."""
        self.best = gain if not self.gains else max(gain, self.best)
        self.gains += 1
        self.total += gain

    def as_dict(self) -> dict[str, Any]:
        """Return the counts; ``gain`` only where one is known."""
        counts: dict[str, Any] = {"proposed": self.proposed, "accepted": self.accepted}
        if self.gains:
            mean = number_text(self.total / self.gains)
            counts["gain"] = {"count": self.gains, "mean": mean, "best": self.best}
        return counts

    def state(self) -> list[Any]:
        """Return all of it as JSON, for ``restored``."""
        return [self.proposed, self.accepted, self.gains, number_state(self.total), self.best]

    @classmethod
    def restored(cls, state: Any) -> TypeCounts:
        """Return counts that go on from a state; an earlier version stored proposed and accepted alone.

        Raises:
            TypeError, ValueError: it is damaged.
        """
        counts = cls()
        proposed, accepted, *gain = state
        counts.proposed, counts.accepted = stored_count(proposed), stored_count(accepted)
        if gain:
            gains, total, best = gain
            counts.gains = stored_count(gains)
            counts.total, counts.best = stored_number(total), stored_number(best)
        return counts


class ModificationCounts:
    """What was proposed and accepted, in all, by type and by scope, and what each type gained.

    A gain is a score less the best score among its parents. Only the scores logged last are remembered, as many as the
    limit: a gain over a parent of long ago is not known, and ``count`` of a gain tells how many were.
    """

    def __init__(self, limit: int = MAX_KEYS) -> None:
        self.proposed = self.accepted = self.undecided = 0
        self._by_type: BoundedTable[str, TypeCounts] = BoundedTable(TypeCounts, limit)
        self._by_scope: BoundedTable[tuple[str, str], list[int]] = BoundedTable(lambda: [0, 0], limit)
        self._scores: BoundedTable[str, float] = BoundedTable(float, limit)
        # What an earlier version stored does not say what was undecided, nor in which scopes.
        self._of_before = False

    def observe(self, fields: Mapping[str, Any], scope: ScopePairs = ()) -> None:
        """Take one logged tree, or a part of one."""
        modifications = fields.get("modifications")
        if not isinstance(modifications, list):
            return
        proposed, accepted = self.proposed, self.accepted
        for modification in modifications:
            if isinstance(modification, Mapping):
                self._count(modification)
        for pair in set(scope) if self.proposed > proposed else ():
            counts = self._by_scope[pair]
            counts[0] += self.proposed - proposed
            counts[1] += self.accepted - accepted

    def _count(self, modification: Mapping[str, Any]) -> None:
        counts = self._by_type[type_name(modification)]
        self.proposed += 1
        counts.proposed += 1
        decision = modification.get("accepted")
        if decision is True:
            self.accepted += 1
            counts.accepted += 1
        elif decision is not False:
            self.undecided += 1
        score = modification.get("score")
        if (type(score) is float and isfinite(score)) or (type(score) is int and score in INT_RANGE):
            self._score(modification, score, counts)

    def _score(self, modification: Mapping[str, Any], score: float, counts: TypeCounts) -> None:
        scores = self._scores
        parents = modification.get("parent_ids")
        if type(parents) is not list:
            parents = read_modification(modification, "").parent_ids
        above = [scores[parent] for parent in parents if type(parent) is str and parent in scores]
        if above and isfinite(gain := score - max(above)):
            counts.gained(gain)
        identity = modification.get("id")
        if type(identity) is str and len(identity) <= MAX_ID_CHARACTERS:
            scores[identity] = score

    def as_dict(self) -> dict[str, Any]:
        """Return the counts, in all, by type, and by level and id of the scopes."""
        by_scope: dict[str, dict[str, dict[str, int]]] = {}
        for (level, identity), (proposed, accepted) in self._by_scope.items():
            by_scope.setdefault(level, {})[identity] = {"proposed": proposed, "accepted": accepted}
        return {
            "proposed": self.proposed, "accepted": self.accepted, "undecided": self.undecided,
            "by_type": {kind: counts.as_dict() for kind, counts in self._by_type.items()},
            "by_scope": by_scope,
            "partial": bool(self._by_type.evicted or self._by_scope.evicted or self._of_before),
        }  # fmt: skip

    def state(self) -> dict[str, Any]:
        """Return all of it as JSON, for ``restore``."""
        return {
            "proposed": self.proposed, "accepted": self.accepted, "undecided": self.undecided,
            "by_type": self._by_type.state(TypeCounts.state), "by_scope": self._by_scope.state(list),
            "scores": self._scores.state(float), "of_before": self._of_before,
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, also from one of an earlier version.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        self.proposed, self.accepted = stored_count(state["proposed"]), stored_count(state["accepted"])
        self._by_type.restore(state["by_type"], stored_text, TypeCounts.restored)
        if "undecided" not in state:
            self._of_before = self.proposed > 0
            return
        self.undecided = stored_count(state["undecided"])
        self._by_scope.restore(state["by_scope"], _stored_pair, _stored_counts)
        self._scores.restore(state["scores"], stored_text, stored_number)
        self._of_before = state["of_before"] is True


def _stored_pair(state: Any) -> tuple[str, str]:
    level, identity = state
    return stored_text(level), stored_text(identity)


def _stored_counts(state: Any) -> list[int]:
    proposed, accepted = state
    return [stored_count(proposed), stored_count(accepted)]
