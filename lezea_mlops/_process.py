"""Which process is it: a pid alone comes back after a while, pid and start time of one boot of one host do not."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


def process_start_ticks(pid: int) -> int | None:
    """Return when *pid* started, in clock ticks since boot; None where the system does not tell."""
    fields = _stat_fields(pid)
    return None if fields is None else int(fields[19])


def process_is_stopped(pid: int) -> bool:
    """Tell whether *pid* was stopped (SIGSTOP, Ctrl-Z, a debugger); False where the system does not tell."""
    fields = _stat_fields(pid)
    return fields is not None and fields[0] in (b"T", b"t")


def _stat_fields(pid: int) -> list[bytes] | None:
    """Return what ``/proc/<pid>/stat`` says behind the command's name."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The name, in parentheses, may hold spaces and parentheses itself.
    return stat.rpartition(b")")[2].split()


def boot_id() -> str | None:
    """Return the id of this boot of the machine; None where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def pid_namespace() -> str | None:
    """Return which numbering of processes this one lives in, as containers have their own; None if unknown."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


@dataclass(frozen=True)
class ProcessIdentity:
    """What identifies a process for ever.

    Attributes:
        pid: its number.
        start_ticks: when it started, since boot; None where the system does not tell.
        host: the machine's or container's name.
        boot_id: the boot of the machine; None where the system does not tell.
        pid_namespace: within which *pid* means it; None where the system does not tell.
    """

    pid: int
    start_ticks: int | None
    host: str
    boot_id: str | None
    pid_namespace: str | None = None

    @classmethod
    def of_this_process(cls) -> ProcessIdentity:
        """Return the identity of the calling process."""
        pid = os.getpid()
        return cls(pid, process_start_ticks(pid), socket.gethostname(), boot_id(), pid_namespace())

    @classmethod
    def read(cls, stored: Any) -> ProcessIdentity | None:
        """Return the identity in a stored mapping; None if it holds none."""
        try:
            pid, ticks, boot = int(stored["pid"]), stored["start_ticks"], stored["boot_id"]
            namespace = stored.get("pid_namespace")
            # A signal to zero or below goes to groups of processes.
            return None if pid <= 0 else cls(
                pid, None if ticks is None else int(ticks), str(stored["host"]),
                None if boot is None else str(boot), None if namespace is None else str(namespace),
            )  # fmt: skip
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            return None

    def stored(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    def exists(self) -> bool | None:
        """Tell whether the process still exists; None on another host or in another container."""
        if self.host != socket.gethostname():
            return None
        if self.boot_id != boot_id():
            return False
        if self.pid_namespace is not None and self.pid_namespace != pid_namespace():
            # Containers of one pod share the host's name and not the numbers of its processes.
            return None
        if self.start_ticks is not None:
            fields = _stat_fields(self.pid)
            # A zombie has ended; it only waits for its parent to take note.
            return (
                fields is not None and int(fields[19]) == self.start_ticks and fields[0] not in (b"Z", b"X")
            )
        return pid_exists(self.pid)


def pid_exists(pid: int) -> bool:
    """Tell whether a process has this pid on this host; one that ended and was not waited for counts too."""
    if sys.platform == "win32":
        import ctypes

        # PROCESS_QUERY_LIMITED_INFORMATION; a signal 0 would end the process there.
        handle = ctypes.windll.kernel32.OpenProcess(0x1000, False, pid)
        if handle:
            ctypes.windll.kernel32.CloseHandle(handle)
        return bool(handle)
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
