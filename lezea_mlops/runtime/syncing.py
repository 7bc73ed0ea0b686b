"""Making the journals of a run survive a power loss, from another process than those that write them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from lezea_mlops._files import open_private
from lezea_mlops.journal import RunFolder

log = logging.getLogger("lezea_mlops")


class JournalSyncer:
    """Fsyncs every journal file of a run that has grown.

    Args:
        folder: the run.
        durability: with ``process`` nothing is ever fsynced.
    """

    def __init__(self, folder: RunFolder, durability: str) -> None:
        self._folder = folder
        self._wanted = durability != "process"
        self._synced: dict[str, int] = {}
        self._failing = False

    def sync(self) -> None:
        """Fsync what has grown since the last time; a file system that refuses is told once."""
        if not self._wanted:
            return
        try:
            for wid, path in self._folder.journals().items():
                size = path.stat().st_size
                if self._synced.get(wid) != size:
                    _fsync(path)
                    self._synced[wid] = size
            self._failing = False
        except OSError as error:
            if not self._failing:
                self._failing = True
                log.warning("the journal in %s is written and not fsynced: %s", self._folder.path, error)


def _fsync(path: Path) -> None:
    descriptor = open_private(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
