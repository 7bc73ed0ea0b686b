"""What the commands share: finding the runs that a person names, and saying what is wrong."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from lezea_mlops.config import Settings
from lezea_mlops.errors import ConfigurationError
from lezea_mlops.journal import RunFolder
from lezea_mlops.runtime.assembly import destinations, runs_in

SHORTEST_PREFIX = 4
SHORT_ID = 8
MOST_CANDIDATES = 5
MOST_WARNINGS = 1_000

RunsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RUN]...", help="Experiment ids, their first characters (4 or more), or run folders."
    ),
]
AllOption = Annotated[bool, typer.Option("--all", help="Every run in the runs folder.")]
RunsDirOption = Annotated[Path | None, typer.Option(help="Folder of the runs (LEZEA_RUNS_DIR, ./runs).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]


def error_console() -> Console:
    """Return where people are told things; what programs read goes to the standard output."""
    return Console(stderr=True)


def say(console: Console, markup: str) -> None:
    """Print one line, however long it is."""
    console.print(markup, soft_wrap=True, highlight=False)


@contextlib.contextmanager
def usage_errors(console: Console) -> Iterator[None]:
    """Tell what is wrong with arguments or settings, and exit with code 2."""
    try:
        yield
    except ConfigurationError as error:
        say(console, f"[red]{escape(str(error))}[/red]")
        raise typer.Exit(2) from error


class WarningsOnce(logging.Handler):
    """Shows what the library logs, each text once: many runs and many tries have the same to say.

    In a ``with`` block it is installed.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console
        self._told: dict[str, None] = {}

    def __enter__(self) -> WarningsOnce:
        logging.getLogger("lezea_mlops").addHandler(self)
        return self

    def __exit__(self, *error: object) -> None:
        logging.getLogger("lezea_mlops").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Show a warning, unless it was shown before."""
        text = record.getMessage()
        if text in self._told:
            return
        self._told[text] = None
        if len(self._told) > MOST_WARNINGS:
            del self._told[next(iter(self._told))]
        say(self._console, escape(text))


def chosen(runs: Sequence[str] | None, all_runs: bool, settings: Settings) -> list[RunFolder]:
    """Return the folders that the arguments name, each once.

    Raises:
        ConfigurationError: none was named, or one is no run.
    """
    if all_runs:
        return runs_in(settings.runs_dir)
    if not runs:
        raise ConfigurationError(
            f"no run was named; give an experiment id, or --all for those in {settings.runs_dir}"
        )
    found = [find_run(run, settings.runs_dir) for run in runs]
    return list({folder.path: folder for folder in found}.values())


def find_run(run: str, runs_dir: Path) -> RunFolder:
    """Return the folder of one run, named by its id, by a path, or by the first characters of its id.

    Raises:
        ConfigurationError: there is none, or there are several.
    """
    for path in (runs_dir / run, Path(run)):
        folder = RunFolder(Path(os.path.abspath(path)))
        if folder.journals():
            return folder
    candidates = [folder for folder in runs_in(runs_dir) if folder.run_id.startswith(run)]
    if len(run) >= SHORTEST_PREFIX and len(candidates) == 1:
        return candidates[0]
    raise ConfigurationError(_not_found(run, runs_dir, candidates))


def _not_found(run: str, runs_dir: Path, candidates: Sequence[RunFolder]) -> str:
    if not candidates:
        return (
            f"{run!r} is no run in {runs_dir} and no run folder; check the id, --runs-dir or LEZEA_RUNS_DIR"
        )
    some = ", ".join(folder.run_id for folder in candidates[:MOST_CANDIDATES])
    more = ", …" if len(candidates) > MOST_CANDIDATES else ""
    if len(candidates) == 1:
        return f"{run!r} is too short, give {SHORTEST_PREFIX} characters or more; check the id: in {runs_dir} is {some}"
    return f"{run!r} begins {len(candidates)} ids in {runs_dir}; check the id: {some}{more}"


def check_sinks(names: Sequence[str] | None, settings: Settings) -> None:
    """Check the names of sinks.

    Raises:
        ConfigurationError: one of them is not configured.
    """
    known = destinations(settings)
    for name in names or ():
        if name not in known:
            raise ConfigurationError(f"--to is {name!r}; configured are: {', '.join(known)}")


def said_of_no_runs(settings: Settings) -> str:
    """Return what is said where ``--all`` finds nothing."""
    return f"no runs in {escape(str(settings.runs_dir))}; --runs-dir or LEZEA_RUNS_DIR names another folder"


def short_ids(folders: Sequence[RunFolder]) -> dict[Path, str]:
    """Return for each run the first characters of its id, as many as tell these runs apart."""
    ids = {folder.path: folder.run_id for folder in folders}
    length = SHORT_ID
    while len({run_id[:length] for run_id in ids.values()}) < len(set(ids.values())):
        length += 1
    return {path: run_id[:length] for path, run_id in ids.items()}


def counted(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
