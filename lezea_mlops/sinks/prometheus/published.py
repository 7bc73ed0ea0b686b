"""Files for programs of other users, such as Prometheus and node_exporter: readable by all, replaced whole."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from lezea_mlops._process import ProcessIdentity

_READABLE_BY_ALL = 0o644
_OPEN_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)


def publish(path: Path, content: bytes) -> None:
    """Put *content* at *path*, whose folder is made if need be; a reader sees the old or the new file.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name begins with a dot and ends as no glob of theirs does.
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with os.fdopen(os.open(fresh, _OPEN_FLAGS, _READABLE_BY_ALL), "wb") as file:
            file.write(content)
        # Also where the umask of a private run says otherwise.
        fresh.chmod(_READABLE_BY_ALL)
        os.replace(fresh, path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


def this_process() -> str:
    """Return the identity of this process as one line, for ``is_of_a_dead_process``."""
    return json.dumps(ProcessIdentity.of_this_process().stored(), separators=(",", ":"))


def is_of_a_dead_process(identity: Any) -> bool:
    """Tell whether what ``this_process`` returned was written on this host by a process that has ended."""
    try:
        process = ProcessIdentity.read(json.loads(identity))
    except (TypeError, ValueError):
        return False
    return process is not None and process.exists() is False
