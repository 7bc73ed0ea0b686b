"""A server as a process: started apart from the terminal, with its output in a file, watched until it is ready."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lezea_mlops._clock import Deadline
from lezea_mlops._files import open_private
from lezea_mlops.errors import LezeaError

HOST = "127.0.0.1"
POLL_S = 0.05
TAIL_LINES = 15

# Linux kills a program that asked for it when its parent ends, however that ends. Between its start and its asking
# the parent may have gone already.
_BOUND = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class ServerError(LezeaError):
    """A server could not be started or stopped; the message says what its log says, and what to do."""


@dataclass(frozen=True)
class Program:
    """How a server is started.

    Attributes:
        name: what people call it.
        command: the program, by its whole path, and its arguments.
        folder: where it runs.
        log: the file that takes its output, at its end.
        environment: variables beside those of this process.
    """

    name: str
    command: Sequence[str]
    folder: Path
    log: Path
    environment: Mapping[str, str]


def launch(program: Program, *, bound: bool) -> subprocess.Popen[bytes]:
    """Start *program* in a session of its own, where Ctrl-C and the end of the terminal do not reach it.

    Args:
        program: what to start.
        bound: it is killed when the calling thread ends, be it by a kill. On Linux alone; elsewhere it lives on.

    Raises:
        ServerError: the system cannot start it.
    """
    command = list(program.command)
    if bound and sys.platform == "linux":
        command = [sys.executable, "-I", "-S", "-c", _BOUND, str(os.getpid()), *command]
    log = open_private(program.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        return subprocess.Popen(
            command, cwd=program.folder, env=os.environ | program.environment,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise ServerError(f"{program.name} cannot be started: {program.command[0]}: {error}") from error
    finally:
        os.close(log)


def wait_until(
    ready: Callable[[], bool], process: subprocess.Popen[bytes], deadline: Deadline, program: Program
) -> None:
    """Return when *ready* says so.

    Raises:
        ServerEnded: the process ended first.
        ServerError: the deadline passed.
    """
    while not ready():
        with contextlib.suppress(subprocess.TimeoutExpired):
            # It says that it is ready by answering and in no other way; until then watch that it lives.
            raise ServerEnded(program, process.wait(POLL_S))
        if deadline.passed():
            raise ServerError(f"{program.name} runs and does not answer. {said_by(program.log)}")


class ServerEnded(ServerError):
    """A server ended before it was ready.

    Attributes:
        code: its exit code, or minus the signal that killed it.
        tail: the last lines of its log.
    """

    def __init__(self, program: Program, code: int, advice: str = "") -> None:
        self.program = program
        self.code = code
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        super().__init__(f"{program.name} {how} while it started. {advice}{said_by(program.log)}")

    @property
    def tail(self) -> str:
        """Return what its log said last."""
        return last_lines(self.program.log)


def listens(pid: int, port: int) -> bool:
    """Tell whether the process, or one that it started, listens on the port: an answer alone may be a stranger's."""
    import psutil

    try:
        process = psutil.Process(pid)
        return any(
            connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            for member in (process, *process.children(recursive=True))
            for connection in member.net_connections("tcp")
        )
    except psutil.Error:
        # It ends at this moment, which its exit code will tell.
        return False


def said_by(log: Path) -> str:
    """Return a sentence with the last lines of *log*."""
    return f"The last lines of {log}:\n{last_lines(log) or '(it is empty)'}"


def last_lines(log: Path, count: int = TAIL_LINES) -> str:
    """Return the last lines of *log*, each cut to a width that can be read; nothing if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 65_536))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(line[:500] for line in text.splitlines()[-count:])


def free_port(preferred: int = 0) -> int:
    """Return the first port from *preferred* on that nobody listens on at loopback; any free one for 0."""
    for port in range(preferred, 65_536) if preferred else (0,):
        with socket.socket() as probe:
            if os.name == "posix":
                # Connections that ended a moment ago do not keep a server from its port.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ServerError(f"no port from {preferred} on is free at {HOST}")
