"""The modification tree: nodes, lines, what was accepted and gained, and what is wrong with what was logged."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.events import Modification, read_modification
from lezea_mlops.evolution import ModificationTree, Moment
from tests.evolution.trees import Logged, grown, logs, tree_of

DEEP, WIDE = 100_000, 1_000_000


def drawn() -> ModificationTree:
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
    tree = drawn()
    assert (len(tree), list(tree), tree.roots()) == (5, ["a", "b", "c", "d", "e"], ["a"])
    assert (tree.children("a"), tree.children("e")) == (["b", "c"], [])
    assert tree.lineage("e") == ["a", "b", "d", "e"]
    assert tree.ancestors("e") == ["a", "b", "c", "d"]
    assert tree.descendants("b") == ["d", "e"]
    assert (tree.common_ancestor("d", "c"), tree.common_ancestor("e", "c")) == ("a", "c")
    assert [tree.depth(each) for each in tree] == [1, 2, 2, 3, 4]


def test_what_was_accepted_and_gained() -> None:
    """The best, the survivors, their paths, and the gain over the best parent."""
    tree = drawn()
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


@given(logs(), st.randoms(use_true_random=False))
def test_the_order_in_which_records_come_does_not_matter(logged: list[Logged], random: Random) -> None:
    """Journals are read writer by writer: nodes, their order, versions, problems and figures are the same."""
    expected = grown(logged)
    shuffled = list(logged)
    random.shuffle(shuffled)
    tree = grown(shuffled)
    assert list(tree) == list(expected)
    assert repr([tree.versions(each) for each in tree]) == repr([expected.versions(each) for each in tree])
    assert sorted(tree.problems()) == sorted(expected.problems())
    assert tree.statistics() == expected.statistics()
    assert (tree.best(), tree.survivors()) == (expected.best(), expected.survivors())


@given(logs())
def test_the_newest_content_of_an_id_counts_and_none_is_lost(logged: list[Logged]) -> None:
    """What was logged last is the node; all that was ever logged of it is among its versions."""
    tree = grown(logged)
    last = {each.modification.id: each.modification for each in logged}
    assert {name: repr(tree[name].modification) for name in tree} == {n: repr(m) for n, m in last.items()}
    for name in tree:
        versions = [repr(node.modification) for node in tree.versions(name)]
        assert set(versions) == {repr(m) for m, _, _ in logged if m.id == name}
        assert versions[-1] == repr(tree[name].modification)


@given(logs())
def test_verdicts_are_those_of_the_nodes(logged: list[Logged]) -> None:
    """Step, type and whether it was accepted, in logged order."""
    tree = grown(logged)
    nodes = [tree[name] for name in tree]
    assert list(tree.verdicts()) == [(n.step, n.modification.type, n.modification.accepted) for n in nodes]


def test_problems_are_sentences() -> None:
    """They name what they are about, and the first few of many."""
    children = [{"id": f"c{number}", "parent_id": "gone"} for number in range(7)]
    tree = tree_of(*children, {"id": "x", "parent_id": "x"}, {"id": "c0", "score": 2})
    assert [problem.text for problem in tree.problems()] == [
        "the parent gone of c1, c2, c3, c4, c5 and 1 more was never logged; it is passed over",
        "the modification c0 was logged with 2 different contents; the newest counts, that of step 9",
        "the modification x is its own ancestor",
    ]


def test_a_tree_may_be_asked_while_it_grows() -> None:
    """Each answer is that of all that came so far."""
    tree = tree_of({"id": "a", "accepted": True, "parent_id": "z"})
    assert (tree.survivors(), tree.children("a"), [problem.id for problem in tree.problems()]) == (
        ["a"],
        [],
        ["z"],
    )
    for place, name in enumerate("bz", start=2):
        above = () if name == "z" else ("a",)
        modification = Modification(name, above, None, True, None, None, None, {})
        tree.add(modification, step=place, scope=(), ts=place, order=(1, place, "main", place))
    assert (tree.survivors(), tree.children("a"), tree.problems()) == (["b"], ["b"], [])
    assert (tree.lineage("b"), list(tree), tree.depth("b")) == (["z", "a", "b"], ["a", "b", "z"], 3)


def test_the_same_modification_again_changes_nothing() -> None:
    """Delivered twice, or logged in every step's tree: it stays where it was first logged, and is no problem."""
    tree = tree_of({"id": "a", "score": 1}, {"id": "b", "parent_id": "a"}, {"id": "a", "score": 1})
    assert (list(tree), tree["a"].step, tree.problems()) == (["a", "b"], 1, [])


