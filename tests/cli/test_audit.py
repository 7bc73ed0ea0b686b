"""``lezea audit``: what a person types, what it prints, how it exits."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import typer
from mlflow import MlflowClient
from typer.testing import CliRunner, Result

from lezea_mlops.cli.audit import MOST_LINES, audit
from lezea_mlops.config import load_settings
from lezea_mlops.journal import RunFolder
from lezea_mlops.runtime.delivering import take_delivery_lock
from lezea_mlops.runtime.own_process import MLFLOW_DEFAULTS
from lezea_mlops.runtime.replay import deliver_run
from lezea_mlops.tracker import ExperimentTracker
from tests.gate import Gate
from tests.sinks.mlflow.auditing import Store

app = typer.Typer()
app.command()(audit)


@pytest.fixture(autouse=True)
def environment_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command sets variables of its own process, which is that of the tests here."""
    for name in MLFLOW_DEFAULTS.keys() - os.environ.keys():
        monkeypatch.setenv(name, "1")
        monkeypatch.delenv(name)
    # What is asserted may not depend on the width of a terminal.
    monkeypatch.setenv("COLUMNS", "200")


def call(*arguments: str) -> Result:
    """Call the command in this process."""
    return CliRunner().invoke(app, list(arguments))


def offline_run(steps: int = 3) -> RunFolder:
    """Return a run that was only journaled."""
    with ExperimentTracker("Later", settings={"mode": "offline"}) as tracker:
        tracker.log_params({"[lr]": 0.1})
        for step in range(steps):
            tracker.log_metrics({"loss": 0.5}, step=step)
    return RunFolder(tracker.run_dir)


@pytest.fixture
def folder(mlflow_store: str) -> RunFolder:
    """A run that was delivered."""
    folder = offline_run()
    deliver_run(folder, load_settings())
    return folder


def test_all_is_right(folder: RunFolder) -> None:
    """One line and exit code 0, by id, by its beginning, and by folder."""
    for name in (folder.run_id, folder.run_id[:8], str(folder.path)):
        result = call(name)
        assert result.exit_code == 0
        [line] = result.stdout.splitlines()
        assert line.startswith(f"{folder.run_id} → mlflow: ")
        assert line.endswith("compared, everything is there and right")


def test_what_is_wrong_is_listed_and_what_helps_is_told(mlflow_store: str, folder: RunFolder) -> None:
    """Exit code 1; kind, name, record, what was expected and what is there; names are no markup."""
    store = Store(mlflow_store, folder)
    store.sql("DELETE FROM params")
    store.client.log_metric(store.run.info.run_id, "loss", 0.7, 1, step=2)
    result = call(folder.run_id)
    assert result.exit_code == 1
    [missing] = [line for line in result.stdout.splitlines() if line.startswith("missing")]
    assert missing.split() == ["missing", "param", "_x5B_lr_x5D_", "main/2", "0.1", "nothing"]
    [altered] = [line for line in result.stdout.splitlines() if line.startswith("altered")]
    assert altered.split("  ")[0] == "altered"
    assert "metric loss step 2" in altered
    assert "0.7 at 1970-01-01T00:00:00.001+00:00" in altered
    assert "1 missing, 1 altered" in result.stdout
    assert f"lezea audit {folder.run_id} --repair delivers it again" in result.stdout


def test_a_repair_brings_back_what_is_missing(mlflow_store: str, folder: RunFolder) -> None:
    """It says how many records it took, and exits with what is true afterwards."""
    Store(mlflow_store, folder).sql("DELETE FROM params")
    result = call(folder.run_id, "--repair")
    assert result.exit_code == 0
    assert "everything is there and right" in result.stdout
    assert "records delivered by the repair" in result.stdout
    assert "--repair delivers" not in result.stdout
    assert Store(mlflow_store, folder).run.data.params == {"_x5B_lr_x5D_": "0.1"}


def test_what_a_repair_cannot_set_right_is_told_with_what_can(mlflow_store: str, folder: RunFolder) -> None:
    """A point that no record brought stays in MLflow; only a new run there is as the journal says."""
    store = Store(mlflow_store, folder)
    store.client.log_metric(store.run.info.run_id, "loss", 0.7, 1, step=2)
    result = call(folder.run_id, "--repair")
    assert result.exit_code == 1
    assert "cannot be set right there" in result.stdout
    assert result.stdout.splitlines()[-1].endswith(f"then: lezea sync --recreate {folder.run_id}")
    assert "--repair delivers it again" not in result.stdout


