"""A strict start says at once what cannot be reached; what is not said leaves the constructor's choice."""

from __future__ import annotations

import re
from typing import Any

import pytest

from lezea_mlops.errors import BackendUnreachableError
from lezea_mlops.journal import read_run
from lezea_mlops.tracker import ExperimentTracker

UNREACHABLE = "http://127.0.0.1:9"


def tracker_with(courier: str = "thread", **arguments: Any) -> ExperimentTracker:
    """Return a tracker whose MLflow is not there."""
    settings = {"courier": courier, "mlflow_tracking_uri": UNREACHABLE, "close_timeout_s": 1}
    return ExperimentTracker("Demo", settings=settings, **arguments)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("courier", ["process", "thread"])
def test_a_strict_start_names_what_cannot_be_reached(courier: str, asynchronous: bool) -> None:
    """Destination, address and error, whoever delivers and whether calls wait; all calls are kept nevertheless."""
    tracker = tracker_with(courier, async_mode=asynchronous)
    tracker.log_comment("before")
    with pytest.raises(BackendUnreachableError) as raised:
        tracker.start(strict=True)
    message = str(raised.value)
    assert re.match(
        rf"strict start: mlflow-[0-9a-f]{{8}}: MLflow at {UNREACHABLE} cannot be reached \(", message
    )
    assert "Connection refused" in message
    assert str(tracker.run_dir) in message
    tracker.log_comment("after")
    assert tracker._capturing is not None
    tracker._capturing.join()
    tracker.end("failed")
    types = [record.type for record in read_run(tracker.run_dir)]
    assert types.count("comment") == 2
    assert types[-1] == "run_finished"


@pytest.mark.parametrize("of_constructor", [False, True])
@pytest.mark.parametrize("of_start", [None, False, True])
def test_what_start_says_of_strictness_holds_from_then_on(
    of_constructor: bool, of_start: bool | None
) -> None:
    """None leaves the constructor's; it decides over the start itself and over mistakes in later calls."""
    strict = of_constructor if of_start is None else of_start
    tracker = tracker_with(strict=of_constructor)
    if strict:
        with pytest.raises(BackendUnreachableError):
            tracker.start(strict=of_start)
        with pytest.raises(TypeError):
            tracker.log_training_step(1, {"loss": []})
    else:
        tracker.start(strict=of_start)
        tracker.log_training_step(1, {"loss": []})
    assert tracker.status == "running"
    tracker.end()


@pytest.mark.parametrize("mode", ["offline", "off"])
def test_a_strict_start_without_backends_reaches_for_none(mode: str) -> None:
    """Where nothing is delivered nothing can be down."""
    tracker = ExperimentTracker("Demo", settings={"mode": mode, "mlflow_tracking_uri": UNREACHABLE})
    tracker.start(strict=True)
    assert tracker.status == "running"
    tracker.end()
