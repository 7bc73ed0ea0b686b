"""``lezea down``: the servers of ``lezea up`` are ended; what they stored stays."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape

from lezea_mlops.cli.runs import error_console, say, usage_errors
from lezea_mlops.cli.up import DEFAULT_FOLDER, FAILED, FolderOption, OnlyOption, held_folder, named
from lezea_mlops.errors import LezeaError
from lezea_mlops.servers.local import KINDS, take_down


def down(folder: FolderOption = DEFAULT_FOLDER, only: OnlyOption = None) -> None:
    """End the servers that lezea up started; what they stored stays. Exit code 1 if one cannot be ended."""
    console = error_console()
    if not folder.expanduser().exists():
        say(console, f"no server was started in {escape(str(folder.expanduser().absolute()))}")
        return
    with usage_errors(console), held_folder(folder) as place:
        codes = {_taken_down(kind, place, console) for kind in named(only)}
    raise typer.Exit(max(codes))


def _taken_down(kind: str, folder: Path, console: Console) -> int:
    title = KINDS[kind].title
    try:
        ran = take_down(kind, folder)
    except (LezeaError, OSError) as error:
        say(console, f"[red]{title}: {escape(str(error))}[/red]")
        return FAILED
    say(console, f"{title} has ended" if ran else f"{title} does not run")
    return 0
