"""Destinations that a test takes away and gives back."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable

from tests.conftest import MlflowServer
from tests.gate import Gate


class Outage:
    """A destination that can be taken away and given back.

    Attributes:
        uri: where the tracker delivers to.
        server_uri: where a person looks at what arrived.
    """

    def __init__(
        self, uri: str, begin: Callable[[], object], end: Callable[[], object], server_uri: str = ""
    ) -> None:
        self.uri, self.begin, self.end = uri, begin, end
        self.server_uri = server_uri or uri


def of_gate(gate: Gate, how: str) -> Outage:
    """Return an outage of a server behind a port."""
    begin = {"absent": gate.close, "silent": gate.be_silent, "broken": gate.be_broken}[how]
    return Outage(gate.uri, begin, gate.lead_on)


def of_server(server: MlflowServer, how: str) -> Outage:
    """Return an outage of the server's own processes."""
    if how == "killed":
        return Outage(server.uri, server.stop, server.start)
    return Outage(server.uri, lambda: server.signal(signal.SIGSTOP), lambda: server.signal(signal.SIGCONT))


def of_store(uri: str) -> Outage:
    """Return an outage of a SQLite store: another connection holds it."""
    path = uri.removeprefix("sqlite:///")
    holders: list[sqlite3.Connection] = []

    def begin() -> None:
        holders.append(sqlite3.connect(path, isolation_level=None, check_same_thread=False))
        holders[0].execute("BEGIN EXCLUSIVE")

    return Outage(uri, begin, lambda: holders.pop().close())
