"""Series as files for node_exporter's textfile collector, where no port may be opened."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from lezea_mlops.sinks.prometheus.published import is_of_a_dead_process, publish, this_process
from lezea_mlops.sinks.prometheus.rendering import View, render

_REFUSED = re.compile(r"[^A-Za-z0-9_.-]")
_MAX_NAME = 100
_PROCESS_LINE = "# lezea_process "


def textfile_of(folder: Path, run_id: str) -> Path:
    """Return where the series of a run are written: ``<folder>/lezea-<run_id>.prom``."""
    name = _REFUSED.sub("_", run_id)[:_MAX_NAME]
    if name != run_id:
        name += "-" + hashlib.sha256(run_id.encode(errors="surrogatepass")).hexdigest()[:16]
    return folder / f"lezea-{name}.prom"


def write_textfile(folder: Path, views: Iterable[View]) -> list[Path]:
    """Write a file for each view, and return them; a reader sees the old or the new one, never half of one.

    Raises:
        OSError: one cannot be written.
    """
    written = []
    head = f"{_PROCESS_LINE}{this_process()}\n".encode()
    for view in views:
        path = textfile_of(folder, view.run_id)
        publish(path, head + render([view]))
        written.append(path)
    return written


def remove_textfile(folder: Path, run_id: str) -> None:
    """Remove the file of a run: what it says would be taken for the present for ever."""
    textfile_of(folder, run_id).unlink(missing_ok=True)


def remove_dead_textfiles(folder: Path) -> int:
    """Remove the files of processes of this host that ended without doing so, and return how many there were."""
    removed = 0
    for path in folder.glob("lezea-*.prom"):
        with contextlib.suppress(OSError):
            # Another process starts at the same moment and removes it too.
            if is_of_a_dead_process(_process_in(path)):
                path.unlink()
                removed += 1
    return removed


def _process_in(path: Path) -> str | None:
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline(10_000)
    return first.removeprefix(_PROCESS_LINE) if first.startswith(_PROCESS_LINE) else None
