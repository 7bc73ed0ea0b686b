"""Networks: who came from whom, when each was born, and in which generations it lived."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.events import Envelope
from lezea_mlops.evolution import Evolution, Network, NetworkLineage


def lineage_of(
    *records: tuple[str, dict[str, Any]], atts: dict[int, int] | None = None, order: list[int] | None = None
) -> NetworkLineage:
    """Return the networks of records.

    Args:
        records: types and fields, in logged order.
        atts: the attempt of some of them, by place.
        order: the places in the order in which they are read.
    """
    evolution = Evolution()
    for place in range(len(records)) if order is None else order:
        kind, fields = records[place]
        meta = {"seq": place + 1, "ts": place + 1, "att": (atts or {}).get(place, 1)}
        evolution.observe(Envelope(kind, meta, {"run_id": "r", **fields}))
    return evolution.networks


def born(network_id: Any, *parents: Any, **fields: Any) -> tuple[str, dict[str, Any]]:
    """Return a registered network."""
    return "network", {
        "network_id": network_id,
        "network_type": "tasker",
        "parent_ids": list(parents),
        **fields,
    }


def alive(generation: Any, fitness_scores: Any) -> tuple[str, dict[str, Any]]:
    """Return a generation of the population."""
    return "population", {"generation": generation, "fitness_scores": fitness_scores}


def test_survivors_keep_their_birth_and_their_generations() -> None:
    """A network that lives through many generations is one network, born once."""
    networks = lineage_of(
        born("a", generation=0), born("b", "a", generation=1), born("c", "a", "b", generation=2),
        alive(0, {"a": 1.0}), alive(1, {"a": 1.5, "b": 2}), alive(2, {"a": 1.25, "c": 3.0}),
    )  # fmt: skip
    assert networks["a"] == Network("a", "tasker", (), 0, True, {})
    assert networks["c"] == Network("c", "tasker", ("a", "b"), 2, True, {})
    assert (networks.generations("a"), networks.generations("b")) == ([0, 1, 2], [1])
    assert networks.fitness("a") == {0: 1.0, 1: 1.5, 2: 1.25}
    assert (networks.survivors(), networks.champion()) == (["a", "c"], "c")
    assert (networks.lineage("c"), networks.ancestors("c")) == (["a", "c"], ["a", "b"])
    assert networks.common_ancestor("b", "c") == "b"


def test_an_individual_that_was_never_registered_is_a_network_too() -> None:
    """It was born when it was first seen; in a list of scores individuals are called by their place."""
    networks = lineage_of(alive(4, [0.5, 0.25]), alive(3, {"1": 0.125}), born("0", "1"))
    assert networks["1"] == Network("1", None, (), 3, False, {})
    assert networks["0"] == Network("0", "tasker", ("1",), 4, True, {})
    assert networks.problems() == []


def test_all_that_was_registered_comes_back() -> None:
    """Architecture, metadata, and fields of a later version; other metadata is other content."""
    networks = lineage_of(
        born("a", architecture=[3, {"$where": 1}], metadata={"by": "hand"}, later=1),
        born("a", metadata={"by": "luck"}),
    )
    assert networks["a"].data == {"metadata": {"by": "luck"}}
    assert [problem.kind for problem in networks.problems()] == ["duplicate"]
    assert lineage_of(born("b", architecture="3-4-1"))["b"].data == {"architecture": "3-4-1"}


@given(st.permutations(range(6)))
def test_the_order_in_which_records_come_does_not_matter(order: list[int]) -> None:
    """Journals are read writer by writer: networks, their order, lives and problems are the same."""
    records = [
        born("a", generation=0), alive(0, {"a": 1.0, "x": 2.0}), born("b", "x", generation=1), alive(1, {"b": 1.0}),
        alive(1, {"x": 3.0, "b": 2.0}), born("a", "b", generation=3),
    ]  # fmt: skip
    whole, shuffled = lineage_of(*records), lineage_of(*records, order=order)
    assert list(shuffled) == list(whole) == ["x", "b", "a"]
    for name in whole:
        assert (shuffled[name], shuffled.fitness(name)) == (whole[name], whole.fitness(name))
    assert shuffled.problems() == whole.problems()
    assert (shuffled.survivors(), shuffled.champion()) == (["x", "b"], "x")


def test_a_fitness_that_is_no_finite_number_is_a_life_all_the_same() -> None:
    """NaN, infinity and text: the individual lived, and is never the champion."""
    networks = lineage_of(alive(0, {"a": "NaN", "b": "Infinity", "c": "good", "d": -1, "e": 10**400}))
    assert networks.fitness("a") == networks.fitness("b") == networks.fitness("c") == {0: None}
    assert (networks.survivors(), networks.champion()) == (list("abcde"), "d")


@given(st.permutations(range(4)))
def test_a_generation_that_a_later_attempt_logs_again_is_that_attempts(order: list[int]) -> None:
    """Who only lived in a superseded population did not live; generations that were not repeated stay."""
    networks = lineage_of(
        alive(0, {"a": 1}), alive(1, {"a": 1, "b": 5}), alive(2, {"b": 5}), alive(1, {"a": 2, "c": 3}),
        atts={3: 2}, order=order,
    )  # fmt: skip
    assert (networks.generations("a"), networks.generations("b"), networks.generations("c")) == (
        [0, 1],
        [2],
        [1],
    )
    assert (networks.fitness("a"), networks.survivors()) == ({0: 1, 1: 2}, ["a", "c"])


def test_a_network_registered_again_counts_as_it_was_registered_last() -> None:
    """Other content is told; the same again, and having lived before, are no problem."""
    networks = lineage_of(alive(0, {"b": 1}), born("a"), born("b"), born("a"), born("b", "a", generation=7))
    assert networks["b"] == Network("b", "tasker", ("a",), 7, True, {})
    assert [(problem.kind, problem.id) for problem in networks.problems()] == [("duplicate", "b")]


def test_what_other_programs_wrote_is_read_as_far_as_it_goes() -> None:
    """Ids and parents that are numbers, generations that are texts, populations without scores: nothing raises."""
    networks = lineage_of(
        born(7, 3, None, 3), born(None), born("x", generation="two"),
        ("network", {"network_id": "y", "parent_ids": "x"}),
        alive("late", {"x": 1}), alive(0, None), alive(1, {"$blob": "ab", "size": 3}), alive(None, 5),
    )  # fmt: skip
    assert networks["7"].parent_ids == ("3",)
    assert networks["x"].generation is None
    assert networks["y"] == Network("y", None, ("x",), None, True, {})
    assert [(problem.kind, problem.id) for problem in networks.problems()] == [("unknown_parent", "3")]
    assert (networks.survivors(), networks.champion(), networks.generations("x")) == ([], "x", [])


def test_where_nothing_was_logged_there_is_nothing() -> None:
    """No survivors, no champion, no networks."""
    networks = NetworkLineage()
    assert (networks.survivors(), networks.champion(), list(networks), len(networks)) == ([], None, [], 0)
