"""Optional libraries, imported by the function that needs them."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from lezea_mlops.errors import MissingDependencyError


def require(module: str, *, package: str, needed_for: str) -> Any:
    """Import *module*, or say in one sentence what to install.

    Args:
        module: name to import, for instance ``"mlflow"``.
        package: what to hand to ``pip install``.
        needed_for: what the caller wanted to do, for the message.

    Raises:
        MissingDependencyError: *module* is not installed. An error from inside an installed package passes
            through unchanged, for that is a broken installation and not a missing one.
    """
    if find_spec(module.partition(".")[0]) is None:
        raise MissingDependencyError(
            f"{needed_for} needs the module {module!r}, which is not installed: pip install '{package}'"
        )
    return import_module(module)
