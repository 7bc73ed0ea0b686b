"""Modifications of networks: their ids, and what is counted of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lezea_mlops._bounded import BoundedTable


def with_ids(modifications: Sequence[Mapping[str, Any]], prefix: str) -> list[dict[str, Any]]:
    """Return copies of *modifications* in which each has an id and a list of parents.

    Args:
        modifications: cleaned modifications.
        prefix: begins the ids that are given here; unique within the experiment.
    """
    copies = []
    for number, modification in enumerate(modifications, start=1):
        copy = dict(modification)
        if copy.get("id") is None:
            copy = {"id": f"{prefix}-{number}"} | {
                name: value for name, value in copy.items() if name != "id"
            }
        else:
            copy["id"] = str(copy["id"])
        parents = copy.get("parent_ids", copy.pop("parent_id", None))
        copy["parent_ids"] = _as_list(parents)
        copies.append(copy)
    return copies


def _as_list(parents: Any) -> list[str]:
    if parents is None:
        return []
    return [str(parent) for parent in parents] if isinstance(parents, list) else [str(parents)]


def tree_statistics(modifications: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what one logged tree says of itself: size, roots, depth, acceptance.

    Depth counts modifications along the longest line of parents within this tree; a cycle counts once.
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
    """Return the longest line of parents, without recursion (trees may be thousands deep)."""
    depth: dict[str, int] = {}
    for start in parents:
        stack = [start]
        while stack:
            node = stack[-1]
            if node in depth:
                stack.pop()
                continue
            above = [p for p in parents[node] if p in parents and p not in stack]
            if waiting := [p for p in above if p not in depth]:
                stack.append(waiting[0])
                continue
            depth[node] = 1 + max((depth[p] for p in above), default=0)
            stack.pop()
    return max(depth.values(), default=0)


class ModificationCounts:
    """How many modifications of each type were proposed and accepted."""

    def __init__(self) -> None:
        self.proposed = self.accepted = 0
        self._by_type: BoundedTable[str, list[int]] = BoundedTable(lambda: [0, 0])

    def observe(self, fields: Mapping[str, Any]) -> None:
        """Take one logged tree, or a part of one."""
        modifications = fields.get("modifications")
        if not isinstance(modifications, list):
            return
        for modification in modifications:
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
        }
