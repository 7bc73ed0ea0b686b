"""Modifications of networks: their ids, and what is counted of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lezea_mlops._bounded import MAX_KEYS, BoundedTable, stored_count, stored_text


def with_ids(modifications: Sequence[Mapping[str, Any]], prefix: str) -> list[dict[str, Any]]:
    """Return copies of *modifications* in which each has an id and a list of parents.

    Args:
        modifications: cleaned modifications.
        prefix: begins the ids that are given here; unique within the experiment.
    """
    copies = []
    for number, modification in enumerate(modifications, start=1):
        copy = dict(modification)
        identity = copy.pop("id", None)
        own = f"{prefix}-{number}" if identity is None or identity == "" else str(identity)
        parents = _as_list(copy.pop("parent_ids", None))
        parents += [parent for parent in _as_list(copy.pop("parent_id", None)) if parent not in parents]
        copies.append({"id": own, **copy, "parent_ids": parents})
    return copies


def _as_list(parents: Any) -> list[str]:
    if parents is None:
        return []
    several = parents if isinstance(parents, list) else [parents]
    return [str(parent) for parent in several if parent is not None]


def tree_statistics(modifications: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what one logged tree says of itself: size, roots, depth, acceptance.

    Depth counts modifications along the longest line of parents within this tree; a line that comes back to itself
    ends there.
    """
    accepted = [m for m in modifications if m.get("accepted") is True]
    decided = [m for m in modifications if isinstance(m.get("accepted"), bool)]
    parents = {m["id"]: m["parent_ids"] for m in modifications}
    roots = sum(1 for above in parents.values() if not any(p in parents for p in above))
    statistics: dict[str, Any] = {"count": len(modifications), "roots": roots, "depth": _depth(parents)}
    if decided:
        statistics |= {"accepted": len(accepted), "accept_rate": len(accepted) / len(decided)}
    return statistics


def _depth(parents: Mapping[str, Sequence[str]]) -> int:
    """Return the longest line of parents, without recursion: trees may be thousands deep."""
    depth: dict[str, int] = {}
    for start in parents:
        if start not in depth:
            _measure(start, parents, depth)
    return max(depth.values(), default=0)


def _measure(start: str, parents: Mapping[str, Sequence[str]], depth: dict[str, int]) -> None:
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


class ModificationCounts:
    """How many modifications of each type were proposed and accepted."""

    def __init__(self, limit: int = MAX_KEYS) -> None:
        self.proposed = self.accepted = 0
        self._by_type: BoundedTable[str, list[int]] = BoundedTable(lambda: [0, 0], limit)

    def observe(self, fields: Mapping[str, Any]) -> None:
        """Take one logged tree, or a part of one."""
        modifications = fields.get("modifications")
        if not isinstance(modifications, list):
            return
        for modification in modifications:
            if not isinstance(modification, Mapping):
                continue
            accepted = modification.get("accepted") is True
            self.proposed += 1
            self.accepted += accepted
            counts = self._by_type[str(modification.get("type"))]
            counts[0] += 1
            counts[1] += accepted

    def as_dict(self) -> dict[str, Any]:
        """Return the counts, in all and by type."""
        return {
            "proposed": self.proposed,
            "accepted": self.accepted,
            "by_type": {kind: {"proposed": p, "accepted": a} for kind, (p, a) in self._by_type.items()},
            "partial": bool(self._by_type.evicted),
        }

    def state(self) -> dict[str, Any]:
        """Return all of it as JSON, for ``restore``."""
        return {"proposed": self.proposed, "accepted": self.accepted, "by_type": self._by_type.state(list)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        self.proposed, self.accepted = stored_count(state["proposed"]), stored_count(state["accepted"])
        self._by_type.restore(state["by_type"], stored_text, _stored_counts)


def _stored_counts(state: Any) -> list[int]:
    proposed, accepted = state
    return [stored_count(proposed), stored_count(accepted)]
