"""Questions to a system or a driver, of which each may fail, or never be answered, without the others.

A round of questions runs in a thread of its own. Where a question has no answer within a second, its thread is left
behind, and a new one goes through the rest; the answers in hand stay. What hangs is not asked again until it has come
back, and no part (the process, the host, the GPUs) may leave more than two threads behind: a driver that locks
itself up costs two seconds once, and two threads that wait.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

log = logging.getLogger("lezea_mlops")

PATIENCE_S = 1.0
MOST_LEFT_BEHIND = 2

T = TypeVar("T")
Answer = TypeVar("Answer")
Wait = Callable[[threading.Event, float], bool]


class Question(NamedTuple):
    """What is asked: *fact* of *subject*, both in words for a person; a *part* fails together."""

    part: str
    subject: str
    fact: str


# Tells which kind of failure an error is, of which only the first is told; None for a normal state.
Judge = Callable[[Question, Exception], str | None]


def every_failure(question: Question, error: Exception) -> str | None:
    """Judge each kind of error about a fact a failure of its own."""
    return f"{question.part}: {question.fact}: {type(error).__name__}"


class _LeftBehind(Exception):
    """The thread has been given up; another one has gone on with the round."""


class Asker:
    """Goes through rounds of questions, and tells of each kind of failure once.

    Args:
        notice: takes a sentence for a person.
        patience_s: how long a round may wait for a question before it goes on without.
        wait: waits for an event, at most for some seconds; tells whether it came.
    """

    def __init__(
        self,
        notice: Callable[[str], None],
        patience_s: float = PATIENCE_S,
        wait: Wait = threading.Event.wait,
    ) -> None:
        self._notice = notice
        self._patience_s = patience_s
        self._wait = wait
        self._told: set[str] = set()
        self.lock = threading.Lock()
        # Which questions have a thread waiting for them; guarded by the lock.
        self.hanging: set[Question] = set()

    def collect(self, look: Callable[[Turn[T]], T]) -> T | None:
        """Have *look* ask its questions, and return what it returns.

        It is called anew, with the answers in hand, after a question that hangs; so it keeps what it changes to itself.

        Returns:
            None where the interpreter is ending and takes no more threads.
        """
        self._tell_what_hangs()
        answers: dict[Question, Any] = {}
        failures: list[tuple[Question, str, Exception]] = []
        while True:
            turn = Turn(self, look, answers, failures)
            try:
                threading.Thread(target=turn.run, name="lezea-sample", daemon=True).start()
            except RuntimeError:
                return None
            while not (finished := self._wait(turn.finished, self._patience_s)):
                if turn.leave_behind():
                    break
            if finished:
                for question, kind, error in failures:
                    self._tell(kind, f"{_sentence(question)}: {str(error) or type(error).__name__}.")
                return turn.result()

    def may_ask(self, question: Question) -> bool:
        """Tell whether *question* may be asked now; the lock is held."""
        in_part = sum(other.part == question.part for other in self.hanging)
        return question not in self.hanging and in_part < MOST_LEFT_BEHIND

    def _tell_what_hangs(self) -> None:
        # One that was only slow has come back since; a driver that is being loaded takes some seconds.
        with self.lock:
            hanging = list(self.hanging)
        for question in hanging:
            self._tell(
                f"{question.part}: {question.fact}: hangs",
                f"{_sentence(question)}: the system does not answer. It is asked again after it has answered.",
            )

    def _tell(self, kind: str, sentence: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            self._notice(f"{sentence} Other values go on; this is told once.")


class Turn(Generic[T]):
    """One thread's turn at a round.

    Attributes:
        finished: set once the round has ended, or once a thread that was left behind has come back.
    """

    def __init__(
        self,
        asker: Asker,
        look: Callable[[Turn[T]], T],
        answers: dict[Question, Any],
        failures: list[tuple[Question, str, Exception]],
    ) -> None:
        self._asker = asker
        self._look = look
        self._answers = answers
        self._failures = failures
        self._asking: Question | None = None
        self._left_behind = False
        self._result: list[T] = []
        self._bug: Exception | None = None
        self.finished = threading.Event()

    def ask(
        self, question: Question, call: Callable[[], Answer], judge: Judge = every_failure
    ) -> Answer | None:
        """Return the answer of *call*; None where it fails or hangs."""
        with self._asker.lock:
            self._go_on_if_not_left_behind()
            if question in self._answers:
                answered: Answer | None = self._answers[question]
                return answered
            if not self._asker.may_ask(question):
                return None
            self._asking = question
        answer, failure = None, None
        try:
            answer = call()
        except Exception as error:  # noqa: BLE001 (a driver's library may raise anything, and a run must not end by it)
            failure = error
        with self._asker.lock:
            self._asking = None
            if self._left_behind:
                self._asker.hanging.discard(question)
                raise _LeftBehind
            self._answers[question] = answer
        if failure is not None:
            self._note(question, failure, judge)
        return answer

    def run(self) -> None:
        """Go through the round."""
        try:
            self._result.append(self._look(self))
        except _LeftBehind:
            return
        except Exception as bug:  # noqa: BLE001 (whoever began the round gets it)
            self._bug = bug
        finally:
            self.finished.set()

    def leave_behind(self) -> bool:
        """Go on without this thread if it waits for an answer; tell whether it did."""
        with self._asker.lock:
            if self._asking is None:
                return False
            self._left_behind = True
            self._asker.hanging.add(self._asking)
            return True

    def result(self) -> T:
        """Return what the look returned, or raise what it raised."""
        if self._bug is not None:
            raise self._bug
        return self._result[0]

    def _go_on_if_not_left_behind(self) -> None:
        if self._left_behind:
            raise _LeftBehind

    def _note(self, question: Question, error: Exception, judge: Judge) -> None:
        kind = judge(question, error)
        if kind is None:
            log.debug("%s: %s", _sentence(question), error)
        else:
            self._failures.append((question, kind, error))


class Pace:
    """Says how often something may be done so that it takes at most a share of a processor.

    Args:
        share: the share of one processor.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._next_s = float("-inf")

    def is_due(self, now_s: float) -> bool:
        """Tell whether it may be done now."""
        return now_s >= self._next_s

    def took(self, cost_s: float, now_s: float) -> None:
        """Note that it took *cost_s* seconds of a processor at *now_s*."""
        self._next_s = now_s + cost_s / self._share


def known(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of *values*: what is None stays away."""
    return {name: value for name, value in values.items() if value is not None}


def _sentence(question: Question) -> str:
    return f"{question.subject}: the {question.fact} is not known"
