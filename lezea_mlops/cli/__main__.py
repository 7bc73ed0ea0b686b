"""``python -m lezea_mlops.cli``."""

from lezea_mlops.cli.app import app

app()
