"""What MongoDB holds of a run, compared with what its journal holds; nothing is changed.

The journal is read once, in pieces, and for each piece the documents that it should have made are asked for. Documents
that no record made are found last; if there are any, the journal is read once more, for it may have grown meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lezea_mlops.events import Envelope
from lezea_mlops.sinks.base import AuditCounts, AuditedJournal, Finding, Run
from lezea_mlops.sinks.mongodb.audit_experiment import ExperimentAudit
from lezea_mlops.sinks.mongodb.audit_piece import Piece
from lezea_mlops.sinks.mongodb.documents import COLLECTIONS, collections_of
from lezea_mlops.sinks.mongodb.large import LargeValues

PIECE_DOCUMENTS = 1_000
# So many documents of no record are looked for in the journal once more; beyond it something else is wrong.
MAX_STRANGERS = 100_000


def audited(database: Any, run: Run, journal: AuditedJournal, counts: AuditCounts) -> Iterator[Finding]:
    """Yield the differences between a database and the journal of *run*.

    Args:
        database: a pymongo ``Database``.
        run: whose documents are compared.
        journal: yields the records, those that the database owes being marked.
        counts: receives the numbers while the findings come.

    Raises:
        PyMongoError: the database cannot be asked.
    """
    large = LargeValues(database, run.run_id)
    experiment = ExperimentAudit(database, run.run_id, large, counts)
    made = MadeBy()
    piece = Piece(database, run.run_id, large, counts)
    for record, owed in journal():
        made.take(record)
        experiment.take(record, owed)
        piece.take(record, owed)
        if piece.documents >= PIECE_DOCUMENTS:
            yield from piece.findings()
            piece = Piece(database, run.run_id, large, counts)
    yield from piece.findings()
    yield from experiment.findings()
    yield from _strangers(database, run.run_id, journal, made)


class MadeBy:
    """Which records may have made a document in which collection: a bit for each record."""

    def __init__(self) -> None:
        self._bits: dict[tuple[str, str], bytearray] = {}

    def take(self, record: Envelope) -> None:
        """Remember one record."""
        for collection in collections_of(record):
            bits = self._bits.setdefault((collection, record.wid), bytearray())
            byte, bit = divmod(record.seq, 8)
            if byte < 2**30:
                bits.extend(bytes(max(0, byte + 1 - len(bits))))
                bits[byte] |= 1 << bit

    def knows(self, collection: str, wid: Any, seq: Any) -> bool:
        """Tell whether a record of this number may have made a document there."""
        bits = self._bits.get((collection, wid), b"") if isinstance(wid, str) else b""
        byte, bit = divmod(seq, 8) if isinstance(seq, int) and seq >= 0 else (len(bits), 0)
        return byte < len(bits) and bool(bits[byte] & 1 << bit)


def _strangers(database: Any, run_id: str, journal: AuditedJournal, made: MadeBy) -> Iterator[Finding]:
    """Yield the documents that no record made."""
    strangers: dict[tuple[str, Any], Mapping[str, Any]] = {}
    for collection in COLLECTIONS:
        for each in database[collection].find({"run_id": run_id}, {"wid": 1, "seq": 1}):
            if len(strangers) < MAX_STRANGERS and not made.knows(
                collection, each.get("wid"), each.get("seq")
            ):
                strangers[collection, str(each["_id"])] = each
    if not strangers:
        return
    now = MadeBy()
    for record, _ in journal():
        now.take(record)
    for (collection, identity), each in strangers.items():
        if not now.knows(collection, each.get("wid"), each.get("seq")):
            yield Finding("altered", f"{collection} {identity}", None, None, None, "a document of no record")
