"""Questions of which each may fail, or never be answered, without the others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from lezea_mlops.capture.asking import Asker, Pace, Question, Turn
from tests.capture.hanging import Hanging

HEAT = Question("device", "device 0", "heat")
LIGHT = Question("device", "device 0", "light")
SOUND = Question("device", "device 0", "sound")
TIME = Question("clock", "the clock", "time")


class Deaf(Hanging):
    """Questions that get no answer until they are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def __call__(self) -> str:
        self.asked += 1
        self.hang()
        return "late"


@pytest.fixture
def deaf() -> Iterator[Deaf]:
    """Something that does not answer."""
    something = Deaf()
    yield something
    something.let_go()


def raising(error: Exception) -> Any:
    """Return a call that raises *error*."""

    def call() -> Any:
        raise error

    return call


@pytest.mark.parametrize(
    "error", [OSError("gone"), ZeroDivisionError(), type("Odd", (Exception,), {})("odd")]
)
def test_a_question_fails_alone(error: Exception) -> None:
    """Whatever one raises, the others are answered; it is told once, in however many rounds."""
    notices: list[str] = []
    asker = Asker(notices.append)
    for _ in range(3):
        answers = asker.collect(lambda turn: (turn.ask(HEAT, raising(error)), turn.ask(LIGHT, lambda: 7)))
        assert answers == (None, 7)
    assert len(notices) == 1
    assert "device 0: the heat is not known" in notices[0]


def test_a_normal_state_is_not_told() -> None:
    """What the judge calls normal is an absent answer and no notice."""
    notices: list[str] = []
    asker = Asker(notices.append)
    answer = asker.collect(lambda turn: turn.ask(HEAT, raising(OSError()), lambda _question, _error: None))
    assert (answer, notices) == (None, [])


def test_a_question_that_hangs_costs_itself_alone(deaf: Deaf) -> None:
    """The round goes on without it, behind it and with the answers before it, each of which is asked once."""
    before: list[int] = []

    def look(turn: Turn[Any]) -> Any:
        return turn.ask(TIME, lambda: before.append(1) or 5), turn.ask(HEAT, deaf), turn.ask(LIGHT, lambda: 7)

    assert Asker([].append, wait=deaf.patience).collect(look) == (5, None, 7)
    assert before == [1]


def test_what_hangs_is_asked_again_only_after_it_has_come_back(deaf: Deaf) -> None:
    """Rounds go by without it, one notice is given in the second, and its late answer is followed by new ones."""
    notices: list[str] = []
    asker = Asker(notices.append, wait=deaf.patience)
    assert asker.collect(lambda turn: turn.ask(HEAT, deaf)) is None
    assert notices == [], "it may only be slow"
    for _ in range(3):
        assert asker.collect(lambda turn: turn.ask(HEAT, deaf)) is None
    assert deaf.asked == 1
    assert len(notices) == 1
    assert "does not answer" in notices[0]
    deaf.let_go()
    assert asker.collect(lambda turn: turn.ask(HEAT, lambda: 40)) == 40


def test_a_part_leaves_at_most_two_threads_behind(deaf: Deaf) -> None:
    """Where everything of a part hangs, two threads wait, the third question is left out, other parts are whole."""
    asker = Asker([].append, wait=deaf.patience)

    def look(turn: Turn[Any]) -> Any:
        return [turn.ask(question, deaf) for question in (HEAT, LIGHT, SOUND)], turn.ask(TIME, lambda: 5)

    for _ in range(3):
        assert asker.collect(look) == ([None, None, None], 5)
    assert deaf.asked == 2
    deaf.let_go()
    assert asker.collect(lambda turn: turn.ask(SOUND, lambda: 3)) == 3


def test_a_mistake_in_the_look_itself_reaches_its_caller() -> None:
    """Only questions fail alone; an error of our own is seen."""
    with pytest.raises(KeyError, match="ours"):
        Asker([].append).collect(lambda _turn: {}["ours"])


def test_an_interpreter_that_takes_no_thread_gets_no_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """At its end Python refuses new threads; then there is nothing, and no error."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert Asker([].append).collect(lambda turn: turn.ask(TIME, lambda: 5)) is None


def test_a_pace_keeps_to_its_share() -> None:
    """What took 2 s may be done again after 20 s where a tenth of a processor is allowed; at first it is due."""
    pace = Pace(0.1)
    assert pace.is_due(100.0)
    pace.took(2.0, 100.0)
    assert [pace.is_due(now_s) for now_s in (100.0, 119.9, 120.0)] == [False, False, True]
