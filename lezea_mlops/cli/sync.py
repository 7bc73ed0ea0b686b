"""``lezea sync``: what a run could not deliver is delivered later, once or for as long as it is asked to."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from lezea_mlops.cli.runs import (
    SHORT_ID,
    AllOption,
    JsonOption,
    RunsArgument,
    RunsDirOption,
    WarningsOnce,
    check_sinks,
    chosen,
    counted,
    error_console,
    said_of_no_runs,
    say,
    usage_errors,
)
from lezea_mlops.cli.watch import Interruption, Watch
from lezea_mlops.config import Settings, load_settings
from lezea_mlops.errors import LezeaError
from lezea_mlops.journal import RunFolder
from lezea_mlops.runtime.own_process import prepare_own_process
from lezea_mlops.runtime.remembered import as_remembered
from lezea_mlops.runtime.replay import NO_SINK, Delivered, Order, Wait, deliver_run


def sync(
    runs: RunsArgument = None,
    all_runs: AllOption = False,
    runs_dir: RunsDirOption = None,
    to: Annotated[
        list[str] | None, typer.Option("--to", metavar="SINK", help="Only to this sink; may be repeated.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on for ever: deliver what comes, until Ctrl-C.")
    ] = False,
    recreate: Annotated[
        bool, typer.Option(help="Deliver from the beginning, to a new run where the old one was deleted.")
    ] = False,
    retry_rejected: Annotated[
        bool, typer.Option(help="Offer once more what a sink refused and what was set aside.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Deliver what waits in the journals of RUNS to their backends; exit code 1 if something still waits."""
    console = error_console()
    prepare_own_process()
    with usage_errors(console):
        settings = load_settings(runs_dir=runs_dir)
        check_sinks(to, settings)
        folders = chosen(runs, all_runs, settings)
    order = Order(sinks=to or None, recreate=recreate, retry_rejected=retry_rejected)
    delivery = Delivery(settings, order, console, as_json)
    with WarningsOnce(console):
        if watch:
            _watch(lambda: chosen(runs, all_runs, settings) if all_runs else folders, delivery)
            return
        reports = [delivery.of(folder) for folder in folders]
    if not folders:
        say(console, said_of_no_runs(settings))
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(report) for group in reports for report in group]))
    incomplete = sum(any(report.error for report in group) for group in reports)
    if len(folders) > 1:
        complete = len(folders) - incomplete
        say(console, f"{counted(len(folders), 'run')}: {complete} complete, {incomplete} incomplete")
    raise typer.Exit(1 if incomplete else 0)


def _watch(folders: Callable[[], Sequence[RunFolder]], delivery: Delivery) -> None:
    """Deliver until a signal asks to end, which is no failure."""
    with Interruption() as interruption:
        watch = Watch(lambda folder, again: delivery.attempt(folder, again, interruption.wait), delivery.tell)
        say(delivery.console, "watching; Ctrl-C ends it")
        watch.go_on(folders, interruption)
    say(delivery.console, "ended; what waits stays in the journals")


class Delivery:
    """Delivers one run after the other, and tells what came of each.

    Args:
        settings: which destinations there are.
        order: what is asked for.
        console: where people are told.
        as_json: what is told of a change is for programs too.
    """

    def __init__(self, settings: Settings, order: Order, console: Console, as_json: bool) -> None:
        self.console = console
        self._settings = settings
        self._order = order
        self._as_json = as_json

    def of(self, folder: RunFolder) -> list[Delivered]:
        """Deliver a run and say what came of it; a run that cannot be delivered is a report like any other."""
        reports = self.attempt(folder, False, time.sleep)
        for report in reports:
            say(self.console, _line(report))
        return reports

    def attempt(self, folder: RunFolder, again: bool, wait: Wait) -> list[Delivered]:
        """Deliver a run, with its progress shown; *again*: what is asked for once was done before."""
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        quiet = self._as_json or not self.console.is_terminal
        with Progress(*columns, console=self.console, transient=True, disable=quiet) as bars:
            bar = bars.add_task(f"{folder.run_id[:SHORT_ID]}", total=None)

            def show(sink: str, done: int, total: int) -> None:
                bars.update(
                    bar, description=f"{folder.run_id[:SHORT_ID]} → {sink}", completed=done, total=total
                )

            asked = dataclasses.replace(self._order, wait=wait, progress=show)
            if again:
                asked = dataclasses.replace(asked, recreate=False, retry_rejected=False)
            try:
                return deliver_run(folder, as_remembered(folder, self._settings), asked)
            except (LezeaError, OSError) as error:
                return [Delivered(folder.run_id, NO_SINK, 0, 0, str(error))]

    def tell(self, report: Delivered) -> None:
        """Say what changed, while watching."""
        say(self.console, _line(report))
        if self._as_json:
            typer.echo(json.dumps(dataclasses.asdict(report)))


def _line(report: Delivered) -> str:
    if report.sink == NO_SINK:
        return f"{escape(report.run_id)}: [red]{escape(str(report.error))}[/red]"
    outcome = f"[red]{escape(report.error)}[/red]" if report.error else "complete"
    aside = f", {report.rejected} set aside" if report.rejected else ""
    damage = f", {counted(report.damaged, 'damaged place')} stepped over" if report.damaged else ""
    failed = f", {counted(report.finisher_failed, 'finisher')} failed" if report.finisher_failed else ""
    records = counted(report.records, "record")
    return f"{escape(report.run_id)} → {report.sink}: {records}{aside}{damage}{failed}, {outcome}"
