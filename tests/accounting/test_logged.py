"""Readings that components log: integrals over the time between samples, checked by hand."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.accounting import Accounts
from tests.accounting.streams import APPROX, logged, told


def totals(*samples: tuple[float, dict[str, Any]], component: str = "t0") -> dict[str, Any]:
    """Return the totals of samples, each at so many minutes."""
    return told(*(logged(minutes * 60, component, **fields) for minutes, fields in samples)).as_dict()


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
    assert {name: value for name, value in known["total"].items() if value} == {
        "samples": 1,
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


@pytest.mark.parametrize("percent", [-100.0, "NaN", 1e9, True, "100", None, [100]], ids=repr)
def test_what_is_no_percentage_is_not_integrated(percent: Any) -> None:
    """Negative, not finite, ten million cores, text: as if the sample had not spoken of it."""
    total = totals((0, {"cpu_percent": 100.0}), (3, {"cpu_percent": percent}), (6, {"cpu_percent": 100.0}))[
        "total"
    ]
    assert total["core_hours"] == pytest.approx(0.1, rel=APPROX)


def test_components_are_apart_and_together() -> None:
    """Each has its own clock, type and peak; the total is their sum, by type and by scope too."""
    scope = (("builder", "1"), ("layer", "2"))
    records = []
    for minute in (0, 5, 10):
        records.append(logged(minute * 60, "a", component_type="tasker", cpu_percent=30.0))
        records.append(logged(minute * 60 + 60, "b", scope, cpu_percent=60.0, memory_mb=100.0 * minute))
    known = told(*records).as_dict()
    assert known["components"]["a"]["core_hours"] == pytest.approx(0.05, rel=APPROX)
    assert known["components"]["b"]["core_hours"] == pytest.approx(0.10, rel=APPROX)
    assert known["total"]["core_hours"] == pytest.approx(0.15, rel=APPROX)
    assert [known["components"][name]["component_type"] for name in "ab"] == ["tasker", None]
    assert known["types"]["tasker"]["core_hours"] == pytest.approx(0.05, rel=APPROX)
    assert known["types"]["untyped"]["core_hours"] == pytest.approx(0.10, rel=APPROX)
    assert known["scopes"].keys() == {"builder:1", "builder:1/layer:2"}
    assert known["scopes"]["builder:1"] == known["scopes"]["builder:1/layer:2"]
    assert known["scopes"]["builder:1"]["core_hours"] == pytest.approx(0.10, rel=APPROX)
    assert known["components"]["b"]["peak_memory_mb"] == 1_000.0
    assert known["partial"] is False


def test_a_component_that_once_told_its_type_keeps_it() -> None:
    """``log_resource`` has no type to give; what was told before stands."""
    known = told(
        logged(0, "a", component_type="tasker", cpu_percent=100.0), logged(36, "a", cpu_percent=100.0)
    ).as_dict()
    assert known["types"].keys() == {"tasker"}
    assert known["types"]["tasker"]["core_hours"] == pytest.approx(0.01, rel=APPROX)


def test_what_had_to_be_forgotten_stays_in_the_total() -> None:
    """Beyond 10,000 components one is no longer apart, and its use is still counted; the first ones stay for good."""
    accounts = Accounts()
    for number in range(10_001):
        for minute in (0, 6):
            told(logged(minute * 60, str(number), cpu_percent=100.0, io_operations=1), accounts=accounts)
    known = accounts.as_dict()
    assert len(known["components"]) == 10_000
    assert "50" not in known["components"]
    assert list(accounts.first_components()) == [str(number) for number in range(50)]
    assert known["total"]["core_hours"] == pytest.approx(1_000.1, rel=APPROX)
    assert (known["total"]["samples"], known["total"]["io_operations"]) == (20_002, 20_002)
    assert known["partial"] is True


def test_nothing_is_used_between_two_attempts() -> None:
    """The time in which no process ran is not integrated."""
    accounts = told(logged(0, "t", cpu_percent=100.0), logged(360, "t", cpu_percent=100.0))
    accounts.restart()
    told(logged(480, "t", cpu_percent=100.0), logged(840, "t", cpu_percent=100.0), accounts=accounts)
    assert accounts.as_dict()["total"]["core_hours"] == pytest.approx(0.2, rel=APPROX)


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
