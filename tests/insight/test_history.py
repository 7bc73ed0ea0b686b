"""The view of a resumed run's metrics: equal to a search through all points, and sorted in bounded memory."""

from __future__ import annotations

import math
import random
import tempfile
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.events import Envelope
from lezea_mlops.insight import Point, history_of, points_of
from lezea_mlops.sinks.mlflow.translation import translate

POINTS = st.lists(
    st.builds(
        Point,
        name=st.sampled_from(["a", "b"]),
        step=st.none() | st.integers(0, 6),
        value=st.integers(0, 9) | st.sampled_from([math.inf, -math.inf]),
        ts=st.just(1),
        wid=st.sampled_from(["main", "alpha"]),
        att=st.integers(1, 4),
        seq=st.just(0),
    ),
    max_size=60,
).map(lambda points: [point._replace(seq=seq) for seq, point in enumerate(points, 1)])


def searched(points: list[Point]) -> list[Point]:
    """Return the default view by looking at all points for each point."""
    shown = []
    for point in points:
        series = [other for other in points if (other.name, other.wid) == (point.name, point.wid)]
        if point.step is None:
            hidden = any(other.step is None and other.att > point.att for other in series)
        else:
            covering = [
                att
                for att in {other.att for other in series}
                if any(o.att == att and o.step is not None and o.step <= point.step for o in series)
                and any(o.att == att and o.step is not None and o.step >= point.step for o in series)
            ]
            later = any(o.att == point.att and o.step == point.step and o.seq > point.seq for o in series)
            hidden = point.att < max(covering) or later
        if not hidden:
            shown.append(point)
    return shown


def in_order(points: list[Point]) -> list[Point]:
    """Return points by name, writer, step and attempt, those without a step first."""
    return sorted(
        points,
        key=lambda p: (p.name, p.wid != "main", p.wid, -1 if p.step is None else p.step, p.att, p.seq),
    )


@given(points=POINTS, in_memory=st.sampled_from([1, 2, 7, 1_000]))
def test_the_default_view_is_that_of_a_search_through_all_points(points: list[Point], in_memory: int) -> None:
    """Whatever fits into memory: the same points in the same order."""
    assert list(history_of(points, in_memory=in_memory)) == in_order(searched(points))


@given(points=POINTS, in_memory=st.sampled_from([1, 2, 7, 1_000]))
def test_all_attempts_are_all_points_in_order(points: list[Point], in_memory: int) -> None:
    """What goes in comes out, none twice."""
    assert list(history_of(points, all_attempts=True, in_memory=in_memory)) == in_order(points)


@given(points=POINTS)
def test_a_step_of_a_metric_has_one_value(points: list[Point]) -> None:
    """Never two, whatever attempts did."""
    shown = [point for point in history_of(points) if point.step is not None]
    places = [(point.name, point.wid, point.step) for point in shown]
    assert len(places) == len(set(places))


def test_a_newer_attempt_that_logs_less_often_hides_the_points_between_its_own() -> None:
    """From its first step to its last the curve is its own; before and beyond it is the older one's."""
    old = [Point("loss", step, 1.0, 0, "main", 1, step) for step in range(150)]
    new = [Point("loss", step, 2.0, 0, "main", 2, step) for step in range(100, 131, 10)]
    shown = {point.step: point.att for point in history_of(old + new)}
    assert shown == dict.fromkeys(range(100), 1) | dict.fromkeys(range(100, 131, 10), 2) | dict.fromkeys(
        range(131, 150), 1
    )


def test_a_new_metric_at_old_steps_hides_nothing_of_others() -> None:
    """A second attempt may go back and measure something else."""
    old = [Point("loss", step, 1.0, 0, "main", 1, step) for step in range(10)]
    new = [Point("accuracy", step, 1.0, 0, "main", 2, step) for step in range(5)]
    assert list(history_of(old + new)) == new + old


def test_a_long_history_is_held_in_part() -> None:
    """Ten times as many points do not take ten times the memory, and the temporary file goes with the reader."""

    def points(count: int) -> Iterator[Point]:
        order = random.Random(0)
        for seq in range(count):
            yield Point("loss", order.randrange(10**6), 0.5, seq, "main", 1, seq)

    def peak(count: int) -> int:
        tracemalloc.start()
        assert sum(1 for _ in history_of(points(count), all_attempts=True, in_memory=2_000)) == count
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert peak(50_000) < 3 * peak(5_000)


