"""The breaker: pure arithmetic on times that the caller passes."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.delivery import Breaker
from lezea_mlops.delivery.breaker import FIRST_PAUSE_S, JITTER, LONGEST_PAUSE_S, RETRY_PAUSE_S, TRIP_AFTER

TIMES = st.floats(min_value=0, max_value=1e9)
SEEDS = st.integers(min_value=0, max_value=2**32)


def pauses_after(failures: int, seed: int = 0, now_s: float = 100.0) -> list[float]:
    """Return the pause after each of so many failures in a row, all at *now_s*."""
    breaker = Breaker(random=Random(seed))
    found = []
    for _ in range(failures):
        breaker.failed(now_s)
        found.append(breaker.pause_s(now_s))
    return found


def test_a_new_one_lets_through() -> None:
    """Nothing has failed yet: a try is due at any time, and nobody is kept from waiting."""
    breaker = Breaker()
    assert breaker.allows(0.0)
    assert breaker.pause_s(0.0) == 0.0
    assert not breaker.open


def test_it_trips_after_three_failures_in_a_row() -> None:
    """Two failures may be a hiccup; the third opens it."""
    breaker = Breaker()
    opened = []
    for _ in range(4):
        breaker.failed(1.0)
        opened.append(breaker.open)
    assert TRIP_AFTER == 3
    assert opened == [False, False, True, True]


@given(seed=SEEDS, failures=st.integers(1, 200), now_s=TIMES)
def test_every_pause_is_bounded(seed: int, failures: int, now_s: float) -> None:
    """However often it fails, no pause is shorter than 0.2 s or longer than 36 s."""
    for pause in pauses_after(failures, seed, now_s):
        assert RETRY_PAUSE_S * (1 - JITTER) - 1e-6 <= pause <= LONGEST_PAUSE_S * (1 + JITTER) + 1e-6


def test_pauses_double_until_the_longest() -> None:
    """Without the jitter: two short retries, then 1, 2, 4, 8, 16, 30, 30 seconds."""
    middle = type("Middle", (Random,), {"uniform": lambda self, low, high: (low + high) / 2})
    breaker = Breaker(random=middle())
    found = []
    for _ in range(9):
        breaker.failed(0.0)
        found.append(breaker.pause_s(0.0))
    assert found == pytest.approx([0.25, 0.25, 1, 2, 4, 8, 16, 30, 30])
    assert found[2] == FIRST_PAUSE_S


@given(seed=SEEDS)
def test_the_jitter_comes_from_the_random_that_was_passed(seed: int) -> None:
    """The same seed gives the same pauses, and nobody else's random numbers change."""
    assert pauses_after(6, seed) == pauses_after(6, seed)


def test_many_processes_do_not_come_back_together() -> None:
    """Different seeds spread the pauses."""
    assert len({pauses_after(5, seed)[-1] for seed in range(50)}) > 40


@given(seed=SEEDS, failures=st.integers(1, 50), now_s=TIMES, part=st.floats(0, 0.999))
def test_no_try_is_due_during_a_pause_and_one_is_after_it(
    seed: int, failures: int, now_s: float, part: float
) -> None:
    """``allows`` and ``pause_s`` say the same thing at every moment."""
    breaker = Breaker(random=Random(seed))
    for _ in range(failures):
        breaker.failed(now_s)
    pause = breaker.pause_s(now_s)
    within, after = now_s + pause * part, now_s + pause * 1.001 + 1e-6
    assert breaker.allows(within) == (breaker.pause_s(within) == 0)
    assert part > 0.99 or not breaker.allows(within)
    assert breaker.allows(after)
    assert breaker.pause_s(after) == 0


@given(failures=st.integers(1, 50))
def test_a_success_forgets_all_failures(failures: int) -> None:
    """After a success the next failure is the first again."""
    breaker = Breaker(random=Random(1))
    for _ in range(failures):
        breaker.failed(10.0)
    breaker.succeeded()
    assert not breaker.open
    assert breaker.allows(10.0)
    breaker.failed(10.0)
    assert breaker.pause_s(10.0) <= RETRY_PAUSE_S * (1 + JITTER)


def test_a_try_can_be_made_due_without_forgetting() -> None:
    """Before closing one more try is made at once; whether it is open does not change by that."""
    breaker = Breaker()
    for _ in range(5):
        breaker.failed(10.0)
    breaker.retry_now()
    assert breaker.allows(10.0)
    assert breaker.open
    breaker.failed(10.0)
    assert breaker.pause_s(10.0) > FIRST_PAUSE_S
