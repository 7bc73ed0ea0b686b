"""When a run ended: the moment of its end, or, for an end that others wrote down later, its last sign of life."""

from __future__ import annotations

from typing import Any

import pytest

from lezea_mlops.sinks.mlflow.pieces import end_ms
from tests.sinks.mlflow.place import Place, place
from tests.sinks.mlflow.records import record

__all__ = ["place"]

DIED_US = 1_763_600_000_000_999
DIED_MS = 1_763_600_000_000


def inferred(**fields: Any) -> dict[str, Any]:
    """Return the fields of an end that was inferred."""
    return {"status": "killed", "inferred": True, "reason": "the process ended without a word", **fields}


def test_an_inferred_end_has_the_time_of_the_last_sign_of_life(place: Place) -> None:
    """Not the time at which a sync, days later, found out."""
    place.start()
    place.log("run_finished", wid="courier", **inferred(ended_at=DIED_US))
    place.ship()
    assert (place.run.info.status, place.run.info.end_time) == ("KILLED", DIED_MS)


def test_a_real_end_that_comes_later_brings_its_own_time(place: Place) -> None:
    """The run was not dead after all."""
    place.start()
    place.log("run_finished", wid="courier", **inferred(ended_at=DIED_US))
    place.ship()
    place.log("run_finished", status="completed")
    place.ship()
    assert place.run.info.status == "FINISHED"
    assert place.run.info.end_time > DIED_MS


def test_a_resumed_run_has_no_end_until_it_ends(place: Place) -> None:
    """The inferred end of the attempt before is not shown for the one that runs."""
    place.start()
    place.log("run_finished", wid="courier", **inferred(ended_at=DIED_US))
    place.log("run_started", att=2, experiment_name="Demo")
    place.ship()
    assert place.run.info.status == "RUNNING"
    place.log("run_finished", wid="courier", att=2, **inferred(ended_at=DIED_US + 5_000))
    place.ship()
    assert (place.run.info.status, place.run.info.end_time) == ("KILLED", DIED_MS + 5)


@pytest.mark.parametrize("ended_at", [None, "yesterday", [1], {}, float("nan"), 0])
def test_a_time_that_is_none_leaves_the_records_own(ended_at: Any) -> None:
    """Whatever a foreign journal says there."""
    finished = record("run_finished", inferred(ended_at=ended_at))
    assert end_ms(finished) == finished.ts // 1_000


@pytest.mark.parametrize(
    ("ended_at", "shown"), [(-5, 0), (10**30, 2**53), (DIED_US, DIED_MS), (float(DIED_US), DIED_MS)]
)
def test_a_time_is_one_that_mlflow_can_hold(ended_at: float, shown: int) -> None:
    """A clock that stood before 1970, or beyond all bounds, ends the run all the same."""
    at = end_ms(record("run_finished", inferred(ended_at=ended_at)))
    assert at == shown if shown < 2**53 else at < 2**63 // 1_000
