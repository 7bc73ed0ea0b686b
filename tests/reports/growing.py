"""Trees for the tests of what is shown: grown by hand, by chance, or by hypothesis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from lezea_mlops.events import Envelope
from lezea_mlops.evolution import Evolution, ModificationTree

# What a person, or a program, may put wherever it likes.
HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<!--<script>",
    "]]>&lt;b&gt;&amp;",
    "\"'`${alert(1)}{policy}{0}\\",
    "\u2028\u2029\u202e\x00\x1b[31m",
    "https://example.org/x.js",
]


def evolution_of(*trees: Sequence[dict[str, Any]]) -> Evolution:
    """Return an evolution with one logged tree for each step, from 1 on."""
    return Evolution().read(
        Envelope(
            "modification_tree",
            {"seq": step, "ts": step},
            {"run_id": "r", "step": step, "modifications": list(tree)},
        )
        for step, tree in enumerate(trees, start=1)
    )


def tree_of(*trees: Sequence[dict[str, Any]]) -> ModificationTree:
    """Return the modifications of such an evolution."""
    return evolution_of(*trees).modifications


def modification(name: object, *parents: object, accepted: bool | None = True, **more: Any) -> dict[str, Any]:
    """Return a modification as it is logged."""
    return {"id": str(name), "parent_ids": [*map(str, parents)], "accepted": accepted, **more}


def chain(length: int, **more: Any) -> list[dict[str, Any]]:
    """Return modifications each of which builds on the one before."""
    return [modification(0, **more), *(modification(i, i - 1, **more) for i in range(1, length))]


def hostile_evolution(words: str) -> Evolution:
    """Return an evolution with these words wherever a person may put some."""
    logged = [
        modification(
            words,
            f"parent {words}",
            type=words,
            target=words,
            score=0.5,
            params={words: [words]},
            reason=words,
        )
    ]
    payload = {"run_id": "r", "step": 1, "modifications": logged, "scope": [["builder", words]]}
    return Evolution().read([Envelope("modification_tree", {"seq": 1, "ts": 1}, payload)])


@st.composite
def logged_trees(draw: st.DrawFn) -> list[list[dict[str, Any]]]:
    """Any trees that can be logged: several parents, parents that come later or never, cycles."""
    names = [f"m{number}" for number in range(draw(st.integers(1, 30)))]
    parents = st.lists(st.sampled_from([*names, "never"]), max_size=3, unique=True)
    grown = [
        modification(
            name,
            *draw(parents),
            accepted=draw(st.sampled_from([True, False, None])),
            score=draw(st.none() | st.floats(0, 1)),
            type=draw(st.sampled_from(["widen", "prune", None])),
        )
        for name in names
    ]
    cut = draw(st.integers(0, len(grown)))
    return [grown[:cut], grown[cut:]]
