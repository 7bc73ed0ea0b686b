"""Where Prometheus finds the processes of a host: one file per process in a folder that it watches (``file_sd``)."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

from lezea_mlops._process import ProcessIdentity
from lezea_mlops.sinks.prometheus.published import is_of_a_dead_process, publish, this_process

# Prometheus keeps no label that begins with two underscores: who serves is no part of a series.
_PROCESS_LABEL = "__lezea_process"
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}


def announce(folder: Path, address: str, port: int) -> Path:
    """Write down that this process serves at *address* and *port*, and return the file.

    Raises:
        OSError: it cannot be written.
    """
    process = ProcessIdentity.of_this_process()
    host = re.sub(r"[^\w.-]", "_", process.host)
    path = folder / f"{host}-{process.pid}-{process.start_ticks or 0}.json"
    target = {"targets": [as_target(address, port)], "labels": {_PROCESS_LABEL: this_process()}}
    publish(path, json.dumps([target]).encode())
    return path


def as_target(address: str, port: int) -> str:
    """Return the address at which a Prometheus of this host reaches a server that listens at *address*."""
    reached = _EVERYWHERE.get(address, address)
    return f"[{reached}]:{port}" if ":" in reached else f"{reached}:{port}"


def remove_dead_targets(folder: Path) -> int:
    """Remove the files of processes of this host that ended without doing so, and return how many there were."""
    removed = 0
    for path in folder.glob("*.json"):
        if is_of_a_dead_process(_process_in(path)):
            with contextlib.suppress(FileNotFoundError):
                # Another process starts at the same moment and removes it too.
                path.unlink()
                removed += 1
    return removed


def _process_in(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())[0]["labels"][_PROCESS_LABEL]
    except (OSError, ValueError, LookupError, TypeError):
        return None
