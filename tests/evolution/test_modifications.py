"""Modifications: ids, parents, and the figures of a tree of any depth."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.evolution import ModificationCounts, tree_statistics, with_ids
from lezea_mlops.journal import read_run
from lezea_mlops.tracker import ExperimentTracker


def tree(**parents: Any) -> list[dict[str, Any]]:
    """Return modifications with these parents by id."""
    return with_ids([{"id": name, "parent_ids": above} for name, above in parents.items()], "m")


def test_ids_are_given_where_there_are_none() -> None:
    """In their order, beside those that came with one; empty text is none."""
    given_ids = [
        item["id"] for item in with_ids([{}, {"id": "own"}, {"id": None}, {"id": ""}, {"id": 7}], "m1.main.3")
    ]
    assert given_ids == ["m1.main.3-1", "own", "m1.main.3-3", "m1.main.3-4", "7"]


@pytest.mark.parametrize(
    ("given", "parents"),
    [
        ({}, []), ({"parent_ids": None}, []), ({"parent_ids": "a"}, ["a"]), ({"parent_ids": 3}, ["3"]),
        ({"parent_ids": ["a", 2, None]}, ["a", "2"]), ({"parent_id": "a"}, ["a"]),
        ({"parent_ids": ["a"], "parent_id": "b"}, ["a", "b"]), ({"parent_ids": ["a"], "parent_id": "a"}, ["a"]),
        ({"parent_ids": None, "parent_id": "b"}, ["b"]),
    ],
)  # fmt: skip
def test_parents_become_a_list_of_texts(given: dict[str, Any], parents: list[str]) -> None:
    """One parent or several, under either name; none is lost."""
    (item,) = with_ids([given], "m")
    assert item == {"id": "m-1", "parent_ids": parents}


def test_all_else_is_kept_and_the_callers_objects_are_not_changed() -> None:
    """Unknown fields travel on, and the copies are copies."""
    given_items = [{"type": "widen", "own": {"a": [1]}}, {"parent_id": "x", "accepted": True}]
    before = copy.deepcopy(given_items)
    items = with_ids(given_items, "m")
    assert given_items == before
    assert items[0] == {"id": "m-1", "type": "widen", "own": {"a": [1]}, "parent_ids": []}
    assert items[1] == {"id": "m-2", "accepted": True, "parent_ids": ["x"]}


def test_the_tracker_returns_the_ids_it_journals() -> None:
    """Ids are unique over the trees of a run, over attempts too, and the caller's list stays as it was."""
    modifications = [{"type": "widen"}, {"id": "own", "type": "prune"}]
    before = copy.deepcopy(modifications)
    tracker = ExperimentTracker("Demo", settings={"mode": "offline"})
    ids = [tracker.log_modification_tree(step, modifications) for step in range(3)]
    tracker.end()
    again = ExperimentTracker("Demo", resume=tracker.experiment_id, settings={"mode": "offline"})
    ids.append(again.log_modification_tree(3, modifications))
    assert modifications == before
    trees = [record.event for record in read_run(again.run_dir) if record.type == "modification_tree"]
    assert [[item["id"] for item in logged.modifications] for logged in trees] == ids
    assert [second for _, second in ids] == ["own"] * 4
    assert len({first for first, _ in ids}) == 4


def test_a_second_tree_of_a_step_is_a_repeat() -> None:
    """Per scope: the same step in another scope is not one. Without a step the next one is counted."""
    tracker = ExperimentTracker("Demo", settings={"mode": "offline"})
    tracker.log_modification_tree(4, [{}])
    tracker.log_modification_tree(4, [{}])
    with tracker.builder_scope("1"):
        tracker.log_modification_tree(4, [{}])
    tracker.log_modification_tree(None, [{}])  # type: ignore[arg-type]
    records = [record for record in read_run(tracker.run_dir) if record.type == "modification_tree"]
    found = [(r.event.step, r.event.repeat, r.meta.get("auto", False)) for r in records]
    assert found == [(4, None, False), (4, 2, False), (4, None, False), (5, None, True)]


