"""Statistics of modifications: computed from what was logged, of the whole tree and in one pass over it."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

from hypothesis import given

from lezea_mlops.events import Envelope, encode_json
from lezea_mlops.evolution import ModificationTree, StreamingStatistics
from tests.evolution.trees import Logged, grown, logs, tree_of


def streamed(logged: list[Logged], limit: int = 1_000) -> dict[str, Any]:
    """Return what one pass over the modifications says of them."""
    statistics = StreamingStatistics(limit)
    for modification, scope, _ in logged:
        statistics.add_all([modification], scope)
    return statistics.as_dict()


@given(logs(in_order=True))
def test_one_pass_says_what_the_whole_tree_says(logged: list[Logged]) -> None:
    """Where parents come first, every id comes once and nothing had to be forgotten."""
    assert streamed(logged) == grown(logged).statistics() | {"partial": False}


@given(logs())
def test_the_figures_are_those_that_a_plain_count_gives(logged: list[Logged]) -> None:
    """Of any tree, each figure by its definition."""
    tree = grown(logged)
    figures, nodes = tree.statistics(), {name: tree[name] for name in tree}
    verdicts = [node.modification.accepted for node in nodes.values()]
    assert [figures[name] for name in ("count", "accepted", "rejected", "undecided")] == [
        len(nodes), *(sum(verdict is each for verdict in verdicts) for each in (True, False, None))
    ]  # fmt: skip
    decided = figures["accepted"] + figures["rejected"]
    assert figures["accept_rate"] == (figures["accepted"] / decided if decided else None)
    assert (figures["roots"], figures["survivors"]) == (len(tree.roots()), len(tree.survivors()))
    assert figures["depth"] == max(map(tree.depth, tree), default=0)
    families = [len(tree.children(name)) for name in tree if tree.children(name)]
    assert figures["branching"] == {
        "mean": sum(families) / len(families) if families else 0.0, "max": max(families, default=0),
    }  # fmt: skip
    assert {k: v["count"] for k, v in figures["by_type"].items()} == counted(
        str(node.modification.type) for node in nodes.values()
    )
    assert {
        (level, i): v["count"] for level, ids in figures["by_scope"].items() for i, v in ids.items()
    } == counted(pair for node in nodes.values() for pair in node.scope)
    assert_gains(tree, figures)
    encode_json(figures)


def counted(values: Any) -> dict[Any, int]:
    """Return how often each value comes."""
    found: dict[Any, int] = defaultdict(int)
    for value in values:
        found[value] += 1
    return dict(found)


def assert_gains(tree: ModificationTree, figures: dict[str, Any]) -> None:
    """The gains by type are those of the nodes."""
    gains: dict[str, list[float]] = defaultdict(list)
    for name in tree:
        if (gain := tree.gain(name)) is not None:
            gains[str(tree[name].modification.type)].append(gain)
    told = {kind: (gain["count"], gain["best"]) for kind, gain in figures["gain_by_type"].items()}
    assert told == {kind: (len(each), max(each)) for kind, each in gains.items()}
    for kind, each in gains.items():
        mean = figures["gain_by_type"][kind]["mean"]
        assert mean in ("Infinity", "-Infinity", "NaN") or math.isclose(mean, sum(each) / len(each))


@given(logs(in_order=True))
def test_survivors_are_those_that_no_accepted_modification_builds_on(logged: list[Logged]) -> None:
    """However far below; and the longest accepted path is the most of them on any line."""
    tree = grown(logged)
    accepted = {name for name in tree if tree[name].modification.accepted}
    assert tree.survivors() == [n for n in tree if n in accepted and not accepted & set(tree.descendants(n))]
    most: dict[str, int] = {}
    for name in tree:
        most[name] = (name in accepted) + max((most[p] for p in tree.known_parents(name)), default=0)
    assert tree.statistics()["longest_accepted_path"] == max(most.values(), default=0)
    paths = list(tree.accepted_paths())
    assert paths == [[n for n in tree.lineage(end) if n in accepted] for end in tree.survivors()]


def test_one_pass_sees_what_is_built_on_over_what_was_rejected() -> None:
    """An accepted modification is no survivor either when only a rejected one stands between."""
    items = [
        {"id": "a", "accepted": True},
        {"id": "b", "parent_id": "a"},
        {"id": "c", "parent_id": "b", "accepted": True},
    ]
    statistics = StreamingStatistics()
    statistics.observe(record(1, items))
    assert (statistics.as_dict()["survivors"], tree_of(*items).survivors()) == (1, ["c"])


@given(logs(in_order=True))
def test_what_had_to_be_forgotten_makes_the_figures_partial(logged: list[Logged]) -> None:
    """What is counted one by one stays exact all the same."""
    told, whole = streamed(logged, limit=2), grown(logged).statistics()
    assert told["partial"] or told == whole | {"partial": False}
    assert told["partial"] or len(logged) <= 2
    assert [told[name] for name in ("count", "accepted", "rejected")] == [
        whole[name] for name in ("count", "accepted", "rejected")
    ]


def test_an_id_that_comes_again_is_counted_once() -> None:
    """Unchanged it is no news; with other content the figures of the first are told, as partial."""
    logged = [{"id": "a", "accepted": True}, {"id": "b", "parent_id": "a"}, {"id": "a", "accepted": True}]
    for last, partial in ((logged[2], False), ({"id": "a", "accepted": False}, True)):
        statistics = StreamingStatistics()
        for seq, item in enumerate([*logged, last], start=1):
            statistics.observe(record(seq, [item]))
        told = statistics.as_dict()
        assert (told["count"], told["accepted"], told["partial"]) == (2, 1, partial)


def test_what_is_said_of_a_tree_is_not_believed() -> None:
    """Statistics that came with it, as text, NaN or false, change no figure; nor does a record of another kind."""
    statistics = StreamingStatistics()
    statistics.observe(
        record(1, [{"id": "a"}], statistics={"count": "many", "depth": {"$num": "NaN"}, "roots": 7})
    )
    statistics.observe(
        Envelope("comment", {"seq": 2, "ts": 2}, {"run_id": "r", "modifications": [{"id": "b"}]})
    )
    assert statistics.as_dict() == tree_of({"id": "a"}).statistics() | {"by_scope": {}, "partial": False}


def record(seq: int, modifications: list[Any], **fields: Any) -> Envelope:
    """Return a logged tree as a record."""
    payload = {"run_id": "r", "step": seq, "modifications": modifications} | fields
    return Envelope("modification_tree", {"seq": seq, "ts": seq}, payload)
