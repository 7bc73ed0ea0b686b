"""What a run cost: each kind of cost by hand, and what happens where a price or a number is missing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.accounting.streams import (
    APPROX,
    Record,
    at,
    gpu,
    logged,
    rates,
    sample,
    through_json,
    told,
    use,
    window,
)


def hours(gpus: list[dict[str, Any]], hours: float = 1.0, **process: Any) -> list[Record]:
    """Return the samples of a process that has these GPUs for so long."""
    return [sample(t, gpus=gpus, **process) for t in range(0, round(hours * 3_600) + 1, 300)]


def costs(*records: Record) -> dict[str, Any]:
    """Return what a stream of records costs."""
    return told(*records).costs()


def test_a_gpu_hour_at_two_euros_costs_two_euros() -> None:
    """Held and busy for a fifth of the time: what is held is paid for."""
    known = costs(rates(gpu_hour_eur=2.0), *hours([gpu(20)]))
    assert known["eur"] == pytest.approx(2, rel=APPROX)
    assert known["parts"] == pytest.approx(
        {"cpu": 0, "memory": 0, "gpu": 2, "io": 0, "storage": 0, "fixed": 0, "energy": 0}, rel=APPROX
    )
    assert known["unpriced"] == []


def test_where_nobody_tells_who_holds_a_gpu_its_use_is_paid_for() -> None:
    """A fifth of an hour."""
    assert costs(rates(gpu_hour_eur=2.0), *hours([gpu(20, held=None)]))["eur"] == pytest.approx(
        0.4, rel=APPROX
    )


def test_gpus_are_priced_by_name_then_by_default_and_else_told() -> None:
    """Once for each name, however many there are of it."""
    gpus = [gpu(uuid=f"GPU-{number}", name=name) for number, name in enumerate(["A", "B", "B", "C"])]
    assert costs(rates(gpu_hour_eur={"A": 3.0, "default": 1.0}), *hours(gpus))["eur"] == pytest.approx(
        6, rel=APPROX
    )
    known = costs(rates(gpu_hour_eur={"A": 3.0}), *hours(gpus))
    assert (known["eur"], known["unpriced"]) == (pytest.approx(3, rel=APPROX), ["GPU B", "GPU C"])
    assert costs(rates(core_hour_eur=1.0), *hours(gpus))["unpriced"] == ["GPU A", "GPU B", "GPU C"]


def test_each_kind_of_cost_by_hand() -> None:
    """One hour of 2 cores, 4 GB, one GPU of 360 W, 3 GB read; a checkpoint of 5 GB for 6 months; and a fixed part."""
    gb = 2**30
    prices = rates(
        core_hour_eur=0.1, gb_hour_eur=0.01, gpu_hour_eur=2.0, io_gb_eur=0.5, storage_gb_month_eur=0.02,
        storage_months=6, fixed_eur=1.0, kwh_eur=0.25, co2_g_per_kwh=400, core_watts=20,
    )  # fmt: skip
    samples = [
        sample(t, cpu_s=2.0 * t, memory_gb=4, read_bytes=3 * gb * t / 3_600, gpus=[gpu(power_w=360)])
        for t in range(0, 3_601, 300)
    ]
    known = costs(prices, *samples, ("checkpoint", {"path": "c.pt", "size": 5 * gb}, (), at(10)))
    assert known["energy_kwh"] == pytest.approx(0.36 + 0.04, rel=APPROX)
    assert known["co2_g"] == pytest.approx(160, rel=APPROX)
    assert known["parts"] == pytest.approx({
        "cpu": 0.2, "memory": 0.04, "gpu": 2.0, "io": 1.5, "storage": 0.6, "fixed": 1.0, "energy": 0.1,
    }, rel=APPROX)  # fmt: skip
    assert known["eur"] == pytest.approx(5.44, rel=APPROX)


def test_without_rates_there_are_no_costs_and_all_else_is_told() -> None:
    """None is not zero: nobody said what an hour costs."""
    known = costs(*hours([gpu(power_w=100)]), ("business", {"metrics": {"resource_cost_eur": 8.73}}, (), 0))
    assert (known["eur"], known["parts"], known["components"], known["co2_g"]) == (None, {}, {}, None)
    assert known["modifications"]["accepted"] == {"count": 0, "eur": None}
    assert known["energy_kwh"] == pytest.approx(0.1, rel=APPROX)
    assert (known["stated_eur"], known["unpriced"]) == (8.73, [])


def test_watts_and_grams_alone_are_no_prices() -> None:
    """Energy and CO2 are known, EUR are not."""
    known = costs(rates(core_watts=10, co2_g_per_kwh=300), window(0, 3_600, cpu_s=3_600.0))
    assert (known["eur"], known["energy_kwh"], known["co2_g"]) == (
        None,
        pytest.approx(0.01),
        pytest.approx(3),
    )


def test_components_types_and_scopes_have_their_costs() -> None:
    """Half of the process's hour in one component, in a scope: 1 core-hour and half of a GPU and of 8 GB."""
    prices = rates(core_hour_eur=0.1, gb_hour_eur=0.01, gpu_hour_eur=2.0, kwh_eur=0.5)
    windows = [
        window(t, t + 300, use("a", 150.0, 300.0, ("builder", "1"), component_type="tasker"), cpu_s=300.0 + t)
        for t in range(0, 3_600, 300)
    ]
    known = costs(prices, *hours([gpu(power_w=400)], memory_gb=8), *windows)
    own = 0.1 + 0.04 + 1.0 + 0.1
    assert known["components"] == {"a": pytest.approx(own, rel=APPROX)}
    assert known["types"] == {"tasker": pytest.approx(own, rel=APPROX)}
    assert known["scopes"] == {"builder:1": pytest.approx(own, rel=APPROX)}
    assert known["eur"] == pytest.approx(0.1 + 0.08 + 2.0 + 0.2, rel=APPROX)


