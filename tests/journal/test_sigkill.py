"""SIGKILL: whatever was acknowledged before a writer died is read, and the next writer goes on behind it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lezea_mlops.journal import JournalReader, JournalWriter, RunFolder

ROOT = Path(__file__).resolve().parents[2]
KILLS = 50

# A record is acknowledged when ``append`` has returned, by its number on a pipe.
WRITER = """
import os, random, sys
from pathlib import Path
from lezea_mlops.journal import JournalWriter, RunFolder

writer = JournalWriter(RunFolder(Path(sys.argv[1])), "main", durability="process")
sizes = random.Random(int(sys.argv[2]))
while True:
    writer.append("metric", {"text": "x" * int(10 ** sizes.uniform(0, 5.5))}, (("builder", "1"),))
    os.write(1, b"%d\\n" % writer.seq)
"""


@pytest.mark.chaos
def test_what_was_acknowledged_survives_fifty_kills(tmp_path: Path) -> None:
    """Killed again and again in the middle of writing, the run keeps every acknowledged record, in order, whole."""
    folder = RunFolder(tmp_path / "run")
    folder.create()
    moments = random.Random(20)
    acknowledged = 0
    for kill in range(KILLS):
        command = [sys.executable, "-c", WRITER, str(folder.path), str(kill)]
        with subprocess.Popen(
            command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            for _ in range(moments.randrange(1, 400)):
                last = process.stdout.readline()
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read()
        assert process.returncode == -signal.SIGKILL
        # An acknowledgement that was cut has no newline.
        whole = [*last.splitlines(), *rest[: rest.rfind(b"\n") + 1].splitlines()]
        assert int(whole[-1]) > acknowledged
        acknowledged = int(whole[-1])
        reader = JournalReader(folder)
        numbers = [record.seq for record in reader]
        assert reader.damaged == 0
        assert numbers == list(range(1, len(numbers) + 1))
        assert acknowledged <= len(numbers) <= acknowledged + 1
    writer = JournalWriter(folder, "main")
    assert (writer.seq, writer.attempt) == (len(numbers), KILLS + 1)
    writer.close()
