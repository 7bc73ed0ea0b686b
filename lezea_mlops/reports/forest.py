"""Modifications as they are drawn: each at one other, though it may have several parents, or some that are not shown.

Nothing here calls itself: a line may be hundreds of thousands of modifications long.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from lezea_mlops.evolution import ModificationTree, Node

NOWHERE = -1
# Says of a modification whether it is drawn: by its id, its step, and whether it was accepted.
Keep: TypeAlias = Callable[[str, int | None, bool | None], bool]


@dataclass
class Forest:
    """Which modifications are drawn, and where.

    Attributes:
        tree: all modifications.
        ids: those that are drawn, each behind the one that it is drawn at, else in logged order.
        accepted: for each of them whether it was accepted; None while that is undecided.
        parent: for each of them the place of the one that it is drawn at, or ``NOWHERE`` for a root: its first known
            parent, or that one's nearest ancestor that is drawn.
        crossed: the places of those with several parents.
        place: where each stands, by id.
        counts: how many modifications of the whole tree were accepted (True), rejected (False), and neither (None).
    """

    tree: ModificationTree
    ids: list[str] = field(default_factory=list)
    accepted: list[bool | None] = field(default_factory=list)
    parent: list[int] = field(default_factory=list)
    crossed: set[int] = field(default_factory=set)
    place: dict[str, int] = field(default_factory=dict)
    counts: Counter[bool | None] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.ids)

    def node(self, place: int) -> Node:
        """Return the modification at a place."""
        return self.tree[self.ids[place]]

    def children(self) -> list[list[int]]:
        """Return for each modification those that are drawn at it."""
        found: list[list[int]] = [[] for _ in self.ids]
        for place, parent in enumerate(self.parent):
            if parent >= 0:
                found[parent].append(place)
        return found

    def sizes(self) -> list[int]:
        """Return for each modification how many are drawn at it and below, itself included."""
        sizes, parents = [1] * len(self.ids), self.parent
        for place in range(len(sizes) - 1, -1, -1):
            if parents[place] >= 0:
                sizes[parents[place]] += sizes[place]
        return sizes

    def line(self, place: int) -> list[int]:
        """Return the line from a root down to the modification at *place*; none for ``NOWHERE``."""
        found = []
        while place >= 0:
            found.append(place)
            place = self.parent[place]
        return found[::-1]

    def parents_elsewhere(self, place: int) -> tuple[str, ...]:
        """Return the ids of all parents but the one that the modification is drawn at."""
        above = self.parent[place]
        drawn_at = None if above < 0 else self.ids[above]
        return tuple(parent for parent in self.tree.parents(self.ids[place]) if parent != drawn_at)


def forest_of(tree: ModificationTree, keep: Keep | None = None) -> Forest:
    """Return how a tree is drawn; of a cycle the modification that was logged first becomes a root.

    Args:
        tree: the tree.
        keep: which modifications are drawn; None: all.
    """
    ids = list(tree)
    place = {identity: index for index, identity in enumerate(ids)}
    parents = [tree.parents(identity) for identity in ids]
    accepted: list[bool | None] = []
    left_out = set()
    for index, (step, _, verdict) in enumerate(tree.verdicts()):
        accepted.append(verdict)
        if keep is not None and not keep(ids[index], step, verdict):
            left_out.add(index)
    above = [_first_known(each, place) for each in parents]
    order = _parents_first(above)
    crossed = {index for index, each in enumerate(parents) if len(each) > 1}
    if not left_out and order == range(len(ids)):
        return Forest(tree, ids, accepted, above, crossed, place, Counter(accepted))
    forest = Forest(tree, counts=Counter(accepted))
    new_place = [NOWHERE] * len(ids)
    for index in order:
        drawn_at = NOWHERE if above[index] < 0 else new_place[above[index]]
        if index in left_out:
            # What is drawn at it hangs on what it would hang on itself.
            new_place[index] = drawn_at
            continue
        new_place[index] = forest.place[ids[index]] = len(forest)
        if index in crossed:
            forest.crossed.add(len(forest))
        forest.ids.append(ids[index])
        forest.accepted.append(accepted[index])
        forest.parent.append(drawn_at)
    return forest


def _first_known(parents: Sequence[str], place: Mapping[str, int]) -> int:
    for parent in parents:
        if parent in place:
            return place[parent]
    return NOWHERE


def _parents_first(above: list[int]) -> Sequence[int]:
    """Return the places, each behind that of its parent; cycles are cut in *above*, where they were logged first."""
    if all(parent < index for index, parent in enumerate(above)):
        return range(len(above))
    order: list[int] = []
    done = bytearray(len(above))
    for start in range(len(above)):
        while not done[start]:
            line, on_line = _line_up(start, above, done)
            closing = above[line[-1]]
            if closing in on_line:
                above[min(line[line.index(closing) :])] = NOWHERE
                continue
            for index in reversed(line):
                done[index] = 1
                order.append(index)
    return order


def _line_up(start: int, above: Sequence[int], done: bytearray) -> tuple[list[int], set[int]]:
    """Return the line from *start* up to what is done, to a root, or to where it meets itself."""
    line, on_line = [start], {start}
    parent = above[start]
    while parent >= 0 and not done[parent] and parent not in on_line:
        line.append(parent)
        on_line.add(parent)
        parent = above[parent]
    return line, on_line
