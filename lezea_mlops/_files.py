"""Files that other programs may read at any moment: atomic replacement, private folders, locks held for life."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def process_start_ticks(pid: int) -> int | None:
    """Return when *pid* started, in clock ticks since boot; None where the system does not tell.

    A pid alone comes back after a while; pid and start time together do not.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The command name, in parentheses, may hold spaces and parentheses itself.
    return int(stat.rpartition(b")")[2].split()[19])


def boot_id() -> str | None:
    """Return the id of this boot of the machine; None where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def identify_this_process() -> dict[str, Any]:
    """Return what identifies the calling process for ever: pid, start time, host, boot."""
    pid = os.getpid()
    return {
        "pid": pid,
        "start_ticks": process_start_ticks(pid),
        "host": socket.gethostname(),
        "boot_id": boot_id(),
    }


def _flock(descriptor: int, *, blocking: bool) -> bool:
    """Lock *descriptor* for this process alone; False if another holds it.

    True where there is no flock, be it on this system or, as on some network mounts, in this file system.
    """
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_FLOCK:
            raise
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
    """A lock file held for the life of a process, with its holder's identity inside."""

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
            if not _flock(descriptor, blocking=False):
                return None
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps(identify_this_process()).encode())
            taken = True
        finally:
            # An open descriptor would hold the lock for the life of this process.
            if not taken:
                os.close(descriptor)
        return cls(path, descriptor)

    def release(self) -> None:
        """Give the lock back, also where a forked child still holds a copy of the descriptor."""
        if self._descriptor is not None:
            _unlock(self._descriptor)
        self.forget()

    def forget(self) -> None:
        """Close the descriptor and leave the lock: what a forked child does with its parent's."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on *path*, waiting for it as long as another process holds it."""
    descriptor = open_private(path, os.O_RDWR | os.O_CREAT)
    try:
        _flock(descriptor, blocking=True)
        yield
    finally:
        os.close(descriptor)
