"""Bad days of MongoDB: the program feels nothing, health names it, and in the end nothing is missing or doubled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lezea_mlops.config import load_settings
from lezea_mlops.journal import RunFolder, read_run
from lezea_mlops.runtime.audit import audit_run
from lezea_mlops.servers import Mongod
from lezea_mlops.tracker import ExperimentTracker
from tests.conftest import READER, WRITER, missing, mongod_program
from tests.gate import Gate

PATIENCE_S = 120.0
BEFORE, DURING, AFTER = range(5), range(5, 60), range(60, 70)


class Story:
    """One run of a user's program that delivers to MLflow and MongoDB.

    Args:
        uri: the MongoDB that it is told of.
        async_mode: no call waits.
    """

    def __init__(self, uri: str, *, async_mode: bool = True) -> None:
        settings = {"mongo_uri": uri, "close_timeout_s": 2.0}
        self.tracker = ExperimentTracker("Stormy", async_mode=async_mode, settings=settings)
        self.tracker.start(prometheus_port=None)
        self.steps: list[int] = []

    @property
    def health(self) -> dict[str, Any]:
        """What the tracker says of MongoDB."""
        found: dict[str, Any] = self.tracker.health()["sinks"]["mongodb"]
        return found

    def log(self, steps: range) -> None:
        """Log these steps, each with a modification; nothing may raise."""
        for step in steps:
            self.tracker.log_training_step(step, {"loss": 1.0 / (step + 1)})
            parents = [f"m{step - 1}"] if step else []
            self.tracker.log_modification_tree(
                step, [{"id": f"m{step}", "parent_ids": parents, "score": step}]
            )
        self.steps += steps

    def end(self) -> None:
        """End the run; the journal has every call, in order."""
        self.tracker.end()
        records = [record for record in read_run(self.tracker.run_dir) if record.type == "training_step"]
        assert [record.payload["step"] for record in records] == self.steps

    def deliver_the_rest(self, uri: str) -> None:
        """Deliver by the command, as a program, told of the MongoDB that works."""
        done = self.sync(uri)
        assert done.returncode == 0, done.stderr

    def sync(self, uri: str) -> subprocess.CompletedProcess[str]:
        """Run the command to its end, told of this MongoDB, when no thread holds the right to deliver any more."""
        for thread in threading.enumerate():
            # Those that deliver; servers for Prometheus of other tests go on.
            if thread.name.startswith(("lezea-mlflow", "lezea-mongodb")):
                thread.join(PATIENCE_S)
        return subprocess.run(
            [sys.executable, "-m", "lezea_mlops.cli", "sync", self.tracker.experiment_id],
            env=os.environ | {"LEZEA_MONGO_URI": uri}, capture_output=True, text=True, timeout=PATIENCE_S,
        )  # fmt: skip

    def check(self, uri: str) -> None:
        """An audit of the MongoDB finds every record there, once and unaltered."""
        settings = load_settings({"mongo_uri": uri})
        [report] = audit_run(RunFolder(self.tracker.run_dir), settings, sinks=["mongodb"])
        assert report.error is None
        assert (report.missing, report.doubled, report.altered, report.waiting) == (0, 0, 0, 0)
        # A step, a tree and its modification each.
        assert report.checked > 3 * len(self.steps)


@pytest.fixture(autouse=True)
def surroundings(mlflow_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deliver to a local MLflow store beside it, from this package's folder."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parent.parent))


def wait_for_failure(story: Story) -> None:
    """Log and wait until a delivery was tried in vain."""
    # ``flush`` ends when the time is over, or when the breaker gives no hope.
    while not story.health["failures"]:
        assert story.tracker.flush(1.0) is False


@pytest.fixture
def gate(shared_mongod: Any) -> Iterator[Gate]:
    """Return a port that leads to the shared server when it is told to."""
    from pymongo.uri_parser import parse_uri

    gate = Gate(parse_uri(shared_mongod.uri)["nodelist"][0][1])
    yield gate
    gate.close()


def through(gate: Gate, mongo_uri: str) -> str:
    """Return the URI of the test's database behind the gate, and not what the replica set says of itself."""
    database = mongo_uri.partition("?")[0].rpartition("/")[2]
    return f"mongodb://127.0.0.1:{gate.port}/{database}?directConnection=true"


