"""What the records of a run become for Prometheus: names, units, labels, and values that are right."""

from __future__ import annotations

import math
import sys
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.events import CLASS_OF_TYPE, Envelope
from lezea_mlops.sinks.prometheus import MAX_SERIES, LiveView, render
from lezea_mlops.sinks.prometheus.families import FAMILIES
from tests.sinks.prometheus.pages import START_US, Feeder, count_of, full_view, series_of, value_of


@pytest.fixture
def view() -> LiveView:
    """A view of a run of which nothing is known yet."""
    return LiveView("run-1")


@pytest.fixture
def feed(view: LiveView) -> Feeder:
    """Feeds that view."""
    return Feeder(view)


def test_a_full_view_shows_every_name_and_no_other() -> None:
    """Whatever can be shown stands in the table of names, and everything in the table can be shown."""
    assert set(series_of(full_view())) == set(FAMILIES)


def test_every_series_says_of_which_run_it_is() -> None:
    """The label ``run`` stands at each of them."""
    lines = [line for line in render([full_view("abc")]).decode().splitlines() if not line.startswith("#")]
    assert [line for line in lines if 'run="abc"' not in line] == []


def test_a_run_is_running_until_its_newest_attempt_ends(view: LiveView, feed: Feeder) -> None:
    """The end of an attempt says nothing of a later one."""
    running = []
    told = [
        ("run_started", 1),
        ("run_finished", 1),
        ("run_started", 2),
        ("run_finished", 1),
        ("run_started", 1),
    ]
    for type_name, att in told:
        feed(type_name, att=att, experiment_name="Demo", status="killed", env={"hostname": "h"})
        running.append(value_of(view, "lezea_run_running"))
    assert running == [1, 0, 1, 1, 1]
    assert value_of(view, "lezea_run_info", experiment="Demo", attempt="2", host="h") == 1
    assert value_of(view, "lezea_run_started_timestamp_seconds") == START_US / 1e6 + 3
    assert value_of(view, "lezea_run_last_event_timestamp_seconds") == START_US / 1e6 + 5


def test_a_run_that_hangs_looks_silent(view: LiveView, feed: Feeder) -> None:
    """What the driver samples and adds up by itself is no sign of life of the program."""
    feed("training_step", step=1, metrics={"loss": 0.5})
    last = value_of(view, "lezea_run_last_event_timestamp_seconds")
    feed("resource", wid="courier", component_id="process", sample={"writer": "main"})
    feed("resource", component_id="process", sample={"writer": "main"})
    feed("budget_reached", wid="courier", branch="run", budget_eur=1, share=1.0)
    assert value_of(view, "lezea_run_last_event_timestamp_seconds") == last
    feed("training_step", step=2, metrics={"loss": 0.5})
    assert value_of(view, "lezea_run_last_event_timestamp_seconds") == last + 4


def test_events_are_counted_by_type(view: LiveView, feed: Feeder) -> None:
    """Also events of types that this version does not know."""
    for type_name in ("comment", "comment", "of_tomorrow"):
        feed(type_name)
    assert value_of(view, "lezea_events_total", type="comment") == 2
    assert value_of(view, "lezea_events_total", type="of_tomorrow") == 1


def test_a_record_that_comes_again_is_passed_over(view: LiveView) -> None:
    """Each number of each writer counts once, and one writer's numbers say nothing of another's."""
    for wid, seq in [("main", 1), ("main", 1), ("rank1", 1), ("main", 2), ("main", 1)]:
        view.observe(Envelope("comment", {"seq": seq, "ts": START_US, "wid": wid, "att": 1}, {}))
    assert value_of(view, "lezea_events_total", type="comment") == 3


