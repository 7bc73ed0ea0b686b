"""Processes of servers: started apart from the terminal, with their output in a file, seen to listen, ended."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from lezea_mlops._clock import Deadline
from lezea_mlops._files import open_private
from lezea_mlops.errors import LezeaError

HOST = "127.0.0.1"
# A server that runs for months writes much; what a start finds above this becomes the old log.
LOG_BYTES = 16 * 2**20
KILL_S = 10.0
POLL_S = 0.05

# Linux kills a program that asked for it when its parent ends, however that ends. Between its start and its asking
# the parent may have gone already.
_BOUND = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class ServerError(LezeaError):
    """A server could not be started or ended; the message says what its log says, and what to do."""


class ServerEndedError(ServerError):
    """A server ended before it was ready."""


@dataclass(frozen=True)
class Program:
    """How a server is started.

    Attributes:
        command: the program, by its whole path, and its arguments.
        folder: where it runs.
        log: the file that takes its output, at its end.
        environment: variables beside those of this process.
    """

    command: Sequence[str]
    folder: Path
    log: Path
    environment: Mapping[str, str]


def launch(program: Program, *, bound: bool) -> psutil.Popen:
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
    if program.log.exists() and program.log.stat().st_size > LOG_BYTES:
        program.log.replace(program.log.with_name(f"{program.log.name}.old"))
    log = open_private(program.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        return psutil.Popen(
            command, cwd=program.folder, env=os.environ | program.environment,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise ServerError(f"{program.command[0]} cannot be started: {error}") from error
    finally:
        os.close(log)


def with_descendants(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return those that live, and all that they started and that live."""
    found: dict[int, psutil.Process] = {}
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            # What has ended has no descendants that could be told; they are listed by themselves.
            found |= {member.pid: member for member in (process, *process.children(recursive=True))}
    return [process for process in found.values() if lives(process)]


def lives(process: psutil.Process) -> bool:
    """Tell whether it has not ended; one that ended may stay listed until its parent takes note, if that ever does."""
    try:
        if not process.is_running():
            return False
        # Its main thread may be gone, and the others still write.
        return process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD) or process.num_threads() > 1
    except psutil.NoSuchProcess:
        return False


def listens(processes: Iterable[psutil.Process], port: int) -> bool:
    """Tell whether one of them listens on the port: an answer alone may be a stranger's."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            # One that ends at this moment does not listen, and one before its start cannot be asked.
            connections = process.net_connections("tcp")
            if any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections):
                return True
    return False


def end(processes: Iterable[psutil.Process], within_s: float) -> bool:
    """Ask them, and all that they started, to end; kill what has not after *within_s* seconds; tell if all ended."""
    members = with_descendants(processes)
    for process in members:
        _signal(process, signal.SIGTERM)
        # One that was stopped would not even end.
        _signal(process, signal.SIGCONT)
    return kill(_left_after(members, within_s))


def kill(processes: Iterable[psutil.Process]) -> bool:
    """Kill them and all that they started; tell whether all ended."""
    members = with_descendants(processes)
    for process in members:
        _signal(process, signal.SIGKILL)
    return not _left_after(members, KILL_S)


def _left_after(processes: Sequence[psutil.Process], within_s: float) -> list[psutil.Process]:
    """Wait until all have ended, at most *within_s* seconds, and return those that have not."""
    deadline = Deadline.after(within_s)
    while (left := [process for process in processes if lives(process)]) and not deadline.passed():
        psutil.wait_procs(left, POLL_S)
    # Those that this process started are listed until it takes note.
    psutil.wait_procs(processes, 0)
    return left


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        # Another user's cannot be ended; that it lives on is told.
        process.send_signal(number)


def how_it_ended(code: int | None) -> str:
    """Return in words what an exit code tells; minus the number of a signal is a death by it."""
    if code is None:
        return "ended"
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def last_lines(log: Path, count: int = 15) -> list[str]:
    """Return the last lines of *log*; none if there is no log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 65_536))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except OSError:
        return []


def free_port(preferred: int | None = None) -> int:
    """Return the first port from *preferred* on that nobody listens on at loopback; any free one for None.

    Raises:
        ServerError: none is free.
    """
    # Above are the ports of outgoing connections, one of which may take a server's place while it is down.
    first = 15_000 + secrets.randbelow(15_000) if preferred is None else preferred
    for port in range(first, 65_536):
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                # Some systems let two programs bind one port, and only one of them is reached.
                continue
        with socket.socket() as probe:
            # Connections that ended a moment ago do not keep a server from its port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                return port
    raise ServerError(f"no port from {first} on is free at {HOST}")
