"""Modifications: ids, parents, and the figures of a tree of any depth."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.events import number_text, read_modification
from lezea_mlops.evolution import ModificationTree
from lezea_mlops.evolution.modifications import ModificationCounts, tree_statistics, type_name, with_ids
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
        ({"parent_ids": None, "parent_id": "b"}, ["b"]), ({"parent_id": ""}, []), ({"parent_ids": ["", "a"]}, ["a"]),
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


ID_LIKE = (
    st.none() | st.sampled_from(["", "a", "b", "m-1"]) | st.integers(0, 3) | st.booleans() | st.just(0.5)
)
PARENTS = ID_LIKE | st.lists(ID_LIKE | st.lists(ID_LIKE, max_size=1), max_size=3)
LOGGED = st.fixed_dictionaries(
    {},
    optional={
        "id": ID_LIKE, "parent_ids": PARENTS, "parent_id": PARENTS, "type": ID_LIKE | st.just({"$num": "NaN"}),
        "op": ID_LIKE, "accepted": ID_LIKE, "score": ID_LIKE | st.just({"$num": "NaN"}), "own": ID_LIKE,
    },
)  # fmt: skip


@given(LOGGED)
def test_what_is_journaled_is_understood_as_what_was_given(logged: dict[str, Any]) -> None:
    """Id, parents and all else are for every reader what they were, and nothing of a whole one is touched again."""
    (whole,) = with_ids([logged], "m")
    read, meant = read_modification(whole, "none"), read_modification(logged, "m-1")
    # Empty text is no parent, wherever it stands.
    assert read == meant._replace(parent_ids=tuple(filter(None, meant.parent_ids)))
    assert with_ids([whole], "n") == [whole]
    assert type_name(whole) == str(meant.type)


@pytest.mark.parametrize(
    ("modifications", "expected"),
    [
        ([], {"count": 0, "roots": 0, "depth": 0, "max_children": 0, "root_ids": []}),
        (
            tree(a=[], b=[], c=["b"]),
            {"count": 3, "roots": 2, "depth": 2, "max_children": 1, "root_ids": ["a", "b"]},
        ),
        (
            tree(a=[], b=["a"], c=["a", "b"], d=["c", "a"]),
            {"count": 4, "roots": 1, "depth": 4, "max_children": 3, "root_ids": ["a"]},
        ),
        (
            tree(a=["elsewhere"], b=["a"], c=["elsewhere"]),
            {"count": 3, "roots": 2, "depth": 2, "max_children": 2, "root_ids": ["a", "c"]},
        ),
        (tree(a=["a"]), {"count": 1, "roots": 0, "depth": 1, "max_children": 1, "root_ids": []}),
        (tree(a=["b"], b=["a"]), {"count": 2, "roots": 0, "depth": 2, "max_children": 1, "root_ids": []}),
        (
            tree(a=["x", "x"], x=[]),
            {"count": 2, "roots": 1, "depth": 2, "max_children": 1, "root_ids": ["x"]},
        ),
        (
            [*tree(a=[], b=["a"]), *tree(b=["x"])],
            {"count": 3, "roots": 2, "depth": 1, "max_children": 1, "root_ids": ["a", "b"]},
        ),
    ],
)
def test_size_depth_and_roots(modifications: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    """Crossovers have several parents, an unknown parent makes no line, a line that comes back to itself ends; of
    an id that comes twice the later parents hold."""
    statistics = tree_statistics(modifications)
    assert statistics.items() >= expected.items()
    assert statistics.keys() - expected.keys() == {"by_type"}


def test_the_figures_of_a_tree_have_bounded_size() -> None:
    """However many types and roots it has, and however long their names are, the line of a tree has room for them."""
    many = [{"id": f"m{n}", "type": f"t{n}", "accepted": n % 2 == 0} for n in range(1_000)]
    statistics = tree_statistics(with_ids(many, "m"))
    assert statistics["root_ids"] == [f"m{n}" for n in range(100)]
    by_type = statistics["by_type"]
    assert [by_type.pop(f"t{n}") for n in range(100)] == [
        {"proposed": 1, "accepted": 1 - n % 2} for n in range(100)
    ]
    assert by_type == {"(other types)": {"proposed": 900, "accepted": 450}}
    assert statistics.items() >= {"accepted": 500, "rejected": 500, "accept_rate": 0.5}.items()

    long = [{"id": f"{n}" + "x" * 1_000_000, "type": f"{n}" + "y" * 1_000_000} for n in range(3)]
    assert len(json.dumps(tree_statistics(with_ids(long, "m")))) < 1_000
    assert [len(name) for name in tree_statistics(with_ids(long, "m"))["by_type"]] == [100] * 3


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
    assert (
        tree_statistics(ring).items()
        >= {"count": count, "roots": 0, "depth": count, "max_children": 1}.items()
    )


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


TREES = st.lists(
    st.fixed_dictionaries(
        {"parent_ids": st.lists(st.integers(0, 11), max_size=3)},
        optional={
            "type": st.sampled_from(["widen", "prune"]), "op": st.just("mix"), "accepted": st.booleans() | st.none(),
            "score": st.sampled_from([0, 0.5, -1.0, {"$num": "NaN"}, "high"]),
        },
    ),
    max_size=12,
)  # fmt: skip


@given(TREES)
def test_the_figures_of_a_call_are_those_that_are_read_from_its_journal(
    given_items: list[dict[str, Any]],
) -> None:
    """Whoever counts, while logging or afterwards, comes to the same numbers, of size, depth, acceptance and gain."""
    for number, item in enumerate(given_items):
        item |= {"id": number, "parent_ids": [p for p in item["parent_ids"] if p < number]}
    modifications = with_ids(given_items, "m")
    scope = (("builder", "1"),)
    tree = ModificationTree()
    for item in modifications:
        tree.add(read_modification(item, ""), step=1, scope=scope, ts=1, order=(1, 1, "main", 1))
    counts = ModificationCounts()
    counts.observe({"modifications": modifications}, scope)
    read, computed, live = tree.statistics(), tree_statistics(modifications), counts.as_dict()
    for name in ("count", "roots", "depth"):
        assert computed[name] == read[name]
    assert computed["max_children"] == read["branching"]["max"]
    assert computed["root_ids"] == list(tree.roots())
    for name in ("accepted", "rejected", "accept_rate"):
        assert computed.get(name) == (read[name] if read["accept_rate"] is not None else None)
    assert (live["proposed"], live["accepted"], live["undecided"]) == (
        read["count"], read["accepted"], read["undecided"],
    )  # fmt: skip
    by_type = {
        kind: {"proposed": found["count"], "accepted": found["accepted"]}
        for kind, found in read["by_type"].items()
    }
    assert computed["by_type"] == by_type
    gains = {kind: found.pop("gain") for kind, found in live["by_type"].items() if "gain" in found}
    assert live["by_type"] == by_type
    assert gains == read["gain_by_type"]
    assert live["by_scope"] == {
        level: {
            identity: {"proposed": found["count"], "accepted": found["accepted"]}
            for identity, found in ids.items()
        }
        for level, ids in read["by_scope"].items()
    }


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=4)))
def test_any_graph_has_a_depth_within_its_size(parents: dict[str, list[str]]) -> None:
    """Also with cycles: at least one where there is something, at most all of it."""
    statistics = tree_statistics(tree(**parents))
    assert min(1, len(parents)) <= statistics["depth"] <= len(parents)


def test_the_rate_of_acceptance_is_over_what_was_decided() -> None:
    """What is neither accepted nor refused does not count; without decisions there is no rate."""
    decided = with_ids([{"accepted": True}, {"accepted": False}, {"accepted": "maybe"}, {}], "m")
    assert tree_statistics(decided).items() >= {"accepted": 1, "rejected": 1, "accept_rate": 0.5}.items()
    assert not {"accepted", "rejected", "accept_rate"} & tree_statistics(with_ids([{}], "m")).keys()


def test_your_own_statistics_stand_beside_the_computed_ones() -> None:
    """Figures of the same name do not replace each other."""
    tracker = ExperimentTracker("Demo", settings={"mode": "offline"})
    tracker.log_modification_tree(1, [{}], {"depth": 99})
    _, record = read_run(tracker.run_dir)
    assert record.event.statistics["depth"] == 99
    assert record.event.statistics["computed"]["depth"] == 1


def test_counts_by_type_come_from_all_trees() -> None:
    """Proposed and accepted, in all and by type; what is no modification is stepped over."""
    counts = ModificationCounts()
    counts.observe(
        {"modifications": [{"type": "widen", "accepted": True}, {"type": "widen"}, {"accepted": False}]}
    )
    counts.observe({"modifications": [{"type": "prune", "accepted": True}, "broken", None]})
    counts.observe({"modifications": {"$blob": "ab", "size": 5}})
    assert counts.as_dict() == {
        "proposed": 4, "accepted": 2, "undecided": 1, "partial": False, "by_scope": {},
        "by_type": {
            "widen": {"proposed": 2, "accepted": 1}, "None": {"proposed": 1, "accepted": 0},
            "prune": {"proposed": 1, "accepted": 1},
        },
    }  # fmt: skip


def test_the_type_may_be_given_as_op() -> None:
    """As those understand it who read the journal; a number is a name too."""
    counts = ModificationCounts()
    modifications = [{"op": "widen"}, {"op": "other", "type": "widen"}, {"type": 7}, {"type": {"a": 1}}]
    counts.observe({"modifications": modifications})
    by_type = {"widen": 2, "7": 1, "None": 1}
    assert {kind: found["proposed"] for kind, found in counts.as_dict()["by_type"].items()} == by_type
    computed = tree_statistics(with_ids(modifications, "m"))["by_type"]
    assert {kind: found["proposed"] for kind, found in computed.items()} == by_type


def test_acceptance_is_counted_by_level_and_id_of_the_scopes() -> None:
    """A modification counts for each of the scopes it was logged in, once, also where a scope stands in itself."""
    counts = ModificationCounts()
    two = {"modifications": [{"accepted": True}, {"accepted": False}]}
    counts.observe(two, (("builder", "1"), ("layer", "3")))
    counts.observe(two, (("builder", "1"),))
    counts.observe({"modifications": [{}]}, (("builder", "2"), ("builder", "2")))
    counts.observe(two)
    assert counts.as_dict()["by_scope"] == {
        "builder": {"1": {"proposed": 4, "accepted": 2}, "2": {"proposed": 1, "accepted": 0}},
        "layer": {"3": {"proposed": 2, "accepted": 1}},
    }
    assert (counts.proposed, counts.accepted, counts.undecided) == (7, 3, 1)


SCORES = st.sampled_from([0, 1, 0.25, -3.5, 1e308, -1e308, 2**70, True, None, "0.5", {"$num": "NaN"}])
SCORED = st.lists(
    st.fixed_dictionaries(
        {"id": st.sampled_from("abcde"), "parent_ids": st.lists(st.sampled_from("abcde"), max_size=3)},
        optional={"type": st.sampled_from(["widen", "prune"]), "score": SCORES},
    ),
    max_size=12,
)


def gains(modifications: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Return the gains by type, by their definition: a score less the best that was known of a parent."""
    known: dict[str, float] = {}
    found: dict[str, list[float]] = {}
    for item in modifications:
        score = item.get("score")
        if type(score) not in (int, float) or (abs(score) > 2**64 and type(score) is int):
            continue
        above = [known[parent] for parent in item["parent_ids"] if parent in known]
        if above and math.isfinite(score - max(above)):
            found.setdefault(str(item.get("type")), []).append(score - max(above))
        known[item["id"]] = score
    return found


