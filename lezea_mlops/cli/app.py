"""Commands of ``lezea``: deliver later what a run could not deliver."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from lezea_mlops.config import Settings, load_settings
from lezea_mlops.errors import ConfigurationError
from lezea_mlops.journal import RunFolder
from lezea_mlops.runtime.assembly import runs_in
from lezea_mlops.runtime.replay import Delivered, deliver_run

# MLflow waits for minutes by default. This process is ours, and a person waits for it.
IMPATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}

app = typer.Typer(help="The experiment tracker for long, evolutionary AI research.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Keep ``sync`` a command of its own while it is the only one."""


@app.command()
def sync(
    runs: Annotated[list[str] | None, typer.Argument(help="Experiment ids, or run folders.")] = None,
    all_runs: Annotated[bool, typer.Option("--all", help="Every run in the runs folder.")] = False,
    runs_dir: Annotated[
        Path | None, typer.Option(help="Folder of the runs (LEZEA_RUNS_DIR, ./runs).")
    ] = None,
    recreate: Annotated[
        bool, typer.Option(help="Deliver from the beginning, to a new run where the old one was deleted.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Deliver what waits in the journals of RUNS to their backends; exit code 1 if something still waits."""
    console = Console(stderr=True)
    for name, value in IMPATIENCE.items():
        os.environ.setdefault(name, value)
    try:
        settings = load_settings(runs_dir=runs_dir)
        folders = _chosen(runs or [], all_runs, settings)
    except ConfigurationError as error:
        console.print(f"[red]{escape(str(error))}[/red]", soft_wrap=True)
        raise typer.Exit(2) from error
    reports = [report for folder in folders for report in _reported(folder, settings, console, recreate)]
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(report) for report in reports]))
    raise typer.Exit(1 if any(report.error for report in reports) else 0)


def _chosen(runs: list[str], all_runs: bool, settings: Settings) -> list[RunFolder]:
    """Return the folders that the arguments name.

    Raises:
        ConfigurationError: none was named, or one holds no journal.
    """
    if all_runs:
        return runs_in(settings.runs_dir)
    if not runs:
        raise ConfigurationError(
            f"no run was named; give an experiment id, or --all for those in {settings.runs_dir}"
        )
    folders = [
        RunFolder(Path(run).absolute() if Path(run).is_dir() else settings.runs_dir / run) for run in runs
    ]
    for folder in folders:
        if not folder.journals():
            raise ConfigurationError(
                f"{folder.path} holds no journal; check the id, --runs-dir or LEZEA_RUNS_DIR"
            )
    return folders


def _reported(folder: RunFolder, settings: Settings, console: Console, recreate: bool) -> list[Delivered]:
    with console.status(f"delivering {folder.run_id}"):
        reports = deliver_run(folder, settings, recreate=recreate)
    for report in reports:
        outcome = f"[red]{escape(report.error)}[/red]" if report.error else "complete"
        aside = f", {report.rejected} set aside" if report.rejected else ""
        console.print(
            f"{report.run_id} → {report.sink}: {report.records} records{aside}, {outcome}", soft_wrap=True
        )
    return reports
