"""What modifications cost, by operator and verdict: whichever comes first, a use or a verdict, they find each other."""

from __future__ import annotations

import itertools
import json
from itertools import permutations
from typing import Any

import pytest

from lezea_mlops.accounting import Accounts
from tests.accounting.streams import APPROX, Record, rates, sample, through_json, told, tree, use, window

# A second of a core costs one euro.
PRICES = rates(core_hour_eur=3_600.0)


def modification(
    identity: str, accepted: bool | None = True, kind: str = "widen", **fields: Any
) -> dict[str, Any]:
    """Return a modification as it is logged."""
    told = {"id": identity, "type": kind, **fields}
    return told if accepted is None else told | {"accepted": accepted}


def spent(at_s: float, eur: float, component: str = "trainer", *scope: tuple[str, str]) -> Record:
    """Return a window in which a component cost so much."""
    return window(at_s, at_s + 1, use(component, 1.0, eur, *scope), cpu_s=None)


def costs(*records: Record) -> dict[str, Any]:
    """Return what the modifications of a stream cost."""
    found: dict[str, Any] = told(PRICES, *records).costs()["modifications"]
    return found


def eur(found: dict[str, Any]) -> dict[str, float]:
    """Return what modifications cost by verdict."""
    return {verdict: found[verdict]["eur"] for verdict in ("accepted", "rejected", "undecided")}


def test_what_accepted_and_rejected_ones_cost_by_operator() -> None:
    """Two accepted, three rejected: of each operator, and what an accepted one cost with the dead branches."""
    verdicts = [("w1", True, "widen"), ("w2", False, "widen"), ("d1", False, "deepen"), ("d2", True, "deepen"),
                ("d3", False, "deepen")]  # fmt: skip
    uses = [spent(n, 2.0**n, "trainer", ("modification", name)) for n, (name, *_rest) in enumerate(verdicts)]
    found = costs(*uses, tree(9, *(modification(*verdict) for verdict in verdicts)))
    assert found["accepted"] == {"count": 2, "eur": pytest.approx(1 + 8, rel=APPROX)}
    assert found["rejected"] == {"count": 3, "eur": pytest.approx(2 + 4 + 16, rel=APPROX)}
    assert found["undecided"] == {"count": 0, "eur": 0}
    assert found["per_accepted_eur"] == pytest.approx(31 / 2, rel=APPROX)
    assert found["by_type"]["deepen"] == {
        "accepted": 1, "rejected": 2, "undecided": 0,
        "accepted_eur": pytest.approx(8, rel=APPROX), "rejected_eur": pytest.approx(20, rel=APPROX), "undecided_eur": 0,
    }  # fmt: skip


def test_a_crossover_costs_what_was_used_for_it_and_nothing_of_its_parents() -> None:
    """Three modifications, the third a crossover of the other two: each its own use."""
    children = (
        modification("a"),
        modification("b"),
        modification("x", kind="crossover", parent_ids=["a", "b"]),
    )
    uses = [
        spent(n, eur, "trainer", ("modification", name))
        for n, (name, eur) in enumerate([("a", 1), ("b", 2), ("x", 5)])
    ]
    found = costs(*uses, tree(9, *children))
    assert found["by_type"]["crossover"]["accepted_eur"] == pytest.approx(5, rel=APPROX)
    assert found["by_type"]["widen"]["accepted_eur"] == pytest.approx(3, rel=APPROX)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_use_and_verdict_may_come_in_any_order(order: tuple[int, ...]) -> None:
    """Before the verdict, after it, or both."""
    scope = ("modification", "m")
    records = (
        spent(0, 1.0, "t", ("builder", "1"), scope),
        spent(1, 2.0, "t", scope),
        tree(5, modification("m")),
    )
    assert eur(costs(*(records[n] for n in order)))["accepted"] == pytest.approx(3, rel=APPROX)


@pytest.mark.parametrize(
    ("fields", "component", "scope"),
    [
        ({}, "m", ()),
        ({"component_id": "tasker#3"}, "tasker#3", ()),
        ({"target": "n5"}, "n5", ()),
        ({"network_id": "n5"}, "n5", ()),
        ({"target": "n5"}, "trainer", (("network", "n5"),)),
        ({"component_id": "tasker#3", "target": "n5"}, "trainer", (("network", "n5"),)),
    ],
    ids=str,
)
@pytest.mark.parametrize("first", ["use", "verdict"])
def test_without_its_scope_a_use_is_found_by_component_or_network(
    fields: dict[str, Any], component: str, scope: Any, first: str
) -> None:
    """Its id, its component, the network it made, as a component or as a scope."""
    records = [spent(0, 4.0, component, *scope), tree(5, modification("m", **fields))]
    found = costs(*(records if first == "use" else records[::-1]))
    assert eur(found) == pytest.approx({"accepted": 4, "rejected": 0, "undecided": 0}, rel=APPROX)