def test_a_file_belongs_to_its_scope() -> None:
    """What a branch stores is part of what it costs."""
    stored = "artifact", {"path": "x", "name": "x", "size": 2**31}, (("builder", "1"),), at(0)
    known = costs(rates(storage_gb_month_eur=0.5), stored)
    assert (known["eur"], known["scopes"]) == (1.0, {"builder:1": 1.0})


def test_reports_of_the_whole_run_speak_of_what_was_measured_too() -> None:
    """They are no component and come on top of nothing: the total is the larger one."""
    report: Record = ("resource_cost", {"cpu_hours": 3.0, "mem_gb": 2.0, "io_bytes": 2**30}, (), at(0))
    prices = rates(core_hour_eur=0.1, gb_hour_eur=0.01, io_gb_eur=0.5)
    alone = costs(prices, report)
    assert alone["eur"] == pytest.approx(0.3 + 0.02 + 0.5, rel=APPROX)
    assert (alone["cpu_hours"], alone["mem_gb"], alone["io_bytes"]) == (3.0, 2.0, 2**30)
    busy = window(0, 36_000, cpu_s=36_000.0)
    assert costs(prices, report, busy)["parts"]["cpu"] == pytest.approx(1.0, rel=APPROX)
    known = told(prices, report, busy).as_dict()
    assert known["reported"]["core_hours"] == 3.0
    assert known["unattributed"]["core_hours"] == pytest.approx(10, rel=APPROX)


def test_a_report_of_a_scope_is_a_part() -> None:
    """It is that scope's, and comes on top of what components used."""
    scope = (("builder", "1"),)
    report: Record = ("resource_cost", {"cpu_hours": 3.0}, scope, at(0))
    known = told(
        rates(core_hour_eur=0.1), report, window(0, 3_600, use("t", 3_600.0, 3_600.0), cpu_s=3_600.0)
    )
    assert known.as_dict()["scopes"]["builder:1"]["core_hours"] == pytest.approx(3, rel=APPROX)
    assert known.as_dict()["total"]["core_hours"] == pytest.approx(4, rel=APPROX)
    assert known.as_dict()["unattributed"]["core_hours"] == pytest.approx(0, abs=1e-9)


def test_reports_are_summed_and_what_is_no_amount_left_out() -> None:
    """One report of NaN does not make the whole sum NaN; of business metrics the last one counts."""
    reports = (
        {"cpu_hours": 1.5, "io_bytes": 10},
        {"cpu_hours": "NaN", "mem_gb": 2},
        {"cpu_hours": 0.5, "mem_gb": -1},
    )
    known = costs(
        *(("resource_cost", fields, (), 0) for fields in (*reports, {"io_bytes": "Infinity"})),
        *(("business", {"metrics": {"resource_cost_eur": eur}}, (), 0) for eur in (1.0, 8.73)),
        ("business", {"metrics": {"$blob": "ab", "size": 5}}, (), 0),
    )
    assert {name: known[name] for name in ("cpu_hours", "mem_gb", "io_bytes", "business", "partial")} == {
        "cpu_hours": 2.0, "mem_gb": 2.0, "io_bytes": 10.0, "business": {"resource_cost_eur": 8.73}, "partial": False,
    }  # fmt: skip


