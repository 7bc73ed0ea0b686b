"""The first minutes: the spec's own example in an empty folder, and eight programs that begin there at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, NoReturn

import pytest
from mlflow import MlflowClient

from tests.conftest import ROOT
from tests.sinks.mlflow.seen import history, the_run

RunPython = Callable[..., "CompletedProcess[str]"]

# The connector spec's minimal end-to-end example, as it stands there.
EXAMPLE = """\
from lezea_mlops.tracker import ExperimentTracker

tracker = ExperimentTracker("Demo", purpose="sanity", auto_start=True)
tracker.log_lezea_config(64, 4, "SAC", hyperparameters={"lr":3e-4})
for step in range(1, 6):
    tracker.log_training_step(step, {"loss": 1.0/step})
tracker.log_reward("t0", 0.77)
tracker.finalize_experiment()
"""

# A machine under load makes a store's tables in more than the default's ten seconds.
PATIENT = {"LEZEA_CLOSE_TIMEOUT_S": "300"}


def strictly(line: str) -> Any:
    """Read JSON that has no word besides JSON's own."""

    def refuse(word: str) -> NoReturn:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(line, parse_constant=refuse)


# Its steps have limits of their own, together longer than a test has otherwise.
@pytest.mark.timeout(1_200)
def test_the_spec_s_minimal_example_unchanged(run_python: RunPython, tmp_path: Path) -> None:
    """One FINISHED run with its losses, params and reward; a strict journal; and not a word is printed."""
    done = run_python(EXAMPLE, timeout_s=300, **PATIENT)
    assert (done.stdout, done.stderr) == ("", "")
    [run_dir] = (tmp_path / "runs").iterdir()
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    run = the_run(client, run_dir.name)
    assert run.info.status == "FINISHED"
    assert client.get_experiment(run.info.experiment_id).name == "Demo"
    assert {(step, value) for step, _, value in history(client, run, "loss")} == {
        (step, repr(1.0 / step)) for step in range(1, 6)
    }
    assert {step for step, _, _ in history(client, run, "delta_loss")} == {2, 3, 4, 5}
    assert run.data.params == {
        "tasker_population_size": "64", "builder_population_size": "4", "algorithm_type": "SAC",
        "hyperparameters.lr": "0.0003",
    }  # fmt: skip
    assert run.data.metrics["reward/t0"] == 0.77
    assert run.data.tags["mlflow.note.content"] == "sanity"
    records = [strictly(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    assert [record["m"]["seq"] for record in records] == list(range(1, len(records) + 1))
    assert (records[0]["t"], records[-1]["t"]) == ("run_started", "run_finished")
    assert {path.name for path in tmp_path.iterdir()} == {
        "runs",
        "mlflow.db",
        "mlflow.db.init.lock",
        "mlartifacts",
    }


@pytest.mark.slow
# Its steps have limits of their own, together longer than a test has otherwise.
@pytest.mark.timeout(1_200)
def test_eight_trackers_that_begin_at_once_in_an_empty_folder(tmp_path: Path) -> None:
    """All end FINISHED, in one experiment, each with its own run: making the store's tables is done by one of them."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | PATIENT
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", EXAMPLE],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(8)
    ]
    told = [program.communicate(timeout=280) for program in programs]
    assert [program.returncode for program in programs] == [0] * 8, told
    assert told == [(b"", b"")] * 8
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    assert sorted(found.name for found in client.search_experiments()) == ["Default", "Demo"]
    runs = [the_run(client, run_dir.name) for run_dir in (tmp_path / "runs").iterdir()]
    assert [run.info.status for run in runs] == ["FINISHED"] * 8
    assert {run.info.experiment_id for run in runs} == {client.get_experiment_by_name("Demo").experiment_id}
    assert all(len(history(client, run, "loss")) == 5 for run in runs)
