"""``lezea up``: MLflow and MongoDB on this machine, without docker and without passwords, for it alone."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from lezea_mlops.cli.runs import error_console, say, usage_errors
from lezea_mlops.errors import ConfigurationError, LezeaError, MissingDependencyError
from lezea_mlops.servers import Server
from lezea_mlops.servers.local import KINDS, bring_up, held

DEFAULT_FOLDER = Path("lezea-data")
FAILED = 1
NOT_INSTALLED = 3


class Kind(str, Enum):
    """A server, as it is named on the command line and in the folder."""

    MLFLOW = "mlflow"
    MONGODB = "mongodb"


FolderOption = Annotated[Path, typer.Option(help="Where the servers keep data, logs, ports and process ids.")]
OnlyOption = Annotated[Kind | None, typer.Option(help="This server alone.")]


def up(folder: FolderOption = DEFAULT_FOLDER, only: OnlyOption = None) -> None:
    """Start MLflow and MongoDB on this machine, where they run on; eval "$(lezea up)" points trackers to them.

    The standard output has the lines for the shell. Exit code 1 if a server does not come up, 3 if MongoDB is not
    installed; the other one is up then.
    """
    console = error_console()
    with usage_errors(console), held_folder(folder) as place:
        codes = {_brought_up(kind, place, console) for kind in named(only)}
    if sys.stdout.isatty():
        say(console, 'To set them in this shell: eval "$(lezea up)". To end the servers: lezea down')
    raise typer.Exit(next((code for code in (FAILED, NOT_INSTALLED) if code in codes), 0))


def named(only: Kind | None) -> list[str]:
    """Return the servers that are meant, the quickest first."""
    return [only.value] if only else sorted(KINDS, reverse=True)


@contextlib.contextmanager
def held_folder(folder: Path) -> Iterator[Path]:
    """Hold the folder of the servers, and give its whole path; say so where it cannot be used."""
    folder = folder.expanduser().absolute()
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held(folder))
        except OSError as error:
            raise ConfigurationError(f"--folder is {str(folder)!r}, which cannot be used: {error}") from None
        yield folder


def _brought_up(kind: str, folder: Path, console: Console) -> int:
    def waiting(server: Server) -> None:
        say(console, f"{server.title} is starting, log {escape(str(server.log))}")

    try:
        server, already = bring_up(kind, folder, waiting)
    except MissingDependencyError as error:
        say(console, f"[yellow]{escape(str(error))}[/yellow]")
        return NOT_INSTALLED
    except (LezeaError, OSError) as error:
        say(console, f"[red]{escape(str(error))}[/red]")
        return FAILED
    say(
        console,
        f"[green]{server.title} is up{' already' if already else ''} at {escape(server.tracker_uri)}[/green]",
    )
    typer.echo(f"export {server.variable}={shlex.quote(server.tracker_uri)}")
    return 0
