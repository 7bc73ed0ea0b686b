"""What modifications are in numbers: acceptance, gain, depth, branching, of a whole tree or while they pass."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from lezea_mlops.events import ScopePairs, number_text


def scope_name(scope: ScopePairs) -> str:
    """Return scopes as one text, such as ``builder:42/layer:3``; empty where there is none."""
    return "/".join(f"{level}:{identity}" for level, identity in scope)


class Acceptance:
    """How many modifications were accepted, rejected, and neither yet."""

    __slots__ = ("accepted", "rejected", "undecided")

    def __init__(self) -> None:
        self.accepted = self.rejected = self.undecided = 0

    def add(self, accepted: bool | None) -> None:
        """Count one."""
        if accepted is None:
            self.undecided += 1
        elif accepted:
            self.accepted += 1
        else:
            self.rejected += 1

    def as_dict(self) -> dict[str, Any]:
        """Return the counts, and the rate of the accepted among the decided; None while nothing is decided."""
        decided = self.accepted + self.rejected
        return {
            "count": decided + self.undecided, "accepted": self.accepted, "rejected": self.rejected,
            "undecided": self.undecided, "accept_rate": self.accepted / decided if decided else None,
        }  # fmt: skip


class Gain:
    """By how much modifications were better than their best parents."""

    __slots__ = ("count", "total", "best")

    def __init__(self) -> None:
        self.count, self.total, self.best = 0, 0.0, -math.inf

    def add(self, gain: float) -> None:
        """Take one."""
        self.count += 1
        self.total += gain
        self.best = max(self.best, gain)

    def as_dict(self) -> dict[str, Any]:
        """Return how many there were, their mean and the best."""
        return {"count": self.count, "mean": number_text(self.total / self.count), "best": self.best}


def gain_over(score: float | None, parents: Iterable[float | None]) -> float | None:
    """Return *score* less the best of the parents' scores; None where either is not known or not finite."""
    if score is None or not math.isfinite(score):
        return None
    best = max((s for s in parents if s is not None and math.isfinite(s)), default=None)
    gain = None if best is None else score - best
    return gain if gain is not None and math.isfinite(gain) else None


class Figures:
    """What can be counted of modifications one by one."""

    def __init__(self) -> None:
        self.all = Acceptance()
        self.by_type: dict[str, Acceptance] = {}
        self.by_scope: dict[str, Acceptance] = {}
        self.gain_by_type: dict[str, Gain] = {}

    def count(self, accepted: bool | None, kind: str | None, scope: ScopePairs, gain: float | None) -> None:
        """Take one modification."""
        name = str(kind)
        self.all.add(accepted)
        self.by_type.setdefault(name, Acceptance()).add(accepted)
        self.by_scope.setdefault(scope_name(scope), Acceptance()).add(accepted)
        if gain is not None:
            self.gain_by_type.setdefault(name, Gain()).add(gain)

    def as_dict(self) -> dict[str, Any]:
        """Return the counts of all, by type and by scope, and the gain by type."""
        return self.all.as_dict() | {
            "by_type": {name: each.as_dict() for name, each in self.by_type.items()},
            "by_scope": {name: each.as_dict() for name, each in self.by_scope.items()},
            "gain_by_type": {name: each.as_dict() for name, each in self.gain_by_type.items()},
        }


def branching(links: int, parents: int, most: int) -> dict[str, Any]:
    """Return how many children those with children have, on average and at most."""
    return {"mean": links / parents if parents else 0.0, "max": most}