def test_the_newest_rates_price_everything() -> None:
    """A price that was wrong is put right for what was used before it, too."""
    accounts = told(rates(gpu_hour_eur=2.0), *hours([gpu()]), rates(gpu_hour_eur=3.0))
    assert accounts.costs()["eur"] == pytest.approx(3, rel=APPROX)
    assert through_json(accounts).costs() == accounts.costs()


@pytest.mark.parametrize("price", ["cheap", -1.0, "NaN", None, True, [2.0], 1e300], ids=repr)
def test_a_rate_that_is_none_is_left_out(price: Any) -> None:
    """A foreign journal may hold anything; the other rates stand."""
    known = costs(
        rates(core_hour_eur=price, gpu_hour_eur={"NVIDIA H200": price, "default": 2.0}), *hours([gpu()])
    )
    assert known["parts"]["gpu"] == pytest.approx(2, rel=APPROX)
    assert known["parts"]["cpu"] == 0


def test_logged_gpu_time_costs_as_much_as_the_gpus_of_the_run_on_average() -> None:
    """A component that logs its GPU use does not say which GPU; the run had as much of A as of B."""
    gpus = [gpu(uuid=name, name=name) for name in "AB"]
    readings = [logged(t, "a", gpu_util_percent=50.0) for t in range(0, 3_601, 300)]
    known = costs(rates(gpu_hour_eur={"A": 1.0, "B": 3.0}), *hours(gpus), *readings)
    assert known["components"]["a"] == pytest.approx(0.5 * 2.0, rel=APPROX)
    assert known["eur"] == pytest.approx(4, rel=APPROX)
    alone = costs(rates(gpu_hour_eur={"A": 1.0}), *readings)
    assert (alone["eur"], alone["unpriced"]) == (0, ["GPU of unknown name"])
    assert costs(rates(gpu_hour_eur=3.0), *readings)["eur"] == pytest.approx(1.5, rel=APPROX)


def test_gpu_time_that_a_use_read_by_itself_is_paid_for_where_no_sample_tells_of_gpus() -> None:
    """With samples its part of what was held is paid for, as for all others."""
    row = use("a", 3_600.0, gpu_s=1_800.0)
    assert costs(rates(gpu_hour_eur=2.0), window(0, 3_600, row))["components"]["a"] == pytest.approx(
        1, rel=APPROX
    )
    sampled = costs(rates(gpu_hour_eur=2.0), window(0, 3_600, row), *hours([gpu(50)]))
    assert (sampled["components"]["a"], sampled["eur"]) == pytest.approx((2, 2), rel=APPROX)


def test_totals_hold_the_rows_that_cost_most_and_tell_how_many_are_missing() -> None:
    """A record of ten thousand components would be too long for its line."""
    accounts = told(
        rates(core_hour_eur=3_600.0), window(0, 50, *(use(f"c{n}", 1.0, float(n)) for n in range(50)))
    )
    totals = accounts.totals(most=3)
    assert (
        list(totals["resources"]["components"])
        == list(totals["costs"]["components"])
        == ["c49", "c48", "c47"]
    )
    assert totals["resources"]["left_out"] == {"components": 47}
    assert totals["costs"]["components"]["c49"] == pytest.approx(49, rel=APPROX)
    assert totals["resources"]["total"] == accounts.as_dict()["total"]
    assert "left_out" not in accounts.totals()["resources"]


def test_what_is_asked_each_second_holds_no_tables() -> None:
    """The same sums as the whole."""
    accounts = told(rates(core_hour_eur=1.0), window(0, 1, use("a", 1.0, 1.0, ("builder", "1")), cpu_s=2.0))
    brief, whole = accounts.totals_only(), accounts.totals()
    assert whole["resources"].keys() - brief["resources"].keys() == {"components", "types", "scopes"}
    assert all(brief["resources"][name] == whole["resources"][name] for name in brief["resources"])
    assert brief["costs"]["eur"] == whole["costs"]["eur"]
    assert "components" not in brief["costs"]