@given(SCORED, st.integers(0, 12))
def test_the_gain_of_a_type_is_over_the_best_parent(modifications: list[dict[str, Any]], pause: int) -> None:
    """Number, mean and best, of all trees together; a pause that stores the figures changes nothing."""
    counts = ModificationCounts()
    counts.observe({"modifications": modifications[:pause]})
    state = json.loads(json.dumps(counts.state(), allow_nan=False))
    counts = ModificationCounts()
    counts.restore(state)
    counts.observe({"modifications": modifications[pause:]})
    found = {
        kind: counted["gain"] for kind, counted in counts.as_dict()["by_type"].items() if "gain" in counted
    }
    expected = gains(modifications)
    assert found.keys() == expected.keys()
    for kind, several in expected.items():
        assert (found[kind]["count"], found[kind]["best"]) == (len(several), max(several))
        mean = sum(several) / len(several)
        assert found[kind]["mean"] == number_text(mean)


def test_scores_of_long_ago_are_forgotten_and_counts_stay_exact() -> None:
    """Memory is bounded by the limit; a gain that is not known is not counted, and all else is whole."""
    counts = ModificationCounts(limit=10)
    chain = [{"id": f"m{n}", "parent_ids": [f"m{n - 1}"], "score": float(n)} for n in range(100)]
    counts.observe({"modifications": [*chain, {"id": "late", "parent_ids": ["m5"], "score": 1.0}]})
    assert counts.as_dict()["by_type"] == {
        "None": {"proposed": 101, "accepted": 0, "gain": {"count": 99, "mean": 1.0, "best": 1.0}}
    }
    assert not counts.as_dict()["partial"]
    assert len(counts.state()["scores"]["keys"]) == 10
    counts.observe({"modifications": [{"id": "x" * 1_000_000, "score": 1.0}]})
    assert len(json.dumps(counts.state())) < 1_000


def test_counts_of_the_version_before_are_taken_over() -> None:
    """It stored neither what was undecided nor scopes nor scores: what is known goes on, and is said to be partial."""
    before = {
        "proposed": 3, "accepted": 1, "by_type": {"evicted": 0, "keys": ["widen"], "values": [[3, 1]]},
    }  # fmt: skip
    counts = ModificationCounts()
    counts.restore(before)
    counts.observe({"modifications": [{"type": "widen", "accepted": True}, {"type": "prune"}]})
    again = ModificationCounts()
    again.restore(json.loads(json.dumps(counts.state())))
    for each in (counts, again):
        assert each.as_dict() == {
            "proposed": 5, "accepted": 2, "undecided": 1, "by_scope": {}, "partial": True,
            "by_type": {"widen": {"proposed": 4, "accepted": 2}, "prune": {"proposed": 1, "accepted": 0}},
        }  # fmt: skip
    unused = ModificationCounts()
    unused.restore({"proposed": 0, "accepted": 0, "by_type": {"evicted": 0, "keys": [], "values": []}})
    assert not unused.as_dict()["partial"]
