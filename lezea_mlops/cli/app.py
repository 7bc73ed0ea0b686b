"""The command ``lezea``: which commands there are."""

from __future__ import annotations

from typing import Annotated

import typer

import lezea_mlops
from lezea_mlops.cli.audit import audit
from lezea_mlops.cli.costs import costs
from lezea_mlops.cli.down import down
from lezea_mlops.cli.gc import gc
from lezea_mlops.cli.lineage import lineage
from lezea_mlops.cli.status import status
from lezea_mlops.cli.sync import sync
from lezea_mlops.cli.tree import tree
from lezea_mlops.cli.up import up

# A traceback with the values of variables might show what a URI holds of passwords.
app = typer.Typer(
    help="The experiment tracker for long, evolutionary AI research.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(lezea_mlops.__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and end."),
    ] = False,
) -> None:
    """Take what belongs to no command."""


for command in (sync, status, audit, gc, tree, lineage, costs, up, down):
    app.command()(command)
