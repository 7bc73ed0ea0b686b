"""What is remembered of a server in its folder: its port, and which processes it is while it runs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from lezea_mlops._files import replace_atomically
from lezea_mlops._process import ProcessIdentity, process_start_ticks
from lezea_mlops.servers.process import ServerError

_NAME = "server.json"


@dataclass(frozen=True)
class Remembered:
    """A server as it was when it was last started or ended.

    Attributes:
        port: where it listens, or listened last; None if it never did.
        running: its processes; none after it was ended. Which of them still live is for the system to say.
    """

    port: int | None = None
    running: tuple[ProcessIdentity, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Remembered:
        """Return what *folder* remembers; a file that is missing or cannot be understood remembers nothing."""
        try:
            stored = json.loads((folder / _NAME).read_bytes())
            port, running = stored["port"], [ProcessIdentity.read(process) for process in stored["running"]]
        except (OSError, ValueError, TypeError, KeyError):
            return cls()
        if type(port) is not int or not 0 < port < 65_536:
            return cls()
        return cls(port, tuple(process for process in running if process is not None))

    def write(self, folder: Path) -> None:
        """Keep it in *folder*."""
        replace_atomically(folder / _NAME, json.dumps(dataclasses.asdict(self), indent=2).encode() + b"\n")

    def alive(self) -> list[psutil.Process]:
        """Return the processes that still live, and no stranger that got one of their numbers.

        Raises:
            ServerError: they are of another machine or container, where nobody here can look.
        """
        found = []
        for identity in self.running:
            exists = identity.exists()
            if exists is None:
                raise ServerError(
                    f"the server was started on {identity.host!r} or in another container, and may still run there: "
                    "end it there, or use another --folder"
                )
            if exists:
                with contextlib.suppress(psutil.NoSuchProcess):
                    # It may end between the two questions.
                    found.append(psutil.Process(identity.pid))
        return found


def identities(processes: Iterable[psutil.Process]) -> tuple[ProcessIdentity, ...]:
    """Return what identifies *processes* for ever."""
    here = ProcessIdentity.of_this_process()
    return tuple(
        dataclasses.replace(here, pid=process.pid, start_ticks=process_start_ticks(process.pid))
        for process in processes
    )
