"""The servers of one folder: brought up, found again by a later command, and taken down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lezea_mlops._files import locked, make_private_folder
from lezea_mlops.servers.mlflow import MlflowServer
from lezea_mlops.servers.mongod import Mongod
from lezea_mlops.servers.process import ServerEndedError, ServerError, end, free_port
from lezea_mlops.servers.remembered import Remembered, identities
from lezea_mlops.servers.server import STOP_S, Server

KINDS: dict[str, type[Server]] = {"mlflow": MlflowServer, "mongodb": Mongod}

# Between the look for a free port and the start of the server another program may take it.
_PORTS_TRIED = 3

# How long one that runs already may take to answer.
_ANSWER_S = 30.0


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold *folder* alone, so that two commands do not start the same server twice; wait where another holds it."""
    make_private_folder(folder)
    with locked(folder / "lock"):
        yield


def bring_up(kind: str, folder: Path, waiting: Callable[[Server], object]) -> tuple[Server, bool]:
    """Return the server of that kind once it serves, and whether it was up already.

    Args:
        kind: a name in ``KINDS``.
        folder: that of all servers, held.
        waiting: called when one has been started, or is there and does not answer yet; either takes a while.

    Raises:
        ServerError: it does not come up.
        MissingDependencyError, ConfigurationError: its program is not on this machine.
    """
    remembered = Remembered.read(folder / kind)
    if alive := remembered.alive():
        server = KINDS[kind](folder / kind, remembered.port)
        server.belongs(alive)
        _answer(server, waiting)
        return server, True
    for _ in range(_PORTS_TRIED):
        server = KINDS[kind](folder / kind, free_port(remembered.port or KINDS[kind].default_port))
        try:
            _start(server, waiting)
        except ServerEndedError:
            if free_port(server.port) == server.port:
                raise
        else:
            return server, False
    raise ServerError(
        f"{KINDS[kind].title} found its port taken by another program {_PORTS_TRIED} times in a row"
    )


def _answer(server: Server, waiting: Callable[[Server], object]) -> None:
    """Wait for one that runs: a command that started it may have been killed before it was ready."""
    try:
        if not server.serves():
            waiting(server)
        server.wait_until_ready(_ANSWER_S)
    except ServerError as error:
        raise ServerError(
            f"{error}\nTo start it anew: lezea down --folder {server.folder.parent}, then up"
        ) from None
    Remembered(server.port, identities(server.processes)).write(server.folder)


def _start(server: Server, waiting: Callable[[Server], object]) -> None:
    server.launch()
    try:
        # From here on a later command finds it, even if this one is killed.
        Remembered(server.port, identities(server.processes)).write(server.folder)
        waiting(server)
        server.wait_until_ready()
    except BaseException:
        server.kill()
        Remembered(server.port).write(server.folder)
        raise
    Remembered(server.port, identities(server.processes)).write(server.folder)


def take_down(kind: str, folder: Path) -> bool:
    """End the server of that kind, and tell whether it ran.

    Args:
        kind: a name in ``KINDS``.
        folder: that of all servers, held.

    Raises:
        ServerError: it cannot be ended.
    """
    remembered = Remembered.read(folder / kind)
    alive = remembered.alive()
    if alive and not end(alive, STOP_S):
        pids = ", ".join(str(process.pid) for process in alive)
        raise ServerError(f"{KINDS[kind].title} (processes {pids}) cannot be ended; is it another user's?")
    if remembered.running:
        Remembered(remembered.port).write(folder / kind)
    return bool(alive)
