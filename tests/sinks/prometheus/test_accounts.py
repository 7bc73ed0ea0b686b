"""The real accounts of a run, as series: names and units agree, and the parts add up to the whole."""

from __future__ import annotations

from typing import Any

import pytest

from lezea_mlops.accounting import Accounts, Budgets
from lezea_mlops.events import Envelope
from lezea_mlops.sinks.prometheus import LiveView, Outside
from tests.sinks.prometheus.pages import START_US, series_of, value_of

S = 1_000_000
HOUR_S = 3_600


class Run:
    """A run whose records pass accounts, budgets and a view, as they do in the driver."""

    def __init__(self) -> None:
        self.accounts, self.budgets = Accounts(), Budgets()
        self.view = LiveView("run-1", self._outside)
        self._seq = 0

    def __call__(self, at_s: float, type_name: str, **payload: Any) -> None:
        self._seq += 1
        meta = {"seq": self._seq, "ts": START_US + round(at_s * S), "wid": "main", "att": 1}
        record = Envelope(type_name, meta, {"run_id": "run-1", **payload})
        self.accounts.observe(record.type, record.payload, (), record.ts, record.att)
        self.budgets.observe(record.type, record.payload)
        self.view.observe(record)

    def _outside(self) -> Outside:
        costs = self.accounts.costs()
        self.budgets.reached(costs)
        return Outside(self.accounts.as_dict(), costs, {}, self.budgets.as_dict())


@pytest.fixture
def run() -> Run:
    """An hour of a run: 3,000 s of CPU time; of 60 components two measured 1,000 s of it each, the others 1 s each."""
    run = Run()
    run(0, "run_started", experiment_name="Demo")
    run(0, "rates", rates={"core_hour_eur": 0.36, "kwh_eur": 1.0, "core_watts": 36.0, "co2_g_per_kwh": 500.0})
    run(0, "budget", branch="run", budget_eur=3.0)
    for minute in range(61):
        process = {
            "cpu_s": minute * 50.0,
            "children_cpu_s": 0.0,
            "memory_bytes": 2**30,
            "children_memory_bytes": 0,
        }
        sample = {"writer": "main", "pid": 7, "period_s": 60.0, "process": process}
        run(minute * 60, "resource", component_id="process", component_type="process", sample=sample)
    uses = [{"component_id": f"c{index}", "component_type": "tasker", "count": 1, "wall_s": cpu_s, "cpu_s": cpu_s}
            for index, cpu_s in enumerate([1_000.0, 1_000.0] + [1.0] * 58)]  # fmt: skip
    run(3_600, "resource_use", from_us=START_US, to_us=START_US + 3_600 * S, wall_s=2_058.0, uses=uses,
        process={"writer": "main", "pid": 7, "cpu_s": 3_000.0})  # fmt: skip
    proposed = [
        {"id": "c0", "type": "widen", "accepted": True},
        {"id": "c1", "type": "widen", "accepted": False},
    ]
    run(3_600, "modification_tree", step=1, modifications=proposed)
    return run


def test_components_others_and_the_rest_add_up_to_the_process(run: Run) -> None:
    """No second of CPU time is lost, and none counts twice."""
    shown = series_of(run.view)
    cpu = shown["lezea_component_cpu_seconds_total"]
    assert cpu[("component", "c0"), ("component_type", "tasker")] == pytest.approx(1_000)
    assert cpu[("component", "other"), ("component_type", "tasker")] == pytest.approx(10)
    assert len(cpu) == 51
    unattributed = value_of(run.view, "lezea_unattributed_cpu_seconds_total")
    assert sum(cpu.values()) + (unattributed or 0) == pytest.approx(3_000)
    assert shown["lezea_process_cpu_seconds_total"] == {(("writer", "main"),): 3_000}
    memory = shown["lezea_component_memory_byte_seconds_total"]
    assert 0 < sum(memory.values()) <= HOUR_S * 2**30 * (1 + 1e-9)


def test_costs_energy_and_budget_are_those_of_the_accounts(run: Run) -> None:
    """3,000 s at 0.36 EUR an hour and 36 W; a third of it for the accepted modification, a third for the rejected."""
    shown = series_of(run.view)
    joules = 3_000 * 36
    cost = {labels[0][1]: eur for labels, eur in shown["lezea_cost_eur_total"].items()}
    assert cost["cpu"] == pytest.approx(0.3)
    assert cost["energy"] == pytest.approx(joules / 3.6e6)
    assert shown["lezea_energy_joules_total"][()] == pytest.approx(joules)
    assert shown["lezea_co2_grams_total"][()] == pytest.approx(joules / 3.6e6 * 500)
    verdicts = {labels[0][1]: eur for labels, eur in shown["lezea_modification_cost_eur_total"].items()}
    assert verdicts == {
        verdict: pytest.approx((0.3 + joules / 3.6e6) / 3) for verdict in ("accepted", "rejected")
    }
    assert value_of(run.view, "lezea_budget_used_ratio", branch="run") == pytest.approx(
        sum(cost.values()) / 3
    )


def test_the_first_rows_of_the_accounts_show_the_same(run: Run) -> None:
    """Who makes short tables for a scrape loses nothing: the first components are those that have series."""
    whole = series_of(run.view)
    totals = run.accounts.totals(50)
    resources = totals["resources"] | {"components": run.accounts.first_components()}
    short = LiveView("run-1", lambda: Outside(resources, totals["costs"], {}, run.budgets.as_dict()))
    shown = series_of(short)
    for name in (
        name for name in whole if name.startswith(("lezea_component", "lezea_cost", "lezea_unattributed"))
    ):
        assert shown[name] == pytest.approx(whole[name])
    assert shown["lezea_series_dropped"] == whole["lezea_series_dropped"] == {(): 40}
