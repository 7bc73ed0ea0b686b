"""Files that other programs may read at any moment: atomic replacement, private folders, locks held for life."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lezea_mlops._process import ProcessIdentity

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700

# O_CLOEXEC keeps descriptors out of programs that the user's code starts.
_OPEN_FLAGS = getattr(os, "O_CLOEXEC", 0)
_NO_FLOCK = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}


def make_private_folder(path: Path) -> None:
    """Create *path* and its parents; only the folder itself is made private."""
    path.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)


def open_private(path: Path, flags: int) -> int:
    """Open *path* with ``0600`` where it is created, and return the descriptor."""
    return os.open(path, flags | _OPEN_FLAGS, PRIVATE_FILE)


def read_at(descriptor: int, count: int, offset: int) -> bytes:
    """Read up to *count* bytes from *offset*; nothing at the end of the file."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, count, offset)
    # Windows has no pread. Moving the position harms nobody: we append with O_APPEND, and read only from offsets.
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, count)


def replace_atomically(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Put *content* at *path* so that a reader sees the old or the new file, never half of one.

    Args:
        path: the file to replace; its folder must exist.
        content: the whole new content.
        durable: also survive a power loss (fsync of file and folder).
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = open_private(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(fresh, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        raise
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make new names in *folder* survive a power loss, where the system can (Windows cannot)."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY | _OPEN_FLAGS)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flock(descriptor: int, *, blocking: bool) -> bool | None:
    """Lock *descriptor* for this process alone; False if another holds it.

    None where there is no flock, be it on this system or, as on some network mounts, in this file system.
    """
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_FLOCK:
            raise
        return None
    return True


def _unlock(descriptor: int) -> None:
    """Unlock *descriptor*; where there is no flock there is nothing to do."""
    if sys.platform == "win32":
        return
    import fcntl

    with contextlib.suppress(OSError):
        # A file system without flock refuses this as it refused the lock.
        fcntl.flock(descriptor, fcntl.LOCK_UN)


class LifeLock:
    """A lock file held for the life of a process, with its holder's identity inside.

    The content says who holds it to those who only look: it is emptied when the lock is given back, so what names a
    process that exists is held. Nobody has to try the lock, and be in its taker's way, to learn that.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor

    @classmethod
    def take(cls, path: Path) -> LifeLock | None:
        """Take the lock at *path* without waiting; None if a live process holds it."""
        make_private_folder(path.parent)
        descriptor = open_private(path, os.O_RDWR | os.O_CREAT)
        taken = False
        try:
            locked = _flock(descriptor, blocking=False)
            if locked is None:
                # Without flock the content decides.
                holder = read_holder(path)
                locked = holder is None or holder.process.exists() is False
            if not locked:
                return None
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps(ProcessIdentity.of_this_process().stored()).encode())
            taken = True
        finally:
            # An open descriptor would hold the lock for the life of this process.
            if not taken:
                os.close(descriptor)
        return cls(path, descriptor)

    def prepare_note(self, note: Mapping[str, Any]) -> Callable[[], object]:
        """Return a function that adds *note* to the content by one system call, as a signal handler may."""
        content = json.dumps(ProcessIdentity.of_this_process().stored() | dict(note)).encode()
        descriptor = self._descriptor
        assert descriptor is not None
        # The new content is longer than the old one: nothing has to be cut off.
        return lambda: _write_at_start(descriptor, content)

    def release(self) -> None:
        """Give the lock back, also where a forked child still holds a copy of the descriptor."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                # A disk that fails keeps the name of a process that is about to end.
                os.ftruncate(self._descriptor, 0)
            _unlock(self._descriptor)
        self.forget()

    def forget(self) -> None:
        """Close the descriptor and leave the lock: what a forked child does with its parent's."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _write_at_start(descriptor: int, content: bytes) -> None:
    if hasattr(os, "pwrite"):
        os.pwrite(descriptor, content, 0)
        return
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, content)


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, or held it when it died.

    Attributes:
        process: its identity.
        note: what it left beside it, for instance the signal that ended it.
    """

    process: ProcessIdentity
    note: Mapping[str, Any]


def read_holder(path: Path) -> Holder | None:
    """Return who holds the lock at *path*, or died while holding it; None if it was given back or never taken."""
    try:
        content = json.loads(path.read_bytes() or b"null")
    except (OSError, ValueError):
        return None
    process = ProcessIdentity.read(content)
    if process is None:
        return None
    return Holder(process, {name: value for name, value in content.items() if name not in process.stored()})


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on *path*, waiting for it as long as another process holds it."""
    descriptor = open_private(path, os.O_RDWR | os.O_CREAT)
    try:
        _flock(descriptor, blocking=True)
        try:
            yield
        finally:
            # A child that was forked meanwhile has a copy of the descriptor, which would keep the lock.
            _unlock(descriptor)
    finally:
        os.close(descriptor)
