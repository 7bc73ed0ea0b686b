"""What the host does, through psutil: processors, memory, the disk of the run, transfers.

Only functions of psutil without a memory of their own are asked, so that a program that uses psutil itself sees its own
figures undisturbed; what is needed of the sample before is kept here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lezea_mlops.capture.asking import Question, Turn, known

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


class Memory(NamedTuple):
    """Memory that is in use and cannot be had, None where that is not told, of all that there is."""

    used_bytes: int | None
    total_bytes: int


class HostLook(NamedTuple):
    """One look at the host; what is not known is None.

    Attributes:
        processors: seconds in which the processors worked, and all of their seconds, since the host began.
        disk: used and total bytes of the file system with the run's folder.
        disk_transfer: bytes read and written, since the host began.
        network_transfer: bytes received and sent, since the host began.
    """

    processors: tuple[float, float] | None
    memory: Memory | None
    disk: tuple[int, int] | None
    disk_transfer: tuple[int, int] | None
    network_transfer: tuple[int, int] | None


class HostUsage:
    """Reads the host.

    Args:
        folder: a folder on the disk that is looked at.
    """

    def __init__(self, folder: Path) -> None:
        # The program may change its current folder.
        self._folder = os.path.abspath(folder)
        self._processors: tuple[float, float] | None = None
        self._transfers = [Transfer(), Transfer(), Transfer(), Transfer()]
        self._limit = MemoryLimit()

    def look(self, turn: Turn[Any]) -> HostLook:
        """Read everything; nothing of this object changes by it."""

        def ask(fact: str, call: Callable[[], Any]) -> Any:
            return turn.ask(Question("host", "the host", fact), call)

        return HostLook(
            ask("use of the processors", read_processors),
            ask("use of the memory", lambda: read_memory(self._limit)),
            ask("use of the disk", self._read_disk),
            ask("transfer of the disks", read_disk_transfer),
            ask("transfer of the network", read_network_transfer),
        )

    def settle(self, look: HostLook) -> dict[str, Any]:
        """Return the ``host`` of a sample."""
        memory, disk = look.memory or (None, None), look.disk or (None, None)
        transfers = (*(look.disk_transfer or (None, None)), *(look.network_transfer or (None, None)))
        read, written, received, sent = (
            None if now is None else transfer.since_the_first(now)
            for transfer, now in zip(self._transfers, transfers, strict=True)
        )
        return known({
            "cpu_percent": self._cpu_percent(look.processors),
            "memory_used_bytes": memory[0], "memory_total_bytes": memory[1],
            "disk_used_bytes": disk[0], "disk_total_bytes": disk[1],
            "disk_read_bytes": read, "disk_write_bytes": written,
            "network_received_bytes": received, "network_sent_bytes": sent,
        })  # fmt: skip

    def _read_disk(self) -> tuple[int, int]:
        import psutil

        usage = psutil.disk_usage(self._folder)
        return usage.used, usage.total

    def _cpu_percent(self, processors: tuple[float, float] | None) -> float | None:
        """Return how busy all processors were together since the sample before."""
        before, self._processors = self._processors, processors
        if before is None or processors is None or processors[1] <= before[1]:
            return None
        busy = (processors[0] - before[0]) / (processors[1] - before[1])
        return round(100 * min(1.0, max(0.0, busy)), 2)


class Transfer:
    """A counter since the first reading. A network card or disk that is taken away takes its share along."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._sum = 0

    def since_the_first(self, now: int) -> int:
        """Return by how much it has grown since the first reading; never less than before."""
        if self._last is not None:
            self._sum += max(0, now - self._last)
        self._last = now
        return self._sum


class MemoryLimit:
    """The limit that a container or a scheduler's job sets, by cgroups of version 2 or 1.

    Args:
        cgroups: where they are mounted.
        own: the file that says to which ones this process belongs.
    """

    def __init__(self, cgroups: Path = CGROUPS, own: Path = OWN_CGROUP) -> None:
        self._cgroups = cgroups
        self._own = own

    def apply(self, host: Memory) -> Memory:
        """Return the memory of the tightest group of this process, or that of the host where no limit is tighter.

        What is used under a limit is what the kernel could not give back at once, so without files that were read and
        are not in use.
        """
        tightest = min(self._limits(), key=lambda limit: limit[0], default=None)
        if tightest is None or tightest[0] >= host.total_bytes:
            return host
        total_bytes, folder, usage, reclaimable = tightest
        try:
            facts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            used_bytes = int((folder / usage).read_text()) - int(facts.get(reclaimable, 0))
        except (OSError, ValueError):
            # What the whole host uses says nothing about a part of it.
            return Memory(None, total_bytes)
        return Memory(max(0, used_bytes), total_bytes)

    def _limits(self) -> Iterator[tuple[int, Path, str, str]]:
        """Yield each limit, with the group's folder, and where its use and what can be reclaimed of it are told."""
        for line in self._own.read_text().splitlines() if self._own.exists() else ():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                mount, limit, rest = self._cgroups, "memory.max", ("memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                mount, limit = self._cgroups / "memory", "memory.limit_in_bytes"
                rest = ("memory.usage_in_bytes", "total_inactive_file")
            else:
                continue
            group = Path(path.lstrip("/"))
            for folder in [mount / group, *(mount / above for above in group.parents)]:
                try:
                    text = (folder / limit).read_text().strip()
                except OSError:
                    # Inside a container the group's path is the host's, and only the mount itself is there.
                    continue
                if text.isdigit():
                    yield int(text), folder, *rest


def read_processors() -> tuple[float, float]:
    """Return the seconds in which processors worked, and all of their seconds."""
    import psutil

    times = psutil.cpu_times()._asdict()
    # Linux counts the time of virtual machines' guests within that of users as well.
    total_s = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)
    return total_s - times["idle"] - times.get("iowait", 0.0), total_s


def read_memory(limit: MemoryLimit) -> Memory:
    """Return the memory of the host, or of the container where that is less."""
    import psutil

    memory = psutil.virtual_memory()
    return limit.apply(Memory(memory.total - memory.available, memory.total))


def read_disk_transfer() -> tuple[int, int] | None:
    """Return the bytes that all disks have read and written; None where there are none."""
    import psutil

    # Its own way of numbers that never wrap would keep what it saw, for the whole program.
    counters = psutil.disk_io_counters(nowrap=False)
    return None if counters is None else (counters.read_bytes, counters.write_bytes)


def read_network_transfer() -> tuple[int, int]:
    """Return the bytes that came from and went to other machines."""
    import psutil

    cards = psutil.net_io_counters(pernic=True, nowrap=False)
    outside = [counters for name, counters in cards.items() if not name.lower().startswith("lo")]
    return sum(card.bytes_recv for card in outside), sum(card.bytes_sent for card in outside)
