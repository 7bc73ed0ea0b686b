"""Messages between a process and its courier: one JSON object each, on a pair of sockets that never blocks a writer.

Requests carry an ``id`` and get one answer with the same; notices carry none. A message is sent whole or not at all,
and either side may die at any moment.
"""

from __future__ import annotations

import json
import select
import socket
import sys
from typing import Any

from lezea_mlops._clock import Deadline

Message = dict[str, Any]

MAX_MESSAGE_BYTES = 128 * 1024
# Both keep the borders of messages; macOS has only the second for local sockets.
_KIND = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM


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
        """Send *message*; False if the other side has not read for so long that there is no room.

        Raises:
            Gone: the other side is not there any more.
        """
        try:
            self._socket.send(json.dumps(message).encode())
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
        """Wait until something can be received, or the other side is gone; False if the deadline passed first."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(deadline.left_s() * 1_000))
