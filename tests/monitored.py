"""Runs that are sampled, and what was journaled of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from lezea_mlops._clock import Deadline
from lezea_mlops.events import Envelope
from lezea_mlops.journal import read_run

PATIENCE_S = 60.0


def journaled(run_dir: Path, enough: Callable[[list[Envelope]], object]) -> list[Envelope]:
    """Read the journal again and again until it holds *enough*, and return its records."""
    deadline, nobody = Deadline.after(PATIENCE_S), threading.Event()
    while not enough(records := list(read_run(run_dir))):
        assert not deadline.passed(), [record.type for record in records]
        nobody.wait(0.02)
    return records


def samples(records: list[Envelope]) -> list[Envelope]:
    """Return the records of the sampler."""
    return [record for record in records if record.type == "resource" and "sample" in record.payload]


def of_type(records: list[Envelope], name: str) -> list[Envelope]:
    """Return the records of one type."""
    return [record for record in records if record.type == name]
