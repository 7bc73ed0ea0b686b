"""What is known of a destination, and what is said of it: one log line per change of state."""

from __future__ import annotations

import logging
import threading

import pytest

from lezea_mlops.delivery import SinkHealth
from lezea_mlops.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that stands still."""
    return FakeClock()


@pytest.fixture
def health(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> SinkHealth:
    """Return the health of a destination; its log lines are caught."""
    caplog.set_level(logging.INFO, logger="lezea_mlops")
    return SinkHealth("memory-1234abcd", clock)


def test_a_new_destination_is_starting_and_has_told_nothing(
    health: SinkHealth, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Before the first try nothing is known but since when something waits."""
    clock.advance(2.5)
    assert health.as_dict(waiting=7) == {
        "state": "starting", "delivered": 0, "waiting": 7, "lag_s": 2.5, "rejected": 0, "damaged": 0, "failures": {},
        "last_error": None,
    }  # fmt: skip
    assert caplog.messages == []


def test_an_outage_is_told_once_and_its_end_once(
    health: SinkHealth, caplog: pytest.LogCaptureFixture
) -> None:
    """A hundred failures are one line that says who, why, and that nothing is lost; the end is another."""
    health.took(3)
    for _ in range(100):
        health.failed("unreachable", "connection refused")
    assert len(caplog.messages) == 1
    for word in ("memory-1234abcd", "down", "unreachable", "connection refused", "journal"):
        assert word in caplog.messages[0]
    for _ in range(100):
        health.took(2)
    assert len(caplog.messages) == 2
    assert "takes records again" in caplog.messages[1]
    assert health.as_dict(0)["failures"] == {"unreachable": 100}
    assert health.as_dict(0)["delivered"] == 203


def test_the_first_success_is_nothing_to_tell(health: SinkHealth, caplog: pytest.LogCaptureFixture) -> None:
    """A destination that works is silent."""
    health.took(1)
    health.took(1)
    assert (health.state, caplog.messages) == ("ok", [])


def test_other_reasons_of_one_outage_are_counted_and_not_told(
    health: SinkHealth, caplog: pytest.LogCaptureFixture
) -> None:
    """Refused, then timed out, then locked: it is down all the time, and each is counted."""
    for reason in ("unreachable", "timeout", "locked", "timeout"):
        health.failed(reason, f"it is {reason}")
    assert len(caplog.messages) == 1
    assert health.as_dict(0)["failures"] == {"unreachable": 1, "timeout": 2, "locked": 1}
    assert health.last_error == "it is timeout"


@pytest.mark.parametrize("state", ["refusing", "removed"])
def test_a_destination_that_needs_a_person_has_a_state_of_its_own(
    state: str, health: SinkHealth, caplog: pytest.LogCaptureFixture
) -> None:
    """Refusing everything, or a deleted run: waiting does not help, so it is not called down."""
    health.failed("unreachable", "gone")
    health.failed(state, "a person has to look")
    assert health.state == state
    assert len(caplog.messages) == 2


def test_rejections_are_counted_and_the_first_is_told(
    health: SinkHealth, caplog: pytest.LogCaptureFixture
) -> None:
    """The line names the record and the reason; a thousand more add to the count only."""
    for number in range(1_000):
        health.refused(f"main/{number} (metric)", "the name is too long")
    assert health.rejected == 1_000
    assert len(caplog.messages) == 1
    assert "main/0 (metric)" in caplog.messages[0]
    assert "the name is too long" in caplog.messages[0]


def test_damage_is_counted_by_place_and_told_by_batch(
    health: SinkHealth, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is said of an undamaged batch; of a damaged one, how many places and the first of them."""
    health.stepped_over([])
    health.stepped_over(["events.jsonl: at byte 17: not JSON", "events.jsonl: at byte 30: not JSON"])
    assert health.damaged == 2
    assert len(caplog.messages) == 1
    assert "2" in caplog.messages[0]
    assert "at byte 17" in caplog.messages[0]


def test_counts_are_right_when_several_threads_count(health: SinkHealth) -> None:
    """No count is lost between threads."""

    def count() -> None:
        for _ in range(2_000):
            health.took(1)
            health.failed("timeout", "slow")
            health.refused("main/1", "never")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (health.delivered, health.rejected, health.failures["timeout"]) == (8_000, 8_000, 8_000)


def test_the_lag_counts_from_when_nothing_waited(health: SinkHealth, clock: FakeClock) -> None:
    """While nothing waits there is none, however long nothing was logged."""
    clock.advance(100.0)
    assert health.as_dict(0)["lag_s"] == 0.0
    health.has_all()
    clock.advance(3.0)
    assert health.as_dict(2)["lag_s"] == 3.0
