"""What every server has in common: a folder, a port, a log, and that it is started, waited for and ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from signal import Signals
from typing import ClassVar

import psutil

from lezea_mlops._clock import Deadline
from lezea_mlops._files import make_private_folder
from lezea_mlops.servers.process import (
    POLL_S,
    Program,
    ServerEndedError,
    ServerError,
    end,
    free_port,
    how_it_ended,
    kill,
    last_lines,
    launch,
    listens,
    with_descendants,
)

STOP_S = 20.0


class Server(ABC):
    """A server of this machine that listens on loopback, with all that it keeps in one folder.

    Attributes:
        name: of its folder and log, and on the command line.
        title: what people call it.
        default_port: where it is looked for.
        start_s: how long a start may take, on a slow and busy machine.
        variable: the environment variable through which a tracker learns of it.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    default_port: ClassVar[int]
    start_s: ClassVar[float]
    variable: ClassVar[str]

    def __init__(self, folder: Path, port: int | None = None, *, bound: bool = False) -> None:
        """Nothing is started yet.

        Args:
            folder: for data and log; what is there already is used.
            port: None for any free one.
            bound: it is killed when the thread that starts it ends (on Linux).
        """
        self.folder = folder.absolute()
        self.port = free_port() if port is None else port
        self.processes: list[psutil.Process] = []
        self._bound = bound

    @property
    def log(self) -> Path:
        """Return the file that takes its output."""
        return self.folder / f"{self.name}.log"

    @property
    @abstractmethod
    def tracker_uri(self) -> str:
        """Return what ``variable`` is set to."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Return the program, by its whole path, and its arguments, after making what it needs in its folder."""

    @abstractmethod
    def ready(self) -> bool:
        """Tell whether it serves, as far as asking it at its port tells."""

    def environment(self) -> Mapping[str, str]:
        """Return variables that it is given beside those of this process."""
        return {}

    def advice(self, code: int | None, tail: Sequence[str]) -> str:
        """Return what to do about an end with *code* and the last lines of its log, as far as it is known."""
        return ""

    def readable(self, line: str) -> str:
        """Return a line of its log as a person reads it."""
        return line

    def start(self) -> None:
        """Start it, and wait until it serves.

        Raises:
            ServerError: it does not start; the message says what its log says, and what to do.
        """
        self.launch()
        try:
            self.wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def launch(self) -> None:
        """Start it and return at once.

        Raises:
            ServerError: the system cannot start it.
        """
        make_private_folder(self.folder)
        program = Program(self.command(), self.folder, self.log, self.environment())
        self.processes = [launch(program, bound=self._bound)]

    def wait_until_ready(self, within_s: float | None = None) -> None:
        """Return when it serves, and know its processes.

        Args:
            within_s: how long that may take; ``start_s`` if None.

        Raises:
            ServerEndedError: it ended first.
            ServerError: it took too long.
        """
        deadline = Deadline.after(self.start_s if within_s is None else within_s)
        first = self.processes[0]
        while not self.serves():
            try:
                # It says that it is ready by answering and in no other way; until then watch that it lives.
                code = first.wait(POLL_S)
            except psutil.TimeoutExpired:
                if deadline.passed():
                    raise ServerError(self._told("runs and does not answer")) from None
                continue
            raise ServerEndedError(self._told(how_it_ended(code) + " while it started", code))
        self.processes = with_descendants(self.processes)

    def serves(self) -> bool:
        """Tell whether it listens, it and no stranger, and is ready."""
        return listens(with_descendants(self.processes), self.port) and self.ready()

    def _told(self, what: str, code: int | None = None) -> str:
        tail = last_lines(self.log)
        lines = "\n".join(self.readable(line)[:300] for line in tail) or "(nothing)"
        return f"{self.title} {what}. {self.advice(code, tail)}Its log {self.log} says last:\n{lines}"

    def signal(self, number: Signals) -> None:
        """Send a signal, such as SIGSTOP, to all its processes."""
        for process in with_descendants(self.processes):
            process.send_signal(number)

    def stop(self) -> None:
        """Ask it to end, and kill it if it does not; its data stays. Nothing happens if it does not run.

        Raises:
            ServerError: it lives on.
        """
        self._gone(end(self.processes, STOP_S))

    def kill(self) -> None:
        """Kill it, as a failing machine would.

        Raises:
            ServerError: it lives on.
        """
        self._gone(kill(self.processes))

    def _gone(self, ended: bool) -> None:
        if not ended:
            pids = ", ".join(str(process.pid) for process in self.processes)
            raise ServerError(f"{self.title} (processes {pids}) cannot be ended; is it another user's?")
        self.processes = []

    def belongs(self, processes: Iterable[psutil.Process]) -> None:
        """Take processes that run already as those of this server."""
        self.processes = list(processes)
