"""``lezea status``: for each run and destination, what is delivered, waiting and set aside."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lezea_mlops.cli.runs import (
    AllOption,
    JsonOption,
    RunsArgument,
    RunsDirOption,
    chosen,
    error_console,
    said_of_no_runs,
    say,
    short_ids,
    usage_errors,
)
from lezea_mlops.config import load_settings
from lezea_mlops.errors import JournalError
from lezea_mlops.journal import RunFolder
from lezea_mlops.runtime.assembly import destinations
from lezea_mlops.runtime.remembered import as_remembered
from lezea_mlops.runtime.status import UNREADABLE, RunStatus, begun_us, read_status
from lezea_mlops.runtime.survey import Survey, survey

MOST_ROWS = 50
MOST_PLACES = 10
# A file or a pipe has no width; no column is cut there.
WIDE = 250
HEADINGS = ("run", "experiment", "state", "attempts", "records", "sink", "delivered", "waiting", "rejected")


def status(
    runs: RunsArgument = None,
    all_runs: AllOption = False,
    runs_dir: RunsDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how RUNS stand, or the newest 50; one run that is named is read whole. Exit code 1 if one is unreadable."""
    console = error_console()
    with usage_errors(console):
        settings = load_settings(runs_dir=runs_dir)
        folders = chosen(runs, all_runs or not runs, settings)
    if not runs:
        # Not by the folder's own time: a delivery changes that.
        folders.sort(key=begun_us, reverse=True)
    shown = folders if all_runs or runs else folders[:MOST_ROWS]
    found = [read_status(folder, destinations(as_remembered(folder, settings))) for folder in shown]
    whole = _survey(shown[0]) if runs and len(shown) == 1 else None
    if as_json:
        typer.echo(json.dumps(_as_json(found, whole)))
    else:
        _show(shown, found, whole)
        if not shown:
            say(console, said_of_no_runs(settings))
        if len(shown) < len(folders):
            say(console, f"the newest {len(shown)} of {len(folders)} runs; --all shows every one")
    raise typer.Exit(1 if any(run.state == UNREADABLE for run in found) else 0)


def _survey(folder: RunFolder) -> Survey | None:
    try:
        return survey(folder)
    except JournalError:
        # The notes say which file cannot be read, and why.
        return None


def _as_json(found: Sequence[RunStatus], whole: Survey | None) -> list[dict[str, Any]]:
    runs = [dataclasses.asdict(run) for run in found]
    if whole is not None:
        runs[0]["journal"] = dataclasses.asdict(whole)
    return runs


def _show(folders: Sequence[RunFolder], found: Sequence[RunStatus], whole: Survey | None) -> None:
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    ids = short_ids(folders)
    table = Table(*HEADINGS, box=None, pad_edge=False, header_style="bold")
    for folder, run in zip(folders, found, strict=True):
        for row in _rows(ids[folder.path], run):
            table.add_row(*row)
    if found:
        console.print(table)
    for folder, run in zip(folders, found, strict=True):
        for note in _notes(run):
            say(console, f"{escape(ids[folder.path])}: {escape(note)}")
    if whole is not None:
        for line in _lines_of(whole):
            say(console, escape(line))


def _rows(run_id: str, run: RunStatus) -> list[list[str]]:
    """Return a row for each destination; what is of the run stands in the first."""
    head = [
        escape(run_id),
        escape(run.experiment or "?"),
        _coloured(run.state),
        str(run.attempts),
        str(run.records),
    ]
    rows: list[list[str]] = []
    for delivery in run.deliveries:
        name = delivery.sink if delivery.configured else f"{delivery.destination} (not configured)"
        numbers = (delivery.delivered, delivery.waiting, delivery.rejected)
        rows.append((head if not rows else [""] * len(head)) + [escape(name), *map(str, numbers)])
    return rows


def _coloured(state: str) -> str:
    colours = {"completed": "green", "running": "cyan", "stalled": "yellow"}
    return f"[{colours.get(state, 'red')}]{escape(state)}[/]"


def _notes(run: RunStatus) -> list[str]:
    errors = [
        f"{delivery.destination} is {delivery.state}: {delivery.last_error}"
        for delivery in run.deliveries
        if delivery.last_error is not None
    ]
    return errors + run.notes


def _lines_of(whole: Survey) -> list[str]:
    """Return what reading the whole journal brought."""
    lines = [f"{count:>10}  {name}" for name, count in sorted(whole.by_type.items())]
    lines += [f"damaged: {place}" for place in whole.damage[:MOST_PLACES]]
    if whole.damaged > MOST_PLACES:
        lines.append(f"damaged: {whole.damaged} places in all")
    lines += [
        f"lost: records {gap['first_seq']} to {gap['last_seq']} of {gap['wid']}: {gap['reason']}"
        for gap in whole.gaps[:MOST_PLACES]
    ]
    for number, what in (
        (whole.missing, "numbers belong to no record that can be read"),
        (
            whole.out_of_order,
            "records stand behind one of their own or a higher number: lines doubled or moved",
        ),
        (whole.newer, "records are of a later format version; update lezea-mlops to understand all of them"),
    ):
        if number:
            lines.append(f"{number} {what}")
    return lines
