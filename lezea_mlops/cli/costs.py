"""``lezea costs``: what a run used and what it cost, in all, by component, and by what came of modifications."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from lezea_mlops.cli.genealogies import RunArgument, open_run
from lezea_mlops.cli.paper import Cell, Paper, Piece
from lezea_mlops.cli.runs import JsonOption, RunsDirOption, counted, error_console, usage_errors
from lezea_mlops.config.rates import read_rates
from lezea_mlops.errors import ConfigurationError, JournalError
from lezea_mlops.events import encode_json
from lezea_mlops.runtime.costs import DEAD, LINE, VERDICTS, Bill, read_costs

TOP = 10
BYTES_PER_GB = 2**30
# Of each quantity: its name, its heading, and what it is divided by.
QUANTITIES = (
    ("core_hours", "core-hours", 1), ("gb_hours", "GB-hours", 1), ("gpu_hours", "GPU-hours", 1),
    ("gpu_held_hours", "GPU held", 1), ("io_bytes", "IO GB", BYTES_PER_GB), ("energy_kwh", "kWh", 1),
)  # fmt: skip
# Without a scope or an id a use is nobody's, and the zeros look like modifications that were free.
NOTHING_USED = (
    "no core-hour and no GPU-hour belongs to a modification: measure inside tracker.scope('modification', id), "
    "or measure a component that has its id"
)


class By(str, Enum):
    """What the rows of a table are."""

    COMPONENT = "component"
    TYPE = "type"
    SCOPE = "scope"
    OPERATOR = "operator"


# Where the report holds the rows of each table.
TABLES = {By.COMPONENT: "components", By.TYPE: "types", By.SCOPE: "scopes"}


def costs(
    run: RunArgument,
    by: Annotated[By | None, typer.Option(help="Only this table.")] = None,
    top: Annotated[int | None, typer.Option(min=1, help=f"So many rows of each table ({TOP}).")] = None,
    rates: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Price the run anew, with the prices of this file.")
    ] = None,
    as_json: JsonOption = False,
    runs_dir: RunsDirOption = None,
) -> None:
    """Show what RUN used and what it cost, which may be going on; with the prices that it recorded, or others.

    Dead branches are accepted modifications that led to nothing that lives. --json has the whole tables.
    """
    with usage_errors(error_console()):
        if as_json and (by is not None or top is not None):
            raise ConfigurationError("--json has the whole tables; --by and --top are for the terminal")
        prices = None if rates is None else read_rates(rates, {}).as_dict()
        folder, evolution = open_run(run, runs_dir)
        try:
            bill = read_costs(folder, evolution, prices)
        except JournalError as error:
            raise ConfigurationError(str(error)) from error
    if as_json:
        typer.echo(encode_json({"run_id": folder.run_id, **bill._asdict()}))
        return
    said = "" if rates is None else f" at the prices of {rates}"
    _Report(bill, top or TOP).show(f"{folder.run_id}{said}", by)


class _Report:
    """Prints a bill.

    Args:
        bill: what is printed.
        top: so many rows of each table.
    """

    def __init__(self, bill: Bill, top: int) -> None:
        self._bill, self._top = bill, top
        self._paper = Paper()
        self._is_priced = bill.costs["eur"] is not None

    def show(self, name: str, by: By | None) -> None:
        """Print all of it; with *by* what it comes to, and that table."""
        self._heading(name)
        if by is None:
            self._whole()
            self._budgets()
            self._modifications()
        for each in By:
            if by in (None, each) and not self._table(each) and by is each:
                self._paper.row(Piece(f"no {each.value} has used anything that was measured or logged"))
        self._notes()

    # ------------------------------------------------------------------ the whole

    def _heading(self, name: str) -> None:
        costs = self._bill.costs
        said = f"{_eur(costs['eur'])} EUR" if self._is_priced else "no prices are set"
        attempts = counted(self._bill.attempts, "attempt")
        self._paper.row(Piece(f"{self._paper.shown(name, 300)}: {said}, {attempts}", "bold"))
        if self._is_priced:
            kinds = [f"{kind} {_eur(eur)}" for kind, eur in costs["parts"].items() if eur]
            self._paper.row(Piece("; ".join(kinds) or "nothing that has a price was used"))
        else:
            self._paper.row(Piece("hours only; --rates FILE prices the run", "yellow"))
        if costs["stated_eur"] is not None:
            self._paper.row(Piece(f"{_eur(costs['stated_eur'])} EUR were stated by log_business_metrics"))
        if costs["unpriced"]:
            names = ", ".join(map(self._paper.shown, costs["unpriced"]))
            self._paper.row(Piece(f"used without a price, and not in the sum: {names}", "yellow"))

    def _whole(self) -> None:
        resources = self._bill.resources
        rows = [
            _headings("", *(heading for _, heading, _ in QUANTITIES)),
            _cells("in all", _quantities(resources["total"])),
            _cells("unattributed", _quantities(resources["unattributed"])),
        ]
        self._columns(rows)
        for name, hours in resources["gpus"].items():
            said = f"{_amount(hours['used_hours'])} hours used, {_amount(hours['held_hours'])} held"
            self._paper.row(Piece(f"GPU {self._paper.shown(name)}: {said}"))
        if self._bill.costs["co2_g"] is not None:
            self._paper.row(Piece(f"{_amount(self._bill.costs['co2_g'])} g CO2"))

    def _budgets(self) -> None:
        if not self._bill.budgets:
            return
        rows = [_headings("budget of", "EUR", "spent", "")]
        for branch, budget in self._bill.budgets.items():
            spent = [
                _eur(budget["budget_eur"]),
                *((_eur(budget["spent_eur"]), f"{budget['ratio']:.0%}") if self._is_priced else ()),
            ]
            style = "red" if budget["ratio"] >= 1 else ""
            rows.append(
                [[Piece(self._paper.shown(branch), style)], *([Piece(text, style)] for text in spent)]
            )
        self._columns(rows)

    def _notes(self) -> None:
        if self._bill.resources["partial"] or self._bill.costs["partial"]:
            self._paper.row(
                Piece("partial: there were more names than the tables hold; the sums have all", "yellow")
            )

    # ------------------------------------------------------------------ modifications

    def _modifications(self) -> None:
        found, branches = self._bill.modifications, self._bill.branches
        if not any(found[verdict]["count"] for verdict in VERDICTS):
            return
        rows = [_headings("modifications", "count", *self._units())]
        for verdict in VERDICTS:
            if found[verdict]["count"]:
                rows.append(self._sum(verdict, found[verdict]))
            if verdict == "accepted" and branches is not None:
                rows.append(self._sum("  led to what lives", branches[LINE]))
                rows.append(self._sum("  dead branches", branches[DEAD]))
        self._columns(rows)
        if not any(
            found[verdict][unit] for verdict in VERDICTS for unit in ("eur", "core_hours", "gpu_hours")
        ):
            self._paper.row(Piece(NOTHING_USED, "yellow"))
        if found["per_accepted_eur"] is not None:
            said = f"each accepted one cost {_eur(found['per_accepted_eur'])} EUR, with what was rejected"
            self._paper.row(Piece(said))

    def _units(self) -> Sequence[str]:
        return ("EUR", "core-hours", "GPU-hours") if self._is_priced else ("core-hours", "GPU-hours")

    def _sum(self, name: str, found: Mapping[str, Any]) -> list[Cell]:
        hours = (_amount(found["core_hours"]), _amount(found["gpu_hours"]))
        return _cells(
            name, [f"{found['count']:,}", *([_eur(found["eur"])] if self._is_priced else []), *hours]
        )

    # ------------------------------------------------------------------ tables

    def _table(self, by: By) -> bool:
        """Print a table; tell whether it has any row."""
        whole, rows = self._operators() if by is By.OPERATOR else self._uses(by)
        if not whole:
            return False
        self._columns(rows)
        if self._top < whole:
            self._paper.row(Piece(f"the first {self._top:,} of {whole:,}; --top shows more", "dim"))
        return True

    def _operators(self) -> tuple[int, list[list[Cell]]]:
        """Return how many operators of modifications there are, and the rows of the first."""
        unit, form, heading = (
            ("eur", _eur, "EUR") if self._is_priced else ("core_hours", _amount, "core-hours")
        )
        by_type = self._bill.modifications["by_type"]
        decided = VERDICTS[:2]

        def used(operator: str) -> float:
            return float(sum(by_type[operator][verdict][unit] for verdict in VERDICTS))

        rows = [_headings("operator", *decided, *(f"{heading} {verdict}" for verdict in decided))]
        for operator in self._first(by_type, used):
            found = [by_type[operator][verdict] for verdict in decided]
            texts = [*(f"{each['count']:,}" for each in found), *(form(each[unit]) for each in found)]
            rows.append(_cells(self._paper.shown(operator), texts))
        return len(by_type), rows

    def _uses(self, by: By) -> tuple[int, list[list[Cell]]]:
        """Return how many components, types or scopes there are, and the rows of those that cost or used most."""
        eur = self._bill.costs[TABLES[by]]
        used = {
            name: row
            for name, row in self._bill.resources[TABLES[by]].items()
            if _is_used(row) or eur.get(name)
        }

        def weight(name: str) -> tuple[float, float]:
            return eur.get(name, 0.0), used[name]["core_hours"]

        money = ["EUR"] if self._is_priced else []
        kind = ["type"] if by is By.COMPONENT else []
        rows = [_headings(by.value, *money, *(heading for _, heading, _ in QUANTITIES), *kind)]
        for name in self._first(used, weight):
            texts = [*(_eur(eur.get(name, 0.0)) for _ in money), *_quantities(used[name])]
            types = [self._paper.shown(used[name].get("component_type") or "") for _ in kind]
            rows.append(_cells(self._paper.shown(name), [*texts, *types]))
        return len(used), rows

    def _first(self, names: Iterable[str], weight: Callable[[str], Any]) -> list[str]:
        return sorted(names, key=weight, reverse=True)[: self._top]

    def _columns(self, rows: Sequence[Sequence[Cell]]) -> None:
        self._paper.row()
        self._paper.columns(rows, range(1, 1 + len(QUANTITIES) + self._is_priced))


def _headings(*texts: str) -> list[Cell]:
    return [[Piece(text, "dim")] for text in texts]


def _cells(name: str, texts: Iterable[str]) -> list[Cell]:
    return [[Piece(name)], *([Piece(text)] for text in texts)]


def _is_used(row: Mapping[str, Any]) -> bool:
    """Tell whether anything stands under a name; a budget alone brings a scope into the tables."""
    return any(value for name, value in row.items() if name != "component_type")


def _quantities(used: Mapping[str, Any]) -> list[str]:
    return [_amount(used.get(name, 0.0) / unit) for name, _, unit in QUANTITIES]


def _eur(value: float) -> str:
    """Return an amount of money in cents, or in three figures where these would not show it."""
    return f"{value:,.2f}" if value >= 0.1 or not value else _amount(value)


def _amount(value: float) -> str:
    """Return an amount in three figures, all of them before the decimal point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
