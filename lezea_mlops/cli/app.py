"""The command ``lezea``: which commands there are."""

from __future__ import annotations

import typer

from lezea_mlops.cli.audit import audit
from lezea_mlops.cli.gc import gc
from lezea_mlops.cli.status import status
from lezea_mlops.cli.sync import sync

# A traceback with the values of variables might show what a URI holds of passwords.
app = typer.Typer(
    help="The experiment tracker for long, evolutionary AI research.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)

for command in (sync, status, audit, gc):
    app.command()(command)
