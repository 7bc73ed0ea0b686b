"""Removing what a run needs no more: captured files that every destination has, and leftovers of dead processes."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lezea_mlops._files import LifeLock
from lezea_mlops._process import pid_exists
from lezea_mlops.journal import COURIER_WRITER, MAIN_WRITER, RunFolder, is_writing
from lezea_mlops.runtime.remembered import sync_command
from lezea_mlops.runtime.retrying import files_to_retry
from lezea_mlops.runtime.status import RunStatus, read_status

_SHA256 = re.compile(rb"[0-9a-f]{64}")
# ``.<name>.<pid>.<hex>`` of a file that is being replaced, ``.<pid>.<hex>`` of one that is being captured.
_FRESH = re.compile(r"\.(?:.+\.)?(?P<pid>\d+)\.[0-9a-f]{8,16}")
_ENDED = ("completed", "failed", "killed")
_UPLOADS = ".upload-*"


@dataclass(frozen=True)
class Collected:
    """What was removed of one run, or would be.

    Attributes:
        run_id: the experiment id.
        blobs: captured files.
        leftovers: files and folders that dead processes left.
        bytes: size of all of these.
        left_because: why nothing was touched; None if the run was looked through.
        error: what went wrong; None if nothing did.
    """

    run_id: str
    blobs: int = 0
    leftovers: int = 0
    bytes: int = 0
    left_because: str | None = None
    error: str | None = None


def collect(folder: RunFolder, destinations: Mapping[str, str], *, dry_run: bool = False) -> Collected:
    """Remove what every destination of an ended run has, and what dead processes left in its folder.

    A run that is alive, whose end nobody has written down or of which a record waits is not touched. Files that a
    refused record speaks of stay, for it may be offered again.

    Args:
        folder: the run.
        destinations: names of the configured destinations' cursors, by sink.
        dry_run: only tell what would be removed.

    Raises:
        OSError: the file system refuses.
    """
    if reason := why_not_settled(folder, destinations):
        return Collected(folder.run_id, left_because=reason)
    with contextlib.ExitStack() as stack:
        # From here on nobody delivers, resumes or captures.
        for wid in (COURIER_WRITER, MAIN_WRITER):
            lock = LifeLock.take(folder.lock(wid))
            if lock is None:
                return Collected(folder.run_id, left_because="another process began to use it just now")
            stack.callback(lock.release)
        if reason := why_not_delivered(folder, read_status(folder, destinations)):
            return Collected(folder.run_id, left_because=reason)
        return _remove(folder, list(_delivered_blobs(folder)), list(_leftovers(folder)), dry_run)


def why_not_settled(folder: RunFolder, destinations: Mapping[str, str]) -> str | None:
    """Return who still uses a run, or what it waits for; None if it is nobody and nothing."""
    for path in sorted((folder.path / "locks").glob("*.lock")):
        if is_writing(folder, path.stem) is not False:
            what = "another process delivers it now" if path.stem == COURIER_WRITER else "its process lives"
            return f"{what} (locks/{path.name} names it)"
    return why_not_delivered(folder, read_status(folder, destinations))


def why_not_delivered(folder: RunFolder, status: RunStatus) -> str | None:
    """Return why a destination may still need the files of a run; None if none does."""
    if status.state not in _ENDED:
        return f"it is {status.state}; {sync_command(folder)} writes the end of a run whose process died"
    for delivery in status.deliveries:
        if delivery.waiting:
            waits = "1 record waits" if delivery.waiting == 1 else f"{delivery.waiting} records wait"
            return f"{waits} for {delivery.destination}; {sync_command(folder)}"
        if files_to_retry(folder, delivery.destination):
            return f"records wait for a second try at {delivery.destination}; {sync_command(folder)}"
    return None


def _remove(folder: RunFolder, blobs: list[Path], leftovers: list[Path], dry_run: bool) -> Collected:
    size = sum(_size(path) for path in (*blobs, *leftovers))
    if not dry_run:
        for path in (*blobs, *leftovers):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        for place in folder.blobs.glob("*"):
            # Only those that are empty now.
            with contextlib.suppress(OSError):
                place.rmdir()
    return Collected(folder.run_id, len(blobs), len(leftovers), size)


def _delivered_blobs(folder: RunFolder) -> Iterator[Path]:
    """Yield the captured files that no refused record speaks of."""
    kept: set[str] = set()
    for refused in folder.rejected("*").parent.glob("*"):
        with refused.open("rb") as file:
            kept.update(word.decode() for line in file for word in _SHA256.findall(line))
    for path in sorted(folder.blobs.glob("??/*")):
        sha256 = path.parent.name + path.name
        if _SHA256.fullmatch(sha256.encode()) and sha256 not in kept:
            yield path


def _leftovers(folder: RunFolder) -> Iterator[Path]:
    """Yield what processes left that died while they uploaded, captured a file or replaced one."""
    # Whoever uploads has the right to deliver, and that is ours now.
    yield from sorted(folder.path.glob(_UPLOADS))
    for place in (folder.path, folder.cursors, folder.blobs):
        for path in sorted(place.glob(".*")):
            match = _FRESH.fullmatch(path.name)
            if match is not None and path.is_file() and not pid_exists(int(match["pid"])):
                yield path


def _size(path: Path) -> int:
    """Return the bytes that a file, or all files below a folder, take."""
    inside = path.rglob("*") if path.is_dir() else [path]
    return sum(each.lstat().st_size for each in inside if not each.is_dir())