def test_all_ways_to_find_a_use_count() -> None:
    """Its scope, a component of its name, the component and the network that it names: each use once."""
    records = [
        spent(0, 1.0, "t", ("modification", "m")), spent(1, 10.0, "m"), spent(2, 100.0, "tasker#3"),
        spent(3, 1_000.0, "n5"), tree(9, modification("m", component_id="tasker#3", target="n5")),
    ]  # fmt: skip
    for order in itertools.permutations(records):
        assert eur(costs(*order))["accepted"] == pytest.approx(1_111, rel=APPROX)


def test_a_use_in_the_scope_of_one_modification_is_not_anothers() -> None:
    """Although the component bears the other's name."""
    found = costs(
        spent(0, 1.0, "m2", ("modification", "m1")), spent(1, 10.0, "m2"),
        tree(2, modification("m1", True), modification("m2", False)),
    )  # fmt: skip
    assert eur(found) == pytest.approx({"accepted": 1, "rejected": 10, "undecided": 0}, rel=APPROX)


def test_each_use_counts_for_one_modification_although_they_share_a_component() -> None:
    """A tasker tries one modification after the other: what it used before a verdict is that verdict's."""
    found = costs(
        spent(0, 1.0, "tasker#0"), tree(1, modification("m1", True, component_id="tasker#0")),
        spent(2, 2.0, "tasker#0"), tree(3, modification("m2", False, component_id="tasker#0")),
        spent(4, 4.0, "tasker#0"), spent(5, 8.0, "tasker#0"),
        tree(6, modification("m3", False, component_id="tasker#0")),
    )  # fmt: skip
    assert eur(found) == pytest.approx({"accepted": 1, "rejected": 14, "undecided": 0}, rel=APPROX)


def test_a_use_whose_window_was_written_after_the_verdict_is_that_verdicts() -> None:
    """Verdicts are told at once, uses once a second."""
    found = costs(
        tree(0.5, modification("m1", True, component_id="t")), window(0, 1, use("t", 1.0, 3.0)),
        window(1, 2, use("t", 1.0, 4.0)), tree(2.5, modification("m2", False, component_id="t")),
    )  # fmt: skip
    assert eur(found) == pytest.approx({"accepted": 3, "rejected": 4, "undecided": 0}, rel=APPROX)


def test_what_a_network_uses_later_belongs_to_the_modification_that_made_it() -> None:
    """Until another modification of the same network is told: then what it used since is that one's."""
    first = [spent(0, 1.0, "n5"), tree(1, modification("m1", True, target="n5")), spent(2, 2.0, "n5")]
    assert eur(costs(*first))["accepted"] == pytest.approx(3, rel=APPROX)
    second = [*first, tree(4, modification("m2", False, target="n5"))]
    assert eur(costs(*second)) == pytest.approx({"accepted": 1, "rejected": 2, "undecided": 0}, rel=APPROX)


def test_a_verdict_that_comes_later_takes_the_costs_along() -> None:
    """Proposed, tried, rejected after all: counted once, where it stands now."""
    proposed, use_of_it = tree(0, modification("m", None)), spent(1, 6.0, "t", ("modification", "m"))
    assert eur(costs(proposed, use_of_it)) == pytest.approx({"accepted": 0, "rejected": 0, "undecided": 6})
    found = costs(proposed, use_of_it, tree(2, modification("m", False)))
    assert eur(found) == pytest.approx({"accepted": 0, "rejected": 6, "undecided": 0})
    assert [found[verdict]["count"] for verdict in ("accepted", "rejected", "undecided")] == [0, 1, 0]
    assert found["per_accepted_eur"] is None


def test_memory_and_files_of_a_modification_are_its_own_too() -> None:
    """Its part of what the samples tell, whenever they come, and what it stored."""
    scope = (("modification", "m"),)
    accounts = told(
        rates(gb_hour_eur=3_600.0, storage_gb_month_eur=1.0), window(0, 4, use("t", 4.0, 1.0, *scope)),
        tree(5, modification("m")), sample(0, memory_gb=2), sample(10, memory_gb=2),
        ("checkpoint", {"path": "c", "size": 2**30}, scope, 0),
    )  # fmt: skip
    assert accounts.costs()["modifications"]["accepted"]["eur"] == pytest.approx(8 + 1, rel=APPROX)


