"""What the tests of several processes share: scripts, and a run's records by writer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from lezea_mlops.events import Envelope
from lezea_mlops.journal import MAIN_WRITER, RunFolder, read_run
from tests.conftest import ROOT


def run_script(code: str, folder: Path, *arguments: str, **environment: str) -> str:
    """Run code from a file, as spawned children need it, to its good end, and return what it printed."""
    script = folder / "program.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, str(script), *arguments], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "LEZEA_MODE": "offline"} | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def the_run(folder: Path) -> RunFolder:
    """Return the one run below ``runs`` in *folder*."""
    (run_dir,) = (folder / "runs").iterdir()
    return RunFolder(run_dir)


def by_writer(run: RunFolder) -> dict[str, list[Envelope]]:
    """Return the records of a run by writer, after checking that each is there once, in the first attempt."""
    found: dict[str, list[Envelope]] = {}
    for record in read_run(run.path):
        assert (record.run_id, record.att) == (run.run_id, 1)
        found.setdefault(record.wid, []).append(record)
    assert found.keys() == run.journals().keys()
    for records in found.values():
        assert [record.seq for record in records] == list(range(1, len(records) + 1))
    return found


def steps_of(records: list[Envelope]) -> list[int]:
    """Return the training steps among records."""
    return [record.event.step for record in records if record.type == "training_step"]


def check_threads_and_children(writers: dict[str, list[Envelope]], logged: list[int]) -> None:
    """Check that each thread's steps are all there, in its own scope, and that each forked child has one scope."""
    for wid, records in writers.items():
        if wid != MAIN_WRITER:
            assert wid.startswith("main.")
            assert len({str(record.scope) for record in records if record.type == "training_step"}) == 1
    for index, count in enumerate(logged):
        ours = [record for record in writers[MAIN_WRITER] if record.scope == [["tasker", str(index)]]]
        assert steps_of(ours) == list(range(1, count + 1))
