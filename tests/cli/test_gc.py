"""``lezea gc``: what is removed of which runs, and what is said of those that are left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from mlflow import MlflowClient
from typer.testing import CliRunner

from lezea_mlops.cli import app
from lezea_mlops.config import load_settings
from lezea_mlops.journal import RunFolder
from lezea_mlops.runtime.audit import audit_run
from lezea_mlops.runtime.replay import deliver_run
from lezea_mlops.tracker import ExperimentTracker
from tests.sinks.mlflow.auditing import Store
from tests.sinks.mlflow.seen import artifacts


def gc(*arguments: str) -> Result:
    """Call the command in this process."""
    return CliRunner().invoke(app, ["gc", *arguments])


def run_with_a_file(tmp_path: Path) -> RunFolder:
    """Return an undelivered run that captured one file of 2,000 bytes."""
    (tmp_path / "model.bin").write_bytes(b"12" * 1_000)
    with ExperimentTracker("Later", settings={"mode": "offline"}) as tracker:
        tracker.log_params({"lr": 0.1})
        tracker.log_artifact(tmp_path / "model.bin")
    return RunFolder(tracker.run_dir)


def blobs(folder: RunFolder) -> int:
    """Return how many captured files are there."""
    return sum(path.is_file() for path in folder.blobs.rglob("*"))


def test_delivered_files_go_and_undelivered_ones_stay(mlflow_store: str, tmp_path: Path) -> None:
    """Of one run all is told that was removed, of the other why it was left; that is no failure."""
    delivered, waiting = run_with_a_file(tmp_path), run_with_a_file(tmp_path)
    deliver_run(delivered, load_settings())
    rehearsal, result = gc("--all", "--dry-run"), gc("--all")
    line = f"{delivered.run_id}: %s 1 captured file and 0 leftovers, 2.0 kB\n"
    assert line % "would remove" in rehearsal.stderr
    assert line % "removed" in result.stderr
    assert f"{waiting.run_id}: left as it is: " in result.stderr
    assert (rehearsal.exit_code, result.exit_code, result.stdout) == (0, 0, "")
    assert (blobs(delivered), blobs(waiting)) == (0, 1)
    deliver_run(waiting, load_settings())


def test_programs_read_a_list(mlflow_store: str, tmp_path: Path) -> None:
    """One object for each run, with counts and bytes."""
    folder = run_with_a_file(tmp_path)
    deliver_run(folder, load_settings())
    assert json.loads(gc(folder.run_id[:8], "--json").stdout) == [
        {
            "run_id": folder.run_id, "blobs": 1, "leftovers": 0, "bytes": 2_000, "left_because": None,
            "error": None,
        }
    ]  # fmt: skip


def test_a_run_that_cannot_be_collected_does_not_stop_the_others(mlflow_store: str, tmp_path: Path) -> None:
    """Here a file stands where the lists of refused records should be, and a folder where the cursor's list is."""
    bad, good = run_with_a_file(tmp_path), run_with_a_file(tmp_path)
    for folder in (bad, good):
        deliver_run(folder, load_settings())
    (bad.path / "rejected" / "odd").mkdir(parents=True)
    result = gc("--all")
    assert result.exit_code == 1
    assert f"{bad.run_id}: [Errno" in result.stderr
    assert (blobs(bad), blobs(good)) == (1, 0)


@pytest.mark.parametrize("finish", [True, False])
def test_a_run_that_is_written_is_left_alone(mlflow_store: str, tmp_path: Path, finish: bool) -> None:
    """Also where everything is delivered; after the end its file goes."""
    (tmp_path / "model.bin").write_bytes(b"12")
    tracker = ExperimentTracker("Now", settings={"mode": "offline"}, auto_start=True)
    tracker.log_artifact(tmp_path / "model.bin")
    folder = RunFolder(tracker.run_dir)
    if finish:
        tracker.end()
    deliver_run(folder, load_settings())
    result = gc(folder.run_id)
    assert ("its process lives" in result.stderr) is not finish
    assert blobs(folder) == (0 if finish else 1)
    tracker.end()


def test_a_repair_after_the_files_are_gone_sets_nothing_aside(mlflow_store: str, tmp_path: Path) -> None:
    """What was delivered before and is delivered again needs no file: MLflow has it."""
    folder = run_with_a_file(tmp_path)
    deliver_run(folder, load_settings())
    assert gc(folder.run_id).exit_code == 0
    assert blobs(folder) == 0
    Store(mlflow_store, folder).sql("DELETE FROM params")
    [report] = audit_run(folder, load_settings(), repair=True)
    assert report.delivered > 0
    assert report.rejected == 0
    assert report.is_right
    assert "model.bin" in " ".join(artifacts(MlflowClient(mlflow_store), Store(mlflow_store, folder).run))
