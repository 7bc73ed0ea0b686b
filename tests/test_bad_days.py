"""A training program of 1,000 steps on a bad day: it ends well, is hardly slowed, and nothing is lost.

The program is a real one in a process of its own, with its courier; the test takes its MLflow or its disk away in the
middle. Afterwards ``lezea sync`` delivers what is left, and ``lezea audit`` compares every record with what MLflow has.
"""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lezea_mlops._files import read_holder
from lezea_mlops.journal import read_run
from tests.conftest import ROOT, MlflowServer
from tests.gate import Gate
from tests.outages import Outage, of_gate, of_server, of_store

pytestmark = pytest.mark.chaos

PROGRAM = Path(__file__).parent / "programs" / "thousand_steps.py"
# What a program may lose in all by an outage, and how much longer than that is a failure on any machine.
GAIN_S, MACHINE_FACTOR = 1.0, 5
PATIENCE_S = 200
# Where nothing is to be left behind, the end waits for a courier that the machine gives little time.
LONG_CLOSE = {"LEZEA_CLOSE_TIMEOUT_S": "120"}
Modes = pytest.mark.parametrize("mode", ["waiting", "async"])


class Program:
    """The training program, which goes on to its next quarter when it is told to."""

    def __init__(
        self, folder: Path, uri: str, mode: str, launcher: Sequence[str] = (), **environment: str
    ) -> None:
        self.environment = os.environ | {
            "PYTHONPATH": str(ROOT), "LEZEA_COURIER": "process", "LEZEA_MLFLOW_TRACKING_URI": uri,
            "LEZEA_CLOSE_TIMEOUT_S": "5", "LEZEA_START_TIMEOUT_S": "20", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        } | environment  # fmt: skip
        self.folder = folder
        self.process = subprocess.Popen(
            [*launcher, sys.executable, str(PROGRAM), mode], cwd=folder, env=self.environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=(folder / "stderr.txt").open("w"),
        )  # fmt: skip
        self.run_id = self._line()
        self.seconds: list[float] = []

    def quarter(self) -> None:
        """Let it log 250 steps."""
        self._tell()
        self.seconds.append(float(self._line()))

    def flushed(self) -> bool:
        """Let it wait until all is delivered."""
        self._tell("flush")
        return self._line() == "True"

    def end(self) -> dict[str, Any]:
        """Let it end, and return the health that it printed last."""
        self._tell("end")
        output, _ = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0, self.warnings()
        return dict(json.loads(output))

    def warnings(self) -> list[str]:
        """Return what its log says, a kind for each line that is known."""
        kinds = {r" is down \(": "down", r"takes records again": "back", r"\d+ records? waits? in ": "waits"}
        lines = (self.folder / "stderr.txt").read_text().splitlines()
        return [next((kind for text, kind in kinds.items() if re.search(text, line)), line) for line in lines]

    def steps(self) -> list[int]:
        """Return the steps in its journal."""
        run = self.folder / "runs" / self.run_id
        return [record.payload["step"] for record in read_run(run) if record.type == "training_step"]

    def lezea(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of ``lezea`` on the run."""
        return subprocess.run(
            [sys.executable, "-m", "lezea_mlops.cli", *arguments, self.run_id], cwd=self.folder,
            env=self.environment, capture_output=True, text=True, timeout=PATIENCE_S,
        )  # fmt: skip

    def check_complete(self) -> None:
        """After ``lezea sync``, MLflow has every record once, as it was logged."""
        self._see_the_courier_off()
        sync = self.lezea("sync")
        assert sync.returncode == 0, sync.stderr
        audit = self.lezea("audit", "--json")
        assert audit.returncode == 0, audit.stdout + audit.stderr
        [report] = json.loads(audit.stdout)
        assert report["findings"] == []
        assert report["checked"] > 1_000

    def _see_the_courier_off(self) -> None:
        """Wait until the courier has given up what it was at when the program ended."""
        holder = read_holder(self.folder / "runs" / self.run_id / "locks" / "courier.lock")
        if holder is not None and holder.process.exists():
            try:
                descriptor = os.pidfd_open(holder.process.pid)
            except ProcessLookupError:
                # It has ended in this moment.
                return
            try:
                assert select.select([descriptor], [], [], PATIENCE_S)[0], "the courier does not end"
            finally:
                os.close(descriptor)

    def _tell(self, word: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, (self.folder / "stderr.txt").read_text()
        return line


@pytest.fixture(scope="module")
def stormy_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A server that is stopped and killed, and runs again after each test."""
    server = MlflowServer(tmp_path_factory.mktemp("stormy"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def outage(request: pytest.FixtureRequest) -> Iterator[Outage]:
    """Return the outage that the test's parameter names."""
    how: str = request.param
    if how == "locked":
        yield of_store(request.getfixturevalue("mlflow_store"))
    elif how in ("stopped", "killed"):
        yield of_server(request.getfixturevalue("stormy_server"), how)
    else:
        server: MlflowServer = request.getfixturevalue("shared_mlflow_server")
        gate = Gate(server.port)
        gate.lead_on()
        yield of_gate(gate, how)
        gate.close()


Outages = pytest.mark.parametrize(
    ("outage", "mode"),
    [
        ("absent", "waiting"), ("silent", "async"), ("broken", "waiting"),
        ("stopped", "waiting"), ("killed", "async"), ("locked", "waiting"),
    ],
    indirect=["outage"],
)  # fmt: skip


@Outages
def test_an_outage_in_the_middle_that_ends(outage: Outage, mode: str, tmp_path: Path) -> None:
    """The steps logged meanwhile cost what they always do; then the courier delivers all by itself."""
    program = Program(tmp_path, outage.uri, mode, **LONG_CLOSE)
    program.quarter()
    assert program.flushed()
    outage.begin()
    program.quarter()
    program.quarter()
    outage.end()
    program.quarter()
    assert sum(program.seconds[1:3]) < GAIN_S * MACHINE_FACTOR
    assert program.flushed()
    program.end()
    assert program.steps() == list(range(1_000))
    assert program.warnings() in ([], ["down", "back"])
    program.check_complete()


@pytest.mark.parametrize(
    ("outage", "mode"),
    [("silent", "async"), ("stopped", "waiting"), ("locked", "waiting")],
    indirect=["outage"],
)
def test_an_outage_that_outlasts_the_run(outage: Outage, mode: str, tmp_path: Path) -> None:
    """The program ends on time, says once what waits, and the command that it names delivers it."""
    program = Program(tmp_path, outage.uri, mode)
    program.quarter()
    assert program.flushed()
    outage.begin()
    for _ in range(3):
        program.quarter()
    assert sum(program.seconds[1:]) < GAIN_S * MACHINE_FACTOR
    health = program.end()
    assert health["journal"]["lost"] == 0
    assert program.steps() == list(range(1_000))
    told = program.warnings()
    assert told in (["down", "waits"], ["waits"])
    assert f"lezea sync {program.run_id}" in (tmp_path / "stderr.txt").read_text()
    outage.end()
    program.check_complete()


@Modes
def test_a_server_that_was_never_there(mode: str, tmp_path: Path, mlflow_store: str) -> None:
    """Nobody listens from the beginning; later all goes to another place."""
    program = Program(tmp_path, Gate().uri, mode, **LONG_CLOSE)
    for _ in range(4):
        program.quarter()
    assert sum(program.seconds) < GAIN_S * MACHINE_FACTOR
    program.end()
    assert program.warnings() == ["down", "waits"]
    program.environment["LEZEA_MLFLOW_TRACKING_URI"] = mlflow_store
    program.check_complete()


def test_a_database_that_is_empty(tmp_path: Path) -> None:
    """A store without tables gets them, whichever of two programs comes first."""
    uri = f"sqlite:///{tmp_path}/fresh/mlflow.db"
    first, second = (Program(folder(tmp_path / name), uri, "async") for name in ("first", "second"))
    for program in (first, second):
        for _ in range(4):
            program.quarter()
        program.end()
    for program in (first, second):
        assert program.steps() == list(range(1_000))
        program.check_complete()


@Modes
def test_a_disk_that_is_full_for_a_while(mode: str, tmp_path: Path, mlflow_store: str) -> None:
    """What could not be written is counted and named by a gap; what could be is delivered; the program goes on."""
    with small_disk(tmp_path) as (disk, fill, free):
        program = Program(disk, mlflow_store, mode)
        program.quarter()
        fill()
        program.quarter()
        free()
        program.quarter()
        health = program.end()
        lost = health["journal"]["lost"]
        assert 0 < lost <= 250
        records = list(read_run(disk / "runs" / program.run_id))
        assert sum(record.payload["count"] for record in records if record.type == "gap") == lost
        assert len(program.steps()) >= 750 - lost
        program.check_complete()


def test_a_run_folder_that_becomes_read_only(tmp_path: Path, mlflow_store: str) -> None:
    """The journal's file is open; what needs new files fails and is told, and the program goes on."""
    # The superuser may write everywhere, unless this is taken from it.
    bounded = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    program = Program(tmp_path, mlflow_store, "waiting", bounded)
    run = tmp_path / "runs" / program.run_id
    program.quarter()
    for place in (run, run / "cursors", run / "locks"):
        place.chmod(0o500)
    program.quarter()
    for place in (run, run / "cursors", run / "locks"):
        place.chmod(0o700)
    program.quarter()
    assert program.end()["journal"]["lost"] == 0
    assert program.steps() == list(range(750))
    program.check_complete()


def test_a_clock_that_jumps(tmp_path: Path, mlflow_store: str) -> None:
    """An hour back and an hour ahead, as its administrator or its time server sets it: the order of records holds."""
    program = Program(tmp_path, mlflow_store, "waiting", THOUSAND_STEPS_CLOCK="jumps")
    for _ in range(4):
        program.quarter()
    program.end()
    assert program.steps() == list(range(1_000))
    program.check_complete()


def folder(path: Path) -> Path:
    """Return a folder, made now."""
    path.mkdir(parents=True)
    return path


class small_disk:  # noqa: N801 (used as a function)
    """A file system of 4 MB of the test's own, and functions that fill it and free it."""

    def __init__(self, place: Path) -> None:
        self.disk = folder(place / "disk")

    def __enter__(self) -> tuple[Path, Callable[[], object], Callable[[], object]]:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(self.disk)],
            capture_output=True,
            check=False,
        )
        if mounted.returncode != 0:
            pytest.skip(
                "no file system can be mounted here; tests/journal/test_full_disk.py limits the file's size"
            )
        return self.disk, self._fill, lambda: (self.disk / "filler").unlink()

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "-l", str(self.disk)], check=True)

    def _fill(self) -> None:
        descriptor = os.open(self.disk / "filler", os.O_WRONLY | os.O_CREAT)
        try:
            for size in (65_536, 1):
                try:
                    while True:
                        os.write(descriptor, b"x" * size)
                except OSError:
                    continue
        finally:
            os.close(descriptor)
