"""The modification tree: nodes, lines, what was accepted and gained, and what is wrong with what was logged."""

from __future__ import annotations

import math
from typing import Any

import pytest

from lezea_mlops.events import read_modification
from lezea_mlops.evolution import ModificationTree


def tree_of(*logged: dict[str, Any]) -> ModificationTree:
    """Return the tree of these modifications, one record each; ``att`` and ``at`` tell attempt and time."""
    tree = ModificationTree()
    for number, given in enumerate(logged, start=1):
        item = dict(given)
        att, ts = item.pop("att", 1), item.pop("at", number)
        modification = read_modification(item, f"main.{number}.1")
        tree.add(modification, step=ts, scope=(("builder", "1"),), ts=ts, order=(att, ts, "main", number))
    return tree


def grown() -> ModificationTree:
    """Return a small tree: a ─ b ─ d, a ─ c, and e, a crossover of d and c."""
    return tree_of(
        {"id": "a", "accepted": True, "score": 1.0, "type": "widen"},
        {"id": "b", "parent_ids": ["a"], "accepted": True, "score": 3, "type": "prune"},
        {"id": "c", "parent_ids": ["a"], "accepted": False, "score": 0.5, "type": "widen"},
        {"id": "d", "parent_ids": ["b"], "score": math.nan, "type": "widen"},
        {"id": "e", "parent_ids": ["d", "c"], "accepted": True, "score": 2.5},
    )


def test_the_lines_of_a_small_tree() -> None:
    """Roots, children, lines, ancestors, descendants and common ancestors, each as drawn."""
    tree = grown()
    assert (len(tree), list(tree), tree.roots()) == (5, ["a", "b", "c", "d", "e"], ["a"])
    assert (tree.children("a"), tree.children("e")) == (["b", "c"], [])
    assert tree.lineage("e") == ["a", "b", "d", "e"]
    assert tree.ancestors("e") == ["a", "b", "c", "d"]
    assert tree.descendants("b") == ["d", "e"]
    assert (tree.common_ancestor("d", "c"), tree.common_ancestor("e", "c")) == ("a", "c")
    assert [tree.depth(each) for each in tree] == [1, 2, 2, 3, 4]


def test_what_was_accepted_and_gained() -> None:
    """The best, the survivors, their paths, and the gain over the best parent."""
    tree = grown()
    assert (tree.best(), tree.survivors()) == ("b", ["e"])
    assert list(tree.accepted_paths()) == [["a", "b", "e"]]
    assert [tree.gain(each) for each in tree] == [None, 2.0, -0.5, None, 2.0]


def test_a_node_is_what_was_logged() -> None:
    """All of a modification comes back, also what is not understood."""
    tree = tree_of(
        {"id": "a", "op": "widen", "score": "high", "params": {"by": 2}, "own": [1, {"$where": "x"}]}
    )
    node = tree["a"]
    assert node.modification == read_modification(
        {"id": "a", "op": "widen", "score": "high", "params": {"by": 2}, "own": [1, {"$where": "x"}]}, "-"
    )
    assert (node.step, node.scope, node.ts) == (1, (("builder", "1"),), 1)
    with pytest.raises(KeyError, match="'b' was logged"):
        tree["b"]


def test_a_newer_content_of_an_id_replaces_the_older_and_is_told() -> None:
    """Whichever comes first, the one with the higher order key counts, and the other is kept."""
    for order in ((0, 1), (1, 0)):
        both = [{"id": "a", "score": 1}, {"id": "a", "score": 2, "att": 2}]
        tree = tree_of(*(both[index] for index in order), {"id": "b", "parent_id": "a", "score": 5})
        assert tree["a"].modification.score == 2
        assert [node.modification.score for node in tree.versions("a")] == [1, 2]
        assert [(problem.kind, problem.id) for problem in tree.problems()] == [("duplicate", "a")]
        assert (len(tree), tree.gain("b")) == (2, 3)


def test_a_cycle_and_a_parent_that_never_comes_are_told() -> None:
    """Nothing is dropped, every question has an answer, and the problems name the ids."""
    tree = tree_of(
        {"id": "a", "parent_id": "c", "accepted": True, "score": 1}, {"id": "b", "parent_id": "a", "score": 2},
        {"id": "c", "parent_id": "b", "accepted": True, "score": 3}, {"id": "d", "parent_ids": ["d", "ghost"]},
    )  # fmt: skip
    assert [(p.kind, p.id) for p in tree.problems()] == [
        ("unknown_parent", "ghost"),
        ("cycle", "a"),
        ("cycle", "d"),
    ]
    assert [tree.depth(each) for each in tree] == [1, 2, 3, 1]
    assert (tree.lineage("a"), tree.lineage("d")) == (["b", "c", "a"], ["d"])
    assert (tree.ancestors("a"), tree.descendants("a")) == (["b", "c"], ["b", "c"])
    assert tree.survivors() == ["c"]
    assert tree.statistics()["count"] == 4