@pytest.mark.chaos
@pytest.mark.parametrize(("how", "async_mode"), [("absent", False), ("silent", True)])
def test_nobody_there_or_nobody_answers_until_later(
    how: str, async_mode: bool, gate: Gate, mongo_uri: str
) -> None:
    """Refused, and a black hole: MLflow has all of it meanwhile, and MongoDB has when it is there at last."""
    {"absent": gate.close, "silent": gate.be_silent}[how]()
    uri = through(gate, mongo_uri)
    story = Story(uri, async_mode=async_mode)
    story.log(BEFORE)
    wait_for_failure(story)
    story.log(DURING)
    assert story.health["failures"].keys() <= {"unreachable", "timeout"}
    assert story.health["delivered"] == 0
    assert story.tracker.health()["sinks"]["mlflow"]["failures"] == {}
    gate.lead_on()
    assert story.tracker.flush(PATIENCE_S)
    story.log(AFTER)
    story.end()
    story.deliver_the_rest(uri)
    story.check(uri)


def begun(uri: str, begin: Callable[[], object]) -> Story:
    """Return a run that works, and then loses its MongoDB."""
    story = Story(uri)
    story.log(BEFORE)
    assert story.tracker.flush(PATIENCE_S)
    begin()
    story.log(DURING)
    wait_for_failure(story)
    return story


@pytest.mark.chaos
def test_a_server_that_is_stopped_and_goes_on(mongod: Mongod) -> None:
    """What it took after the time-out of the request is no double, and nothing is missing."""
    story = begun(mongod.uri, lambda: mongod.signal(signal.SIGSTOP))
    assert story.health["failures"].keys() <= {"unreachable", "timeout"}
    mongod.signal(signal.SIGCONT)
    assert story.tracker.flush(PATIENCE_S)
    story.log(AFTER)
    story.end()
    story.deliver_the_rest(mongod.uri)
    story.check(mongod.uri)


@pytest.mark.chaos
# Its steps have limits of their own, together longer than a test has otherwise.
@pytest.mark.timeout(1_200)
def test_a_server_that_is_killed_in_the_middle_of_batches(mongod: Mongod) -> None:
    """Five times, while records come at full speed: what it acknowledged it has, the rest comes again."""
    story = Story(mongod.uri)
    for number in range(5):
        story.log(range(number * 300, number * 300 + 150))
        mongod.kill()
        story.log(range(number * 300 + 150, number * 300 + 300))
        mongod.start()
        assert story.tracker.flush(PATIENCE_S)
    story.end()
    story.deliver_the_rest(mongod.uri)
    story.check(mongod.uri)


@pytest.mark.chaos
@pytest.mark.parametrize("whose", ["wrong password", "read-only user"])
def test_a_user_who_may_not(whose: str, mongod_with_users: Mongod) -> None:
    """Health says so and what to do, without the password; the command told of the right user delivers all."""
    server = mongod_with_users
    right = server.uri_of("lezea", WRITER)
    wrong = (
        server.uri_of("lezea", READER)
        if whose == "read-only user"
        else server.uri_of("lezea", WRITER, "canary")
    )
    story = Story(wrong)
    story.log(DURING)
    wait_for_failure(story)
    assert story.health["failures"].keys() == {"refused"}
    told = str(story.health["last_error"])
    assert ("LEZEA_MONGO_URI" if whose == "wrong password" else "readWrite") in told
    assert "canary" not in told
    assert READER.password not in told
    story.end()
    assert story.sync(wrong).returncode == 1
    story.deliver_the_rest(right)
    story.check(right)


@pytest.mark.chaos
def test_a_server_whose_disk_is_full(tmp_path: Path) -> None:
    """It ends itself or refuses; when there is room again it has what it acknowledged, and the rest comes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        missing("the right to mount a small file system")
    try:
        server = Mongod(disk / "mongod", program=mongod_program(), bound=True)
        server.start()
        story = Story(server.uri)
        story.log(BEFORE)
        assert story.tracker.flush(PATIENCE_S)
        ballast = disk / "ballast"
        with ballast.open("wb") as file:
            # In pieces: the server writes meanwhile.
            while (free := os.statvfs(disk)).f_bavail * free.f_frsize > 1024 * 1024:
                file.write(bytes(64 * 1024))
                file.flush()
        story.log(DURING)
        # Text that no compression makes small, until the files that lie ready for it are full too.
        while not story.health["failures"]:
            story.tracker.log_results({"large": [os.urandom(500).hex() for _ in range(5_000)]})
            story.tracker.flush(5.0)
        ballast.unlink()
        server.stop()
        server.start()
        assert story.tracker.flush(PATIENCE_S)
        story.end()
        story.deliver_the_rest(server.uri)
        story.check(server.uri)
        server.kill()
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