@pytest.mark.parametrize("by_scope", [True, False])
def test_sums_stay_right_beyond_what_the_tables_hold(by_scope: bool) -> None:
    """A use before its verdict and one after it, within the limit of each other: 30 times as many as are remembered."""
    accounts, limit, many = told(PRICES, accounts=Accounts(limit=100)), 100, 3_000

    def used(number: int, at_s: int) -> Record:
        if by_scope:
            return spent(at_s, 1.0, "t", ("modification", f"m{number}"))
        return spent(at_s, 1.0, f"n{number}")

    for number in range(many):
        told(used(number, number), accounts=accounts)
        if number >= 40:
            verdict = (number - 40) % 3 == 0
            told(
                tree(number + 0.5, modification(f"m{number - 40}", verdict, target=f"n{number - 40}")),
                accounts=accounts,
            )
        if number >= 80:
            told(used(number - 80, number + 1), accounts=accounts)
    found = accounts.costs()["modifications"]
    decided = many - 40
    twice = many - 80
    assert found["accepted"]["count"] + found["rejected"]["count"] == decided
    assert found["accepted"]["count"] == len(range(0, decided, 3))
    assert found["accepted"]["eur"] == pytest.approx(
        len(range(0, decided, 3)) + len(range(0, twice, 3)), rel=1e-6
    )
    assert found["accepted"]["eur"] + found["rejected"]["eur"] == pytest.approx(decided + twice, rel=1e-6)
    assert len(accounts.state()["modifications"]["known"]["keys"]) == limit


def test_more_modifications_in_one_tree_than_are_remembered_are_all_counted() -> None:
    """Also those that would be forgotten within the same call."""
    accounts = told(
        tree(0, *(modification(f"m{n}", n % 4 == 0) for n in range(1_000))), accounts=Accounts(limit=10)
    )
    found = accounts.costs()["modifications"]
    assert (found["accepted"]["count"], found["rejected"]["count"]) == (250, 750)


def test_in_a_tree_that_is_too_long_none_loses_what_was_used_for_it() -> None:
    """The first is forgotten within the call, and its use stays with its operator and verdict."""
    accounts = told(PRICES, spent(0, 3.0, "t", ("modification", "m0")), accounts=Accounts(limit=10))
    told(tree(1, *(modification(f"m{n}", n == 0) for n in range(1_000))), accounts=accounts)
    assert accounts.costs()["modifications"]["accepted"]["eur"] == pytest.approx(3, rel=APPROX)


def test_what_a_sample_tells_later_goes_where_its_use_went() -> None:
    """Two verdicts on one component before the sample: the memory belongs to the first, as the use does."""
    prices, samples = rates(gb_hour_eur=3_600.0), [sample(t, memory_gb=1) for t in (0, 5)]
    verdicts = [tree(n, modification(f"m{n}", n == 1, component_id="t")) for n in (1, 2)]
    for stream in ([*verdicts, *samples], [samples[0], *verdicts, samples[1]], [*samples, *verdicts]):
        found = told(prices, window(0, 1, use("t", 1.0)), *stream).costs()["modifications"]
        assert eur(found) == pytest.approx({"accepted": 1, "rejected": 0, "undecided": 0}, rel=APPROX)


def test_who_named_a_component_is_remembered_in_bounded_number() -> None:
    """A thousand modifications of one network leave a few."""
    accounts = told(*(tree(n, modification(f"m{n % 5}", target="n")) for n in range(1_000)))
    assert len(json.dumps(accounts.state())) < 3_500


def test_modifications_without_id_or_type_are_counted() -> None:
    """And what is no modification is not."""
    found = costs(
        tree(
            0, {"accepted": True}, {"op": "widen", "accepted": False}, {"id": 7, "type": 3}, "text", None, []
        )
    )
    assert {kind: row["accepted"] + row["rejected"] + row["undecided"] for kind, row in found["by_type"].items()} == {
        "None": 1, "widen": 1, "3": 1,
    }  # fmt: skip


def test_a_pause_changes_nothing_of_what_waits() -> None:
    """Stored between use and verdict, and between verdict and use."""
    accounts = told(
        PRICES, spent(0, 1.0, "t", ("modification", "m1")), tree(1, modification("m2", False, target="n2"))
    )
    accounts = told(
        tree(2, modification("m1")), spent(3, 2.0, "n2"), accounts=through_json(accounts)
    )  # fmt: skip
    assert eur(through_json(accounts).costs()["modifications"]) == pytest.approx(
        {"accepted": 1, "rejected": 2, "undecided": 0}
    )


def test_operators_are_bounded() -> None:
    """What calls itself something else each time is counted under one name."""
    found = costs(tree(0, *(modification(f"m{n}", kind=f"op{n}") for n in range(500))))
    assert len(found["by_type"]) == 101
    assert found["by_type"]["(other types)"]["accepted"] == 400
