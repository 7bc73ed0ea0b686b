"""SIGKILL: every call that returned before a process died is in its journal."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lezea_mlops.journal import JournalReader, RunFolder

ROOT = Path(__file__).resolve().parents[2]

# Each call is acknowledged when it has returned, by one line on stdout, unbuffered.
PROGRAM = """
import os, sys
from lezea_mlops.tracker import ExperimentTracker

tracker = ExperimentTracker("Demo", experiment_id=sys.argv[1], auto_start=True)
number = 0
while True:
    number += 1
    with tracker.builder_scope(number % 3):
        if number % 50 == 0:
            tracker.log_text("x" * number, f"{number}.txt")
        elif number % 7 == 0:
            tracker.log_params({"number": number, "note": "x" * (number % 5_000)})
        else:
            tracker.log_training_step(number, {"loss": 1.0 / number})
    os.write(1, b"%d\\n" % number)
"""


def number_of(record: object) -> int | None:
    """Return the number of the call that a record is of."""
    event = record.event  # type: ignore[attr-defined]
    if event.type == "training_step":
        return int(event.step)
    if event.type == "param":
        return int(event.params["number"])
    return int(event.name.partition(".")[0]) if event.type == "artifact" else None


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(50))
def test_what_was_acknowledged_is_in_the_journal(tmp_path: Path, seed: int) -> None:
    """Killed at a random call, the process leaves each acknowledged one, whole, in order, and at most one more."""
    after = random.Random(seed).randrange(1, 3_000)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LEZEA_MODE": "offline"}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "run"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        for _ in range(after):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
    assert process.returncode == -signal.SIGKILL
    # An acknowledgement that was cut has no newline.
    acknowledged = after + rest.count(b"\n")
    reader = JournalReader(RunFolder(tmp_path / "runs" / "run"))
    records = list(reader)
    assert reader.damaged == 0
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    numbers = [number for record in records if (number := number_of(record)) is not None]
    assert numbers == list(range(1, len(numbers) + 1))
    assert acknowledged <= len(numbers) <= acknowledged + 1
