"""What ``lezea tree`` and ``lezea lineage`` share: a run's evolution read, and how what is in it is shown."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from lezea_mlops.cli.paper import Cell, Paper, Piece
from lezea_mlops.cli.runs import counted, find_run
from lezea_mlops.config import load_settings
from lezea_mlops.errors import ConfigurationError, JournalError
from lezea_mlops.evolution import Evolution, Problem
from lezea_mlops.journal import RunFolder
from lezea_mlops.runtime.evolution import read_evolution

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="Experiment id, its first characters (4 or more), or run folder.")
]
# How a modification looks that was accepted, rejected, or neither yet.
STYLES = {True: "green", False: "red", None: "yellow"}
MOST_PROBLEMS = 10
MOST_NAMES = 5
# Comparing letter by letter is slow; so many names are.
MOST_COMPARED = 20_000
# Of the letters of two names that are nearly the same, this share is.
LIKENESS = 0.5
# Of two names of so many characters more or less, neither is a slip of the other.
MOST_SLIPS = 3


def open_run(run: str, runs_dir: Path | None) -> tuple[RunFolder, Evolution]:
    """Return the folder of a run, and its evolution as far as it is written.

    Raises:
        ConfigurationError: there is no such run, its journal cannot be read, or a setting is wrong.
    """
    folder = find_run(run, load_settings(runs_dir=runs_dir).runs_dir)
    try:
        return folder, read_evolution(folder.path)
    except JournalError as error:
        raise ConfigurationError(str(error)) from error


def unknown(name: str, noun: str, names: Sequence[str]) -> ConfigurationError:
    """Return the error that nothing has this id, with the ids that are nearly the same."""
    if not names:
        return ConfigurationError(f"there is no {noun} {name!r}: the run has none")
    near = ", ".join(nearest(name, names))
    return ConfigurationError(
        f"there is no {noun} {name!r} in this run" + (f"; there is {near}" if near else "")
    )


def nearest(name: str, names: Sequence[str]) -> list[str]:
    """Return the names that *name* begins, then those that differ from it in a few letters."""
    begun = itertools.islice((each for each in names if each.startswith(name)), MOST_NAMES)
    similar = (each for each in names if abs(len(each) - len(name)) <= MOST_SLIPS)
    close = difflib.get_close_matches(
        name, list(itertools.islice(similar, MOST_COMPARED)), MOST_NAMES, LIKENESS
    )
    return list(dict.fromkeys([*begun, *close]))[:MOST_NAMES]


def number(value: float | None, form: str) -> Cell:
    """Return a number as a cell, empty where there is none."""
    return [Piece("" if value is None else format(value, form))]


def print_problems(paper: Paper, problems: Sequence[Problem]) -> None:
    """Tell what cannot be as it was logged."""
    for problem in problems[:MOST_PROBLEMS]:
        paper.row(Piece(f"{problem.kind}: ", "yellow"), Piece(paper.shown(problem.text, 500)))
    if len(problems) > MOST_PROBLEMS:
        paper.row(Piece(f"… and {counted(len(problems) - MOST_PROBLEMS, 'more problem')}", "yellow"))


def names_shown(paper: Paper, names: Sequence[str], most: int) -> str:
    """Return ids as a list that is not too long."""
    some = ", ".join(map(paper.shown, names[:most]))
    return some if len(names) <= most else f"{some} and {len(names) - most:,} more"
