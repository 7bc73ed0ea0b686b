"""What a run used and cost, added up anew from its journals, at its own prices or at others."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lezea_mlops.accounting import Accounts, Budgets
from lezea_mlops.events import Envelope, ModificationTreeLogged, RatesSet
from lezea_mlops.evolution import Evolution
from lezea_mlops.evolution.records import modifications_of
from lezea_mlops.journal import RunFolder, read_chunk

# All writers are read at once, and share so many bytes of what is read ahead.
READ_AHEAD_BYTES = 16 * 1024 * 1024
LEAST_READ_BYTES = 4 * 1024
MOST_READ_BYTES = 64 * 1024

VERDICTS = ("accepted", "rejected", "undecided")
LINE, DEAD = "line", "dead"
# At these prices what is told in EUR is hours.
_IN_HOURS: Mapping[str, Mapping[str, Any]] = {
    "core_hours": {"core_hour_eur": 1.0},
    "gpu_hours": {"gpu_hour_eur": {"default": 1.0}},
}


class Bill(NamedTuple):
    """What a run used and cost, as far as it is written.

    Attributes:
        attempts: how many attempts the run had.
        rates: the prices that were applied, by name; empty: none are set.
        resources: what was used, as ``Accounts.as_dict`` tells it.
        costs: what it cost, as ``Accounts.costs`` tells it.
        budgets: of each branch the budget, what was spent, and the share of the one in the other.
        modifications: by verdict ``count``, ``eur``, ``core_hours`` and ``gpu_hours``; the same ``by_type``.
        branches: the same of the accepted ones: ``line``, those that lead to what lives, and ``dead``, all others;
            None where nothing says what lives.
    """

    attempts: int
    rates: Mapping[str, Any]
    resources: Mapping[str, Any]
    costs: Mapping[str, Any]
    budgets: Mapping[str, Mapping[str, float]]
    modifications: Mapping[str, Any]
    branches: Mapping[str, Any] | None


def read_costs(folder: RunFolder, evolution: Evolution, rates: Mapping[str, Any] | None = None) -> Bill:
    """Add up what a run used and cost; in bounded memory, and the run may be going on.

    Args:
        folder: the run.
        evolution: its modifications and networks, which say what came to nothing.
        rates: prices by name, which stand in for the run's own.

    Raises:
        JournalError: a journal cannot be read.
    """
    counting = _Counting(living_line(evolution), rates)
    for record in records_in_order(folder):
        counting.take(record)
    return counting.bill()


def records_in_order(folder: RunFolder) -> Iterator[Envelope]:
    """Yield the records of all writers, attempt by attempt and in the order of their time.

    Those of one writer keep the order of its journal, also where its clock was put back.

    Raises:
        JournalError: a journal cannot be read.
    """
    journals = folder.journals().values()
    at_once = READ_AHEAD_BYTES // max(1, len(journals))
    max_bytes = min(MOST_READ_BYTES, max(LEAST_READ_BYTES, at_once))
    writers = (_records_of(path, max_bytes) for path in journals)
    return heapq.merge(*writers, key=lambda record: record.order_key)


def _records_of(path: Path, max_bytes: int) -> Iterator[Envelope]:
    position = 0
    while (chunk := read_chunk(path, position, max_bytes)).after != position:
        yield from chunk.records
        position = chunk.after


class _Counting:
    """Takes the records of a run one after the other.

    Args:
        line: the modifications that lead to what lives; None: that is not known.
        rates: prices that stand in for the run's own.
    """

    def __init__(self, line: set[str] | None, rates: Mapping[str, Any] | None) -> None:
        self._line = line
        self._is_priced_anew = rates is not None
        self._rates: Mapping[str, Any] = rates or {}
        self._attempts: set[int] = set()
        self._accounts, self._budgets = Accounts(), Budgets()
        # The same once more, with what came of a modification in the place of its type.
        self._by_branch = None if line is None else Accounts()

    def take(self, record: Envelope) -> None:
        """Take a record."""
        self._attempts.add(record.att)
        fields = record.payload
        if record.type == RatesSet.type:
            if not self._is_priced_anew and isinstance(told := fields.get("rates"), Mapping):
                self._rates = told
            return
        self._budgets.observe(record.type, fields)
        scope = tuple((level, identity) for level, identity in record.scope)
        self._accounts.observe(record.type, fields, scope, record.ts, attempt=record.att)
        if self._by_branch is not None and self._line is not None:
            if record.type == ModificationTreeLogged.type:
                fields = _by_branch(record, self._line)
            self._by_branch.observe(record.type, fields, scope, record.ts, attempt=record.att)

    def bill(self) -> Bill:
        """Return what it comes to."""
        _apply(self._accounts, self._rates)
        costs = self._accounts.costs()
        self._budgets.reached(costs)
        modifications = _modifications(self._accounts, self._rates)
        branches = None
        if self._by_branch is not None:
            found = _modifications(self._by_branch, self._rates)["by_type"]
            branches = {
                branch: found[branch]["accepted"] if branch in found else _nothing(costs["eur"] is not None)
                for branch in (LINE, DEAD)
            }
        _apply(self._accounts, self._rates)
        return Bill(
            len(self._attempts), self._rates, self._accounts.as_dict(), costs, self._budgets.as_dict(),
            modifications, branches,
        )  # fmt: skip


def _apply(accounts: Accounts, rates: Mapping[str, Any]) -> None:
    accounts.observe(RatesSet.type, {"rates": rates}, (), 0)


def _nothing(is_priced: bool) -> dict[str, Any]:
    return {"count": 0, "eur": 0.0 if is_priced else None, **dict.fromkeys(_IN_HOURS, 0.0)}


# ---------------------------------------------------------------------- modifications


def _modifications(accounts: Accounts, rates: Mapping[str, Any]) -> dict[str, Any]:
    """Return what modifications used and cost, by verdict, and by type and verdict."""
    told = {}
    for unit, prices in {"eur": rates, **_IN_HOURS}.items():
        _apply(accounts, prices)
        told[unit] = accounts.costs()["modifications"]
    counts = told["eur"]

    def of(verdict: str) -> dict[str, Any]:
        return {
            "count": counts[verdict]["count"],
            **{unit: found[verdict]["eur"] for unit, found in told.items()},
        }

    def of_type(name: str, verdict: str) -> dict[str, Any]:
        return {
            "count": counts["by_type"][name][verdict],
            **{unit: found["by_type"][name].get(f"{verdict}_eur") for unit, found in told.items()},
        }

    by_type = {name: {verdict: of_type(name, verdict) for verdict in VERDICTS} for name in counts["by_type"]}
    per_accepted = {"per_accepted_eur": counts["per_accepted_eur"], "by_type": by_type}
    return {verdict: of(verdict) for verdict in VERDICTS} | per_accepted


def _by_branch(record: Envelope, line: set[str]) -> dict[str, Any]:
    """Return a logged tree with what came of each modification in the place of its type."""
    logged = record.payload.get("modifications")
    if not isinstance(logged, list):
        return dict(record.payload)
    told = [
        {**each, "type": LINE if understood.id in line else DEAD}
        for each, understood in zip(logged, modifications_of(record), strict=True)
        if isinstance(each, Mapping)
    ]
    return {**record.payload, "modifications": told}


def living_line(evolution: Evolution) -> set[str] | None:
    """Return the accepted modifications that led to what lives, and those these build on; None: nothing is known of it.

    What lives are the networks of the newest population, the fittest network, and the accepted modification with the
    highest score.
    """
    tree, networks = evolution.modifications, evolution.networks
    if not len(tree):
        return None
    ends = [each for each in (networks.champion(), *networks.survivors()) if each is not None]
    alive = _with_ancestors(ends, networks.known_parents)
    made = [each for found in tree.targeting(alive).values() for each in found]
    first = [each for each in made if tree[each].modification.accepted is True]
    if (best := tree.best()) is not None:
        first.append(best)
    if not first and not ends:
        return None
    return _with_ancestors(first, tree.known_parents)


def _with_ancestors(ids: Iterable[str], parents_of: Callable[[str], Iterable[str]]) -> set[str]:
    """Return nodes with all that they came from."""
    waiting = list(ids)
    found = set(waiting)
    while waiting:
        for parent in parents_of(waiting.pop()):
            if parent not in found:
                found.add(parent)
                waiting.append(parent)
    return found
