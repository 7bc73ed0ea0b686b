"""Trees for tests: drawn by hand, or at random with everything that can be wrong with them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from hypothesis import strategies as st

from lezea_mlops.events import Modification, ScopePairs, read_modification
from lezea_mlops.evolution import ModificationTree


class Logged(NamedTuple):
    """A modification as it was logged, and when."""

    modification: Modification
    scope: ScopePairs
    order: tuple[int, int, str, int]


def tree_of(*logged: Mapping[str, Any]) -> ModificationTree:
    """Return the tree of these modifications, one record each; ``att`` and ``at`` tell attempt and time."""
    found = []
    for number, given in enumerate(logged, start=1):
        item = dict(given)
        order = (item.pop("att", 1), item.pop("at", number), "main", number)
        found.append(Logged(read_modification(item, f"main.{number}.1"), (("builder", "1"),), order))
    return grown(found)


def grown(logged: Iterable[Logged]) -> ModificationTree:
    """Return the tree of these modifications, taken in this order."""
    tree = ModificationTree()
    for modification, scope, order in logged:
        tree.add(modification, step=order[1], scope=scope, ts=order[1], order=order)
    return tree


_SCORES = (
    st.none()
    | st.integers(-3, 3)
    | st.sampled_from([0.5, -0.25, 1e308, -1e308, math.nan, math.inf, -math.inf])
)
_SCOPES = st.sampled_from([(), (("builder", "1"),), (("builder", "2"), ("layer", "1"))])


@st.composite
def logs(draw: st.DrawFn, *, in_order: bool = False) -> list[Logged]:
    """Return modifications in logged order.

    Args:
        draw: Hypothesis' own.
        in_order: every parent comes before its children, and every id once; else parents may never come, come late or
            be their own descendants, and an id may come again.
    """
    found: list[Logged] = []
    for number in range(draw(st.integers(0, 9))):
        order = (1 + number // 5, number, "main", number)
        if found and not in_order and draw(st.integers(0, 3)) == 0:
            # The same again, as when a whole tree is logged at every step.
            found.append(draw(st.sampled_from(found))._replace(order=order))
            continue
        if in_order:
            name, pool = f"m{number}", [f"m{each}" for each in range(max(0, number - 3), number)] + ["never"]
        else:
            name, pool = draw(st.sampled_from("abcdef")), list("abcdefg")
        modification = Modification(
            id=name, parent_ids=tuple(draw(st.lists(st.sampled_from(pool), max_size=3, unique=True))),
            type=draw(st.sampled_from(["widen", "prune", None])), accepted=draw(st.sampled_from([True, False, None])),
            score=draw(_SCORES), target=draw(st.sampled_from([None, "n1", "n2"])),
            params=draw(st.sampled_from([None, {"by": 2}, 3])), data=draw(st.sampled_from([{}, {"own": [1, "%"]}])),
        )  # fmt: skip
        found.append(Logged(modification, draw(_SCOPES), order))
    return found
