"""Starting the courier's interpreter: what it is told, and from where it may import."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lezea_mlops
from lezea_mlops._clock import Deadline
from lezea_mlops._files import open_private

log = logging.getLogger("lezea_mlops")

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


# What a pipe holds at least, wherever it can be asked to hold more.
_PIPE_BYTES = 64 * 1024
# Couriers that nobody looks after any more, by process id.
_LEFT_BEHIND: set[int] = set()


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
    executable = _interpreter()
    content = json.dumps({**start, "path": _import_path(), "package": _package_file()}).encode()
    try:
        told = _filled_pipe(content)
        try:
            log = open_private(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            try:
                return subprocess.Popen(
                    [executable, "-I", "-c", BOOT, "lezea-courier", Path(start["folder"]).name],
                    stdin=told, stdout=subprocess.DEVNULL, stderr=log,
                    pass_fds=(descriptor,), start_new_session=True,
                )  # fmt: skip
            finally:
                os.close(log)
        finally:
            os.close(told)
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        # A RuntimeError comes from an interpreter that is ending, and from audit hooks that forbid programs.
        raise CannotSpawn(str(error)) from error


def wait_for_end(process: subprocess.Popen[bytes], deadline: Deadline) -> bool:
    """Wait until *process* has ended; False if the deadline passed first."""
    try:
        process.wait(deadline.left_s())
    except subprocess.TimeoutExpired:
        log.debug("the courier %d takes its time to end", process.pid)
        return False
    return True


def leave_behind(process: subprocess.Popen[bytes]) -> None:
    """Look after *process* no more: it ends by itself, and is waited for when there is an opportunity."""
    if process.poll() is None:
        _LEFT_BEHIND.add(process.pid)
        # Python warns of a process whose object goes while it runs; this one is meant to.
        process.returncode = 0
    reap_left_behind()


def reap_left_behind() -> None:
    """Take note of the ends of couriers that were left behind; otherwise they stay in the process table."""
    for pid in list(_LEFT_BEHIND):
        try:
            ended, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            # The program itself has waited for it, or this is a forked child.
            ended = pid
        if ended:
            _LEFT_BEHIND.discard(pid)


def _interpreter() -> str:
    executable = sys.executable
    if getattr(sys, "frozen", False):
        raise CannotSpawn("this program is frozen: its executable is no Python interpreter")
    if not executable or not os.access(executable, os.X_OK):
        raise CannotSpawn(f"sys.executable is {executable!r}, which cannot be executed")
    if "py" not in os.path.basename(executable).lower():
        # A server or an application with Python inside would start itself once more.
        raise CannotSpawn(f"sys.executable is {executable!r}, which is not called like a Python interpreter")
    return executable


def _filled_pipe(content: bytes) -> int:
    """Return the reading end of a pipe that holds *content* already: nobody has to wait for a reader, or outlive it."""
    import fcntl

    reading, writing = os.pipe()
    try:
        if len(content) > _PIPE_BYTES and hasattr(fcntl, "F_SETPIPE_SZ"):
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, len(content))
        os.set_blocking(writing, False)
        if os.write(writing, content) < len(content):
            raise CannotSpawn(f"{len(content)} bytes of settings and import path do not fit a pipe")
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    return reading


def _import_path() -> list[str]:
    """Return the absolute folders and archives of ``sys.path``; what is no text there, Python passes over too."""
    given: list[object] = list(sys.path)
    folders = [folder for folder in given if isinstance(folder, str)]
    try:
        here = os.getcwd()
    except FileNotFoundError:
        # The folder was deleted: nothing can be imported from it.
        return [folder for folder in folders if os.path.isabs(folder)]
    return [os.path.join(here, folder) for folder in folders]


def _package_file() -> str | None:
    """Return the file of this package; None where it is imported from an archive."""
    file = lezea_mlops.__file__
    return os.path.abspath(file) if file and os.path.isfile(file) else None
