"""Which modification is drawn at which other one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.reports.forest import NOWHERE, Forest, Keep, forest_of
from tests.reports.growing import chain, logged_trees, modification, tree_of

Trees = list[list[dict[str, Any]]]
KEEP: dict[str, Keep | None] = {
    "all": None,
    "accepted": lambda name, step, accepted: accepted is True,
    "one step": lambda name, step, accepted: step == 2,
    "one": lambda name, step, accepted: name == "m0",
    "none": lambda name, step, accepted: False,
}


def drawn_at(forest: Forest) -> dict[str, str | None]:
    """Return where each modification is drawn, by id."""
    return {
        name: None if parent == NOWHERE else forest.ids[parent]
        for name, parent in zip(forest.ids, forest.parent, strict=True)
    }


@given(logged_trees(), st.sampled_from(sorted(KEEP)))
def test_everything_that_is_wanted_is_drawn_once_behind_what_it_is_drawn_at(
    logged: Trees, wanted: str
) -> None:
    """Whatever was logged: parents that never came, that came later, and cycles."""
    tree, keep = tree_of(*logged), KEEP[wanted]
    forest = forest_of(tree, keep)
    nodes = (tree[name] for name in tree)
    wished = [
        n.modification.id
        for n in nodes
        if keep is None or keep(n.modification.id, n.step, n.modification.accepted)
    ]
    assert sorted(forest.ids) == sorted(wished)
    assert all(parent < place for place, parent in enumerate(forest.parent))
    assert forest.place == {name: place for place, name in enumerate(forest.ids)}
    assert forest.accepted == [tree[name].modification.accepted for name in forest.ids]
    assert forest.counts.total() == len(tree)


@given(logged_trees(), st.sampled_from(sorted(KEEP)))
def test_a_modification_is_drawn_at_an_ancestor_of_its_own(logged: Trees, wanted: str) -> None:
    """At a parent if all are drawn; never at something unrelated."""
    tree = tree_of(*logged)
    forest = forest_of(tree, KEEP[wanted])
    for name, above in drawn_at(forest).items():
        parents = tree[name].modification.parent_ids
        if above is not None:
            assert above in (parents if wanted == "all" else tree.ancestors(name))
        elif wanted == "all" and (known := [parent for parent in parents if parent in tree]):
            # A root that has a parent: a cycle was cut here.
            assert known[0] == name or name in tree.ancestors(known[0])


def test_the_first_known_parent_counts() -> None:
    """A crossover is drawn at its first parent, and names the others."""
    forest = forest_of(tree_of([modification("a"), modification("b"), modification("c", "never", "b", "a")]))
    assert drawn_at(forest) == {"a": None, "b": None, "c": "b"}
    assert forest.parents_elsewhere(2) == ("never", "a")
    assert forest.crossed == {2}


def test_what_is_left_out_passes_its_place_on() -> None:
    """An accepted child of a rejected one is drawn at the nearest accepted ancestor."""
    logged = [modification("a"), modification("b", "a", accepted=False), modification("c", "b")]
    assert drawn_at(forest_of(tree_of(logged), KEEP["accepted"])) == {"a": None, "c": "a"}


def test_a_cycle_is_cut_where_it_was_logged_first() -> None:
    """All of it is drawn, and what hangs on it too."""
    for hanging in "abc":
        logged = [
            modification("x", hanging),
            modification("a", "c"),
            modification("b", "a"),
            modification("c", "b"),
        ]
        assert drawn_at(forest_of(tree_of(logged))) == {"a": None, "b": "a", "c": "b", "x": hanging}


def test_a_modification_that_is_its_own_parent_is_a_root() -> None:
    """The shortest cycle."""
    assert drawn_at(forest_of(tree_of([modification("a", "a")]))) == {"a": None}


@pytest.mark.parametrize("backwards", [False, True])
def test_a_hundred_thousand_generations_are_no_limit(backwards: bool) -> None:
    """In whichever order they were logged."""
    logged = chain(100_000)
    forest = forest_of(tree_of(logged[::-1] if backwards else logged))
    assert forest.parent == [NOWHERE, *range(99_999)]
    assert forest.ids[-1] == "99999"
    assert forest.sizes()[0] == 100_000
