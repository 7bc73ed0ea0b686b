"""The command ``lezea``."""

from lezea_mlops.cli.app import app

__all__ = ["app"]
