"""Budgets of a run and of its branches, and which of them are reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lezea_mlops._bounded import MAX_KEYS, BoundedTable
from lezea_mlops.accounting.quantities import amount
from lezea_mlops.accounting.scopes import MAX_PATH

RUN = "run"
# The shares of a budget at which a warning is due.
SHARES = (0.8, 1.0)


class Budgets:
    """The newest budget of each branch, and of which shares a warning was given.

    A branch is ``run``, or the path of a scope such as ``builder:42``.
    """

    def __init__(self, limit: int = MAX_KEYS) -> None:
        self._limit = limit
        self._budgets: dict[str, float] = {}
        self._spent: dict[str, float] = {}
        self._told: BoundedTable[tuple[str, float], set[float]] = BoundedTable(set, limit)

    def observe(self, type_name: str, fields: Mapping[str, Any]) -> None:
        """Take a ``budget`` or a ``budget_reached`` record; others say nothing of budgets."""
        branch, eur = fields.get("branch"), amount(fields.get("budget_eur"))
        if type(branch) is not str or len(branch) > MAX_PATH or not eur:
            return
        if type_name == "budget":
            if branch in self._budgets or len(self._budgets) < self._limit:
                self._budgets[branch] = eur
        elif type_name == "budget_reached":
            self._told[branch, eur].add(amount(fields.get("share")) or 0.0)

    def __bool__(self) -> bool:
        return bool(self._budgets)

    def reached(self, costs: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the fields of the ``budget_reached`` records that are due now, each only once.

        Args:
            costs: what ``Accounts.costs_only`` tells.
        """
        due = []
        for branch, budget in self._budgets.items():
            spent = amount(costs.get("eur") if branch == RUN else (costs.get("scopes") or {}).get(branch))
            if spent is None:
                continue
            self._spent[branch] = spent
            for share in SHARES:
                if spent >= share * budget and share not in self._told[branch, budget]:
                    self._told[branch, budget].add(share)
                    due.append({"branch": branch, "budget_eur": budget, "spent_eur": spent, "share": share})
        return due

    def as_dict(self) -> dict[str, dict[str, float]]:
        """Return of each branch the budget, what ``reached`` last saw spent, and the share of the one in the other."""
        return {
            branch: {
                "budget_eur": budget,
                "spent_eur": self._spent.get(branch, 0.0),
                "ratio": self._spent.get(branch, 0.0) / budget,
            }
            for branch, budget in self._budgets.items()
        }
