"""What the tests of delivery ask of a run folder and of the reference sink."""

from __future__ import annotations

import json
from typing import Any

from lezea_mlops.delivery import Shipper, Step
from lezea_mlops.journal import JournalWriter, RunFolder
from lezea_mlops.sinks.base import destination_id
from lezea_mlops.testing import FakeClock, MemorySink

LONGER_THAN_ANY_PAUSE_S = 60.0


def write(folder: RunFolder, count: int, wid: str = "main") -> None:
    """Append *count* records to one writer's journal."""
    writer = JournalWriter(folder, wid, attempt=1, durability="process")
    for number in range(count):
        writer.append("metric", {"metrics": {"loss": 1.0 / (number + 1)}, "step": writer.seq})
    writer.close()


def numbers(sink: MemorySink, wid: str = "main") -> list[int]:
    """Return which records of a writer the sink has, in the order in which they first came."""
    return [seq for _, of, seq in sink.records if of == wid]


def ship_all(shipper: Shipper, clock: FakeClock) -> list[Step]:
    """Let it ship until nothing waits, with all the time that its pauses ask for."""
    steps = []
    while (step := shipper.ship_once()) is not Step.IDLE:
        steps.append(step)
        assert len(steps) < 100
        clock.advance(LONGER_THAN_ANY_PAUSE_S)
    return steps


def stored_cursor(folder: RunFolder, sink: MemorySink) -> Any:
    """Return what the cursor file says; None if there is none."""
    path = folder.cursor(destination_id(sink))
    return json.loads(path.read_bytes()) if path.exists() else None


def set_aside(folder: RunFolder, sink: MemorySink) -> list[dict[str, Any]]:
    """Return the lines of the file of refused records."""
    path = folder.rejected(destination_id(sink))
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
