"""Introspection: what the tracker says of a run is what the journal says."""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lezea_mlops.journal import read_run
from lezea_mlops.runtime.figures import RunFigures
from lezea_mlops.tracker import ExperimentTracker


def offline() -> ExperimentTracker:
    """Return a tracker that only writes its journal."""
    return ExperimentTracker("Demo", purpose="sanity", settings={"mode": "offline"})


NAMES = st.sampled_from(["loss", "acc", "delta_loss", "a/b", "🙂"])
VALUES = st.floats(width=32) | st.integers(-(2**63), 2**64 - 1)
STEPS = st.integers(0, 9) | st.none()
SCOPES = st.sampled_from([(), (("builder", "1"),), (("builder", "1"), ("layer", "2")), (("layer", "2"),)])
METRICS = st.dictionaries(NAMES, VALUES, max_size=3)
CALLS = st.lists(
    st.tuples(SCOPES, st.one_of(
        st.tuples(st.just("log_training_step"), STEPS, METRICS, st.sampled_from([None, "train", "val"])),
        st.tuples(st.just("log_metrics"), METRICS, STEPS),
        st.tuples(st.just("log_reward"), st.sampled_from(["t0", "t1"]), VALUES, STEPS),
        st.tuples(st.just("log_delta_loss"), STEPS, VALUES, VALUES),
        st.tuples(st.just("log_modification_stats"), METRICS, STEPS),
        st.tuples(st.just("log_modification_tree_stats"), METRICS, STEPS),
    )),
    max_size=25,
)  # fmt: skip


def log_all(tracker: ExperimentTracker, calls: list[tuple[Any, Any]]) -> None:
    """Make each call in its scopes."""
    for scopes, (name, *arguments) in calls:
        with contextlib.ExitStack() as stack:
            for level, identity in scopes:
                stack.enter_context(tracker.scope(level, identity))
            getattr(tracker, name)(*arguments)


def points_of(record: Any) -> list[tuple[str, int, Any]]:
    """Return name, step and value of each number of a record, as a reader of the format would find them."""
    p = record.payload
    place = [f"{level}:{identity}" for level, identity in p.get("scope", [])]
    step, values = p.get("step", p.get("epoch")), {}
    if record.type in ("training_step", "metric"):
        place += [p["data_split"]] if "data_split" in p else []
        values = dict(p["metrics"])
    elif record.type in ("modification_stats", "modification_tree_stats"):
        place.append("modtree" if "tree" in record.type else "modification")
        values = {name: value for name, value in p["stats"].items() if not isinstance(value, dict)}
    elif record.type == "reward":
        place.append("reward")
        values = {p["tasker_id"]: p["reward"]}
    if "delta_loss" in p:
        values["delta_loss"] = p["delta_loss"]
    return [("/".join([*place, name]), step, value) for name, value in values.items()]


def figures_by_a_plain_loop(tracker: ExperimentTracker) -> dict[str, dict[str, Any]]:
    """Compute from the journal, all values at hand, what the tracker computes while they pass."""
    points: dict[str, list[tuple[int, Any]]] = {}
    for record in read_run(tracker.run_dir):
        for name, step, value in points_of(record):
            points.setdefault(name, []).append((step, value))
    expected = {}
    for name, series in points.items():
        finite = [(step, value) for step, value in series if not isinstance(value, str)]
        expected[name] = {
            "count": len(series), "nonfinite": len(series) - len(finite), "last_step": series[-1][0],
        }  # fmt: skip
        if finite:
            values = [value for _, value in finite]
            expected[name] |= {
                "first": values[0], "last": values[-1], "min": min(values), "max": max(values),
                "min_step": next(step for step, value in finite if value == min(values)),
                "max_step": next(step for step, value in finite if value == max(values)),
                "mean": pytest.approx(math.fsum(values) / len(values), rel=1e-9, abs=1e-3 * max(map(abs, values))),
            }  # fmt: skip
    return expected


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CALLS)
def test_the_figures_are_those_of_a_plain_loop_over_the_journal(calls: list[tuple[Any, Any]]) -> None:
    """Count, first, last, least, greatest, mean and their steps, for any stream of numbers in any scopes."""
    tracker = offline()
    log_all(tracker, calls)
    assert tracker.get_experiment_data()["metrics"] == figures_by_a_plain_loop(tracker)
    summary = tracker.get_experiment_summary()
    expected = figures_by_a_plain_loop(tracker)
    assert summary["metrics"] == {name: each["last"] for name, each in expected.items() if "last" in each}
    trained = [record for record in read_run(tracker.run_dir) if record.type in ("training_step", "metric")]
    last = {
        name: step for record in trained for name, step, _ in points_of(record) if "delta_loss" not in name
    }
    assert summary["last_step"] == max(last.values(), default=None)
    assert summary["events"] == Counter(record.type for record in read_run(tracker.run_dir))


