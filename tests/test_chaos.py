"""Trainer, courier and server are killed at random, again and again; in the end nothing is missing and nothing doubled.

The moments come from a seed that a failure names: ``LEZEA_CHAOS_SEED=7 scripts/test tests/test_chaos.py`` repeats it,
and ``LEZEA_CHAOS_ROUNDS`` makes it longer.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lezea_mlops._files import read_holder
from lezea_mlops.journal import read_run
from tests.conftest import ROOT, MlflowServer

pytestmark = pytest.mark.chaos

PROGRAM = Path(__file__).parent / "programs" / "evolving.py"
SEED = int(os.environ.get("LEZEA_CHAOS_SEED", "20261121"))
ROUNDS = int(os.environ.get("LEZEA_CHAOS_ROUNDS", "6"))
STEPS = 400
PATIENCE_S = 200
VICTIMS = ("trainer", "courier", "server", "trainer and courier", "stopped server")


class Storm:
    """One run, its attempts, and the server that it is delivered to."""

    def __init__(self, folder: Path, server: MlflowServer) -> None:
        self.folder = folder
        self.server = server
        self.returned: list[int] = []
        self.run_id = ""
        self.environment = os.environ | {
            "PYTHONPATH": str(ROOT), "LEZEA_COURIER": "process", "LEZEA_MLFLOW_TRACKING_URI": server.uri,
            "LEZEA_CLOSE_TIMEOUT_S": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        }  # fmt: skip

    def attempt(self, victim: str, at: int, first: int) -> None:
        """Let the program log from *first* on; kill *victim* when the step *at* of this attempt has returned."""
        resumed = [self.run_id, str(first)] if self.run_id else []
        program = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(STEPS), *resumed], cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=(self.folder / "stderr.txt").open("a"),
        )  # fmt: skip
        assert program.stdout is not None
        self.run_id = program.stdout.readline().strip()
        assert self.run_id, (self.folder / "stderr.txt").read_text()
        for number, line in enumerate(program.stdout):
            if not line.endswith("\n"):
                break
            self.returned.append(int(line))
            if number == at:
                self._kill(victim, program)
        program.stdout.close()
        program.wait(PATIENCE_S)
        assert program.returncode in (0, -signal.SIGKILL), (self.folder / "stderr.txt").read_text()
        self._give_back(victim)

    def _kill(self, victim: str, program: subprocess.Popen[str]) -> None:
        if victim == "server":
            self.server.stop()
        if victim == "stopped server":
            self.server.signal(signal.SIGSTOP)
        if "courier" in victim:
            holder = read_holder(self.folder / "runs" / self.run_id / "locks" / "courier.lock")
            # It may not be up yet, or have just been killed by the round before.
            if holder is not None and holder.process.exists():
                os.kill(holder.process.pid, signal.SIGKILL)
        if "trainer" in victim:
            program.kill()

    def _give_back(self, victim: str) -> None:
        if victim == "server":
            self.server.start()
        if victim == "stopped server":
            self.server.signal(signal.SIGCONT)

    def lezea(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of ``lezea`` on the run."""
        return subprocess.run(
            [sys.executable, "-m", "lezea_mlops.cli", *arguments, self.run_id], cwd=self.folder,
            env=self.environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip

    def deliver(self) -> None:
        """Deliver what is left; as long as a courier of an attempt is still at work, wait for its end first."""
        while (courier := self._courier()) is not None:
            try:
                descriptor = os.pidfd_open(courier)
            except ProcessLookupError:
                # It has ended in this moment.
                continue
            try:
                assert select.select([descriptor], [], [], PATIENCE_S)[0], (
                    f"seed {SEED}: the courier does not end"
                )
            finally:
                os.close(descriptor)
        sync = self.lezea("sync")
        assert sync.returncode == 0, f"seed {SEED}: {sync.stderr}"

    def _courier(self) -> int | None:
        """Return the process of a courier of this run, be it at work or waiting for its turn; None if there is none."""
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (place / "cmdline").read_bytes().split(b"\0")
                if b"lezea-courier" in words and self.run_id.encode() in words:
                    return int(place.name)
        return None


@pytest.fixture
def storm(tmp_path: Path, mlflow_server: MlflowServer) -> Storm:
    """Return a run to be, and a server of its own."""
    return Storm(tmp_path, mlflow_server)


# Its steps have limits of their own, together longer than a test has otherwise.
@pytest.mark.timeout(1_200)
def test_whoever_is_killed_and_when_nothing_is_missing_and_nothing_doubled(storm: Storm) -> None:
    """Every call that returned is in the journal, and MLflow has every record of the journal once."""
    chance = random.Random(SEED)
    first = 0
    for _ in range(ROUNDS):
        storm.attempt(chance.choice(VICTIMS), chance.randrange(STEPS), first)
        # As from a checkpoint: the next attempt goes back a little.
        first = max(0, storm.returned[-1] - chance.randrange(60))
    storm.deliver()
    steps = [r for r in read_run(storm.folder / "runs" / storm.run_id) if r.type == "training_step"]
    journaled = [record.payload["step"] for record in steps]
    assert sorted(set(storm.returned) - set(journaled)) == [], f"seed {SEED}"
    assert len(journaled) >= len(storm.returned), f"seed {SEED}"
    audit = storm.lezea("audit", "--json")
    assert audit.returncode == 0, f"seed {SEED}: {audit.stdout}{audit.stderr}"
    [report] = json.loads(audit.stdout)
    assert (report["findings"], report["waiting"]) == ([], 0), f"seed {SEED}"
    assert report["checked"] > len(journaled)
    attempts = json.loads(storm.lezea("status", "--json").stdout)
    assert attempts, f"seed {SEED}"
