"""What others know of a run, as series: components, costs, budgets, the health of the delivery."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.sinks.prometheus import LiveView, Outside
from lezea_mlops.sinks.prometheus.outside import MAX_COMPONENTS
from tests.sinks.prometheus.pages import OUTSIDE, Feeder, Series, full_view, series_of

CPU = "lezea_component_cpu_seconds_total"


class Told:
    """What others tell of a run from now on, and the view that asks them."""

    def __init__(self) -> None:
        self.now = Outside()
        self.view = LiveView("run-1", lambda: self.now)

    def cpu_of(self, components: dict[str, float], types: dict[str, float]) -> Series:
        """Tell the core hours of components, all of the type ``t``, and of types; return the CPU seconds shown."""
        uses = {name: {"core_hours": hours, "component_type": "t"} for name, hours in components.items()}
        totals = {name: {"core_hours": hours} for name, hours in types.items()}
        self.now = Outside(accounts={"components": uses, "types": totals})
        return series_of(self.view).get(CPU, {})


def component(name: str, kind: str = "t") -> tuple[tuple[str, str], ...]:
    """Return the labels of a component's series."""
    return (("component", name), ("component_type", kind))


def test_accounts_become_seconds_bytes_and_joules() -> None:
    """What belongs to no component of its own stands under ``other``, by type; the rest is unattributed."""
    shown = series_of(full_view())
    tasker = component("tasker#0", "tasker")
    assert shown[CPU] == {tasker: 3600, component("other", "tasker"): 7200}
    assert shown["lezea_component_wall_seconds_total"] == {tasker: 7200}
    assert shown["lezea_component_memory_byte_seconds_total"] == {tasker: 1800 * 2**30}
    assert shown["lezea_component_gpu_seconds_total"] == {tasker: 900}
    assert shown["lezea_unattributed_cpu_seconds_total"] == {(): 1800}
    assert shown["lezea_energy_joules_total"] == {(): 7.2e6}
    assert shown["lezea_co2_grams_total"] == {(): 700}


def test_costs_and_budgets_are_shown_in_eur() -> None:
    """By kind, by what became of modifications, and by branch."""
    shown = series_of(full_view())
    assert shown["lezea_cost_eur_total"] == {(("kind", "cpu"),): 1, (("kind", "gpu"),): 0.5}
    verdicts = {(("verdict", "accepted"),): 0.25, (("verdict", "rejected"),): 0.75}
    assert shown["lezea_modification_cost_eur_total"] == verdicts
    assert shown["lezea_budget_eur"] == {(("branch", "run"),): 12}
    assert shown["lezea_budget_used_ratio"] == {(("branch", "run"),): 0.75}


def test_energy_comes_from_the_accounts_where_costs_do_not_tell() -> None:
    """Without prices there is energy all the same."""
    view = LiveView("run-1", lambda: Outside(accounts={"total": {"energy_kwh": 1.0}}, costs={"parts": None}))
    assert series_of(view)["lezea_energy_joules_total"] == {(): 3.6e6}


def test_the_health_of_each_destination_is_shown() -> None:
    """Whether it is up, how far behind it is, and what failed for which reason."""
    down = {"state": "down", "delivered": 0, "waiting": 9, "lag_s": 7, "rejected": 0, "failures": {}}
    view = LiveView("run-1", lambda: Outside(sinks={**OUTSIDE.sinks, "mongodb": down}))
    shown = series_of(view)
    mlflow, mongodb = (("sink", "mlflow"),), (("sink", "mongodb"),)
    assert shown["lezea_delivery_up"] == {mlflow: 1, mongodb: 0}
    assert shown["lezea_delivery_lag_seconds"] == {mlflow: 1.5, mongodb: 7}
    assert shown["lezea_delivery_waiting_records"] == {mlflow: 2, mongodb: 9}
    assert shown["lezea_delivery_records_total"] == {mlflow: 40, mongodb: 0}
    assert shown["lezea_delivery_rejected_total"] == {mlflow: 1, mongodb: 0}
    assert shown["lezea_delivery_failures_total"] == {(("reason", "timeout"), ("sink", "mlflow")): 3}


