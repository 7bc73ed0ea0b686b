"""``lezea status``: what a person sees of all runs, and of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from lezea_mlops.cli import app
from lezea_mlops.cli.status import MOST_ROWS
from lezea_mlops.config import load_settings
from lezea_mlops.journal import RunFolder
from lezea_mlops.runtime.assembly import destinations
from lezea_mlops.runtime.replay import deliver_run
from lezea_mlops.tracker import ExperimentTracker
from tests.conftest import ROOT


def status(*arguments: str) -> Result:
    """Call the command in this process."""
    return CliRunner().invoke(app, ["status", *arguments])


def offline_run(name: str = "Later") -> RunFolder:
    """Return a run that was only journaled."""
    with ExperimentTracker(name, settings={"mode": "offline"}) as tracker:
        tracker.log_metrics({"loss": 0.5}, step=1)
    return RunFolder(tracker.run_dir)


def rows(result: Result) -> list[list[str]]:
    """Return the table's rows as words, without the headings."""
    return [line.split() for line in result.stdout.splitlines()[1:] if line.strip()]


def test_what_is_delivered_and_what_waits_stands_in_one_line(mlflow_store: str) -> None:
    """Newest first; before and after the delivery of one of them."""
    old, new = offline_run("Old"), offline_run("New")
    deliver_run(old, load_settings())
    count = len(old.journal("main").read_text().splitlines())
    result = status()
    assert result.exit_code == 0
    assert rows(result) == [
        [new.run_id[:8], "New", "completed", "1", str(count), "mlflow", "0", str(count), "0"],
        [old.run_id[:8], "Old", "completed", "1", str(count), "mlflow", str(count), "0", "0"],
    ]


def test_programs_read_a_list_of_runs(mlflow_store: str) -> None:
    """``--json`` has the same, whole ids, and the destinations by name."""
    folder = offline_run()
    [run] = json.loads(status("--json").stdout)
    [delivery] = run["deliveries"]
    assert (run["run_id"], run["path"], run["state"]) == (folder.run_id, str(folder.path), "completed")
    assert delivery["destination"] == destinations(load_settings())["mlflow"]
    assert (delivery["sink"], delivery["waiting"], delivery["configured"]) == ("mlflow", run["records"], True)


def test_no_sink_is_loaded_and_nothing_contacted() -> None:
    """A table of runs does not need MLflow, whose import takes seconds."""
    offline_run()
    code = (
        "import sys\nfrom lezea_mlops.cli import app\n"
        "try:\n    app(['status'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "assert not {'mlflow', 'sqlalchemy', 'pymongo'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)


def test_one_run_is_read_whole(mlflow_store: str) -> None:
    """Records by type, damaged places with file and offset, missing numbers."""
    folder = offline_run()
    lines = folder.journal("main").read_bytes().splitlines(keepends=True)
    folder.journal("main").write_bytes(lines[0] + b"rubbish\n" + b"".join(lines[2:]))
    told = status(folder.run_id[:6])
    assert told.exit_code == 0
    assert f"damaged: {folder.journal('main')}: at byte {len(lines[0])}: not JSON" in told.stdout
    assert "1 numbers belong to no record" in told.stdout
    assert "         1  run_started" in told.stdout
    [run] = json.loads(status(folder.run_id, "--json").stdout)
    assert run["journal"]["damaged"] == 1
    assert run["journal"]["by_type"]["run_finished"] == 1


def test_the_newest_are_shown_and_all_on_request(tmp_path: Path) -> None:
    """What is left out is said."""
    for number in range(MOST_ROWS + 3):
        folder = RunFolder(tmp_path / "runs" / f"{number:04}")
        folder.create()
        folder.journal("main").write_text("")
        os.utime(folder.path, (number, number))
    result = status()
    assert len(rows(result)) >= MOST_ROWS
    assert "0002: " not in result.stdout
    assert f"the newest {MOST_ROWS} of {MOST_ROWS + 3} runs" in result.stderr
    assert len(json.loads(status("--all", "--json").stdout)) == MOST_ROWS + 3
    assert [run["run_id"] for run in json.loads(status("--json").stdout)][:2] == ["0052", "0051"]


def test_an_unreadable_run_is_flagged_and_the_others_are_shown(mlflow_store: str) -> None:
    """Exit code 1, its reason below the table."""
    good, bad = offline_run("Good"), offline_run("Bad")
    bad.journal("main").unlink()
    bad.journal("main").mkdir()
    result = status()
    assert result.exit_code == 1
    assert f"{bad.run_id[:8]}: events.jsonl cannot be read: Is a directory" in result.stdout
    assert [good.run_id[:8], "Good", "completed"] in [row[:3] for row in rows(result)]
    alone = status(bad.run_id)
    assert (alone.exit_code, "unreadable" in alone.stdout) == (1, True)


def test_a_zeroed_run_is_flagged_and_the_others_are_shown(mlflow_store: str) -> None:
    """A file system that lost its content."""
    good, bad = offline_run("Good"), offline_run("Bad")
    bad.journal("main").write_bytes(b"\x00" * bad.journal("main").stat().st_size)
    result = status()
    assert "holds no record that can be read" in result.stdout
    assert [good.run_id[:8], "Good", "completed"] in [row[:3] for row in rows(result)]


def test_the_last_error_is_told_below_the_table(mlflow_store: str) -> None:
    """What the driver said of a destination that is down, whatever characters it has."""
    folder = offline_run("[red]odd[/red]")
    name = destinations(load_settings())["mlflow"]
    health = {"state": "down", "last_error": "no [bold]answer"}
    folder.alive.write_text(json.dumps({"ts": 1, "pid": 1, "sinks": {name: health}}))
    result = status()
    assert f"{folder.run_id[:8]}: {name} is down: no [bold]answer" in result.stdout
    assert "[red]odd[/red]" in result.stdout


def test_a_run_that_is_written_is_running(mlflow_store: str) -> None:
    """By this very process."""
    tracker = ExperimentTracker("Now", settings={"mode": "offline"}, auto_start=True)
    assert rows(status())[0][2] == "running"
    tracker.end()
    assert rows(status())[0][2] == "completed"


@pytest.mark.parametrize("width", ["40", "300"])
def test_a_pipe_gets_every_column_whole(
    mlflow_store: str, width: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the terminal's width was."""
    monkeypatch.setenv("COLUMNS", width)
    folder = offline_run("A long name of an experiment that goes on and on")
    assert folder.run_id[:8] in status().stdout
    assert "A long name of an experiment that goes on and on" in status().stdout