def test_the_step_is_the_greatest_of_the_newest_attempt(view: LiveView, feed: Feeder) -> None:
    """Individuals that are behind do not set it back, and an attempt that begins again does."""
    for step in (5, 9, 7):
        feed("training_step", step=step, metrics={})
    assert value_of(view, "lezea_training_step") == 9
    feed("run_started", att=2, experiment_name="Demo")
    assert value_of(view, "lezea_training_step") is None
    for att, step in [(2, 6), (1, 8)]:
        feed("training_step", att=att, step=step, metrics={})
    assert value_of(view, "lezea_training_step") == 6


NAMED: list[tuple[str, dict[str, Any], str]] = [
    ("training_step", {"metrics": {"loss": 1.5}, "step": 1}, "loss"),
    ("training_step", {"metrics": {"loss": 1.5}, "step": 1, "data_split": "val"}, "val/loss"),
    (
        "training_step",
        {"metrics": {"loss": 1.5}, "step": 1, "data_split": "val", "scope": [["builder", "42"], ["layer", "3"]]},
        "builder:42/layer:3/val/loss",
    ),
    ("training_step", {"delta_loss": 1.5, "metrics": {}, "step": 1}, "delta_loss"),
    ("training_step", {"modification_statistics": {"n": 1.5}, "metrics": {}, "step": 1}, "modification/n"),
    ("metric", {"metrics": {"a": {"b": 1.5}}, "step": 1}, "a/b"),
    ("metric", {"metrics": {"a": {"$num": "1", "x": 2}, "b": 1.5}, "step": 1}, "b"),
    ("metric", {"key": "lr", "value": 1.5, "ctx": {"phase": "train"}}, "train/lr"),
    ("delta_loss", {"epoch": 1, "loss": 1.0, "prev_loss": 2.5, "delta_loss": 1.5}, "delta_loss"),
    ("reward", {"tasker_id": "t0", "reward": 1.5, "step": 1}, "reward/t0"),
    ("reward", {"source_id": "b", "target_id": "t0", "reward": 1.5, "step": 1}, "reward/t0"),
    ("fold", {"level": "tasker", "metric": "val/loss", "mean": 1.5, "step": 1}, "population/tasker/val/loss/mean"),
    ("result", {"result_dict": {"acc": 1.5}}, "results/acc"),
    ("modification_tree_stats", {"stats": {"depth": 1.5}, "step": 1}, "modtree/depth"),
    ("modification_stats", {"stats": {"mutations": 1.5}, "step": 1}, "modification/mutations"),
]  # fmt: skip


@pytest.mark.parametrize(("type_name", "payload", "name"), NAMED)
def test_a_metric_has_the_name_that_mlflow_shows(
    view: LiveView, feed: Feeder, type_name: str, payload: dict[str, Any], name: str
) -> None:
    """Scopes, split and kind stand before the name that was logged."""
    feed(type_name, **payload)
    assert series_of(view)["lezea_metric"] == {(("name", name),): 1.5}


def test_metrics_of_further_writers_stand_behind_their_name(view: LiveView, feed: Feeder) -> None:
    """As in MLflow; the plain names are those of ``main``."""
    feed("metric", wid="rank1", metrics={"loss": 1.0})
    assert value_of(view, "lezea_metric", name="rank1/loss") == 1


def test_the_last_value_of_a_metric_is_shown(view: LiveView, feed: Feeder) -> None:
    """Also where it is not finite."""
    for value in (1.0, 2.0, "-Infinity"):
        feed("metric", metrics={"x": value})
    assert value_of(view, "lezea_metric", name="x") == -math.inf
    assert value_of(view, "lezea_nonfinite_values_total") == 1


@pytest.mark.parametrize("scope", [[], [["layer", "3"]], [["tasker", "t1"]]])
@pytest.mark.parametrize("name", ["loss", "val/loss"])
@pytest.mark.parametrize("bad", ["NaN", "Infinity", {"$num": "NaN"}])
def test_a_loss_that_is_not_finite_is_told_while_it_is_not(
    view: LiveView, feed: Feeder, scope: list[list[str]], name: str, bad: Any
) -> None:
    """One finite value of the same metric ends it; what is no loss neither begins nor ends it."""
    told = []
    for metrics in ({"acc": "NaN"}, {name: bad}, {"acc": 1.0}, {name: 0.5}):
        feed("metric", metrics=metrics, scope=scope)
        told.append(value_of(view, "lezea_loss_nonfinite"))
    assert told == [0, 1, 1, 0]


