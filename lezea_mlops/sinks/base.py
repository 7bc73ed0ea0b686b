"""The contract of every sink.

A sink says three things: ``deliver`` returns (taken, all of it), raises ``Unavailable`` (the destination; the same
records come again later) or raises ``Rejected`` (this record's content can never be taken, another record's could).
Records come at least once; replaying any prefix and going on to the end must equal one clean delivery.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from lezea_mlops.events import Envelope


class Unavailable(Exception):
    """The destination cannot take records now.

    Args:
        message: what was tried, what happened, what to do; written for a person at night.
        reason: one word for counting: ``unreachable``, ``refused``, ``timeout``, ``locked``, ``removed``,
            ``configuration``, ``missing_dependency``, ``waiting``, ``error``.
    """

    def __init__(self, message: str, reason: str = "unreachable") -> None:
        super().__init__(message)
        self.reason = reason


class Rejected(Exception):
    """The content of this record can never be taken, although another record's could."""


@dataclass(frozen=True)
class Run:
    """The run that a sink serves.

    Attributes:
        run_id: the experiment id.
        folder: the run folder.
    """

    run_id: str
    folder: Path


class Sink(Protocol):
    """One destination for the records of one run."""

    name: str
    destination: str

    def open(self, run: Run, state: Mapping[str, Any]) -> None:
        """Connect for *run*; called again after ``Unavailable``.

        Args:
            run: whose records will come.
            state: what ``state`` returned when the cursor was stored last; empty at first.

        Raises:
            Unavailable: it cannot be reached.
        """

    def deliver(self, records: Sequence[Envelope]) -> None:
        """Take all *records*, in their order.

        Raises:
            Unavailable: the destination failed; any part may have been taken.
            Rejected: a record among them can never be taken.
        """

    def state(self) -> Mapping[str, Any]:
        """Return what the sink must remember, as JSON values; stored together with the position."""

    def close(self) -> None:
        """Give connections back."""


def destination_id(sink: Sink) -> str:
    """Return the name of the cursor of *sink*: its name and 8 hex digits of its address without credentials."""
    return destination_named(sink.name, sink.destination)


def destination_named(name: str, address: str) -> str:
    """Return what ``destination_id`` says of a sink that need not be made for it."""
    digest = hashlib.sha256(without_credentials(address).encode()).hexdigest()
    return f"{name}-{digest[:8]}"


def without_credentials(uri: str) -> str:
    """Return *uri* without userinfo, query and trailing slash, in the spelling that stays the same."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        # Nothing can be reached there; still no secret may be shown.
        return uri.rpartition("@")[2]
    if not parts.netloc:
        return uri
    host = parts.netloc.rpartition("@")[2].lower()
    return urlunsplit((parts.scheme.lower(), host, parts.path.rstrip("/"), "", ""))