@pytest.mark.parametrize(
    ("modifications", "expected"),
    [
        ([], {"count": 0, "roots": 0, "depth": 0}),
        (tree(a=[], b=[], c=["b"]), {"count": 3, "roots": 2, "depth": 2}),
        (tree(a=[], b=["a"], c=["a", "b"], d=["c", "a"]), {"count": 4, "roots": 1, "depth": 4}),
        (tree(a=["elsewhere"], b=["a"]), {"count": 2, "roots": 1, "depth": 2}),
        (tree(a=["a"]), {"count": 1, "roots": 0, "depth": 1}),
        (tree(a=["b"], b=["a"]), {"count": 2, "roots": 0, "depth": 2}),
        (tree(a=["x", "x"], x=[]), {"count": 2, "roots": 1, "depth": 2}),
    ],
)
def test_count_roots_and_depth(modifications: list[dict[str, Any]], expected: dict[str, int]) -> None:
    """Crossovers have several parents, an unknown parent makes no line, and a line that comes back to itself ends."""
    assert tree_statistics(modifications) == expected


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_chain_of_a_hundred_thousand_is_measured(newest_first: bool) -> None:
    """Depth needs neither recursion nor a look at the same line twice, in whichever order the chain is told."""
    count = 100_000
    chain = [{"id": str(n), "parent_ids": [str(n - 1)] if n else []} for n in range(count)]
    assert tree_statistics(chain[::-1] if newest_first else chain)["depth"] == count


def test_a_ring_of_a_hundred_thousand_is_measured() -> None:
    """A cycle of any length ends."""
    count = 100_000
    ring = [{"id": str(n), "parent_ids": [str((n + 1) % count)]} for n in range(count)]
    assert tree_statistics(ring) == {"count": count, "roots": 0, "depth": count}


@given(st.lists(st.sets(st.integers(0, 11), max_size=4), max_size=12))
def test_without_cycles_the_depth_is_that_of_the_longest_line(parents: list[set[int]]) -> None:
    """Against the definition, computed over all lines of parents that point backwards."""
    above = [[p for p in several if p < n] for n, several in enumerate(parents)]
    longest: list[int] = []
    for several in above:
        longest.append(1 + max((longest[p] for p in several), default=0))
    modifications = with_ids([{"id": n, "parent_ids": several} for n, several in enumerate(above)], "m")
    for order in (modifications, modifications[::-1]):
        assert tree_statistics(order)["depth"] == max(longest, default=0)


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=4)))
def test_any_graph_has_a_depth_within_its_size(parents: dict[str, list[str]]) -> None:
    """Also with cycles: at least one where there is something, at most all of it."""
    statistics = tree_statistics(tree(**parents))
    assert min(1, len(parents)) <= statistics["depth"] <= len(parents)


def test_the_rate_of_acceptance_is_over_what_was_decided() -> None:
    """What is neither accepted nor refused does not count; without decisions there is no rate."""
    decided = with_ids([{"accepted": True}, {"accepted": False}, {"accepted": "maybe"}, {}], "m")
    assert tree_statistics(decided).items() >= {"accepted": 1, "accept_rate": 0.5}.items()
    assert "accept_rate" not in tree_statistics(with_ids([{}], "m"))


def test_your_own_statistics_stand_beside_the_computed_ones() -> None:
    """Figures of the same name do not replace each other."""
    tracker = ExperimentTracker("Demo", settings={"mode": "offline"})
    tracker.log_modification_tree(1, [{}], {"depth": 99})
    _, record = read_run(tracker.run_dir)
    assert record.event.statistics == {"computed": {"count": 1, "roots": 1, "depth": 1}, "depth": 99}


def test_counts_by_type_come_from_all_trees() -> None:
    """Proposed and accepted, in all and by type; what is no modification is stepped over."""
    counts = ModificationCounts()
    counts.observe(
        {"modifications": [{"type": "widen", "accepted": True}, {"type": "widen"}, {"accepted": False}]}
    )
    counts.observe({"modifications": [{"type": "prune", "accepted": True}, "broken", None]})
    counts.observe({"modifications": {"$blob": "ab", "size": 5}})
    assert counts.as_dict() == {
        "proposed": 4, "accepted": 2, "partial": False,
        "by_type": {
            "widen": {"proposed": 2, "accepted": 1}, "None": {"proposed": 1, "accepted": 0},
            "prune": {"proposed": 1, "accepted": 1},
        },
    }  # fmt: skip
