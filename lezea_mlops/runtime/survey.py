"""A journal read from end to end for what it holds: records by type, damage, gaps and order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lezea_mlops.events import FORMAT_VERSION, Envelope, Gap
from lezea_mlops.journal import JournalReader, RunFolder

MAX_GAPS = 100


@dataclass
class Survey:
    """What the journals of a run hold.

    Attributes:
        records: how many.
        by_type: how many of each type.
        damaged: how many places hold no record.
        damage: the first of them, in words.
        lost: how many records the writers themselves say are missing.
        gaps: the first of what they say: writer, first and last number, reason.
        missing: numbers that no record has and no writer speaks of; damaged lines, as a rule.
        out_of_order: records whose number is not above the one before: lines doubled or moved.
        newer: records of a later format version.
    """

    records: int = 0
    by_type: dict[str, int] = field(default_factory=dict)
    damaged: int = 0
    damage: list[str] = field(default_factory=list)
    lost: int = 0
    gaps: list[dict[str, Any]] = field(default_factory=list)
    missing: int = 0
    out_of_order: int = 0
    newer: int = 0


def survey(folder: RunFolder) -> Survey:
    """Read the journals of a run from end to end, in bounded memory.

    Raises:
        JournalError: a journal cannot be read.
    """
    found = Survey()
    last: dict[str, int] = {}
    reader = JournalReader(folder)
    for record in reader:
        found.records += 1
        found.by_type[record.type] = found.by_type.get(record.type, 0) + 1
        found.newer += record.version > FORMAT_VERSION
        told = _take_gap(found, record) if record.type == Gap.type else 0
        before = last.get(record.wid, 0)
        if record.seq <= before:
            found.out_of_order += 1
        else:
            found.missing += max(0, record.seq - before - 1 - told)
            last[record.wid] = record.seq
    found.damaged, found.damage = reader.damaged, [str(damage) for damage in reader.damage]
    return found


def _take_gap(found: Survey, record: Envelope) -> int:
    """Take note of what a writer says is missing, and return how many records that is."""
    count = record.payload.get("count")
    count = count if isinstance(count, int) and count > 0 else 0
    found.lost += count
    if len(found.gaps) < MAX_GAPS:
        told = {name: record.payload.get(name) for name in ("first_seq", "last_seq", "reason")}
        found.gaps.append({"wid": record.wid} | told)
    return count
