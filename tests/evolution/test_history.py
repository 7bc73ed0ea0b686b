"""Evolution from records: trees in parts, what is no modification, and what made a champion."""

from __future__ import annotations

from typing import Any

import pytest

from lezea_mlops.events import Envelope
from lezea_mlops.evolution import Evolution


def tree(seq: int, modifications: Any, wid: str = "main", **fields: Any) -> Envelope:
    """Return a logged tree as a record."""
    meta = {"seq": seq, "ts": seq, "wid": wid, "att": 1}
    return Envelope("modification_tree", meta, {"run_id": "r", "modifications": modifications, **fields})


def network(seq: int, network_id: str, *parents: str) -> Envelope:
    """Return a registered network as a record."""
    fields = {"network_id": network_id, "network_type": "tasker", "parent_ids": list(parents)}
    return Envelope("network", {"seq": seq, "ts": seq, "wid": "main", "att": 1}, {"run_id": "r", **fields})


def test_later_parts_of_a_tree_are_more_of_it() -> None:
    """With the step and the scopes that each part carries."""
    evolution = Evolution().read(
        [
            tree(1, [{"id": "a"}], step=3, scope=[["builder", "4"]], part=1, parts=2),
            tree(2, [{"id": "b", "parent_ids": ["a"]}], step=3, scope=[["builder", "4"]], part=2, parts=2),
        ]
    )
    assert list(evolution.modifications) == ["a", "b"]
    assert {(n.step, n.scope) for n in map(evolution.modifications.__getitem__, "ab")} == {
        (3, (("builder", "4"),))
    }
    assert evolution.problems() == []


def test_a_modification_without_an_id_is_named_after_its_record() -> None:
    """As it is in MongoDB: writer, number of the record, place in it."""
    evolution = Evolution().read([tree(7, [{"id": "a"}, {"type": "widen"}], wid="rank1")])
    assert list(evolution.modifications) == ["a", "rank1.7.2"]


@pytest.mark.parametrize("what", ["text", 3, None, ["a", "b"], True])
def test_what_is_no_mapping_is_kept_and_told(what: Any) -> None:
    """It becomes a modification that holds it as a value, and the problem says where it stands."""
    evolution = Evolution().read([tree(7, [{"id": "a"}, what])])
    assert evolution.modifications["main.7.2"].modification.data == {"value": what}
    [problem] = evolution.problems()
    assert (problem.kind, problem.id) == ("not_understood", "main.7.2")
    assert repr(what) in problem.text


@pytest.mark.parametrize("modifications", [None, "text", {"id": "a"}, 5])
def test_a_tree_without_a_list_of_modifications_is_told(modifications: Any) -> None:
    """It holds none, and the problem says which record it is."""
    evolution = Evolution().read([tree(7, modifications)])
    assert (len(evolution.modifications), len(evolution.problems())) == (0, 1)
    assert "record 7 of the writer main" in evolution.problems()[0].text


def test_a_network_without_an_id_is_told() -> None:
    """It is no node of the lineage."""
    record = Envelope("network", {"seq": 4, "ts": 4}, {"run_id": "r", "network_type": "tasker"})
    evolution = Evolution().read([record])
    assert (len(evolution.networks), [problem.kind for problem in evolution.problems()]) == (
        0,
        ["not_understood"],
    )


def test_steps_and_scopes_that_are_none_are_none() -> None:
    """A text, a truth value or a list where a step was expected, and scopes that are no pairs."""
    evolution = Evolution().read(
        [tree(1, [{"id": "a"}], step="7", scope="builder"), tree(2, [{"id": "b"}], step=True)]
    )
    assert [(node.step, node.scope) for node in map(evolution.modifications.__getitem__, "ab")] == [
        (None, ())
    ] * 2


def test_the_path_to_a_champion_is_what_was_kept_of_its_line() -> None:
    """Network by network from the first ancestor on, in logged order; rejected ones and other lines are not on it."""
    evolution = Evolution().read(
        [
            network(1, "first"), network(2, "other"), network(3, "middle", "first", "other"),
            network(4, "champion", "middle"),
            tree(5, [{"id": "late", "target": "champion", "accepted": True}, {"id": "x", "target": "other"}], step=9),
            tree(6, [{"id": "a", "target": "first"}, {"id": "b", "target": "middle", "accepted": False}], step=1),
            tree(7, [{"id": "c", "network_id": "middle", "accepted": True}, {"id": "d", "target": "champion"}], step=2),
        ]
    )  # fmt: skip
    assert [node.modification.id for node in evolution.path_to("champion")] == ["a", "c", "late", "d"]


def test_the_path_to_a_network_that_was_not_registered_is_what_targets_it() -> None:
    """And of one that nobody names it is empty."""
    evolution = Evolution().read([tree(1, [{"id": "a", "target": "n"}])])
    assert [node.modification.id for node in evolution.path_to("n")] == ["a"]
    assert evolution.path_to("nobody") == []


def test_records_of_other_types_change_nothing() -> None:
    """A journal is mostly other things."""
    evolution = Evolution().read(
        [Envelope("metric", {"seq": 1, "ts": 1}, {"run_id": "r", "modifications": [{}]})]
    )
    assert (len(evolution.modifications), len(evolution.networks), evolution.problems()) == (0, 0, [])