def test_an_older_content_that_comes_back_stands_where_it_first_stood() -> None:
    """What counts is what was logged last, since when it was first logged."""
    tree = tree_of({"id": "a", "score": 1}, {"id": "b"}, {"id": "a", "score": 2}, {"id": "a", "score": 1})
    assert (list(tree), tree["a"].modification.score, tree["a"].step) == (["a", "b"], 1, 1)
    assert [node.modification.score for node in tree.versions("a")] == [2, 1]


def test_of_two_contents_in_one_record_the_later_counts() -> None:
    """Its place in the record decides."""
    tree = ModificationTree()
    contents = [read_modification({"id": "a", "score": score}, "-") for score in (1, 3, 2)]
    tree.add_all(contents, Moment((1, 1, "main", 1), 0, (), 1))
    assert tree["a"].modification.score == 2


def test_what_is_no_number_has_no_gain_and_is_never_the_best() -> None:
    """Text, NaN, infinity, integers and differences beyond a float: kept as they are, and out of the figures."""
    scores = ["high", math.nan, math.inf, 10**400, 1e308, 2]
    tree = tree_of(
        {"id": "low", "score": -1e308},
        *({"parent_id": "low", "accepted": True, "score": score} for score in scores),
    )
    names = list(tree)[1:]
    assert [tree.gain(name) for name in names] == [None, None, None, None, None, 1e308]
    assert tree.best() == names[4]
    logged = [tree[name].modification for name in names]
    assert repr([each.score for each in logged]) == repr([None, *scores[1:]])
    assert logged[0].data == {"score": "high"}


def test_a_line_of_a_hundred_thousand_has_every_answer() -> None:
    """Nothing calls itself, so that no limit of recursion is met; a cycle as long is told."""
    parents = [(), *((str(number),) for number in range(DEEP - 1))]
    items = [
        Modification(str(n), above, None, True, float(n), None, None, {}) for n, above in enumerate(parents)
    ]
    tree = ModificationTree()
    tree.add_all(items, Moment((1, 1, "main", 1), 0, (), 1))
    last = str(DEEP - 1)
    assert (len(tree.lineage(last)), tree.depth(last), len(tree.ancestors(last))) == (DEEP, DEEP, DEEP - 1)
    assert (tree.common_ancestor("7", last), len(tree.descendants("0"))) == ("7", DEEP - 1)
    assert tree.statistics()["longest_accepted_path"] == DEEP
    tree.add(items[0]._replace(parent_ids=(last,)), step=1, scope=(), ts=2, order=(1, 2, "main", 2))
    assert [problem.kind for problem in tree.problems()] == ["duplicate", "cycle"]
    # The newest content stands last in logged order, so that the link of its child is the one that is cut.
    assert (tree.depth("0"), len(tree.lineage("0"))) == (DEEP, DEEP)


@pytest.mark.slow
def test_a_million_children_of_one_node_have_every_answer() -> None:
    """A node may have as many children as there are."""
    tree = ModificationTree()
    root = Modification("root", (), None, True, 0.0, None, None, {})
    tree.add(root, step=0, scope=(), ts=1, order=(1, 1, "main", 1))
    children = (Modification(str(n), ("root",), None, n == 5, 1.0, None, None, {}) for n in range(WIDE))
    tree.add_all(children, Moment((1, 2, "main", 2), 1, (), 2))
    assert len(tree.children("root")) == len(tree.descendants("root")) == WIDE
    assert (tree.survivors(), tree.best(), tree.common_ancestor("1", "2")) == (["5"], "5", "root")
    assert tree.statistics()["branching"] == {"mean": WIDE, "max": WIDE}
