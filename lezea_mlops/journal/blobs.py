"""Files captured at the call, under the hash of their content: what is overwritten later is delivered as it was."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lezea_mlops._files import make_private_folder, open_private

_COPY_CHUNK = 1024 * 1024
_FICLONE = 0x40049409


@dataclass(frozen=True)
class Captured:
    """A captured file: the hash of its content, and its size in bytes."""

    sha256: str
    size: int


class BlobStore:
    """The folder ``blobs/sha256`` of a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        """Return where the content with this hash stands."""
        return self.folder / sha256[:2] / sha256[2:]

    def put_bytes(self, content: bytes) -> Captured:
        """Store *content*.

        Raises:
            OSError: the file system refuses.
        """
        captured = Captured(hashlib.sha256(content).hexdigest(), len(content))
        if not self._has(captured):
            with self._fresh() as (fresh, file):
                file.write(content)
                self._settle(fresh, file, captured)
        return captured

    def put_file(self, source: Path, max_copy_bytes: int) -> Captured | None:
        """Store the content that *source* has now; None if it is too large to copy and cannot be cloned.

        A clone shares its blocks with the source until one of them changes, so its size does not matter.

        Raises:
            OSError: the source cannot be read, or the file system refuses.
        """
        with source.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            with self._fresh() as (fresh, copy):
                if clone(file.fileno(), copy.fileno()):
                    captured = Captured(*_hash(copy))
                elif size <= max_copy_bytes:
                    captured = Captured(*_copy_and_hash(file, copy))
                else:
                    return None
                self._settle(fresh, copy, captured)
        return captured

    @contextlib.contextmanager
    def _fresh(self) -> Iterator[tuple[Path, IO[bytes]]]:
        """Open a file of a name of its own; what still has that name afterwards is removed."""
        make_private_folder(self.folder)
        fresh = self.folder / f".{os.getpid()}.{os.urandom(8).hex()}"
        descriptor = open_private(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            with os.fdopen(descriptor, "wb+") as file:
                yield fresh, file
        finally:
            fresh.unlink(missing_ok=True)

    def _has(self, captured: Captured) -> bool:
        """Tell whether the content is here, and whole: a power loss may leave a file without its content."""
        try:
            return self.path(captured.sha256).stat().st_size == captured.size
        except FileNotFoundError:
            return False

    def _settle(self, fresh: Path, file: IO[bytes], captured: Captured) -> None:
        """Give a finished file its place, unless the same content already stands there."""
        file.flush()
        if not self._has(captured):
            place = self.path(captured.sha256)
            make_private_folder(place.parent)
            os.replace(fresh, place)


def clone(source_fd: int, target_fd: int) -> bool:
    """Make the target share the source's blocks (reflink); False where the file system cannot."""
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        fcntl.ioctl(target_fd, _FICLONE, source_fd)
    except OSError:
        # File systems refuse in many ways; whatever is really wrong, the copy that follows meets and says.
        return False
    return True


def _hash(file: IO[bytes]) -> tuple[str, int]:
    digest = hashlib.sha256()
    size = 0
    file.seek(0)
    while chunk := file.read(_COPY_CHUNK):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


def _copy_and_hash(source: IO[bytes], target: IO[bytes]) -> tuple[str, int]:
    digest = hashlib.sha256()
    size = 0
    while chunk := source.read(_COPY_CHUNK):
        digest.update(chunk)
        size += len(chunk)
        target.write(chunk)
    return digest.hexdigest(), size


def place_under_name(content: Path, folder: Path, name: str) -> Path:
    """Give *content* the file name *name* inside *folder*, by a hard link where possible, else by a copy.

    A file of that name makes room: written into, it might be another blob's other name.
    """
    target = folder / Path(name).name
    target.unlink(missing_ok=True)
    try:
        os.link(content, target)
    except OSError:
        shutil.copyfile(content, target)
    return target
