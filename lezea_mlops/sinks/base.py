"""The contract of every sink.

A sink says three things: ``deliver`` returns (taken, all of it), raises ``Unavailable`` (the destination; the same
records come again later) or raises ``Rejected`` (this record's content can never be taken, another record's could).
Records come at least once; replaying any prefix and going on to the end must equal one clean delivery.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable
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
    """One destination for the records of one run.

    One that takes more than a megabyte of journal at once with profit may say how much: ``batch_bytes``.
    """

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
        """Give connections back; also those of an ``open`` that failed."""


# What an audit reads, again and again and from the beginning: each record of the journal, and whether the destination
# owes it. It does not owe what waits for its delivery or was set aside; such records may be there, in whole or in part.
AuditedJournal: TypeAlias = Callable[[], Iterator[tuple[Envelope, bool]]]


@dataclass(frozen=True)
class Finding:
    """One difference between the journal and a destination.

    Attributes:
        kind: ``missing``: the destination lacks it; ``doubled``: it has it once more; ``altered``: it has another
            value, or one that no record brought.
        what: the thing, in words, such as ``metric builder:42/loss step 7``.
        wid: the writer of the record that brought it; None if there is none.
        seq: the number of that record.
        expected: what the record says; None for nothing.
        found: what the destination holds; None for nothing.
        mendable: delivering the record again brings what is missing, or the right value.
    """

    kind: Literal["missing", "doubled", "altered"]
    what: str
    wid: str | None
    seq: int | None
    expected: str | None = None
    found: str | None = None
    mendable: bool = False


@dataclass
class AuditCounts:
    """What an audit looked at, beside what it found.

    Attributes:
        checked: things that records brought and that were compared: points of metrics, params, tags, files and so on.
        merged: those of them that the destination cannot hold twice, since all of them is equal to another one.
        withheld: values of individuals that are not shown there, because there are too many names.
    """

    checked: int = 0
    merged: int = 0
    withheld: int = 0


@runtime_checkable
class Auditor(Protocol):
    """A sink whose destination can be asked what it holds, to be compared with the journal."""

    def audit(
        self, run: Run, state: Mapping[str, Any], journal: AuditedJournal, counts: AuditCounts
    ) -> Iterator[Finding]:
        """Compare what the destination holds of *run* with the journal, in bounded memory; nothing is changed.

        Args:
            run: whose records are compared.
            state: what ``Sink.state`` returned when the cursor was stored last.
            journal: yields the records, those that the destination owes being marked.
            counts: receives the numbers while the findings come.

        Raises:
            Unavailable: the destination cannot be asked.
        """


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
