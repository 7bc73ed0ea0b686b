"""The facts about machine and program that a run records of itself, with secrets removed."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

from lezea_mlops.events import Cleaner, Redactor


def describe_start(cleaner: Cleaner) -> dict[str, Any]:
    """Return ``source`` and ``env`` of a ``run_started`` event: what costs nothing to know."""
    entrypoint = sys.argv[0] if sys.argv and sys.argv[0] else "<interactive>"
    user = os.environ.get("USER") or os.environ.get("LOGNAME")
    is_file = os.path.exists(entrypoint)
    env = {
        "python_version": platform.python_version(),
        "platform": sys.platform,
        "hostname": cleaner.text(platform.node()),
        "pid": os.getpid(),
        "user": cleaner.text(user) if user else None,
    }
    return {
        "source": {"entrypoint": cleaner.text(Path(entrypoint).absolute() if is_file else entrypoint)},
        "env": {name: value for name, value in env.items() if value is not None},
    }


def capture_environment(cleaner: Cleaner, redactor: Redactor | None) -> dict[str, Any]:
    """Return facts about host, GPUs and packages.

    Args:
        cleaner: cleans the facts.
        redactor: removes secrets from the command line; None leaves them.
    """
    from lezea_mlops.capture import capture_gpus, capture_host, capture_packages

    host = capture_host()
    arguments = [str(argument) for argument in host.pop("argv", [])]
    if redactor is not None:
        arguments, removed = redactor.redact_arguments(arguments)
        if removed:
            cleaner.counts["redacted"] += removed
    facts = {"host": host | {"argv": arguments}, "gpu": capture_gpus(), "packages": capture_packages()}
    return cleaner.clean_mapping(facts)