def log_everything(tracker: ExperimentTracker) -> None:
    """Call everything once or twice, good and bad."""
    tracker.log_lezea_config(64, 4, "SAC", hyperparameters={"lr": 3e-4})
    tracker.log_constraints(60, {"maze": 200})
    tracker.log_params({"lr": 0.1, "net": {"depth": 2}, "nan": math.nan})
    for step in range(5):
        with tracker.builder_scope(step % 2):
            tracker.log_training_step(
                step, {"loss": 1.0 / (step + 1), "bad": None}, "val" if step % 2 else None
            )
    tracker.log_modification_tree(
        1, [{"type": "widen", "accepted": True}, {"type": "prune", "accepted": False}]
    )
    tracker.log_modification_tree_stats({"depth": 3, "rate": math.nan})
    tracker.log_modification_stats({"widen": 3, "kind": "text"})
    tracker.log_data_splits(["a", "b"], ["c"], ["d"])
    tracker.log_data_usage(["a", "b", "a"], 1)
    tracker.log_data_score("a", 1.0, 0.5)
    tracker.log_data_score("b", 1.0, math.nan)
    tracker.log_delta_loss(3, 0.5, 1.0)
    tracker.log_resource("t0", cpu=50.0, mem=512.0)
    tracker.log_component_resources("t0", "tasker", 70.0, io_operations=5)
    tracker.log_results({"score": 0.5}, tasker_rewards={"t0": 1})
    tracker.log_reward("t0", 0.5)
    tracker.log_reward_flow("b0", "t0", "builder", "tasker", 0.25)
    tracker.log_population_snapshot(3, 1, 0, {"t0": 0.1, "t1": 0.9}, 0.5)
    tracker.log_population_snapshot(3, 1, 1, [0.4, math.inf], math.nan)
    tracker.register_network("n0")
    tracker.log_resource_cost(1.0, 2.0, math.inf)
    tracker.log_business_metrics(8.73)
    tracker.log_text("plan", "plan.md")
    tracker.log_comment("fine")
    tracker.log_conclusion("better")


def test_reading_the_journal_back_gives_the_same_figures() -> None:
    """The aggregates of a live run and those of its journal are equal, whatever was called."""
    tracker = offline()
    log_everything(tracker)
    data = tracker.get_experiment_data()
    read = RunFigures().read(read_run(tracker.run_dir)).as_dict()
    assert {name: data[name] for name in read} == read
    assert data.keys() - read.keys() == {
        "experiment_id", "experiment_name", "purpose", "status", "attempt", "duration_s",
    }  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CALLS)
def test_reading_back_gives_the_same_for_any_stream(calls: list[tuple[Any, Any]]) -> None:
    """Also for any numbers in any scopes and splits."""
    tracker = offline()
    log_all(tracker, calls)
    read = RunFigures().read(read_run(tracker.run_dir)).as_dict()
    assert read["metrics"] == tracker.get_experiment_data()["metrics"]
    assert read["events"] == tracker.get_experiment_data()["events"]


def test_reading_back_several_attempts_compares_no_loss_with_the_attempt_before() -> None:
    """The deltas that a reader computes are those in the journal, over a resume too."""
    first = offline()
    first.log_training_step(1, {"loss": 1.0})
    first.end("failed")
    second = ExperimentTracker("Demo", resume=first.experiment_id, settings={"mode": "offline"})
    second.log_training_step(1, {"loss": 0.5})
    second.log_training_step(2, {"loss": 0.25})
    read = RunFigures().read(read_run(first.run_dir)).as_dict()
    assert read["metrics"]["delta_loss"]["count"] == 1
    assert read["metrics"] == figures_by_a_plain_loop(second)


def test_the_summary_fits_on_a_page_and_is_what_the_end_records() -> None:
    """It names the run, and the run's last record holds the same figures."""
    tracker = offline()
    log_everything(tracker)
    summary = tracker.get_experiment_summary()
    assert (summary["experiment_id"], summary["experiment_name"]) == (tracker.experiment_id, "Demo")
    assert (summary["purpose"], summary["status"], summary["attempt"]) == ("sanity", "created", 1)
    assert summary["metrics"]["builder:1/val/loss"] == 0.25
    assert summary["population"]["best"] == {"fitness": 0.9, "id": "t1", "generation": 0}
    assert summary["modifications"] == {"proposed": 2, "accepted": 1}
    reported = {"cpu_hours": 1.0, "mem_gb": 2.0, "io_bytes": 0.0, "business": {"resource_cost_eur": 8.73}}
    assert summary["costs"].items() >= reported.items()
    assert summary["conclusion"] == {"text": "better"}
    assert summary["config"]["hyperparameters"] == {"lr": 3e-4}
    assert summary["partial"] is False
    assert len(json.dumps(summary)) < 5_000
    tracker.end()
    *_, end = read_run(tracker.run_dir)
    assert {name: summary[name] for name in end.event.summary} == end.event.summary