def test_what_waits_is_exit_code_1_and_no_list(mlflow_store: str) -> None:
    """The command that delivers it is named."""
    folder = offline_run()
    result = call(folder.run_id)
    waiting = len(folder.journal("main").read_bytes().splitlines())
    assert result.exit_code == 1
    assert f"{waiting} waiting" in result.stdout
    assert f"lezea sync {folder.run_id} delivers what waits" in result.stdout
    assert "missing" not in result.stdout


def test_a_long_list_is_cut_on_the_screen_and_whole_for_programs(mlflow_store: str) -> None:
    """Fifty lines, and how many there are beside them."""
    folder = offline_run(MOST_LINES + 10)
    deliver_run(folder, load_settings())
    Store(mlflow_store, folder).sql("DELETE FROM metrics")
    shown, whole = call(folder.run_id), call(folder.run_id, "--json")
    assert shown.exit_code == whole.exit_code == 1
    assert sum(line.startswith("missing") for line in shown.stdout.splitlines()) == MOST_LINES
    assert "… and 10 more" in shown.stdout
    [report] = json.loads(whole.stdout)
    assert [finding["what"] for finding in report["findings"]] == [
        f"metric loss step {step}" for step in range(MOST_LINES + 10)
    ]


def test_the_report_can_be_read_by_programs(folder: RunFolder) -> None:
    """``--json`` prints one list and nothing else on stdout."""
    [report] = json.loads(call(folder.run_id, "--json").stdout)
    assert report.pop("checked") > 0
    assert report == {
        "run_id": folder.run_id, "sink": "mlflow", "destination": report["destination"], "audited": True,
        "error": None, "reason": None, "merged": 0, "withheld": 0, "waiting": 0, "rejected": 0, "damaged": 0,
        "never_written": 0,
        "missing": 0, "doubled": 0, "altered": 0, "findings": [], "unlisted": 0, "delivered": 0,
        "repair_error": None,
    }  # fmt: skip


def test_a_backend_that_cannot_be_asked_is_exit_code_2(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its address and the reason."""
    nobody = Gate()
    monkeypatch.setenv("LEZEA_MLFLOW_TRACKING_URI", nobody.uri)
    result = call(folder.run_id)
    assert result.exit_code == 2
    assert f"could not be asked (unreachable): MLflow at {nobody.uri}" in result.stdout


def test_a_run_that_a_person_deleted_is_exit_code_2_with_the_remedy(
    mlflow_store: str, folder: RunFolder
) -> None:
    """As ``lezea sync`` says it."""
    store = Store(mlflow_store, folder)
    MlflowClient(mlflow_store).delete_run(store.run.info.run_id)
    result = call(folder.run_id, "--repair")
    assert result.exit_code == 2
    assert f"lezea sync --recreate {folder.run_id}" in result.stdout


def test_a_repair_that_another_process_keeps_from_us_is_told(mlflow_store: str) -> None:
    """What is wrong stays wrong for now."""
    folder = offline_run()
    lock = take_delivery_lock(folder)
    assert lock is not None
    result = call(folder.run_id, "--repair")
    lock.release()
    assert result.exit_code == 1
    assert "the repair is not complete: another process delivers this run now" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["no-such-run"], "check the id"),
        (["[red]no[/red]"], "[red]no[/red]"),
        (["run-1", "--to", "nowhere"], "nowhere"),
        (["run-1", "--runs-dir", "elsewhere"], "elsewhere"),
    ],
)
def test_what_cannot_be_audited_is_exit_code_2(mlflow_store: str, arguments: list[str], told: str) -> None:
    """No such run, no such backend: the message says what was looked for."""
    result = call(*arguments)
    assert result.exit_code == 2
    assert told in result.stderr


def test_one_backend_can_be_chosen(folder: RunFolder) -> None:
    """By its name."""
    result = call(folder.run_id, "--to", "mlflow", "--json")
    assert result.exit_code == 0
    assert [report["sink"] for report in json.loads(result.stdout)] == ["mlflow"]


def test_the_runs_folder_can_be_named(folder: RunFolder, tmp_path: Path) -> None:
    """By option, as it can by variable."""
    moved = tmp_path / "moved"
    folder.path.parent.rename(moved)
    assert call(folder.run_id).exit_code == 2
    assert call(folder.run_id, "--runs-dir", str(moved)).exit_code == 0
