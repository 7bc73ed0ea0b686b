"""Budgets warn and stop nothing: an event, a line of the log and a callback at 80 % and at 100 %."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lezea_mlops.errors import ConfigurationError
from lezea_mlops.events import Envelope
from lezea_mlops.journal import read_run
from lezea_mlops.runtime import monitoring
from lezea_mlops.tracker import ExperimentTracker
from tests.monitored import journaled, of_type, samples

# So dear that the first moments cost more than any budget here.
RATES = {"core_hour_eur": 3600.0 * 1_000}


def sampled(**arguments: Any) -> ExperimentTracker:
    """Return a run that nothing is delivered of, and that is sampled all the time."""
    settings = {"mode": "offline", "sample_period_s": 0.05, "rates": RATES}
    return ExperimentTracker("budget", settings=settings, **arguments)


def until_told(
    tracker: ExperimentTracker, count: int, heard: Callable[[], Sequence[Any]] | None = None
) -> list[dict[str, Any]]:
    """Work until so many budgets were reached, and *heard* of, and return what the journal says of them."""
    # It is a call of the tracker's too, and whichever comes first tells.
    assert tracker._capturing is not None
    tracker._capturing.join()
    with tracker.builder_scope("1"):
        # The first record of a component comes after a second, or with the end.
        for _ in range(3):
            with tracker.measure("builder#1", "builder"):
                sum(range(300_000))
    tracker._meter.flush()

    def enough(records: list[Envelope]) -> bool:
        tracker.health()
        return len(of_type(records, "budget_reached")) >= count and (heard is None or len(heard()) >= count)

    records = journaled(tracker.run_dir, enough)
    return [dict(record.payload) for record in of_type(records, "budget_reached")]


def test_a_budget_that_is_passed_is_told_twice(caplog: pytest.LogCaptureFixture) -> None:
    """At 80 % and at 100 %, in the journal and in the log, and the run goes on to its end."""
    tracker = sampled(budget_eur=0.01, auto_start=True)

    def lines() -> list[str]:
        return [message for message in caplog.messages if "of the budget of the run is spent" in message]

    with caplog.at_level(logging.WARNING, "lezea_mlops"):
        told = until_told(tracker, 2, lines)
    assert [(row["branch"], row["budget_eur"], row["share"]) for row in told] == [
        ("run", 0.01, 0.8),
        ("run", 0.01, 1.0),
    ]
    assert all(row["spent_eur"] >= row["share"] * row["budget_eur"] for row in told)
    assert len(lines()) == 2
    tracker.end()
    assert tracker.status == "completed"


def test_a_resumed_run_is_not_told_the_same_again() -> None:
    """With the same budget, each share is told once in the life of the run."""
    first = sampled(budget_eur=0.01, auto_start=True)
    until_told(first, 2)
    first.end()
    again = sampled(budget_eur=0.01, resume=first.experiment_id, auto_start=True)
    with again.measure("builder#1", "builder"):
        sum(range(300_000))
    again.end()
    told = of_type(list(read_run(first.run_dir)), "budget_reached")
    assert [(record.att, record.payload["share"]) for record in told] == [(1, 0.8), (1, 1.0)]


def test_nothing_is_told_before_the_journals_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a long run that is resumed take a while, and may hold on their last line what was told."""
    first = sampled(budget_eur=0.01, auto_start=True)
    until_told(first, 2)
    first.end()
    # One record in each turn, and a turn with each sample.
    monkeypatch.setattr(monitoring, "TURN_S", 0.0)
    monkeypatch.setattr(monitoring, "TURN_BYTES", 1)
    before = len(list(read_run(first.run_dir)))
    again = sampled(budget_eur=0.01, resume=first.experiment_id, auto_start=True)
    journaled(again.run_dir, lambda records: len(samples(records)) > before)
    again.end()
    told = of_type(list(read_run(first.run_dir)), "budget_reached")
    assert [(record.att, record.payload["share"]) for record in told] == [(1, 0.8), (1, 1.0)]


def test_a_branch_has_a_budget_and_a_callback_of_its_own() -> None:
    """The callback is called by the tracker's own thread, with what the event says."""
    heard: list[dict[str, Any]] = []
    tracker = sampled(auto_start=True)
    tracker.set_budget(0.01, "builder:1", heard.append)
    tracker.set_budget(1e9, "builder:2", heard.append)
    until_told(tracker, 2, lambda: heard)
    assert [(event["branch"], event["share"]) for event in heard] == [("builder:1", 0.8), ("builder:1", 1.0)]
    tracker.end()


def test_what_a_callback_raises_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It is set down like any other mistake of a call, also with strict."""
    tracker = sampled(strict=True)
    tracker.set_budget(0.01, callback=lambda event: event["no such field"])
    tracker.start(prometheus_port=None)
    until_told(tracker, 2)
    tracker.end()
    rejected = of_type(list(read_run(tracker.run_dir)), "rejected_input")
    assert {record.payload["argument"] for record in rejected} == {"callback"}
    assert any("KeyError" in record.payload["reason"] for record in rejected)


@pytest.mark.parametrize("value", [0, -1, float("nan"), "much", None, 1e300])
def test_a_budget_that_is_none_is_set_aside(value: Any) -> None:
    """The run has no budget then."""
    tracker = sampled()
    tracker.set_budget(value)
    tracker.end()
    records = list(read_run(tracker.run_dir))
    assert of_type(records, "budget") == []
    assert [record.payload["argument"] for record in of_type(records, "rejected_input")] == ["budget_eur"]


def test_a_callback_that_cannot_be_called_is_told_at_once() -> None:
    """The budget counts all the same."""
    tracker = sampled()
    tracker.set_budget(1.0, callback="not a function")  # type: ignore[arg-type]
    tracker.end()
    records = list(read_run(tracker.run_dir))
    assert [record.payload["argument"] for record in of_type(records, "rejected_input")] == ["callback"]
    assert len(of_type(records, "budget")) == 1


def test_what_is_spent_in_the_last_second_is_told() -> None:
    """Also by a run that is over before anybody looked."""
    heard: list[dict[str, Any]] = []
    tracker = ExperimentTracker("budget", settings={"mode": "offline", "sample_period_s": 60, "rates": RATES})
    tracker.set_budget(0.01, callback=heard.append)
    tracker.start(prometheus_port=None)
    with tracker.measure("tasker#0"):
        sum(range(500_000))
    tracker.end()
    assert [event["share"] for event in heard] == [0.8, 1.0]
    assert len(of_type(list(read_run(tracker.run_dir)), "budget_reached")) == 2


@pytest.mark.parametrize("value", [0, -1, "much", float("inf")])
def test_the_constructor_refuses_a_budget_that_is_none(value: Any) -> None:
    """It names argument, value and what it must be."""
    with pytest.raises(ConfigurationError, match=r"budget_eur is .*; it must be a number above zero"):
        ExperimentTracker("budget", budget_eur=value)


def test_the_prices_of_a_run_stand_in_its_journal() -> None:
    """Whoever reads it later computes the same costs."""
    tracker = sampled()
    tracker.end()
    [record] = of_type(list(read_run(tracker.run_dir)), "rates")
    assert record.payload["rates"] == RATES