def test_individuals_share_one_verdict_on_their_losses(view: LiveView, feed: Feeder) -> None:
    """An individual that diverged and was given up does not raise the alarm for ever; a shared loss does."""
    feed("metric", metrics={"loss": "NaN"}, scope=[["tasker", "t1"]])
    feed("metric", metrics={"loss": 1.0}, scope=[["tasker", "t2"]])
    assert value_of(view, "lezea_loss_nonfinite") == 0
    feed("metric", metrics={"loss": "NaN"})
    feed("metric", metrics={"loss": 1.0}, scope=[["tasker", "t2"]])
    assert value_of(view, "lezea_loss_nonfinite") == 1


def test_what_was_too_large_for_a_line_is_no_metric(view: LiveView, feed: Feeder) -> None:
    """Its pointer has a size, which says nothing of the run."""
    pointer = {"$blob": "ab" * 32, "size": 5}
    feed("metric", metrics=pointer)
    feed("metric", metrics={"a": pointer})
    feed("population", tasker_count=1, builder_count=1, generation=1, fitness_scores=pointer)
    assert not {"lezea_metric", "lezea_population_fitness"} & set(series_of(view))


def test_a_sample_becomes_process_gpu_and_host_in_base_units() -> None:
    """Seconds, bytes, watts, and ratios instead of percents; children are added."""
    shown = series_of(full_view())
    gpu = (("gpu", "0"), ("name", "NVIDIA H200"))
    main = (("writer", "main"),)
    assert {name: values for name, values in shown.items() if "_gpu_u" in name or "_host" in name} == {
        "lezea_gpu_utilization_ratio": {gpu: 0.37},
        "lezea_host_cpu_ratio": {(): 0.25},
        "lezea_host_memory_used_bytes": {(): 5000},
        "lezea_host_disk_used_ratio": {(): 0.25},
        "lezea_host_network_received_bytes_total": {(): 11},
        "lezea_host_network_sent_bytes_total": {(): 12},
    }
    assert shown["lezea_gpu_memory_used_bytes"] == {gpu: 2048}
    assert shown["lezea_gpu_power_watts"] == {gpu: 312.5}
    assert shown["lezea_gpu_temperature_celsius"] == {gpu: 54}
    assert shown["lezea_process_cpu_seconds_total"] == {main: 12.75}
    assert shown["lezea_process_memory_bytes"] == {main: 1024}
    assert shown["lezea_process_read_bytes_total"] == {main: 70}
    assert shown["lezea_process_written_bytes_total"] == {main: 80}


@pytest.mark.parametrize(
    "bad", [-1.0, "NaN", "Infinity", "text", None, [], {}, -(10**400)], ids=lambda bad: f"{bad!s:.9}"
)
def test_a_resource_that_cannot_be_is_not_shown(view: LiveView, feed: Feeder, bad: Any) -> None:
    """Negative, not finite, or no number: the other values of the sample are there."""
    feed("resource", sample={
        "writer": "main", "process": {"cpu_s": bad, "memory_bytes": 5},
        "gpus": [{"index": 0, "util_percent": bad, "power_w": 9}],
        "host": {"cpu_percent": bad, "disk_used_bytes": bad, "disk_total_bytes": 0, "network_sent_bytes": 3},
    })  # fmt: skip
    shown = series_of(view)
    assert shown["lezea_process_memory_bytes"] == {(("writer", "main"),): 5}
    assert list(shown["lezea_gpu_power_watts"].values()) == [9]
    assert shown["lezea_host_network_sent_bytes_total"] == {(): 3}
    hidden = {"lezea_process_cpu_seconds_total", "lezea_gpu_utilization_ratio", "lezea_host_cpu_ratio"}
    assert not hidden & set(shown)


