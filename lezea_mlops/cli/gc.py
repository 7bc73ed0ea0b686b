"""``lezea gc``: captured files that every destination has are removed, and what dead processes left."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.markup import escape

from lezea_mlops.cli.runs import (
    AllOption,
    JsonOption,
    RunsArgument,
    RunsDirOption,
    chosen,
    counted,
    error_console,
    said_of_no_runs,
    say,
    usage_errors,
)
from lezea_mlops.config import load_settings
from lezea_mlops.errors import LezeaError
from lezea_mlops.journal import RunFolder
from lezea_mlops.runtime.assembly import destinations
from lezea_mlops.runtime.gc import Collected, collect
from lezea_mlops.runtime.remembered import as_remembered


def gc(
    runs: RunsArgument = None,
    all_runs: AllOption = False,
    runs_dir: RunsDirOption = None,
    dry_run: Annotated[bool, typer.Option(help="Only tell what would be removed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove the captured files of RUNS that have ended and are delivered everywhere; exit code 1 if that fails."""
    console = error_console()
    with usage_errors(console):
        settings = load_settings(runs_dir=runs_dir)
        folders = chosen(runs, all_runs, settings)
    if not folders:
        say(console, said_of_no_runs(settings))
    reports = []
    for folder in folders:
        reports.append(_collected(folder, destinations(as_remembered(folder, settings)), dry_run))
        say(console, _line(reports[-1], dry_run))
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(report) for report in reports]))
    raise typer.Exit(1 if any(report.error for report in reports) else 0)


def _collected(folder: RunFolder, names: dict[str, str], dry_run: bool) -> Collected:
    try:
        return collect(folder, names, dry_run=dry_run)
    except (LezeaError, OSError) as error:
        return Collected(folder.run_id, error=str(error))


def _line(report: Collected, dry_run: bool) -> str:
    run_id = escape(report.run_id)
    if report.error is not None:
        return f"{run_id}: [red]{escape(report.error)}[/red]"
    if report.left_because is not None:
        return f"{run_id}: left as it is: {escape(report.left_because)}"
    verb = "would remove" if dry_run else "removed"
    parts = f"{counted(report.blobs, 'captured file')} and {counted(report.leftovers, 'leftover')}"
    return f"{run_id}: {verb} {parts}, {decimal(report.bytes)}"