def test_components_have_series_in_their_order_of_appearance() -> None:
    """Also where the accounts, which forget the least recently used, have another order by then."""
    told = Told()
    feed = Feeder(told.view)
    first = [f"c{index}" for index in range(MAX_COMPONENTS)]
    feed("resource_use", uses=[{"component_id": name} for name in first[:30]])
    for name in first[30:]:
        feed("resource", component_id=name, cpu_percent=1.0)
    feed("resource_use", uses=[{"component_id": "late"}])
    shown = told.cpu_of({"late": 5.0} | dict.fromkeys(reversed(first), 1.0), {"t": 5.0 + MAX_COMPONENTS})
    assert list(shown) == [*map(component, first), component("other")]
    assert shown[component("other")] == 5 * 3600


def test_the_processes_own_samples_are_no_component() -> None:
    """They are the whole that components are parts of."""
    told = Told()
    Feeder(told.view)("resource", component_id="process", component_type="process", sample={"writer": "main"})
    shown = told.cpu_of({f"c{index}": 1.0 for index in range(MAX_COMPONENTS)}, {})
    assert len(shown) == MAX_COMPONENTS


def test_a_component_that_is_called_other_is_among_the_others() -> None:
    """Two series of one name would be none."""
    told = Told()
    assert told.cpu_of({"other": 1.0, "a": 1.0}, {"t": 3.0}) == {
        component("a"): 3600,
        component("other"): 7200,
    }


def test_what_is_too_long_for_an_id_takes_no_place() -> None:
    """The accounts know it under a shorter one."""
    told = Told()
    feed = Feeder(told.view)
    feed("resource_use", uses=[{"component_id": f"{index:0300}"} for index in range(MAX_COMPONENTS)])
    feed("resource_use", uses=[{"component_id": "a"}])
    assert component("a") in told.cpu_of(
        {f"c{index}": 1.0 for index in range(MAX_COMPONENTS)} | {"a": 1.0}, {}
    )


def test_a_counter_never_falls() -> None:
    """A component that the accounts forgot keeps what it had, and so do the others."""
    told = Told()
    told.cpu_of({"a": 2.0, "b": 1.0}, {"t": 4.0})
    assert told.cpu_of({"b": 1.0}, {"t": 4.0}) == {
        component("a"): 7200, component("b"): 3600, component("other"): 3600,
    }  # fmt: skip
    assert told.cpu_of({"a": 0.5, "b": 1.0}, {"t": 4.5})[component("a")] == 7200


def test_costs_may_fall_with_the_prices_alone() -> None:
    """A cost that falls for another reason is kept, for Prometheus would add the whole of it once more."""
    told = Told()
    seen = []
    for eur, prices_changed in [(3.0, False), (2.0, False), (1.0, True)]:
        told.now = Outside(costs={"parts": {"cpu": eur}})
        if prices_changed:
            Feeder(told.view)("rates", rates={})
        seen.append(series_of(told.view)["lezea_cost_eur_total"][(("kind", "cpu"),)])
    assert seen == [3.0, 3.0, 1.0]


def test_a_rounding_error_is_no_series() -> None:
    """Where all components of a type have their own series there is nothing left for the others."""
    told = Told()
    parts = {f"c{index}": 0.1 for index in range(10)}
    assert component("other") not in told.cpu_of(parts, {"t": sum(reversed([0.1] * 10)) + 1e-13})


HOURS = st.floats(0, 1e6)
GROWTH = st.lists(
    st.dictionaries(st.sampled_from([f"c{n}" for n in range(MAX_COMPONENTS + 20)]), HOURS), max_size=5
)


@given(GROWTH)
def test_the_series_of_a_type_add_up_to_the_type(steps: list[dict[str, float]]) -> None:
    """However many components there are, and however they grow, nothing is lost and nothing counts twice."""
    told = Told()
    hours: dict[str, float] = {}
    for step in steps:
        hours |= {name: hours.get(name, 0.0) + more for name, more in step.items()}
        whole = sum(hours.values())
        shown = told.cpu_of(hours, {"t": whole})
        assert abs(sum(shown.values()) - whole * 3600) <= 1e-6 * max(whole * 3600, 1.0)
        assert len(shown) <= MAX_COMPONENTS + 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from("""components types total unattributed core_hours component_type energy_kwh parts co2_g accepted
            modifications eur state failures waiting budget_eur ratio""".split()) | st.text(),
        inner, max_size=5,
    ),
    max_leaves=15,
)  # fmt: skip


@given(JSON, JSON, JSON, JSON)
def test_whatever_is_told_the_page_can_be_read(accounts: Any, costs: Any, sinks: Any, budgets: Any) -> None:
    """What is no number, or no table, is not shown."""
    view = LiveView("run-1", lambda: Outside(accounts, costs, sinks, budgets))
    assert "lezea_series_dropped" in series_of(view)
