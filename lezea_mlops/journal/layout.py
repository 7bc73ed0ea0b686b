"""Where everything of a run stands: names of files and folders, and nothing else.

runs/<experiment_id>/
    events.jsonl             the journal of the writer ``main``
    events.<wid>.jsonl       the journal of every further writer
    locks/<wid>.lock         held by the writer's process for life
    blobs/sha256/ab/cdef…    files captured at the call
    cursors/<sink>-<8 hex>.json    how far each destination has come
    rejected/<sink>-<8 hex>.jsonl  records that a destination can never take
    alive.json               renewed every 10 s by whoever delivers the run
    destinations.json        where the run is to be delivered to
    courier.log              what the courier process said on its standard error
"""

from __future__ import annotations

import re
from pathlib import Path

from lezea_mlops._files import make_private_folder

MAIN_WRITER = "main"
# Whoever delivers a run speaks as this writer, and holds its lock: the courier process, a thread, or ``lezea sync``.
COURIER_WRITER = "courier"
_WRITER_FILE = re.compile(r"events(?:\.(?P<wid>.+))?\.jsonl")
_UNSAFE_IN_WID = re.compile(r"[^A-Za-z0-9._\-]")


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def run_id(self) -> str:
        """The experiment id, which is the folder's name."""
        return self.path.name

    def create(self) -> None:
        """Create the folder, private to this user.

        Raises:
            OSError: the file system refuses.
        """
        make_private_folder(self.path)

    def journal(self, wid: str) -> Path:
        """Return the journal file of the writer *wid*."""
        return self.path / (
            "events.jsonl" if wid == MAIN_WRITER else f"events.{_UNSAFE_IN_WID.sub('_', wid)}.jsonl"
        )

    def journals(self) -> dict[str, Path]:
        """Return the journal files that exist, by writer; ``main`` first, the others by name."""
        found = {}
        for path in sorted(self.path.glob("events*.jsonl")):
            if match := _WRITER_FILE.fullmatch(path.name):
                found[match["wid"] or MAIN_WRITER] = path
        return dict(sorted(found.items(), key=lambda item: (item[0] != MAIN_WRITER, item[0])))

    def lock(self, wid: str) -> Path:
        """Return the lock file of the writer *wid*."""
        return self.path / "locks" / f"{_UNSAFE_IN_WID.sub('_', wid)}.lock"

    @property
    def blobs(self) -> Path:
        """The folder of captured files."""
        return self.path / "blobs" / "sha256"

    @property
    def cursors(self) -> Path:
        """The folder of the cursors."""
        return self.path / "cursors"

    def cursor(self, destination: str) -> Path:
        """Return the cursor file of a destination such as ``mlflow-1a2b3c4d``."""
        return self.cursors / f"{destination}.json"

    @property
    def alive(self) -> Path:
        """The file in which whoever delivers the run says every 10 s that it lives."""
        return self.path / "alive.json"

    @property
    def destinations(self) -> Path:
        """The file that says where the run is to be delivered to."""
        return self.path / "destinations.json"

    @property
    def courier_log(self) -> Path:
        """The file with what the courier process said."""
        return self.path / "courier.log"

    def rejected(self, destination: str) -> Path:
        """Return the file of records that *destination* can never take."""
        return self.path / "rejected" / f"{destination}.jsonl"
