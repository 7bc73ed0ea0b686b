"""Running figures of metrics: equal to those of a loop over all values, in bounded memory."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.insight import SeriesTable, metric_name

NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32) | st.integers(-(2**63), 2**64 - 1)
TEXTS = st.sampled_from(["NaN", "Infinity", "-Infinity"])


def figures(table: SeriesTable, name: str) -> dict[str, Any]:
    """Return the figures of one metric."""
    return table.as_dict()[name]


@pytest.mark.parametrize("way", ["take_step", "observe"])
@given(series=st.lists(st.tuples(st.integers(0, 100), NUMBERS | TEXTS), min_size=1, max_size=30))
def test_figures_are_those_of_a_loop(way: str, series: list[tuple[int, Any]]) -> None:
    """Count, first, last, least and greatest with their first steps, and the mean over what is finite."""
    table = SeriesTable()
    for step, value in series:
        if way == "take_step":
            table.take_step((), None, step, {"x": value})
        else:
            table.group((), None).observe(step, {"x": value})
    finite = [(step, value) for step, value in series if not isinstance(value, str)]
    expected: dict[str, Any] = {
        "count": len(series), "nonfinite": len(series) - len(finite), "last_step": series[-1][0],
    }  # fmt: skip
    if finite:
        least, greatest = min(v for _, v in finite), max(v for _, v in finite)
        expected |= {
            "first": finite[0][1], "last": finite[-1][1], "min": least, "max": greatest,
            "min_step": next(s for s, v in finite if v == least),
            "max_step": next(s for s, v in finite if v == greatest),
            "mean": pytest.approx(
                math.fsum(v for _, v in finite) / len(finite), rel=1e-9, abs=1e-3 * max(abs(least), abs(greatest))
            ),
        }  # fmt: skip
    assert figures(table, "x") == expected


def test_the_first_value_is_the_first_finite_one() -> None:
    """A run that begins with NaN has a first value all the same."""
    table = SeriesTable()
    for value in ("NaN", 3.0, 5.0):
        table.take_step((), None, 1, {"x": value})
    assert (figures(table, "x")["first"], figures(table, "x")["mean"]) == (3.0, 4.0)


def test_names_hold_scopes_split_and_metric() -> None:
    """As everywhere: scopes outermost first, then the split, then the name."""
    assert metric_name((("builder", "42"), ("layer", "3")), "val", "loss") == "builder:42/layer:3/val/loss"
    assert metric_name((), None, "loss") == "loss"


def test_running_counts_are_per_scope_split_and_name() -> None:
    """A call without a step gets the next number of its own series."""
    table = SeriesTable()
    for _ in range(3):
        table.take_step((), None, 1, {"a": 1.0})
    table.take_step((), "val", 1, {"a": 1.0, "b": 1.0})
    group, val = table.group((), None), table.group((), "val")
    assert [group.next_step("a"), group.next_step("b"), val.next_step("a"), val.next_step("c")] == [
        4,
        1,
        2,
        1,
    ]
    assert table.steps == 4


def test_a_new_attempt_compares_with_nothing_before() -> None:
    """After ``restart`` the next loss of every scope and split has no delta."""
    table = SeriesTable()
    for split in (None, "val"):
        table.take_step((), split, 1, {"loss": 1.0})
    table.restart()
    assert [table.take_step((), split, 1, {"loss": 0.5}) for split in (None, "val")] == [None, None]
    assert [table.take_step((), split, 1, {"loss": 0.25}) for split in (None, "val")] == [0.25, 0.25]


LIMIT = 5
CALLS = st.lists(st.tuples(st.integers(0, 7), st.sets(st.sampled_from("abcdefgh"), max_size=4)), max_size=60)


@given(CALLS)
def test_never_more_names_than_the_limit_and_none_uncounted(calls: list[tuple[int, set[str]]]) -> None:
    """Whatever comes: names that are here and names that left are together all there were."""
    table = SeriesTable(LIMIT)
    for scope, names in calls:
        table.take_step((("tasker", str(scope)),), None, 1, dict.fromkeys(sorted(names), 1.0))
        assert len(table.as_dict()) <= LIMIT
        assert len(table.as_dict()) + table.evicted == table.names_seen


@given(CALLS)
def test_the_least_recently_used_scope_leaves_first(calls: list[tuple[int, set[str]]]) -> None:
    """Which scopes are left, with which names, is what a plain model of it says."""
    table = SeriesTable(LIMIT)
    model: OrderedDict[int, set[str]] = OrderedDict()
    for scope, letters in calls:
        # So few names that no scope alone fills the table.
        names = sorted(letters & set("abcd"))
        table.take_step((("tasker", str(scope)),), None, 1, dict.fromkeys(names, 1.0))
        model[scope] = model.pop(scope, set()) | set(names)
        while sum(map(len, model.values())) > LIMIT or len(model) > LIMIT:
            model.popitem(last=False)
        assert set(table.as_dict()) == {f"tasker:{s}/{name}" for s, names in model.items() for name in names}


def test_in_one_scope_the_names_in_use_stay() -> None:
    """A loss that is logged again and again is not pushed out by names that come once, nor is its count lost."""
    table = SeriesTable(100)
    for number in range(1_000):
        table.take_step((), None, number, {"loss": 1.0, f"once {number}": 1.0})
    assert figures(table, "loss")["count"] == 1_000
    assert "once 999" in table.as_dict()
    assert len(table.as_dict()) == 100


def test_a_name_that_fell_silent_leaves() -> None:
    """One that was logged often, and then no more, goes too."""
    table = SeriesTable(100)
    for _ in range(50):
        table.take_step((), None, 1, {"old": 1.0})
    for number in range(400):
        table.take_step((), None, number, {f"new {number}": 1.0})
    assert "old" not in table.as_dict()


def test_scopes_without_names_are_bounded_too() -> None:
    """Asking for the next step of ever new scopes keeps no more of them than the limit."""
    table = SeriesTable(LIMIT)
    table.take_step((), None, 1, {"x": 1.0})
    for number in range(100):
        table.group((("tasker", str(number)),), None).next_step("x")
    assert table.evicted == 1
    for number in range(LIMIT * 2):
        table.take_step((), None, 1, {str(number): 1.0})
    assert len(table.as_dict()) == LIMIT


@given(CALLS, CALLS)
def test_a_restored_table_lets_the_same_names_go(
    before: list[tuple[int, set[str]]], after: list[tuple[int, set[str]]]
) -> None:
    """At its limit too a pause between two calls is not seen: neither in figures, nor in what leaves next."""
    first, second = SeriesTable(LIMIT), SeriesTable(LIMIT)

    def take(table: SeriesTable, calls: list[tuple[int, set[str]]]) -> None:
        for number, (scope, names) in enumerate(calls):
            values = dict.fromkeys(sorted(names), float(number)) | {"loss": 1.0 / (number + 1)}
            table.take_step((("tasker", str(scope // 3)),), None, number, values)

    take(first, before)
    second.restore(json.loads(json.dumps(first.state(), allow_nan=False)))
    take(first, after)
    take(second, after)
    assert list(second.as_dict().items()) == list(first.as_dict().items())
    assert (second.evicted, second.names_seen) == (first.evicted, first.names_seen)
    assert second.state() == first.state()
