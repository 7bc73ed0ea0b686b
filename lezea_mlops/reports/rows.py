"""A forest as rows of text, oldest first, as readable with a thousand generations as with three.

A line of descent goes straight down, and only what branches off it is indented: a child that continues its parent's
line stands below it. That child is the one towards the best modification, else the one with most descendants, so
that the indentation grows with the logarithm of the tree and not with its depth::

    ┌● m1
    ├─✕ m2          a rejected modification of m1
    ├─┬● m3         an accepted one
    │ └● m7         its child
    ├● m4           the child of m1 with most descendants
    ┊  96 more, one after the other
    ├● m101
    └┄ 5 more, all rejected
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lezea_mlops.reports.forest import NOWHERE, Forest

# So many modifications in a row, each the only child of the one before, are more than a person reads.
LONG_RUN = 10
RUN_ENDS = 3
# Likewise the rejected children of one modification that have none themselves.
MANY_LEAVES = 6
LEAVES_SHOWN = 3
SIGNS = {True: "●", False: "✕", None: "■"}


class Row(NamedTuple):
    """One row of a drawing.

    Attributes:
        lines: what is drawn before the sign or the text.
        places: the modification of this row, or those that it stands for.
        below: how many modifications below it are not drawn, because they are too deep.
    """

    lines: str
    places: Sequence[int]
    below: int = 0

    @property
    def is_bundle(self) -> bool:
        """Whether it stands for modifications that have no row of their own."""
        return self.lines.endswith(("┊", "┄"))


class _Open(NamedTuple):
    """A modification that is still to be drawn.

    Attributes:
        place: which one.
        bundle: what is drawn in one row with it.
        lead: what is drawn before its sign.
        prefix: what is drawn before all that is below it.
        depth: its generation, from 1.
        run_drawn: it ends a long run, which is drawn already.
    """

    place: int
    lead: str
    prefix: str
    depth: int
    run_drawn: bool = False
    bundle: Sequence[int] = ()


class Drawing:
    """Draws a forest row by row; nothing is drawn that is not asked for.

    Args:
        forest: what is drawn.
        favoured: the place of the modification whose line goes straight down, or ``NOWHERE``.
        depth: how many generations are drawn; None: all.
        collapse: draw long runs of only children as one row.
    """

    def __init__(
        self, forest: Forest, favoured: int = NOWHERE, *, depth: int | None = None, collapse: bool = True
    ) -> None:
        self._forest = forest
        self._children = forest.children()
        self._sizes = forest.sizes()
        self._favoured = set(forest.line(favoured))
        self._depth = depth
        self._collapse = collapse

    def rows(self, start: int | None = None) -> Iterator[Row]:
        """Yield the rows of one modification and what is below it, or of all, the tree of the favoured first."""
        if start is not None:
            yield from self._tree(start)
            return
        roots = [place for place, parent in enumerate(self._forest.parent) if parent < 0]
        alone, bundle = self._apart(roots)
        for root in sorted(alone, key=lambda place: place not in self._favoured):
            yield from self._tree(root)
        if bundle:
            yield Row("┄", bundle)

    def _tree(self, root: int) -> Iterator[Row]:
        waiting = [_Open(root, "┌" if self._goes_on(root, 1) else "─", "", 1)]
        while waiting:
            this = waiting.pop()
            if this.bundle:
                yield Row(this.lead, this.bundle)
                continue
            if self._depth is not None and this.depth >= self._depth:
                yield Row(this.lead, (this.place,), self._sizes[this.place] - 1)
                continue
            run = [] if this.run_drawn or not self._collapse else self._run(this.place, this.depth)
            if len(run) > LONG_RUN:
                yield from _run_rows(run, this)
                waiting.append(self._onward(run[-1], this.prefix, this.depth + len(run) - 1, run_drawn=True))
            else:
                yield Row(this.lead, (this.place,))
                waiting += self._below(this)

    def _goes_on(self, place: int, depth: int) -> bool:
        return bool(self._children[place]) and (self._depth is None or depth < self._depth)

    def _onward(self, place: int, prefix: str, depth: int, run_drawn: bool = False) -> _Open:
        joint = "├" if self._goes_on(place, depth) else "└"
        return _Open(place, prefix + joint, prefix, depth, run_drawn)

    def _below(self, this: _Open) -> list[_Open]:
        """Return the children of a modification, the one to be drawn first at the end."""
        onward = self._continuation(this.place)
        beside, bundle = self._apart([child for child in self._children[this.place] if child != onward])
        prefix, depth = this.prefix, this.depth + 1
        found = [
            _Open(child, prefix + "├─" + self._joint(child, depth), prefix + "│ ", depth) for child in beside
        ]
        if bundle:
            found.append(_Open(bundle[0], prefix + "├┄", prefix, depth, bundle=bundle))
        if onward is not None:
            found.append(self._onward(onward, prefix, depth))
        elif found:
            last = found[-1]
            found[-1] = last._replace(lead=f"{prefix}└{last.lead[len(prefix) + 1 :]}", prefix=prefix + "  ")
        return found[::-1]

    def _apart(self, siblings: list[int]) -> tuple[list[int], list[int]]:
        """Return those that are drawn one by one, and those that are drawn in one row."""
        if not self._collapse or len(siblings) <= MANY_LEAVES:
            return siblings, []
        leaves = [
            place for place in siblings if self._sizes[place] == 1 and self._forest.accepted[place] is False
        ]
        if len(leaves) <= MANY_LEAVES:
            return siblings, []
        bundle = set(leaves[LEAVES_SHOWN:])
        return [place for place in siblings if place not in bundle], leaves[LEAVES_SHOWN:]

    def _joint(self, place: int, depth: int) -> str:
        return "┬" if self._goes_on(place, depth) else "─"

    def _continuation(self, place: int) -> int | None:
        """Return the child that continues the line, if one has children, or is an only child and not rejected."""
        children = self._children[place]
        if not children:
            return None
        chosen = max(children, key=lambda child: (child in self._favoured, self._sizes[child]))
        if chosen in self._favoured or self._sizes[chosen] > 1:
            return chosen
        return chosen if len(children) == 1 and self._forest.accepted[chosen] is not False else None

    def _run(self, place: int, depth: int) -> list[int]:
        """Return the modification and all below it as long as each has one child, which has one parent."""
        run = [place]
        while len(children := self._children[run[-1]]) == 1 and self._continuation(run[-1]) is not None:
            if children[0] in self._forest.crossed:
                break
            if self._depth is not None and depth + len(run) > self._depth:
                break
            run.append(children[0])
        return run


def _run_rows(run: Sequence[int], first: _Open) -> Iterator[Row]:
    """Yield the rows of a long run but its last."""
    for number, place in enumerate(run[:RUN_ENDS]):
        yield Row(first.prefix + "├" if number else first.lead, (place,))
    yield Row(first.prefix + "┊", run[RUN_ENDS:-RUN_ENDS])
    for place in run[-RUN_ENDS:-1]:
        yield Row(first.prefix + "├", (place,))
