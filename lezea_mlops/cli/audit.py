"""``lezea audit``: whether a destination holds what the journal of a run holds, and what it lacks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lezea_mlops.cli.runs import (
    JsonOption,
    RunsDirOption,
    check_sinks,
    counted,
    error_console,
    find_run,
    say,
    usage_errors,
)
from lezea_mlops.config import load_settings
from lezea_mlops.runtime.audit import AuditReport, audit_run
from lezea_mlops.runtime.own_process import prepare_own_process
from lezea_mlops.runtime.remembered import as_remembered
from lezea_mlops.sinks.base import Finding

MOST_LINES = 50
COLOUR_OF = {"missing": "red", "doubled": "yellow", "altered": "magenta"}


def audit(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="Experiment id, its first characters (4 or more), or run folder."),
    ],
    repair: Annotated[
        bool, typer.Option("--repair", help="Deliver again what is missing or altered, and what waits.")
    ] = False,
    to: Annotated[
        list[str] | None, typer.Option("--to", metavar="SINK", help="Only this sink; may be repeated.")
    ] = None,
    runs_dir: RunsDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the journal of RUN with what its backends hold.

    Exit code 0: everything is there and right. 1: something is missing, doubled, altered or waiting. 2: a backend could
    not be asked.
    """
    console = error_console()
    prepare_own_process()
    with usage_errors(console):
        settings = load_settings(runs_dir=runs_dir)
        check_sinks(to, settings)
        folder = find_run(run, settings.runs_dir)
    with console.status(f"auditing {escape(folder.run_id)}"):
        reports = audit_run(folder, as_remembered(folder, settings), sinks=to or None, repair=repair)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(report) for report in reports]))
    else:
        for report in reports:
            _print(report, repair)
    if any(report.error for report in reports):
        raise typer.Exit(2)
    raise typer.Exit(0 if all(report.is_right for report in reports) else 1)


def _print(report: AuditReport, repaired: bool) -> None:
    console = Console()
    if report.findings:
        console.print(_table(report.findings[:MOST_LINES]))
        if (more := len(report.findings) + report.unlisted - MOST_LINES) > 0:
            say(console, f"… and {more} more")
    say(console, f"{escape(report.run_id)} → {escape(report.sink)}: {_outcome(report)}")
    if report.delivered:
        say(console, f"{counted(report.delivered, 'record')} delivered by the repair")
    if report.repair_error:
        say(console, f"[red]the repair is not complete: {escape(report.repair_error)}[/red]")
    if repaired and report.repair_error is None:
        if report.missing or report.doubled or report.altered:
            say(console, _what_helps(report))
        return
    if any(finding.mendable for finding in report.findings):
        say(console, f"lezea audit {escape(report.run_id)} --repair delivers it again, as far as that helps")
    elif report.waiting:
        say(console, f"lezea sync {escape(report.run_id)} delivers what waits")


def _what_helps(report: AuditReport) -> str:
    return (
        "what is left was changed in the destination and cannot be set right there; to have it as the journal says, "
        f"delete the run there, then: lezea sync --recreate {escape(report.run_id)}"
    )


def _table(findings: Sequence[Finding]) -> Table:
    table = Table("", "what", "record", "expected", "found", box=None, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    for finding in findings:
        colour = COLOUR_OF[finding.kind]
        record = "" if finding.wid is None else f"{finding.wid}/{finding.seq}"
        texts = (finding.what, record, _shown(finding.expected), _shown(finding.found))
        table.add_row(f"[{colour}]{finding.kind}[/{colour}]", *map(escape, texts))
    return table


def _shown(text: str | None) -> str:
    return "nothing" if text is None else text or "empty text"


def _outcome(report: AuditReport) -> str:
    if report.error:
        return f"[red]it could not be asked ({escape(str(report.reason))}): {escape(report.error)}[/red]"
    if not report.audited:
        return f"not audited; {counted(report.waiting, 'record')} waiting"
    kinds = ("missing", "doubled", "altered", "waiting")
    wrong = [f"{number} {kind}" for kind in kinds if (number := getattr(report, kind))]
    verdict = f"[red]{', '.join(wrong)}[/red]" if wrong else "everything is there and right"
    notes = {
        "merged": report.merged, "withheld": report.withheld, "set aside": report.rejected,
        "damaged places in the journal": report.damaged, "never written": report.never_written,
    }  # fmt: skip
    beside = ", ".join(f"{number} {note}" for note, number in notes.items() if number)
    return f"{report.checked} compared, {verdict}" + (f" ({beside})" if beside else "")
