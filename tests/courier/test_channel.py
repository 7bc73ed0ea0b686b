"""The channel between a process and its courier: whole messages, no waits, and each thread's own answer."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from subprocess import CompletedProcess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lezea_mlops._clock import Deadline
from lezea_mlops.runtime.channel import MAX_MESSAGE_BYTES, Channel, Conversation, Gone, Message

PATIENCE_S = 60.0
RunPython = Callable[..., "CompletedProcess[str]"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    """Return the two ends of a channel."""
    mine, its = Channel.pair()
    yield mine, its
    mine.close()
    its.close()


def fill(channel: Channel) -> int:
    """Send until there is no room; return how many messages went."""
    sent = 0
    while channel.send({"number": sent, "text": "x" * 1_000}):
        sent += 1
    return sent


# ---------------------------------------------------------------------- messages


@settings(max_examples=50)
@given(messages=st.lists(st.dictionaries(st.text(), JSON), max_size=5))
def test_messages_come_whole_and_in_order(messages: list[Message]) -> None:
    """Whatever their content; then there is nothing."""
    mine, its = Channel.pair()
    for message in messages:
        assert mine.send(message)
    assert [its.receive() for _ in messages] == messages
    assert its.receive() is None
    mine.close()
    its.close()


def test_where_there_is_no_room_nobody_waits(ends: tuple[Channel, Channel]) -> None:
    """The message is not sent at all; those before it come whole, and then there is room again."""
    mine, its = ends
    sent = fill(mine)
    assert sent > 0
    assert [its.receive()["number"] for _ in range(sent)] == list(range(sent))
    assert its.receive() is None
    assert mine.send({"after": True})
    assert its.receive() == {"after": True}


def test_a_message_that_is_too_long_is_not_sent_in_part(ends: tuple[Channel, Channel]) -> None:
    """The longest one comes whole; of one byte more, nothing."""
    mine, its = ends
    frame = len(json.dumps({"text": ""}))
    assert mine.send({"text": "x" * (MAX_MESSAGE_BYTES - frame)})
    assert len(its.receive()["text"]) == MAX_MESSAGE_BYTES - frame
    assert mine.send({"text": "x" * (MAX_MESSAGE_BYTES - frame + 1)}) is False
    assert its.receive() is None


def test_what_was_sent_before_the_other_side_went_can_be_read(ends: tuple[Channel, Channel]) -> None:
    """After it every use says that it is gone."""
    mine, its = ends
    assert its.send({"last": "words"})
    its.close()
    assert mine.wait(Deadline.after(PATIENCE_S))
    assert mine.receive() == {"last": "words"}
    assert mine.wait(Deadline.after(PATIENCE_S))
    with pytest.raises(Gone):
        mine.receive()
    with pytest.raises(Gone):
        mine.send({})


def test_an_end_that_was_closed_here_is_gone_too(ends: tuple[Channel, Channel]) -> None:
    """Another thread may have closed it meanwhile."""
    mine, _ = ends
    mine.close()
    for use in (mine.receive, lambda: mine.send({}), lambda: mine.wait(Deadline.after(PATIENCE_S))):
        with pytest.raises(Gone):
            use()


def test_waiting_ends_at_the_deadline_or_with_a_message(ends: tuple[Channel, Channel]) -> None:
    """A deadline that lies years ahead is one too."""
    mine, its = ends
    assert mine.wait(Deadline.after(0)) is False
    its.send({"there": True})
    assert mine.wait(Deadline.after(1e9)) is True
    assert mine.wait(Deadline.after(0)) is True


def test_a_message_that_is_no_object_is_none(ends: tuple[Channel, Channel]) -> None:
    """Nobody of ours sends one."""
    mine, its = ends
    socket.socket(fileno=os.dup(its.fileno())).send(b"[1, 2]")
    assert mine.receive() is None


def test_the_ends_are_not_inherited_by_programs(ends: tuple[Channel, Channel]) -> None:
    """Only the courier is given one, by its number."""
    assert [os.get_inheritable(end.fileno()) for end in ends] == [False, False]


def test_the_death_of_the_other_side_is_no_signal(run_python: RunPython) -> None:
    """Programs that end quietly with a closed pipe (SIGPIPE) are not ended by a courier that died."""
    done = run_python(
        "import signal\n"
        "from lezea_mlops.runtime.channel import Channel, Gone\n"
        "signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
        "mine, its = Channel.pair()\n"
        "its.close()\n"
        "try:\n"
        "    mine.send({})\n"
        "except Gone:\n"
        "    print('still here')\n"
    )
    assert done.stdout == "still here\n"


# ---------------------------------------------------------------------- questions and answers


class Asked:
    """A conversation whose other side the test plays, and the notices that came."""

    def __init__(self) -> None:
        mine, self.its = Channel.pair()
        self.notices: list[Message] = []
        self.conversation = Conversation(mine, self.notices.append)

    def next_request(self) -> Message:
        """Wait for a request and return it."""
        while (request := self.its.receive()) is None:
            assert self.its.wait(Deadline.after(PATIENCE_S))
        return request

    def ask(self, question: str, within_s: float = PATIENCE_S) -> Message | None:
        """Ask, as a thread of the program does."""
        return self.conversation.ask({"do": question}, Deadline.after(within_s))


@pytest.fixture
def asked() -> Iterator[Asked]:
    """Return a conversation with both its sides."""
    asked = Asked()
    yield asked
    asked.conversation.close()
    asked.its.close()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Return threads that ask."""
    with ThreadPoolExecutor(16) as pool:
        yield pool