def test_what_is_returned_is_the_callers_own() -> None:
    """Changing what an introspection call returned changes nothing inside."""
    tracker = offline()
    log_everything(tracker)
    before = json.dumps(tracker.get_experiment_data()["metrics"])
    data = tracker.get_experiment_data()
    data["metrics"].clear()
    data["events"].clear()
    assert json.dumps(tracker.get_experiment_data()["metrics"]) == before
    assert tracker.get_experiment_data()["events"]


@pytest.mark.parametrize("spread", ["names of one call", "names of many calls", "scopes"])
def test_memory_is_bounded_and_says_when_it_let_go(spread: str) -> None:
    """Of 20,000 metric names at most 10,000 are kept, ``partial`` says so, and the one in use is among them."""
    tracker = offline()
    tracker.log_training_step(0, {"loss": 1.0})
    if spread == "names of one call":
        tracker.log_training_step(1, {"loss": 0.5} | {f"m{number}": 1.0 for number in range(20_000)})
        tracker.log_training_step(2, {"loss": 0.25})
    for number in range(20_000 if spread != "names of one call" else 0):
        if spread == "scopes":
            with tracker.tasker_scope(number):
                tracker.log_training_step(1, {"acc": 1.0})
        else:
            tracker.log_metrics({f"m{number}": 1.0}, 1)
        if number % 1_000 == 0:
            tracker.log_training_step(2, {"loss": 0.25})
    data = tracker.get_experiment_data()
    assert len(data["metrics"]) <= 10_000
    assert len(data["metrics"]) > 9_000
    assert data["partial"]
    assert tracker.get_experiment_summary()["partial"]
    # With 20,000 other names in one call, the loss itself was not logged for long; it began anew.
    assert data["metrics"]["loss"]["first"] == (0.25 if spread == "names of one call" else 1.0)
    assert ("tasker:19999/acc" if spread == "scopes" else "m19999") in data["metrics"]


def test_nothing_is_partial_below_the_limit() -> None:
    """At 9,000 names everything is there."""
    tracker = offline()
    tracker.log_metrics({f"m{number}": 1.0 for number in range(9_000)}, 1)
    assert len(tracker.get_experiment_data()["metrics"]) == 9_000
    assert tracker.get_experiment_data()["partial"] is False


@pytest.mark.parametrize(
    ("fill", "table"),
    [
        (lambda t, n: t.log_params({f"p{n}": 1}), "params"),
        (lambda t, n: t.log_data_usage([n], 1), "sample_uses"),
        (lambda t, n: t.log_resource(n, cpu=1.0), "components"),
        (lambda t, n: t.log_business_metrics(**{f"b{n}": 1}), "business"),
        (lambda t, n: t.log_modification_tree(1, [{"type": n}]), "by_type"),
        (lambda t, n: t.register_network(n, f"type {n}"), "networks"),
    ],
)
def test_every_table_is_bounded(fill: Callable[[ExperimentTracker, int], None], table: str) -> None:
    """Parameters, samples, components, business metrics and kinds that never end make the figures partial."""
    tracker = ExperimentTracker("Demo", settings={"mode": "off"})
    for number in range(10_000):
        fill(tracker, number)
    assert tracker.get_experiment_data()["partial"] is False
    fill(tracker, 10_000)
    data = tracker.get_experiment_data()
    assert data["partial"] is True
    sizes = {
        "params": len(data["params"]), "sample_uses": data["data"]["distinct_samples"],
        "components": len(data["resources"]["components"]), "business": len(data["costs"]["business"]),
        "by_type": len(data["modifications"]["by_type"]), "networks": len(data["population"]["networks"]),
    }  # fmt: skip
    assert sizes[table] == 10_000


def test_a_tracker_says_what_it_is() -> None:
    """Its experiment, how it stands, and where its journal is; an id alone would help nobody."""
    tracker = offline()
    assert repr(tracker) == f"<ExperimentTracker 'Demo' created in {tracker.run_dir}>"
    tracker.end()
    assert repr(tracker) == f"<ExperimentTracker 'Demo' completed in {tracker.run_dir}>"
