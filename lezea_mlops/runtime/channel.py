"""Messages between a process and its courier: one JSON object each, on a pair of sockets that never blocks a writer.

Requests carry an ``id`` and get one answer with the same; notices carry none. A message is sent whole or not at all,
and either side may die at any moment: that raises ``Gone``, never a signal.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from lezea_mlops._clock import Deadline

Message = dict[str, Any]

# Who waits for an answer looks so often whether it has come in another way.
READ_TURN_S = 1.0
MAX_MESSAGE_BYTES = 128 * 1024
# Both keep the borders of messages, and neither sends a SIGPIPE; macOS has only the second for local sockets.
_KIND = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM
# A wait of more milliseconds than fit an int is an error of the system's.
_LONGEST_POLL_S = 3_600.0


class Gone(Exception):
    """The other side is not there any more."""


class Channel:
    """One end."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._socket.setblocking(False)

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Return two ends; neither is inherited by programs unless it is passed on."""
        one, other = socket.socketpair(socket.AF_UNIX, _KIND)
        return cls(one), cls(other)

    @classmethod
    def of_descriptor(cls, descriptor: int) -> Channel:
        """Return the end that was passed on as a descriptor."""
        return cls(socket.socket(fileno=descriptor))

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def send(self, message: Message) -> bool:
        """Send *message*; False if there is no room for it, because the other side has not read or it is too long.

        Raises:
            Gone: the other side is not there any more.
        """
        content = json.dumps(message).encode()
        if len(content) > MAX_MESSAGE_BYTES:
            return False
        try:
            self._socket.send(content)
        except BlockingIOError:
            return False
        except OSError as error:
            raise Gone(str(error)) from error
        return True

    def receive(self) -> Message | None:
        """Return the next message that is there already; None if there is none.

        Raises:
            Gone: the other side is not there any more.
        """
        try:
            received = self._socket.recv(MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            raise Gone(str(error)) from error
        if not received:
            raise Gone("it has closed its end")
        message = json.loads(received)
        return message if isinstance(message, dict) else None

    def wait(self, deadline: Deadline) -> bool:
        """Wait until something can be received, or the other side is gone; False if the deadline passed first.

        Raises:
            Gone: this end was closed.
        """
        poll = select.poll()
        try:
            poll.register(self._socket, select.POLLIN)
        except ValueError as error:
            raise Gone("this end was closed") from error
        while not (there := bool(poll.poll(min(deadline.left_s(), _LONGEST_POLL_S) * 1_000))):
            if deadline.passed():
                break
        return there


class Conversation:
    """The asking side of a channel, for several threads: each gets the answer to its own question.

    One of those who wait reads for all of them. What answers nobody is a notice; an answer that came too late is one
    too.

    Args:
        channel: this side's end.
        notice: called with each notice; it must neither wait nor ask.
    """

    def __init__(self, channel: Channel, notice: Callable[[Message], None]) -> None:
        self._channel = channel
        self._notice = notice
        self._changed = threading.Condition()
        self._last_id = 0
        # The thread that reads for all.
        self._reader: int | None = None
        self._answers: dict[int, Message | None] = {}

    def ask(self, request: Message, deadline: Deadline) -> Message | None:
        """Return the answer; None if there was no room for the question, or no answer came in time.

        Raises:
            Gone: the other side is not there any more.
        """
        with self._changed:
            self._last_id += 1
            number = self._last_id
            if not self._channel.send({"id": number} | request):
                return None
            self._answers[number] = None
        try:
            return self._answer_to(number, deadline)
        finally:
            with self._changed:
                self._answers.pop(number, None)

    def take_notices(self) -> None:
        """Take what is there already; whoever waits for an answer does that meanwhile.

        Raises:
            Gone: the other side is not there any more.
        """
        with self._changed:
            if self._reader in (None, threading.get_ident()):
                self._receive_all()

    def close(self) -> None:
        """Close this end."""
        self._channel.close()

    def _answer_to(self, number: int, deadline: Deadline) -> Message | None:
        me = threading.get_ident()
        while True:
            is_reader, before = False, None
            # Ctrl-C may come in the middle of the wait, and another thread must be able to read then. The handler of
            # a signal may ask too, in the middle of its own thread's wait: it reads, and leaves the right to do so.
            try:
                with self._changed:
                    answer = self._answers[number]
                    if answer is not None or deadline.passed():
                        return answer
                    if self._reader not in (None, me):
                        self._changed.wait(deadline.left_s())
                        continue
                    is_reader, before, self._reader = True, self._reader, me
                # A handler may have taken this answer with its own.
                self._channel.wait(Deadline.after(min(READ_TURN_S, deadline.left_s())))
            finally:
                if is_reader:
                    with self._changed:
                        self._reader = before
                        self._changed.notify_all()
            self.take_notices()

    def _receive_all(self) -> None:
        while (message := self._channel.receive()) is not None:
            number = message.get("id")
            if number in self._answers:
                self._answers[number] = message
                self._changed.notify_all()
            else:
                self._notice(message)