def test_every_thread_gets_the_answer_to_its_own_question(asked: Asked, threads: ThreadPoolExecutor) -> None:
    """Though the answers come in another order, and only one of those who wait reads at a time."""
    asking = {str(number): threads.submit(asked.ask, str(number)) for number in range(16)}
    requests = [asked.next_request() for _ in asking]
    for request in reversed(requests):
        assert asked.its.send({"id": request["id"], "echo": request["do"]})
    answers = {question: future.result(PATIENCE_S) for question, future in asking.items()}
    assert {question: answer["echo"] for question, answer in answers.items() if answer} == {
        question: question for question in asking
    }
    assert asked.notices == []


def test_a_long_wait_of_one_thread_keeps_no_other_waiting(asked: Asked, threads: ThreadPoolExecutor) -> None:
    """A flush may take minutes; calls are answered meanwhile."""
    flush = threads.submit(asked.ask, "flush")
    first = asked.next_request()
    for number in range(20):
        call = threads.submit(asked.ask, "call")
        asked.its.send({"id": asked.next_request()["id"], "number": number})
        assert call.result(PATIENCE_S)["number"] == number
    assert not flush.done()
    asked.its.send({"id": first["id"], "delivered": True})
    assert flush.result(PATIENCE_S)["delivered"] is True


def test_an_answer_that_comes_too_late_is_not_taken_for_another(
    asked: Asked, threads: ThreadPoolExecutor
) -> None:
    """It is a notice then: what it says of the courier is news nevertheless."""
    assert asked.ask("first", within_s=0.0) is None
    second = threads.submit(asked.ask, "second")
    first_request, second_request = asked.next_request(), asked.next_request()
    late = {"id": first_request["id"], "ready": True}
    asked.its.send(late)
    asked.its.send({"id": second_request["id"], "echo": "second"})
    assert second.result(PATIENCE_S)["echo"] == "second"
    assert asked.notices == [late]


def test_notices_are_taken_without_waiting_and_while_others_wait(
    asked: Asked, threads: ThreadPoolExecutor
) -> None:
    """Each once, in order."""
    asked.conversation.take_notices()
    assert asked.notices == []
    asked.its.send({"number": 1})
    asked.conversation.take_notices()
    waiting = threads.submit(asked.ask, "flush")
    request = asked.next_request()
    asked.its.send({"number": 2})
    asked.its.send({"id": request["id"]})
    waiting.result(PATIENCE_S)
    assert [notice["number"] for notice in asked.notices] == [1, 2]


def test_all_who_wait_learn_that_the_other_side_is_gone(asked: Asked, threads: ThreadPoolExecutor) -> None:
    """At once, and not at their deadlines."""
    waiting = [threads.submit(asked.ask, "flush") for _ in range(8)]
    for _ in waiting:
        asked.next_request()
    asked.its.close()
    for future in waiting:
        with pytest.raises(Gone):
            future.result(PATIENCE_S)


def test_a_question_for_which_there_is_no_room_has_no_answer(asked: Asked) -> None:
    """Nobody waits for it."""
    deadline = Deadline.after(PATIENCE_S)
    for _ in range(10_000):
        asked.conversation.ask({"do": "x" * 10_000}, Deadline.after(0))
    assert asked.conversation.ask({"do": "x" * 10_000}, deadline) is None
    assert not deadline.passed()


def test_who_is_interrupted_while_waiting_leaves_the_others_in_order(
    asked: Asked, threads: ThreadPoolExecutor
) -> None:
    """Ctrl-C in the thread that reads for all: another reads on."""
    begun = threading.Event()

    def interrupt() -> None:
        asked.next_request()
        begun.set()
        os.kill(os.getpid(), signal.SIGINT)

    other = threads.submit(interrupt)
    with pytest.raises(KeyboardInterrupt):
        asked.ask("flush")
    other.result(PATIENCE_S)
    assert begun.is_set()
    again = threads.submit(asked.ask, "again")
    asked.its.send({"id": asked.next_request()["id"], "echo": "again"})
    assert again.result(PATIENCE_S)["echo"] == "again"


def test_the_handler_of_a_signal_may_ask_in_the_middle_of_a_wait(
    asked: Asked, threads: ThreadPoolExecutor
) -> None:
    """It ends the run, for instance; it has its answer, and so has the thread that it came to."""
    heard: list[Message | None] = []

    def other_side() -> None:
        first = asked.next_request()
        os.kill(os.getpid(), signal.SIGUSR1)
        second = asked.next_request()
        for request in (first, second):
            asked.its.send({"id": request["id"], "echo": request["do"]})

    before = signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(asked.ask("close")))
    try:
        other = threads.submit(other_side)
        answer = asked.ask("flush")
        other.result(PATIENCE_S)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert [told and told["echo"] for told in [answer, *heard]] == ["flush", "close"]
