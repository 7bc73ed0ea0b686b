"""What others know of a run: accounts, costs, budgets and the health of its delivery, as series."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from lezea_mlops.sinks.prometheus.families import Exposition
from lezea_mlops.sinks.prometheus.labels import DistinctCount, amount, finite, label_text

MAX_COMPONENTS = 50
MAX_COMPONENT_TYPES = 20
MAX_SINKS = 8
MAX_REASONS = 10
MAX_BRANCHES = 20
MAX_KINDS = 12
# Accounts keep longer ids cut, and what is not as it was logged is not found there.
_MAX_ID = 200
_S_PER_HOUR = 3_600.0
_BYTES_PER_GB = 2.0**30
_JOULES_PER_KWH = 3.6e6
# What is less than this share of a whole is the error of adding floating-point numbers.
_ROUNDING = 1e-9

# Series of a component: what it is called in the accounts, and what one of it is.
_COMPONENT_SERIES = {
    "lezea_component_cpu_seconds_total": ("core_hours", _S_PER_HOUR),
    "lezea_component_wall_seconds_total": ("wall_hours", _S_PER_HOUR),
    "lezea_component_memory_byte_seconds_total": ("gb_hours", _S_PER_HOUR * _BYTES_PER_GB),
    "lezea_component_gpu_seconds_total": ("gpu_hours", _S_PER_HOUR),
}
_OTHER, _UNTYPED = "other", "untyped"


@dataclass(frozen=True)
class Outside:
    """What the driver knows of a run at a moment; whatever is missing is not shown.

    Attributes:
        accounts: ``Accounts.as_dict()``, or the ``resources`` of ``Accounts.totals()``.
        costs: ``Accounts.costs()``.
        sinks: the health of each destination, by its name, as ``tracker.health()["sinks"]``.
        budgets: ``Budgets.as_dict()``.
    """

    accounts: Mapping[str, Any] = field(default_factory=dict)
    costs: Mapping[str, Any] = field(default_factory=dict)
    sinks: Mapping[str, Any] = field(default_factory=dict)
    budgets: Mapping[str, Any] = field(default_factory=dict)


class OutsideSeries:
    """Turns what others know into series, a bounded number of them; what is counted never falls."""

    def __init__(self, left_out: DistinctCount) -> None:
        self._left_out = left_out
        # Those with series of their own, and their types as soon as they are known.
        self._components: dict[str, str | None] = {}
        self._admitted: dict[str, set[str]] = {}
        self._highest: dict[tuple[str, ...], float] = {}

    def component_appeared(self, identity: Any) -> None:
        """Give a component series of its own, as long as there is room; the rest are shown together."""
        if (
            len(self._components) < MAX_COMPONENTS
            and isinstance(identity, str)
            and identity not in self._components
            and identity != _OTHER
            and len(identity) <= _MAX_ID
        ):
            self._components[identity] = None

    def prices_changed(self) -> None:
        """Let costs fall: what was used before may be cheaper now."""
        self._highest = {
            key: value for key, value in self._highest.items() if key[0] not in ("cost", "modification")
        }

    def show(self, outside: Outside, shown: Exposition) -> None:
        """Show all of it."""
        self._show_sinks(_mapping(outside.sinks), shown)
        self._show_accounts(_mapping(outside.accounts), shown)
        self._show_costs(_mapping(outside.costs), _mapping(outside.accounts), shown)
        for branch, budget in self._first(_mapping(outside.budgets), "branch", MAX_BRANCHES, series=2):
            shown.add("lezea_budget_eur", finite(budget.get("budget_eur")), branch)
            shown.add("lezea_budget_used_ratio", finite(budget.get("ratio")), branch)

    def _show_sinks(self, sinks: Mapping[str, Any], shown: Exposition) -> None:
        for sink, health in self._first(sinks, "sink", MAX_SINKS, series=5):
            shown.add("lezea_delivery_up", float(health.get("state") == "ok"), sink)
            shown.add("lezea_delivery_lag_seconds", amount(health.get("lag_s")), sink)
            shown.add("lezea_delivery_waiting_records", amount(health.get("waiting")), sink)
            shown.add("lezea_delivery_records_total", amount(health.get("delivered")), sink)
            shown.add("lezea_delivery_rejected_total", amount(health.get("rejected")), sink)
            failures = list(_mapping(health.get("failures")).items())
            for reason, count in failures[:MAX_REASONS]:
                shown.add("lezea_delivery_failures_total", amount(count), sink, label_text(reason))
            for reason, _count in failures[MAX_REASONS:]:
                self._left_out.add(("reason", sink, reason))

    def _show_accounts(self, accounts: Mapping[str, Any], shown: Exposition) -> None:
        components = _mapping(accounts.get("components"))
        if len(self._components) < MAX_COMPONENTS:
            for identity in islice(components, MAX_COMPONENTS):
                self.component_appeared(identity)
        of_type: dict[tuple[str, str], float] = {}
        known = 0
        for identity in self._components:
            known += identity in components
            self._show_component(identity, _mapping(components.get(identity)), of_type, shown)
        for kind, use in self._first(
            _mapping(accounts.get("types")), "component type", MAX_COMPONENT_TYPES, 4
        ):
            for name, (quantity, unit) in _COMPONENT_SERIES.items():
                whole = (amount(use.get(quantity)) or 0.0) * unit
                rest = whole - of_type.get((name, kind), 0.0)
                value = rest if rest > whole * _ROUNDING else None
                shown.add(name, self._risen(value, name, _OTHER, kind), _OTHER, kind)
        # Accounts may come with the first rows of their tables alone, and tell how many there are beside them.
        missing = amount(_mapping(accounts.get("left_out")).get("components")) or 0.0
        shown.dropped += (len(components) - known + int(missing)) * len(_COMPONENT_SERIES)
        unattributed = amount(_mapping(accounts.get("unattributed")).get("core_hours"))
        name = "lezea_unattributed_cpu_seconds_total"
        shown.add(name, self._risen(None if unattributed is None else unattributed * _S_PER_HOUR, name))

    def _show_component(
        self, identity: str, use: Mapping[str, Any], of_type: dict[tuple[str, str], float], shown: Exposition
    ) -> None:
        if use and self._components[identity] is None:
            self._components[identity] = label_text(use.get("component_type") or _UNTYPED)
        kind, label = self._components[identity], label_text(identity)
        if kind is None:
            return
        for name, (quantity, unit) in _COMPONENT_SERIES.items():
            value = amount(use.get(quantity))
            highest = self._risen(None if value is None else value * unit, name, label, kind)
            shown.add(name, highest, label, kind)
            of_type[name, kind] = of_type.get((name, kind), 0.0) + (highest or 0.0)

    def _show_costs(self, costs: Mapping[str, Any], accounts: Mapping[str, Any], shown: Exposition) -> None:
        for kind, eur in islice(_mapping(costs.get("parts")).items(), MAX_KINDS):
            label = label_text(kind)
            shown.add("lezea_cost_eur_total", self._risen(amount(eur), "cost", label), label)
        modifications = _mapping(costs.get("modifications"))
        for verdict in ("accepted", "rejected"):
            eur = amount(_mapping(modifications.get(verdict)).get("eur"))
            shown.add("lezea_modification_cost_eur_total", self._risen(eur, "modification", verdict), verdict)
        energy = amount(costs.get("energy_kwh"))
        if energy is None:
            energy = amount(_mapping(accounts.get("total")).get("energy_kwh"))
        joules = None if energy is None else energy * _JOULES_PER_KWH
        shown.add("lezea_energy_joules_total", self._risen(joules, "energy"))
        shown.add("lezea_co2_grams_total", self._risen(amount(costs.get("co2_g")), "co2"))

    def _risen(self, value: float | None, *key: str) -> float | None:
        """Return the greatest value that was ever given for *key*.

        Accounts forget what was not used for long, and attribute what they first could not: Prometheus would take a
        fall for a new beginning, and add the whole value once more.
        """
        highest = self._highest.get(key)
        if value is None or (highest is not None and value <= highest):
            return highest
        self._highest[key] = value
        return value

    def _first(
        self, table: Mapping[str, Any], kind: str, limit: int, series: int
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield label and value of what appeared first in a table, be its order another now; the rest is left out."""
        admitted = self._admitted.setdefault(kind, set())
        for name, value in table.items():
            label = label_text(name)
            if label in admitted or len(admitted) < limit:
                admitted.add(label)
                yield label, _mapping(value)
            else:
                self._left_out.add((kind, label), series)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
