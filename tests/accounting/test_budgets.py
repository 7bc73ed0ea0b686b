"""Budgets: a warning at 80 % and at 100 %, once each, for the run and for its branches."""

from __future__ import annotations

from typing import Any

import pytest

from lezea_mlops.accounting import Budgets
from tests.accounting.streams import rates, told, use, window


def with_budgets(**eur: float) -> Budgets:
    """Return the budgets of these branches."""
    budgets = Budgets()
    for branch, budget in eur.items():
        budgets.observe("budget", {"branch": branch.replace("__", ":"), "budget_eur": budget})
    return budgets


def spent(eur: float | None, **scopes: float) -> dict[str, Any]:
    """Return costs of the run and of scopes."""
    return {"eur": eur, "scopes": {path.replace("__", ":"): value for path, value in scopes.items()}}


def test_each_share_is_due_once() -> None:
    """Below 80 % nothing, from there on one record, at 100 % another, and none beyond."""
    budgets = with_budgets(run=10.0)
    assert [budgets.reached(spent(eur)) for eur in (0.0, 7.99, 9.0, 9.99, 11.0, 50.0)] == [
        [], [], [{"branch": "run", "budget_eur": 10.0, "spent_eur": 9.0, "share": 0.8}], [],
        [{"branch": "run", "budget_eur": 10.0, "spent_eur": 11.0, "share": 1.0}], [],
    ]  # fmt: skip


def test_who_passes_both_at_once_is_told_both() -> None:
    """Costs may jump, as with a rate that was set late."""
    assert [due["share"] for due in with_budgets(run=1.0).reached(spent(3.0))] == [0.8, 1.0]


def test_a_branch_has_the_costs_of_its_scope() -> None:
    """The run's own costs are not its own."""
    budgets = with_budgets(builder__42=1.0)
    assert list(budgets.as_dict()) == ["builder:42"]
    assert budgets.reached(spent(100.0)) == []
    due = budgets.reached(spent(100.0, builder__42=0.9, builder__7=5.0))
    assert due == [{"branch": "builder:42", "budget_eur": 1.0, "spent_eur": 0.9, "share": 0.8}]


def test_accounts_tell_the_costs_of_the_branches_that_have_a_budget() -> None:
    """Also while nothing was used there, and without the other scopes."""
    budget = "budget", {"branch": "builder:42", "budget_eur": 1.0}, (), 0
    accounts = told(rates(core_hour_eur=3_600.0), budget)
    assert accounts.costs_only()["scopes"] == {"builder:42": 0.0}
    rows = use("a", 1.0, 0.9, ("builder", "42")), use("b", 1.0, 5.0, ("builder", "7"))
    before = told(rates(core_hour_eur=3_600.0), window(0, 2, *rows), budget)
    assert before.costs_only()["scopes"] == {"builder:42": pytest.approx(0.9)}
    assert before.costs()["scopes"] == pytest.approx({"builder:42": 0.9, "builder:7": 5.0})
    told(window(0, 2, *rows), accounts=accounts)
    assert accounts.costs_only()["scopes"] == {"builder:42": pytest.approx(0.9)}
    assert [due["share"] for due in with_budgets(builder__42=1.0).reached(accounts.costs_only())] == [0.8]


def test_after_a_restart_that_read_the_journal_again_nothing_is_told_twice() -> None:
    """The records that were written say what was told."""
    budgets, again = with_budgets(run=10.0), with_budgets(run=10.0)
    for due in budgets.reached(spent(9.0)):
        again.observe("budget_reached", due)
    assert again.reached(spent(9.5)) == []
    assert [due["share"] for due in again.reached(spent(10.0))] == [1.0]


def test_a_raised_budget_starts_anew_and_one_set_again_does_not() -> None:
    """A warning belongs to a budget; the old one's are not repeated when it comes back."""
    budgets = with_budgets(run=10.0)
    assert len(budgets.reached(spent(10.0))) == 2
    budgets.observe("budget", {"branch": "run", "budget_eur": 10.0})
    assert budgets.reached(spent(10.0)) == []
    budgets.observe("budget", {"branch": "run", "budget_eur": 20.0})
    assert budgets.reached(spent(15.0)) == []
    assert [due["budget_eur"] for due in budgets.reached(spent(16.0))] == [20.0]
    budgets.observe("budget", {"branch": "run", "budget_eur": 10.0})
    assert budgets.reached(spent(16.0)) == []


def test_what_is_shown_of_a_budget() -> None:
    """Budget, what was last seen spent, and its share."""
    budgets = with_budgets(run=8.0, builder__1=2.0)
    budgets.reached(spent(2.0))
    assert budgets.as_dict() == {
        "run": {"budget_eur": 8.0, "spent_eur": 2.0, "ratio": 0.25},
        "builder:1": {"budget_eur": 2.0, "spent_eur": 0.0, "ratio": 0.0},
    }


@pytest.mark.parametrize("eur", [None, "NaN", -1.0, 0, "10", [1], {}], ids=repr)
def test_what_is_no_budget_is_none(eur: Any) -> None:
    """Nor is one without a branch, nor a record of another type."""
    budgets = Budgets()
    budgets.observe("budget", {"branch": "run", "budget_eur": eur})
    budgets.observe("budget", {"branch": [eur], "budget_eur": 1.0})
    budgets.observe("budget", {})
    budgets.observe("param", {"branch": "run", "budget_eur": 1.0})
    assert budgets.as_dict() == {}
    assert budgets.reached(spent(5.0)) == []


def test_without_rates_no_budget_is_reached() -> None:
    """Nobody knows what was spent."""
    assert with_budgets(run=1.0).reached(spent(None)) == []
    assert with_budgets(run=1.0).reached(told(window(0, 1, cpu_s=1e6)).costs_only()) == []


def test_budgets_are_bounded() -> None:
    """Beyond the limit a new branch is not watched; the known ones stay."""
    budgets = Budgets(limit=3)
    for number in range(1_000):
        budgets.observe("budget", {"branch": f"builder:{number}", "budget_eur": 1.0})
        budgets.observe("budget_reached", {"branch": f"builder:{number}", "budget_eur": 1.0, "share": 0.8})
    assert list(budgets.as_dict()) == ["builder:0", "builder:1", "builder:2"]
