"""Bad days of a tracker that delivers by threads: no exception, no lost call, one warning, all delivered later."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from lezea_mlops.cli import app
from lezea_mlops.journal import read_run
from lezea_mlops.sinks.mlflow import connection
from lezea_mlops.tracker import ExperimentTracker
from tests.conftest import ROOT, MlflowServer
from tests.gate import Gate
from tests.outages import Outage, of_gate, of_server, of_store
from tests.sinks.mlflow.seen import history, runs_of, the_run

PATIENCE_S = 120.0
BEFORE, DURING, AFTER = range(5), range(5, 60), range(60, 70)
Modes = pytest.mark.parametrize("async_mode", [False, True], ids=["waiting", "async"])


# A run whose records are left behind does not wait longer at its end.
LEFT_BEHIND_S = 2.0


class Story:
    """One run of a user's program."""

    def __init__(self, outage: Outage, async_mode: bool, close_timeout_s: float = PATIENCE_S) -> None:
        settings = {
            "mlflow_tracking_uri": outage.uri, "close_timeout_s": close_timeout_s, "start_timeout_s": 5.0,
        }  # fmt: skip
        self.outage = outage
        self.tracker = ExperimentTracker("Stormy", async_mode=async_mode, settings=settings)
        self.steps: list[int] = []

    def log(self, steps: range) -> None:
        """Log each of these steps; nothing may raise."""
        for step in steps:
            self.tracker.log_training_step(step, {"loss": 1.0 / (step + 1)})
        self.steps += steps

    @property
    def health(self) -> dict[str, Any]:
        """What the tracker says of its one destination."""
        [(name, health)] = self.tracker.health()["sinks"].items()
        assert name == "mlflow"
        return health

    def check_journal(self) -> None:
        """Every call is in the journal, in its order."""
        records = [record for record in read_run(self.tracker.run_dir) if record.type == "training_step"]
        assert [record.payload["step"] for record in records] == self.steps

    def check_delivered(self) -> None:
        """MLflow has one run with every point once, and the right status."""
        client = MlflowClient(self.outage.server_uri)
        run = the_run(client, self.tracker.experiment_id)
        points = history(client, run, "loss")
        assert sorted((step, value) for step, _, value in points) == [
            (step, repr(1.0 / (step + 1))) for step in sorted(self.steps)
        ]
        assert len(history(client, run, "delta_loss")) == len(self.steps) - 1
        assert run.info.status == "FINISHED"

    def end(self) -> None:
        """End the run, and wait for threads that its deadline left behind in a request."""
        self.tracker.end()

    def sync(self) -> None:
        """Deliver what was left, as the log line says."""
        for thread in threading.enumerate():
            if thread.name.startswith("lezea-mlflow-"):
                thread.join(PATIENCE_S)
        result = CliRunner().invoke(app, ["sync", self.tracker.experiment_id])
        assert result.exit_code == 0, result.output


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Let a request that hangs be given up within the test's patience, and catch what is logged."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    caplog.set_level(logging.WARNING, logger="lezea_mlops")


@pytest.fixture
def gate(request: pytest.FixtureRequest) -> Iterator[Gate]:
    """Return a port that leads to the shared server when it is told to."""
    server: MlflowServer = request.getfixturevalue("shared_mlflow_server")
    gate = Gate(server.port)
    yield gate
    gate.close()


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the kind of each warning: ``down``, ``back``, ``waits``."""
    kinds = {r" is down \(": "down", "takes records again": "back", r"\d+ records? waits? in ": "waits"}
    return [
        next((kind for text, kind in kinds.items() if re.search(text, line)), line)
        for line in caplog.messages
    ]


def check_health(health: dict[str, Any]) -> None:
    """Something waits, and the destination is not called well if a failure was seen."""
    assert health["waiting"] >= len(DURING)
    assert (health["state"] == "down") == bool(health["failures"])


# ---------------------------------------------------------------------- an outage from the beginning


def from_the_start(
    outage: Outage, async_mode: bool, caplog: pytest.LogCaptureFixture, told: list[str]
) -> Story:
    """Live through a whole run with nothing to deliver to, and let it be delivered afterwards."""
    outage.begin()
    story = Story(outage, async_mode, LEFT_BEHIND_S)
    story.tracker.start()
    story.log(DURING)
    check_health(story.health)
    story.end()
    story.check_journal()
    assert warnings_of(caplog) == told
    assert story.tracker.experiment_id in caplog.messages[-1]
    return story


@Modes
def test_nobody_there(
    async_mode: bool, mlflow_store: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that does not exist: later all of it goes to another store, by the command as a program."""
    nobody = Gate()
    outage = Outage(nobody.uri, nobody.close, nobody.close, mlflow_store)
    story = from_the_start(outage, async_mode, caplog, ["down", "waits"])
    command = caplog.messages[-1].partition("ship them with: lezea ")[2].split()
    subprocess.run(
        [sys.executable, "-m", "lezea_mlops.cli", *command],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True,
    )  # fmt: skip
    story.check_delivered()


