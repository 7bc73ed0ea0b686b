"""Totals of resources: integrals over the time between samples, checked by hand."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.accounting import CostTotals, ResourceTotals

MINUTE = 60 * 1_000_000
APPROX = 1e-9


def totals(*samples: tuple[float, dict[str, Any]], component: str = "t0") -> dict[str, Any]:
    """Return the totals of samples, each at so many minutes."""
    use = ResourceTotals()
    for minutes, fields in samples:
        use.observe(int(minutes * MINUTE), {"component_id": component, **fields})
    return use.as_dict()


def test_a_core_for_an_hour_is_a_core_hour() -> None:
    """100 % of one core, sampled every ten minutes for an hour; two cores are twice that."""
    for cores in (1, 2):
        samples = [(minute, {"cpu_percent": 100.0 * cores}) for minute in range(0, 61, 10)]
        assert totals(*samples)["total"]["core_hours"] == pytest.approx(cores, rel=APPROX)


def test_between_samples_lies_a_straight_line() -> None:
    """From 0 to 100 % in six minutes is half of a tenth of an hour; memory and GPU alike."""
    start = {"cpu_percent": 0.0, "memory_mb": 1024.0, "gpu_util_percent": 50.0}
    end = {"cpu_percent": 100.0, "memory_mb": 3072.0, "gpu_util_percent": 50.0}
    total = totals((0, start), (6, end))["total"]
    assert total["core_hours"] == pytest.approx(0.05, rel=APPROX)
    assert total["gb_hours"] == pytest.approx(0.1 * 2, rel=APPROX)
    assert total["gpu_hours"] == pytest.approx(0.05, rel=APPROX)
    assert total["samples"] == 2


def test_one_sample_says_nothing_about_time() -> None:
    """It counts as a sample, its peak and its operations count, and no time passed."""
    known = totals((5, {"cpu_percent": 100.0, "memory_mb": 512.0, "io_operations": 7}))
    assert known["total"] == {
        "samples": 1,
        "core_hours": 0.0,
        "gb_hours": 0.0,
        "gpu_hours": 0.0,
        "io_operations": 7,
    }
    assert known["components"]["t0"]["peak_memory_mb"] == 512.0


@pytest.mark.parametrize(("minutes", "counted"), [(10, True), (10 + 1 / 60_000, False), (600, False)])
def test_a_gap_above_ten_minutes_is_not_counted(minutes: float, counted: bool) -> None:
    """Two samples so far apart do not tell what was used between them; counting goes on behind the gap."""
    busy = {"cpu_percent": 60.0}
    core_hours = totals((0, busy), (minutes, busy), (minutes + 5, busy))["total"]["core_hours"]
    assert core_hours == pytest.approx(0.6 * (minutes * counted + 5) / 60, rel=APPROX)


def test_a_clock_that_jumps_back_takes_nothing_away() -> None:
    """Time before the last sample is not counted, and the next interval begins there."""
    busy = {"cpu_percent": 60.0}
    assert totals((5, busy), (0, busy), (0, busy), (1, busy))["total"]["core_hours"] == pytest.approx(
        0.01, rel=APPROX
    )


def test_a_sample_that_does_not_speak_of_a_quantity_says_nothing_about_it() -> None:
    """CPU and memory that are logged in turn are integrated each between its own samples; so is what is not finite."""
    total = totals(
        (0, {"cpu_percent": 100.0}), (1, {"memory_mb": 1024.0}), (2, {"cpu_percent": "NaN"}),
        (3, {"memory_mb": 1024.0}), (4, {"cpu_percent": 100.0}), (5, {"memory_mb": "Infinity"}),
    )["total"]  # fmt: skip
    assert total["core_hours"] == pytest.approx(4 / 60, rel=APPROX)
    assert total["gb_hours"] == pytest.approx(2 / 60, rel=APPROX)
    assert total["samples"] == 6


def test_components_are_apart_and_together() -> None:
    """Each has its own clock, type and peak; the total is their sum."""
    use = ResourceTotals()
    for minute in (0, 5, 10):
        use.observe(minute * MINUTE, {"component_id": "a", "component_type": "tasker", "cpu_percent": 30.0})
        use.observe(
            (minute + 1) * MINUTE, {"component_id": "b", "cpu_percent": 60.0, "memory_mb": 100.0 * minute}
        )
    known = use.as_dict()
    assert known["components"]["a"]["core_hours"] == pytest.approx(0.05, rel=APPROX)
    assert known["components"]["b"]["core_hours"] == pytest.approx(0.10, rel=APPROX)
    assert known["total"]["core_hours"] == pytest.approx(0.15, rel=APPROX)
    assert (known["components"]["a"]["component_type"], known["components"]["b"]["component_type"]) == (
        "tasker",
        None,
    )
    assert known["components"]["b"]["peak_memory_mb"] == 1_000.0
    assert known["partial"] is False


def test_what_had_to_be_forgotten_stays_in_the_total() -> None:
    """Beyond 10,000 components the oldest is no longer apart, and its use is still counted."""
    use = ResourceTotals()
    for number in range(10_001):
        for minute in (0, 6):
            use.observe(
                minute * MINUTE, {"component_id": str(number), "cpu_percent": 100.0, "io_operations": 1}
            )
    known = use.as_dict()
    assert len(known["components"]) == 10_000
    assert "0" not in known["components"]
    assert known["total"]["core_hours"] == pytest.approx(1_000.1, rel=APPROX)
    assert (known["total"]["samples"], known["total"]["io_operations"]) == (20_002, 20_002)
    assert known["partial"] is True


@given(st.lists(st.tuples(st.integers(1, 20), st.floats(0, 6_400)), min_size=1, max_size=30))
def test_the_integral_is_the_sum_of_trapezia(samples: list[tuple[int, float]]) -> None:
    """For any samples the total is the plain sum over the intervals that count."""
    minute, at = 0, []
    for wait, percent in samples:
        minute += wait
        at.append((minute, percent))
    expected = math.fsum((b - a) / 60 * (p + q) / 200 for (a, p), (b, q) in pairwise(at) if b - a <= 10)
    total = totals(*((minute, {"cpu_percent": percent}) for minute, percent in at))["total"]
    assert total["core_hours"] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_costs_are_summed_and_what_is_not_finite_left_out() -> None:
    """One report of NaN does not make the whole sum NaN; of business metrics the last one counts."""
    costs = CostTotals()
    for fields in ({"cpu_hours": 1.5, "io_bytes": 10}, {"cpu_hours": "NaN", "mem_gb": 2}, {"cpu_hours": 0.5}):
        costs.observe_cost(fields)
    costs.observe_cost({"io_bytes": "Infinity"})
    for eur in (1.0, 8.73):
        costs.observe_business({"metrics": {"resource_cost_eur": eur}})
    costs.observe_business({"metrics": {"$blob": "ab", "size": 5}})
    assert costs.as_dict() == {
        "cpu_hours": 2.0, "mem_gb": 2.0, "io_bytes": 10.0, "business": {"resource_cost_eur": 8.73}, "partial": False,
    }  # fmt: skip
