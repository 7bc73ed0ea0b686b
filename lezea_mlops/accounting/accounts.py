"""The accounts of a run: what was used and what it cost, kept while records pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from heapq import nlargest
from typing import Any, TypeVar

from lezea_mlops._bounded import MAX_KEYS, BoundedTable, stored_count, stored_text
from lezea_mlops.accounting.budgets import RUN
from lezea_mlops.accounting.components import Component, Counted, Ledger, component_name
from lezea_mlops.accounting.integrals import US_PER_S
from lezea_mlops.accounting.modifications import ModificationUse
from lezea_mlops.accounting.prices import Prices
from lezea_mlops.accounting.processes import Process, Processes
from lezea_mlops.accounting.quantities import SECONDS_PER_HOUR, UNNAMED, Quantities, amount, short_text
from lezea_mlops.accounting.scopes import MAX_PATH, paths_of, read_scope
from lezea_mlops.accounting.statements import costs, modification_costs, resources
from lezea_mlops.accounting.windows import Own, Target, Window
from lezea_mlops.events import ScopePairs

Fields = Mapping[str, Any]

UNTYPED = "untyped"
# So many components keep their place whatever comes later: what shows single ones shows these.
KEPT_COMPONENTS = 50
KEPT_SCOPES = 1_000
_LATEST_US = 2**62
_MOST_PARTS = 10_000
STATED = "resource_cost_eur"
# A record has to fit into a line, and a page into a head.
MAX_ROWS_OF_TOTALS = 1_000

Q = TypeVar("Q", Component, Counted)


class Accounts:
    """What a run used and what it cost: in all, by component, type and scope, and by operator of modification.

    Parts are what components measured or logged, and what ``log_resource_cost`` reported of a scope. The total is, of
    each quantity, what the processes used or the sum of the parts, whichever is more; what belongs to no part is
    unattributed. What was reported of the run as a whole is to be paid for where it is more than that total.
    """

    def __init__(self, limit: int = MAX_KEYS) -> None:
        self._attempt = 0
        self._processes = Processes()
        self._parts = Quantities()
        self._reported, self._stated = Quantities(), Quantities()
        self._components: Ledger[Component] = Ledger(Component, limit, KEPT_COMPONENTS)
        self._types: Ledger[Counted] = Ledger(Counted, limit)
        self._scopes: Ledger[Counted] = Ledger(Counted, limit)
        self._ledgers: dict[str, Ledger[Any]] = {
            "components": self._components, "types": self._types, "scopes": self._scopes,
        }  # fmt: skip
        self._modifications = ModificationUse(limit)
        self._business: BoundedTable[str, list[Any]] = BoundedTable(lambda: [None], limit)
        self._prices = Prices({})
        self._handlers: dict[str, Callable[[Fields, ScopePairs, int, int], None]] = {
            "resource": self._resource,
            "resource_use": self._resource_use,
            "resource_cost": self._resource_cost,
            "business": self._business_metrics,
            "rates": self._new_rates,
            "budget": self._budget,
            "modification_tree": self._modification_tree,
            "checkpoint": self._file,
            "artifact": self._file,
        }

    def observe(
        self, type_name: str, fields: Fields, scope: ScopePairs, ts: int, attempt: int | None = None
    ) -> None:
        """Take one record, logged at *ts* (UTC microseconds); types without an account are ignored.

        Nothing that JSON can hold makes it raise: what is no number from zero on, or absurdly large, is left out.

        Args:
            type_name: the type of the record.
            fields: its payload.
            scope: the scopes it was logged in, outermost first.
            ts: when it was logged.
            attempt: the attempt it belongs to; None: the one that ``restart`` began last.
        """
        handle = self._handlers.get(type_name)
        if handle is None:
            return
        if attempt is None:
            attempt = self._attempt
        handle(fields, read_scope(scope), ts, attempt)

    def restart(self) -> None:
        """Begin a new attempt: its samples and counters go on from none of the attempt before."""
        self._attempt += 1

    # ------------------------------------------------------------------ records

    def _resource(self, fields: Fields, scope: ScopePairs, ts: int, attempt: int) -> None:
        sample = fields.get("sample")
        if isinstance(sample, Mapping):
            self._processes.sample(sample, ts, attempt, self._book)
            return
        name = component_name(fields.get("component_id"))
        component = self._components[name]
        used = component.sample(ts, fields, attempt)
        self._book(used, self._target(name, component, fields.get("component_type"), scope), ts)

    def _resource_use(self, fields: Fields, scope: ScopePairs, ts: int, attempt: int) -> None:
        process = self._processes.of(fields.get("process"), attempt)
        window = None
        if process is not None:
            window = _window_of(process, fields)
            to_us = window.to_us if window is not None else ts
            process.measure(to_us, amount(fields["process"].get("cpu_s")))
        uses = fields.get("uses")
        for use in uses if isinstance(uses, list) else ():
            if isinstance(use, Mapping):
                self._row(use, window, ts)
        if process is not None:
            process.bound()
            process.settle(self._book)

    def _row(self, use: Fields, window: Window | None, ts: int) -> None:
        """Book what a row tells by itself; what the samples tell of it is booked when they are known."""
        name = component_name(use.get("component_id"))
        component = self._components[name]
        target = self._target(name, component, use.get("component_type"), read_scope(use.get("scope")))
        used = Quantities()
        used.uses = int(amount(use.get("count"), 1e15) or 0)
        used.wall_s = amount(use.get("wall_s")) or 0.0
        used.cpu_s = amount(use.get("cpu_s")) or 0.0
        own = Own(amount(use.get("memory_gb_s")), amount(use.get("io_bytes")), amount(use.get("gpu_s")))
        used.gb_s, used.io_bytes = own.gb_s or 0.0, own.io_bytes or 0.0
        if own.gpu_s:
            # It is paid for by its share of what the process held, as all others.
            used.add_gpu(UNNAMED, own.gpu_s, 0.0, 0.0)
        self._book(used, target, ts if window is None else window.from_us)
        if window is not None:
            window.take(target, used.wall_s, own)

    def _target(self, name: str, component: Component, component_type: Any, scope: ScopePairs) -> Target:
        given = short_text(component_type)
        if given is not None:
            component.component_type = given
        return Target(name, component.component_type or UNTYPED, scope)

    def _book(self, used: Quantities, target: Target, since_us: int) -> None:
        """Add what was used to all accounts it belongs to."""
        self._parts.add(used)
        if target.component_id is not None:
            self._components[target.component_id].add(used)
            self._types[target.component_type].add(used)
        for path in paths_of(target.scope):
            self._scopes[path].add(used)
        self._modifications.use(used, target, since_us)

    def _resource_cost(self, fields: Fields, scope: ScopePairs, ts: int, attempt: int) -> None:
        used = Quantities()
        used.cpu_s = (amount(fields.get("cpu_hours")) or 0.0) * SECONDS_PER_HOUR
        used.gb_s = (amount(fields.get("mem_gb")) or 0.0) * SECONDS_PER_HOUR
        used.io_bytes = amount(fields.get("io_bytes")) or 0.0
        self._reported.add(used)
        if scope:
            self._book(used, Target(None, UNTYPED, scope), ts)
        else:
            # It speaks of the whole run, and so of what was measured too.
            self._stated.add(used)

    def _business_metrics(self, fields: Fields, scope: ScopePairs, ts: int, attempt: int) -> None:
        metrics = fields.get("metrics")
        if isinstance(metrics, Mapping) and "$blob" not in metrics:
            for name, value in metrics.items():
                self._business[name][0] = value

    def _new_rates(self, fields: Fields, scope: ScopePairs, ts: int, attempt: int) -> None:
        rates = fields.get("rates")
        if isinstance(rates, Mapping):
            self._prices = Prices(rates)

    def _budget(self, fields: Fields, scope: ScopePairs, ts: int, attempt: int) -> None:
        branch = fields.get("branch")
        # The run itself is no scope.
        if type(branch) is str and branch != RUN and len(branch) <= MAX_PATH:
            self._scopes.keep(branch, KEPT_SCOPES)

    def _modification_tree(self, fields: Fields, scope: ScopePairs, ts: int, attempt: int) -> None:
        self._modifications.observe(fields.get("modifications"), ts)

    def _file(self, fields: Fields, scope: ScopePairs, ts: int, attempt: int) -> None:
        used = Quantities()
        used.storage_bytes = amount(fields.get("size")) or 0.0
        self._book(used, Target(None, UNTYPED, scope), ts)

    # ------------------------------------------------------------------ what is told

    def as_dict(self) -> dict[str, Any]:
        """Return the resources: in all, of the processes, unattributed, and by component, type, scope and GPU."""
        return self._resources() | self._tables(None)

    def costs(self) -> dict[str, Any]:
        """Return the costs: in all, by kind, component, type, scope, and of modifications; in EUR.

        What costs EUR is None, or empty, where no rate is set. ``per_accepted_eur`` is what one accepted modification
        cost together with the rejected ones that were tried on the way to it.
        """
        return self._costs() | self._cost_tables(None)

    def totals(self, most: int = MAX_ROWS_OF_TOTALS) -> dict[str, Any]:
        """Return ``resources`` and ``costs`` with tables of at most *most* rows: those that cost most.

        ``left_out`` tells how many rows of each table are missing.
        """
        costs = self._costs()
        left_out = {name: len(ledger) - most for name, ledger in self._ledgers.items() if len(ledger) > most}
        resources = self._resources() | self._tables(most) | ({"left_out": left_out} if left_out else {})
        return {"resources": resources, "costs": costs | self._cost_tables(most)}

    def totals_only(self) -> dict[str, Any]:
        """Return ``resources`` and ``costs`` without tables, in a time that does not grow with their length.

        The costs hold the scopes that have a budget.
        """
        return {"resources": self._resources(), "costs": self.costs_only()}

    def costs_only(self) -> dict[str, Any]:
        """Return the costs without tables, but with the scopes that have a budget: what ``Budgets.reached`` asks."""
        costs, prices = self._costs(), self._prices
        scopes = {path: prices.eur(used) for path, used in self._scopes.kept(KEPT_SCOPES)} if prices else {}
        return costs | {"scopes": scopes}

    def live(self) -> dict[str, Any]:
        """Return ``totals_only`` with the first components and the types that cost most: what is shown all the time.

        The time that it takes hardly grows with the number of components.
        """
        told, watts = self.totals_only(), self._prices.core_watts
        types = {name: used.shown(watts) for name, used in self._largest(self._types, KEPT_COMPONENTS)}
        tables = {"components": self.first_components(), "types": types}
        return {"resources": told["resources"] | tables, "costs": told["costs"]}

    def first_components(self, most: int = KEPT_COMPONENTS) -> dict[str, dict[str, Any]]:
        """Return the first components in the order of their appearance, as ``as_dict`` tells them.

        They are the same for the whole run, up to 50 of them: what shows a line for each shows these.
        """
        watts = self._prices.core_watts
        return {name: used.shown(watts) for name, used in self._components.kept(most)}

    def _largest(self, ledger: Ledger[Q], most: int | None) -> Iterable[tuple[str, Q]]:
        """Return the rows of a ledger that cost most, or have most core-hours where nothing has a price."""
        if most is None or len(ledger) <= most:
            return ledger.items()
        prices = self._prices
        return nlargest(
            most, ledger.items(), key=lambda row: (prices.eur(row[1]), row[1].cpu_s, row[1].wall_s)
        )

    def _tables(self, most: int | None) -> dict[str, Any]:
        watts = self._prices.core_watts
        return {
            table: {name: used.shown(watts) for name, used in self._largest(ledger, most)}
            for table, ledger in self._ledgers.items()
        }

    def _cost_tables(self, most: int | None) -> dict[str, Any]:
        prices = self._prices
        return {
            table: {name: prices.eur(used) for name, used in self._largest(ledger, most)} if prices else {}
            for table, ledger in self._ledgers.items()
        }

    def _resources(self) -> dict[str, Any]:
        processes = self._processes.total()
        peak_mb = self._processes.peak_memory_mb()
        told = resources(processes, self._parts, self._reported, self._prices.core_watts, peak_mb)
        return told | {"partial": self._partial()}

    def _costs(self) -> dict[str, Any]:
        business = {name: last[0] for name, last in self._business.items()}
        reported = self._reported
        return {
            **costs(self._processes.total(), self._parts, self._stated, self._prices),
            "modifications": modification_costs(self._modifications.sums(), self._prices),
            "stated_eur": amount(business.get(STATED)),
            "cpu_hours": reported.cpu_s / SECONDS_PER_HOUR,
            "mem_gb": reported.gb_s / SECONDS_PER_HOUR,
            "io_bytes": reported.io_bytes,
            "business": business,
            "partial": self._partial(),
        }

    def _partial(self) -> bool:
        evicted = [self._business.evicted, *(ledger.evicted for ledger in self._ledgers.values())]
        return self._processes.partial or any(evicted)

    # ------------------------------------------------------------------ pauses

    def state(self) -> dict[str, Any]:
        """Return all of it as JSON, for ``restore``; nothing in it changes when more is observed."""
        return {
            "attempt": self._attempt, "processes": self._processes.state(), "parts": self._parts.state(),
            "reported": self._reported.state(), "stated": self._stated.state(), "components": self._components.state(),
            "types": self._types.state(), "scopes": self._scopes.state(),
            "modifications": self._modifications.state(),
            "business": self._business.state(lambda last: last[0]), "rates": self._prices.as_dict(),
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        self._attempt = stored_count(state["attempt"])
        self._processes.restore(state["processes"])
        self._parts.put_back(state["parts"])
        self._reported.put_back(state["reported"])
        self._stated.put_back(state["stated"])
        self._components.restore(state["components"])
        self._types.restore(state["types"])
        self._scopes.restore(state["scopes"])
        self._modifications.restore(state["modifications"])
        self._business.restore(state["business"], stored_text, lambda value: [value])
        self._prices = Prices(state["rates"])


def _window_of(process: Process, fields: Fields) -> Window | None:
    """Return the window that a record of measured uses speaks of; None if it names no time."""
    from_us, to_us = fields.get("from_us"), fields.get("to_us")
    if type(from_us) is not int or type(to_us) is not int or not 0 <= from_us <= to_us < _LATEST_US:
        return None
    parts, part = fields.get("parts"), fields.get("part")
    if part is None or part == 1:
        process.measured_s += (to_us - from_us) / US_PER_S
    several = parts if type(parts) is int and 1 <= parts <= _MOST_PARTS else 1
    return process.window(from_us, to_us, amount(fields.get("wall_s")) or 0.0, several)