@pytest.mark.chaos
@pytest.mark.parametrize(("how", "async_mode"), [("absent", False), ("silent", True), ("broken", False)])
def test_an_outage_that_lasts_as_long_as_the_run(
    how: str, async_mode: bool, gate: Gate, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody there, a port that never answers, a server that answers 500."""
    # The question to a silent server fails after seconds: with this, after the end of the run and never before.
    monkeypatch.setattr(connection, "PROBE_TIMEOUT_S", PATIENCE_S)
    told = ["waits"] if how == "silent" else ["down", "waits"]
    story = from_the_start(of_gate(gate, how), async_mode, caplog, told)
    story.outage.end()
    monkeypatch.setenv("LEZEA_MLFLOW_TRACKING_URI", gate.uri)
    story.sync()
    story.check_delivered()


@pytest.mark.chaos
@pytest.mark.parametrize(("how", "async_mode"), [("absent", True), ("silent", False), ("broken", True)])
def test_a_server_that_comes_later(
    how: str, async_mode: bool, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    """When it is there at last, the running tracker delivers by itself, and says so once."""
    outage = of_gate(gate, how)
    outage.begin()
    story = Story(outage, async_mode)
    story.tracker.start()
    story.log(DURING)
    assert story.tracker.flush(8.0) is False
    outage.end()
    assert story.tracker.flush(PATIENCE_S)
    story.log(AFTER)
    assert story.tracker.flush(PATIENCE_S)
    story.end()
    story.check_journal()
    story.check_delivered()
    assert warnings_of(caplog) == ["down", "back"]


# ---------------------------------------------------------------------- an outage in the middle


def begun(outage: Outage, async_mode: bool, close_timeout_s: float = PATIENCE_S) -> Story:
    """Return a run that works, and then loses its destination."""
    story = Story(outage, async_mode, close_timeout_s)
    story.tracker.start()
    story.log(BEFORE)
    assert story.tracker.flush(PATIENCE_S)
    outage.begin()
    story.log(DURING)
    return story


def left_and_delivered_later(outage: Outage, async_mode: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The outage outlasts the run; ``lezea sync`` delivers what it left."""
    story = begun(outage, async_mode, LEFT_BEHIND_S)
    check_health(story.health)
    story.end()
    story.check_journal()
    told = warnings_of(caplog)
    assert told in (["down", "waits"], ["waits"])
    outage.end()
    story.sync()
    story.check_delivered()


def survived(outage: Outage, async_mode: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The outage ends first; the tracker delivers all of it itself."""
    story = begun(outage, async_mode)
    outage.end()
    assert story.tracker.flush(PATIENCE_S)
    story.log(AFTER)
    assert story.tracker.flush(PATIENCE_S)
    story.end()
    story.check_journal()
    story.check_delivered()
    assert warnings_of(caplog) in ([], ["down", "back"])


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("how", "live", "async_mode"),
    [
        ("absent", left_and_delivered_later, False), ("absent", survived, True),
        ("silent", survived, False), ("broken", left_and_delivered_later, True),
        ("stopped", survived, True), ("killed", survived, False),
    ],
)  # fmt: skip
def test_a_server_that_goes_away(
    how: str, live: Callable[..., None], async_mode: bool, request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Cut off, silent, broken, stopped (SIGSTOP), killed (SIGKILL), and given back."""
    if how in ("stopped", "killed"):
        outage = of_server(request.getfixturevalue("mlflow_server"), how)
    else:
        gate = request.getfixturevalue("gate")
        gate.lead_on()
        outage = of_gate(gate, how)
    monkeypatch.setenv("LEZEA_MLFLOW_TRACKING_URI", outage.uri)
    live(outage, async_mode, caplog)


@pytest.mark.chaos
@pytest.mark.parametrize(("live", "async_mode"), [(left_and_delivered_later, False), (survived, True)])
def test_a_store_that_another_program_holds(
    live: Callable[..., None], async_mode: bool, mlflow_store: str, caplog: pytest.LogCaptureFixture
) -> None:
    """``BEGIN EXCLUSIVE`` by somebody else: MLflow waits for 20 s, and the user's calls do not."""
    live(of_store(mlflow_store), async_mode, caplog)


@pytest.mark.chaos
def test_an_answer_that_is_lost_makes_no_second_run(gate: Gate) -> None:
    """The server made the run, its answer never came, MLflow asked again: one of the two is deleted, unused."""
    gate.lead_on()
    gate.cut_answer_to(b"/mlflow/runs/create")
    story = Story(Outage(gate.uri, gate.close, gate.lead_on), async_mode=False)
    story.tracker.start()
    story.log(BEFORE)
    assert story.tracker.flush(PATIENCE_S)
    story.end()
    client = MlflowClient(gate.uri)
    runs = runs_of(client, story.tracker.experiment_id)
    assert sorted(run.info.lifecycle_stage for run in runs) == ["active", "deleted"]
    [run] = [run for run in runs if run.info.lifecycle_stage == "active"]
    assert len(history(client, run, "loss")) == len(BEFORE)
    assert run.info.status == "FINISHED"


@pytest.mark.chaos
def test_two_outages_are_two_warnings(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    """Down, back, down, back: each told once."""
    outage = of_gate(gate, "absent")
    outage.end()
    story = Story(outage, async_mode=True)
    story.tracker.start()
    story.log(BEFORE)
    assert story.tracker.flush(PATIENCE_S)
    for number in (1, 2):
        outage.begin()
        story.log(range(number * 100, number * 100 + 10))
        assert story.tracker.flush(3.0) is False
        outage.end()
        assert story.tracker.flush(PATIENCE_S)
    story.end()
    story.check_journal()
    story.check_delivered()
    assert warnings_of(caplog) == ["down", "back", "down", "back"]


def test_the_journal_is_readable_while_everything_else_is_down(tmp_path: Path) -> None:
    """A person can always look: the run folder needs no backend."""
    nobody = Gate()
    story = Story(Outage(nobody.uri, nobody.close, nobody.close), True, LEFT_BEHIND_S)
    story.tracker.start()
    story.log(BEFORE)
    story.check_journal()
    story.end()
    assert story.tracker.get_experiment_summary()["metrics"]["loss"] == pytest.approx(0.2)
