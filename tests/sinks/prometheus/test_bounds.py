"""A run has at most 1,000 series and a bounded memory, whatever it logs; what finds no place is counted."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lezea_mlops.sinks.prometheus import MAX_SERIES, LiveView, Outside
from lezea_mlops.sinks.prometheus.families import FAMILIES, Exposition
from lezea_mlops.sinks.prometheus.labels import MAX_COUNTED, MAX_LABEL, label_text
from lezea_mlops.sinks.prometheus.last_values import MAX_METRICS
from tests.sinks.prometheus.pages import OUTSIDE, SAMPLE, Feeder, count_of, series_of, value_of

DROPPED = "lezea_series_dropped"

# Makes the record of the n-th, and the name of the metric that it brings.
OfIndividual = tuple[Callable[[int], tuple[str, dict[str, Any]]], str]


def many(of: Any, number: int, name: str = "") -> dict[str, Any]:
    """Return a table of so many equal values."""
    return {f"{name}{index}": of for index in range(number)}


def everything_in_abundance() -> LiveView:
    """Return a view of a run that has far too much of everything."""
    health = OUTSIDE.sinks["mlflow"] | {"failures": many(1, 100)}
    use = {**OUTSIDE.accounts["components"]["tasker#0"], "component_type": "t0"}
    outside = Outside(
        {**OUTSIDE.accounts, "components": many(use, 500), "types": many({**use, "core_hours": 999.0}, 500, "t")},
        {**OUTSIDE.costs, "parts": many(1.0, 500)}, many(health, 500), many(OUTSIDE.budgets["run"], 500),
    )  # fmt: skip
    view = LiveView("run-1", lambda: outside)
    feed = Feeder(view)
    feed("run_started", experiment_name="Demo", env={"hostname": "h"})
    gpu = SAMPLE["gpus"][0]
    for index in range(500):
        feed(f"type {index}")
        gpus = [{**gpu, "index": index, "uuid": f"GPU-{index}"}]
        feed("resource", sample={**SAMPLE, "writer": f"w{index}", "gpus": gpus})
    proposed = [{"id": str(index), "type": f"op{index // 3}", "accepted": (True, False, None)[index % 3]}
                for index in range(1_500)]  # fmt: skip
    feed("modification_tree", step=1, modifications=proposed)
    feed("population", tasker_count=1, builder_count=1, generation=1, fitness_scores=[1.0] * 500)
    feed("training_step", step=1, metrics=many(1.0, 2_000, "m"))
    return view


def test_a_run_with_too_much_of_everything_has_a_thousand_series() -> None:
    """Every name of the table is there, and metrics take the places that are left."""
    shown = series_of(everything_in_abundance())
    assert sum(map(len, shown.values())) == MAX_SERIES
    assert set(shown) == set(FAMILIES)
    assert len(shown["lezea_metric"]) > 100


def test_no_page_is_larger_whoever_adds_to_it() -> None:
    """The last place is that of the number of series that found none."""
    page = Exposition("run-1")
    for index in range(MAX_SERIES + 500):
        page.add("lezea_metric", 1.0, str(index))
        page.add("lezea_metric", 2.0, "0")
    page.show_dropped(7)
    rows = {
        sample.labels.get("name"): sample.value for family in page.families() for sample in family.samples
    }
    assert len(rows) == MAX_SERIES
    assert (rows["0"], rows[None]) == (2.0, 501 + 7)


def test_what_is_not_shown_is_counted_once() -> None:
    """One for each series, also if it comes again and again, and if the page is asked for often."""
    view = LiveView("run-1")
    feed = Feeder(view)
    for _round in range(3):
        feed("metric", metrics=many(1.0, MAX_METRICS + 70))
    assert [value_of(view, DROPPED) for _scrape in range(2)] == [70, 70]
    assert len(series_of(view)["lezea_metric"]) == MAX_METRICS


def of_level(level: str) -> OfIndividual:
    """Return what brings a metric of the n-th individual of a level."""

    def record(index: int) -> tuple[str, dict[str, Any]]:
        return "metric", {"metrics": {"loss": 1.0}, "scope": [[level, str(index)], ["layer", "1"]]}

    return record, level + ":{}/layer:1/loss"


INDIVIDUALS: dict[str, OfIndividual] = {
    "builder": of_level("builder"),
    "tasker": of_level("tasker"),
    "reward": (lambda n: ("reward", {"tasker_id": str(n), "reward": 1.0}), "reward/{}"),
    "writer": (lambda n: ("metric", {"wid": f"rank{n}", "metrics": {"loss": 1.0}}), "rank{}/loss"),
}


@pytest.mark.parametrize("of", INDIVIDUALS)
def test_names_that_all_share_come_before_those_of_individuals(of: str) -> None:
    """Those of individuals that came first make way; in which order they came decides which of them stay."""
    view = LiveView("run-1")
    feed = Feeder(view)
    record, name = INDIVIDUALS[of]
    for index in range(MAX_METRICS):
        type_name, payload = record(index)
        feed(type_name, **payload)
    assert value_of(view, DROPPED) == 0
    for index in range(100):
        feed("metric", metrics={"loss": 2.0}, scope=[["layer", str(index)]])
    names = [labels[0][1] for labels in series_of(view)["lezea_metric"]]
    individuals = [name.format(index) for index in range(MAX_METRICS - 100)]
    assert names == [f"layer:{index}/loss" for index in range(100)] + individuals
    assert value_of(view, DROPPED) == 100


def test_event_types_and_operators_beyond_the_limit_are_counted_together() -> None:
    """Nothing is lost in the sum."""
    view = everything_in_abundance()
    shown = series_of(view)
    # The records that ``everything_in_abundance`` feeds, by hand.
    assert sum(shown["lezea_events_total"].values()) == 1 + 500 + 500 + 3
    assert sum(shown["lezea_modifications_total"].values()) == 1_500
    assert shown["lezea_modifications_total"][("type", "other"), ("verdict", "open")] == 500 - 20


def streams() -> dict[str, Callable[[int], tuple[str, dict[str, Any]]]]:
    """Return, by what there may be any number of, the record that brings the n-th of it."""
    metric = "metric"
    return {
        "metric names": lambda n: (metric, {"metrics": {f"name {n}": 1.0, "x" * 20_000 + str(n): 1.0}}),
        "losses": lambda n: (metric, {"metrics": {f"{n}/loss": "NaN"}}),
        "individuals": lambda n: (metric, {"metrics": {"loss": "NaN"}, "scope": [["tasker", str(n)]]}),
        "types": lambda n: (f"type {n}" + "y" * 300, {}),
        "components": lambda n: ("resource_use", {"uses": [{"component_id": f"c{n}" + "z" * 900}]}),
        "gpus": lambda n: ("resource", {"sample": {"gpus": [{"uuid": f"GPU-{n}", "power_w": 1.0}]}}),
        "samplers": lambda n: ("resource", {"sample": {"writer": f"w{n}", "process": {"cpu_s": 1.0}}}),
        "operators": lambda n: ("modification_tree", {"modifications": [{"type": f"op{n}" + "o" * 300}]}),
        "writers": lambda n: (metric, {"wid": f"w{n}" + "v" * 50, "metrics": {"loss": 1.0}}),
    }


@pytest.mark.slow
@pytest.mark.parametrize("of", streams())
def test_memory_does_not_grow_with_what_a_run_logs(of: str) -> None:
    """After the 20,000th of anything, 20,000 more of it take no further memory, and the page is not larger."""
    view = LiveView("run-1")
    feed = Feeder(view)
    record = streams()[of]
    numbers: Iterator[int] = count()

    def observe_and_measure() -> tuple[int, int]:
        for _ in range(20_000):
            type_name, payload = record(next(numbers))
            feed(type_name, **payload)
        return tracemalloc.get_traced_memory()[0], count_of(view)

    tracemalloc.start()
    try:
        before, shown_before = observe_and_measure()
        after, shown = observe_and_measure()
    finally:
        tracemalloc.stop()
    assert shown == shown_before <= MAX_SERIES
    assert after - before < 100_000
    assert before < 5_000_000


def test_a_hundred_thousand_components_are_fifty_series_of_each_kind() -> None:
    """The rest are one, and what they used is in it."""
    number = 100_000
    use = {"core_hours": 1.0, "component_type": "t"}
    table = many(use, number)
    view = LiveView(
        "run-1", lambda: Outside({"components": table, "types": {"t": {"core_hours": float(number)}}})
    )
    feed = Feeder(view)
    for name in table:
        feed("resource_use", uses=[{"component_id": name}])
    shown = series_of(view)["lezea_component_cpu_seconds_total"]
    assert len(shown) == 51
    assert sum(shown.values()) == number * 3600
    assert value_of(view, DROPPED) == (number - 50) * 4


def test_so_many_things_are_told_apart_while_they_are_counted() -> None:
    """Beyond it, what was dropped is that many and more."""
    view = LiveView("run-1")
    Feeder(view)("metric", metrics=many(1.0, MAX_COUNTED + MAX_METRICS + 500))
    assert value_of(view, DROPPED) == MAX_COUNTED


TEXT = st.text(st.characters()) | st.text(min_size=MAX_LABEL - 1, max_size=MAX_LABEL + 20)


@given(TEXT, TEXT)
@example("a\0b", "a?b")
@example("a\ud800b", "a\ud801b")
def test_labels_are_short_and_stay_apart(one: str, other: str) -> None:
    """Different texts are different labels, and each can be written as UTF-8."""
    for text in (one, other):
        label = label_text(text)
        assert len(label) <= MAX_LABEL
        assert "\0" not in label.encode().decode()
    assert (label_text(one) == label_text(other)) == (one == other)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=MAX_LABEL))
def test_a_short_text_is_its_own_label(text: str) -> None:
    """Whatever language it is in."""
    assert label_text(text) == text


@pytest.mark.parametrize("value", [None, [], {}, object])
def test_what_is_no_text_has_an_empty_label(value: Any) -> None:
    """And a number is written as one."""
    assert label_text(value) == ""
    assert label_text(7) == "7"
