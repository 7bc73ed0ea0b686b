"""Starting the courier's interpreter: what it is told, and from where it may import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lezea_mlops
from lezea_mlops._files import open_private

# ``-I`` keeps the user's folder out. What the parent could import comes behind the standard library and the installed
# packages: a ``queue.py`` or ``json.py`` that lies beside a script must not be taken for the library's. This package
# itself is the parent's own, wherever that was found. At the end nothing is torn down: all is on the disk, and what
# backends leave running must not keep the process alive.
BOOT = """
import sys, os, json, importlib.util
start = json.loads(sys.stdin.buffer.read())
sys.path += [folder for folder in start["path"] if folder not in sys.path]
place = start["package"]
if place:
    spec = importlib.util.spec_from_file_location("lezea_mlops", place)
    sys.modules["lezea_mlops"] = package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
from lezea_mlops.runtime.courier import main
os._exit(main(start))
"""


class CannotSpawn(Exception):
    """No courier can be started; the text says why."""


def spawn(start: Mapping[str, Any], descriptor: int, log_path: Path) -> subprocess.Popen[bytes]:
    """Start a courier in a session of its own.

    Args:
        start: what ``courier.main`` is given; it travels through a pipe, for it may hold a password.
        descriptor: the courier's end of the channel.
        log_path: where its standard error goes.

    Raises:
        CannotSpawn: there is no interpreter, or the system starts no process.
    """
    executable = sys.executable
    if getattr(sys, "frozen", False):
        raise CannotSpawn("this program is frozen: its executable is no Python interpreter")
    if not executable or not os.access(executable, os.X_OK):
        raise CannotSpawn(f"sys.executable is {executable!r}, which cannot be executed")
    content = json.dumps({**start, "path": _import_path(), "package": _package_file()}).encode()
    try:
        log = open_private(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            process = subprocess.Popen(
                [executable, "-I", "-c", BOOT, "lezea-courier", Path(start["folder"]).name],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log,
                pass_fds=(descriptor,), start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(log)
    except (OSError, subprocess.SubprocessError) as error:
        raise CannotSpawn(str(error)) from error
    assert process.stdin is not None
    try:
        with process.stdin as pipe:
            pipe.write(content)
    except OSError as error:
        process.kill()
        process.wait()
        raise CannotSpawn(f"{executable} ended before it was told what to do: {error}") from error
    return process


def _import_path() -> list[str]:
    here = os.getcwd()
    return [os.path.join(here, folder) for folder in sys.path]


def _package_file() -> str | None:
    """Return the file of this package; None where it is imported from an archive."""
    file = lezea_mlops.__file__
    return os.path.abspath(file) if file and os.path.isfile(file) else None