def test_gpus_of_two_hosts_stay_apart(view: LiveView, feed: Feeder) -> None:
    """Each host has a GPU 0; the second one is called by its UUID."""
    for wid, uuid, power in [("main", "GPU-a", 1), ("main", "GPU-a", 3), ("rank1", "GPU-b", 2)]:
        gpu = {"index": 0, "uuid": uuid, "name": "H200", "power_w": power}
        feed(
            "resource", wid=wid, sample={"writer": wid, "gpus": [gpu], "host": {"network_sent_bytes": power}}
        )
    assert series_of(view)["lezea_gpu_power_watts"] == {
        (("gpu", "0"), ("name", "H200")): 3, (("gpu", "GPU-b"), ("name", "H200")): 2,
    }  # fmt: skip
    assert value_of(view, "lezea_host_network_sent_bytes_total") == 3


def test_the_population_is_that_of_the_newest_snapshot() -> None:
    """Its size by kind, its generation, and the figures of its fitness."""
    shown = series_of(full_view())
    assert shown["lezea_population_networks"] == {(("kind", "tasker"),): 8, (("kind", "builder"),): 2}
    assert shown["lezea_population_generation"] == {(): 3}
    fitness = {stat[0][1]: value for stat, value in shown["lezea_population_fitness"].items()}
    assert fitness == {"max": 3, "mean": 2, "min": 1}


def test_modifications_are_counted_by_type_and_verdict() -> None:
    """What is not decided is open, and is no part of the acceptance rate."""
    shown = series_of(full_view())
    assert shown["lezea_modifications_total"] == {
        (("type", "widen"), ("verdict", "accepted")): 1,
        (("type", "prune"), ("verdict", "rejected")): 1,
        (("type", "widen"), ("verdict", "open")): 1,
    }
    assert shown["lezea_modifications_accepted_ratio"] == {(): 0.5}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text()
    | st.sampled_from(["NaN", "Infinity", "loss", "main", "\ud800", "\0", "x" * 500]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["$num", "$blob", "index", "uuid", "process", "gpus", "host", "cpu_s", "component_id", "type"])
        | st.text(),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip
FIELDS = st.sampled_from(
    """step metrics data_split delta_loss modification_statistics key value ctx scope tasker_id
    target_id reward level metric split mean min max count result_dict stats modifications fitness_scores tasker_count
    builder_count generation sample component_id uses env experiment_name status""".split()
)
TYPES = st.sampled_from([*CLASS_OF_TYPE, "resource_use", "rates", "of_tomorrow", "", "\0"])
RECORDS = st.builds(
    Envelope, TYPES,
    st.fixed_dictionaries({
        "seq": st.integers(1, 50), "ts": st.integers() | st.just(10**400), "wid": st.sampled_from(["main", "r1", "\0"]),
        "att": st.integers(1, 3),
    }),
    st.dictionaries(FIELDS, JSON),
)  # fmt: skip


def test_a_page_is_made_while_the_run_logs() -> None:
    """No thread disturbs the other: all that came before is there, and each page can be read."""
    view = LiveView("run-1")
    feed, logged = Feeder(view), threading.Event()

    def log() -> None:
        for index in range(2_000):
            feed(f"type {index}", wid=f"w{index}")
            feed("metric", metrics={f"m{index}": 1.0}, scope=[["builder", str(index)]])
        logged.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=log)
    thread.start()
    try:
        while not logged.is_set():
            assert count_of(view) <= MAX_SERIES
        assert count_of(view) > 600
    finally:
        thread.join()
        sys.setswitchinterval(interval)


@given(st.lists(RECORDS, max_size=8))
def test_no_record_can_break_a_view(records: list[Envelope]) -> None:
    """Whatever a journal of another program holds, the page can be read, and has no series twice."""
    view = LiveView("run-1")
    for record in records:
        view.observe(record)
    assert 1 <= count_of(view) <= MAX_SERIES