def test_the_temporary_file_ends_with_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the reader loses interest after one point."""
    made: list[Any] = []
    real = tempfile.TemporaryFile
    monkeypatch.setattr(
        tempfile, "TemporaryFile", lambda *args, **named: made.append(real(*args, **named)) or made[-1]
    )
    points = history_of((Point("x", step, 1, 0, "main", 1, step) for step in range(100)), in_memory=10)
    next(points)
    points.close()  # type: ignore[attr-defined]
    assert [file.closed for file in made] == [True]


# ---------------------------------------------------------------------- points of records


def record(kind: str, seq: int = 7, **payload: Any) -> Envelope:
    """Return a record as another program may have written it."""
    return Envelope(kind, {"seq": seq, "ts": 5, "wid": "main", "att": 1}, payload)


def points(kind: str, **payload: Any) -> dict[str, tuple[Any, Any]]:
    """Return step and value by name."""
    return {point.name: (point.step, point.value) for point in points_of([record(kind, **payload)])}


@pytest.mark.parametrize("kind", ["resource", "resource_totals"])
@pytest.mark.parametrize(("wid", "before"), [("main", ""), ("courier", ""), ("rank1", "rank1/")])
def test_names_are_those_of_mlflow_whoever_logged(kind: str, wid: str, before: str) -> None:
    """What the courier tells of the run has plain names in both; of a rank MLflow says whose they are."""
    payload = {
        "resource": {"component_id": "process", "memory_mb": 1.5, "sample": {"host": {"cpu_percent": 50}}},
        "resource_totals": {"resources": {"total": {"core_hours": 2}}, "costs": {"eur": 0.5}},
    }[kind]
    told = Envelope(kind, {"seq": 7, "ts": 5, "wid": wid, "att": 3}, payload)
    ours = {(f"{before}{point.name}", point.step, point.value, point.wid) for point in points_of([told])}
    assert ours == {(point.key, point.step, point.value, wid) for point in translate(told).points}
    assert len(ours) == 2


@pytest.mark.parametrize(
    ("kind", "payload", "expected"),
    [
        (
            "training_step",
            {
                "step": 3,
                "metrics": {"loss": 0.5},
                "delta_loss": 0.1,
                "data_split": "val",
                "scope": [["builder", "42"]],
                "modification_statistics": {"mutations": {"kept": 2}},
            },
            {
                "builder:42/val/loss": (3, 0.5),
                "builder:42/val/delta_loss": (3, 0.1),
                "builder:42/modification/mutations/kept": (3, 2),
            },
        ),
        ("metric", {"metrics": {"a": 1}, "step": 2}, {"a": (2, 1)}),
        ("metric", {"key": "a", "value": 1, "epoch": 2, "ctx": {"phase": "val"}}, {"val/a": (2, 1)}),
        ("delta_loss", {"epoch": 4, "loss": 1, "prev_loss": 3, "delta_loss": 2}, {"delta_loss": (4, 2)}),
        ("reward", {"tasker_id": "t0", "reward": 0.7, "step": 1}, {"reward/t0": (1, 0.7)}),
        ("modification_tree_stats", {"stats": {"depth": 3}, "step": 1}, {"modtree/depth": (1, 3)}),
        ("modification_stats", {"stats": {"crossover": 3}, "step": 1}, {"modification/crossover": (1, 3)}),
        ("result", {"result_dict": {"score": 0.9}}, {"results/score": (None, 0.9)}),
        ("resource", {"component_id": "c", "memory_mb": 5}, {"resources/c/memory_mb": (7, 5)}),
        (
            "population",
            {"tasker_count": 2, "builder_count": 1, "generation": 9, "fitness_scores": {"a": 1, "b": 3}},
            {
                "population/tasker_count": (9, 2), "population/builder_count": (9, 1),
                "population/generation": (9, 9), "population/fitness_max": (9, 3),
                "population/fitness_min": (9, 1), "population/fitness_mean": (9, 2.0),
            },
        ),
        ("from_the_future", {"step": 1, "metrics": {"a": 1}}, {}),
    ],
)  # fmt: skip
def test_each_kind_of_record_has_its_points(
    kind: str, payload: dict[str, Any], expected: dict[str, tuple[Any, Any]]
) -> None:
    """Under the names of scopes, split and kind, at the record's own step."""
    assert points(kind, **payload) == expected


@pytest.mark.parametrize(
    ("step", "expected"), [(7, 7), (7.0, 7), (True, 1), ("7", None), (7.5, None), (None, None), ([7], None)]
)
def test_a_step_that_is_no_whole_number_is_none(step: Any, expected: int | None) -> None:
    """The value is a point all the same."""
    assert points("metric", metrics={"a": 1}, step=step) == {"a": (expected, 1)}


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, "1"), (-0.0, "-0.0"), (True, "1"), ("NaN", "nan"), ("-Infinity", "-inf"),
     ({"$num": "NaN"}, "nan"), (2**80, str(2**80))],
)  # fmt: skip
def test_numbers_come_back_as_they_were_logged(value: Any, expected: str) -> None:
    """Integers stay integers, and what is not finite is a number again."""
    assert repr(points("metric", metrics={"a": value}, step=1)["a"][1]) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    "metrics step stats key value ctx epoch scope statistics sizes summary fitness_scores result_dict part metric "
    "split level delta_loss modification_statistics component_id tasker_id".split()
)
KINDS = st.sampled_from(
    "training_step metric delta_loss modification_tree modification_tree_stats data_splits data_usage data_score "
    "resource result reward population fold resource_cost business run_finished param".split()
)


@given(kind=KINDS, payload=st.dictionaries(FIELDS, JSON, max_size=8))
def test_no_payload_stops_the_reading(kind: str, payload: dict[str, Any]) -> None:
    """What any program may have written gives points or none, and each is a number with a name."""
    found = list(points_of([record(kind, **payload)]))
    assert all(isinstance(point.name, str) and type(point.value) in (int, float) for point in found)
    assert len(list(history_of(found, all_attempts=True))) == len(found)
