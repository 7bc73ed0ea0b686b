"""``delta_loss``: previous loss − this loss, per scope and split, positive when the loss improved."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lezea_mlops.journal import read_run
from lezea_mlops.tracker import ExperimentTracker


@pytest.fixture
def tracker() -> ExperimentTracker:
    """A tracker that only writes its journal."""
    return ExperimentTracker("Demo", settings={"mode": "offline"})


def deltas(tracker: ExperimentTracker) -> list[Any]:
    """Return the ``delta_loss`` of each training step; None where the record has none (and never a ``null``)."""
    steps = [record.payload for record in read_run(tracker.run_dir) if record.type == "training_step"]
    assert all(step.get("delta_loss", 0) is not None for step in steps)
    return [step.get("delta_loss") for step in steps]


def test_it_is_absent_on_the_first_and_positive_when_the_loss_improved(tracker: ExperimentTracker) -> None:
    """The sign is that of the improvement."""
    for step, loss in enumerate([1.0, 0.25, 0.75]):
        tracker.log_training_step(step, {"loss": loss})
    assert deltas(tracker) == [None, 0.75, -0.5]


def test_steps_without_a_loss_have_none(tracker: ExperimentTracker) -> None:
    """They neither have a delta nor change what the next loss is compared with."""
    tracker.log_training_step(1, {"loss": 1.0})
    tracker.log_training_step(2, {"acc": 0.5})
    tracker.log_training_step(3, {"loss": 0.5})
    assert deltas(tracker) == [None, None, 0.5]


def test_each_scope_and_split_has_its_own(tracker: ExperimentTracker) -> None:
    """The same split in two scopes, and two splits in one, do not meet; the order of scopes counts."""
    for loss in (1.0, 0.5):
        tracker.log_training_step(1, {"loss": loss})
        tracker.log_training_step(1, {"loss": loss * 10}, "val")
        with tracker.builder_scope("1"):
            tracker.log_training_step(1, {"loss": loss * 100})
            with tracker.layer_scope("2"):
                tracker.log_training_step(1, {"loss": loss * 1_000})
        with tracker.layer_scope("2"), tracker.builder_scope("1"):
            tracker.log_training_step(1, {"loss": loss * 10_000})
    assert deltas(tracker) == [None] * 5 + [0.5, 5.0, 50.0, 500.0, 5_000.0]


def test_a_loss_that_is_not_finite_has_none_and_is_stepped_over(tracker: ExperimentTracker) -> None:
    """Around NaN and infinities there is no delta; the next finite loss is compared with the last finite one."""
    for loss in (1.0, math.nan, math.inf, -math.inf, 0.5):
        tracker.log_training_step(1, {"loss": loss})
    assert deltas(tracker) == [None, None, None, None, 0.5]


def test_a_delta_beyond_all_numbers_is_left_out(tracker: ExperimentTracker) -> None:
    """Two finite losses whose difference is not finite leave no delta, and no ``null``."""
    for loss in (1e308, -1e308, -1e308):
        tracker.log_training_step(1, {"loss": loss})
    assert deltas(tracker) == [None, None, 0.0]


def test_a_delta_beyond_64_bits_is_a_float(tracker: ExperimentTracker) -> None:
    """Whole losses at both ends of what JSON readers take have a delta that they take too."""
    for loss in (2**64 - 1, -(2**63)):
        tracker.log_training_step(1, {"loss": loss})
    assert deltas(tracker) == [None, float(2**64 - 1 + 2**63)]


@pytest.mark.parametrize("own", [0.125, "text"])
def test_the_users_own_wins(tracker: ExperimentTracker, own: Any) -> None:
    """Metrics that bring a ``delta_loss`` keep it, and get none beside it; a bad one of theirs is set aside."""
    tracker.log_training_step(1, {"loss": 1.0})
    tracker.log_training_step(2, {"loss": 0.5, "delta_loss": own})
    tracker.log_training_step(3, {"loss": 0.25})
    second = [r.event for r in read_run(tracker.run_dir) if r.type == "training_step"][1]
    if own == "text":
        assert (second.metrics, second.delta_loss) == ({"loss": 0.5}, 0.5)
    else:
        assert (second.metrics, second.delta_loss) == ({"loss": 0.5, "delta_loss": own}, None)
    assert deltas(tracker)[2] == 0.25


def test_numpy_losses_count_as_well(tracker: ExperimentTracker) -> None:
    """A 0-d array and a numpy scalar are losses like any other."""
    tracker.log_training_step(1, {"loss": np.array(1.0)})
    tracker.log_training_step(2, {"loss": np.float32(0.5)})
    assert deltas(tracker) == [None, 0.5]


def test_steps_that_we_count_have_deltas_in_the_order_of_calls(tracker: ExperimentTracker) -> None:
    """Without a step each loss gets the next number of its scope and split."""
    for loss in (1.0, 0.5):
        tracker.log_training_step(None, {"loss": loss})  # type: ignore[arg-type]
        tracker.log_training_step(None, {"loss": loss * 10}, "val")  # type: ignore[arg-type]
    events = [r.event for r in read_run(tracker.run_dir) if r.type == "training_step"]
    assert [(e.step, e.data_split, e.delta_loss) for e in events] == [
        (1, None, None), (1, "val", None), (2, None, 0.5), (2, "val", 5.0),
    ]  # fmt: skip


def test_the_order_of_steps_does_not_matter(tracker: ExperimentTracker) -> None:
    """The previous loss is that of the call before, whatever its step."""
    for step, loss in ((5, 1.0), (3, 0.5), (4, 0.25)):
        tracker.log_training_step(step, {"loss": loss})
    assert deltas(tracker) == [None, 0.5, 0.25]


@pytest.mark.parametrize(
    ("loss", "previous", "delta"),
    [(0.25, 0.75, 0.5), (3, 1, -2), (math.nan, 1.0, "NaN"), (1.0, -math.inf, "NaN"), (-1e308, 1e308, "Infinity"),
     (0, 2**64 - 1, float(2**64)), (2**63, 0, -float(2**63)), (np.float32(0.5), np.int64(1), 0.5)],
)  # fmt: skip
def test_the_call_of_its_own_has_the_same_sign(
    tracker: ExperimentTracker, loss: Any, previous: Any, delta: Any
) -> None:
    """``log_delta_loss`` and ``log_data_score`` take before − after; what is not finite is a text, never null."""
    tracker.log_delta_loss(5, loss, previous)
    tracker.log_data_score("a", before_loss=previous, after_loss=loss)
    _, of_epoch, of_sample = read_run(tracker.run_dir)
    assert (of_epoch.event.delta_loss, of_sample.event.delta) == (delta, delta)


LOSSES = st.floats(width=32) | st.integers(-(2**53), 2**53)
PLACES = st.tuples(st.sampled_from([None, "train", "val"]), st.sampled_from([None, "a", "b"]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(PLACES, LOSSES | st.none()), max_size=20))
def test_it_is_what_a_plain_loop_computes(stream: list[tuple[Any, Any]]) -> None:
    """For any stream of losses in any scopes and splits the journal holds the differences."""
    tracker = ExperimentTracker("Demo", settings={"mode": "offline"})
    last: dict[Any, Any] = {}
    expected: list[float | None] = []
    for (split, scope), loss in stream:
        metrics = {"acc": 0.5} if loss is None else {"loss": loss}
        with tracker.builder_scope(scope) if scope else contextlib.nullcontext():
            tracker.log_training_step(1, metrics, split)
        if loss is None or not math.isfinite(loss):
            expected.append(None)
            continue
        expected.append(last[split, scope] - loss if (split, scope) in last else None)
        last[split, scope] = loss
    assert deltas(tracker) == expected
