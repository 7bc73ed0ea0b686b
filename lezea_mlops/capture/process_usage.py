"""What the sampled process and its children use, through psutil.

Memory is what is resident; pages that children share with their parent count for each of them.

Couriers of this library are children of the process that they serve, and no use of what is trained there. A sampler
knows its own one by its pid; those of other runs in the same process it knows by their command line. One that begins
and ends between two searches is seen by nobody; its use counts as that of any child.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from lezea_mlops.capture.asking import Pace, Question, Turn, every_failure, known
from lezea_mlops.capture.couriers import is_command_of_courier
from lezea_mlops.capture.process_tree import ProcessTree, Reading

if TYPE_CHECKING:
    import psutil

# To find children, psutil reads of every process of the host who its parent is: 1.5 ms where there are a hundred
# processes, 50 ms where there are thousands. To read one child takes 60 µs. Each of the two is done as often as this
# share of a processor allows; what a child has used that nobody saw comes through its parent when it ends.
SHARE_OF_A_CORE = 0.0004

# Until it starts its own program a child has the command line of its parent. No child takes so long for that.
ENOUGH_TO_BE_ITSELF_S = 0.1

NEW = Reading(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
UNKNOWN = Reading()

T = TypeVar("T")
# A child that was found, and its parent; None where the child is known already.
Found = list[tuple["psutil.Process", "psutil.Process | None"]]


@dataclass(frozen=True)
class ChildLook:
    """What one look at a child tells.

    Attributes:
        is_zombie: it has ended, and waits for its parent to take note.
        has_ended: it has ended, and its parent knows.
        is_courier: its command line is that of a courier, as far as that was asked for.
    """

    reading: Reading = UNKNOWN
    memory_bytes: int | None = None
    is_zombie: bool = False
    has_ended: bool = False
    is_courier: bool = False


@dataclass
class Kin:
    """One look at the children.

    Attributes:
        found: those below the process, parents before their children; None where nobody searched.
        living: what each tells; None where that failed.
        gone: those that have ended.
        began_s: when the look began.
        search_s: processor time of the search.
        reading_s: processor time of the reading.
    """

    found: Found | None = None
    living: dict[psutil.Process, ChildLook | None] = field(default_factory=dict)
    gone: list[psutil.Process] = field(default_factory=list)
    began_s: float = 0.0
    search_s: float = 0.0
    reading_s: float = 0.0


@dataclass(frozen=True)
class ProcessLook:
    """One look at the process; a value that is not known is None.

    Attributes:
        pids: those of it and its children that count.
        kin: its children; None where it was too early to look at them again.
    """

    at_s: float
    reading: Reading
    memory_bytes: int | None
    threads: int | None
    kin: Kin | None
    pids: frozenset[int]


class ProcessUsage:
    """Reads a process and its children.

    Args:
        pid: the process.
        excluded: children of it that do not count, with all that they start; couriers never do.
        clock: a monotonic one, in seconds.

    Attributes:
        gone: whether the process has ended.
    """

    def __init__(
        self, pid: int, excluded: Collection[int] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.gone = False
        self._pid = pid
        self._excluded_pids = frozenset(excluded)
        self._excluded: frozenset[psutil.Process] = frozenset()
        self._clock = clock
        self._process: psutil.Process | None = None
        self._tree: ProcessTree | None = None
        self._search = Pace(SHARE_OF_A_CORE)
        self._reading = Pace(SHARE_OF_A_CORE)
        # Whether those children are in the tree that lived when it began.
        self._has_begun_with_kin = False
        # Children that may still become another program; those that do not count, and when each was last seen alive.
        self._undecided: set[psutil.Process] = set()
        self._excluded_since_s: dict[psutil.Process, float] = {}
        self._children, self._children_memory_bytes = 0, 0
        self._pids = frozenset({pid})
        self._own_rate, self._children_rate, self._operations = Growth(), Growth(), Growth()
        self._children_share: float | None = None

    def open(self, turn: Turn[Any]) -> None:
        """Find the process; from now on it is that one, whoever has its pid later."""
        if self._process is None and not self.gone:
            self._process = turn.ask(self._question("identity"), self._identify)

    def look(self, turn: Turn[Any]) -> ProcessLook | None:
        """Read everything; nothing of this object changes by it but *gone*."""
        self.open(turn)
        process = self._process
        if process is None or turn.ask(self._question("existence"), process.is_running) is False:
            self.gone = self.gone or process is not None
            return None
        # The process stands before its children, as the tree wants it.
        times = turn.ask(self._question("processor time"), process.cpu_times, _judge)
        transfers = None
        if hasattr(process, "io_counters"):
            transfers = turn.ask(self._question("transfer"), process.io_counters, _judge)
        memory = turn.ask(self._question("memory"), process.memory_info, _judge)
        threads = turn.ask(self._question("number of threads"), process.num_threads, _judge)
        kin = self._look_at_kin(turn, process)
        pids = self._pids
        if kin is not None:
            counted = (child.pid for child, seen in kin.living.items() if self._counts(child, seen))
            pids = frozenset({self._pid, *counted}) - self._excluded_pids
        return ProcessLook(
            self._clock(),
            _reading(times, transfers),
            None if memory is None else memory.rss,
            threads,
            kin,
            pids,
        )

    def settle(self, look: ProcessLook) -> dict[str, Any]:
        """Add one look to the sums, and return the ``process`` of a sample."""
        assert self._process is not None
        if self._tree is None:
            self._tree = ProcessTree(self._process, look.reading, transfers_move=sys.platform == "linux")
        self._pids = look.pids
        if look.kin is None:
            self._tree.settle_root(look.reading.cpu_s)
        else:
            self._settle_kin(self._tree, look, look.kin)
        tree, tells_transfers = self._tree, look.reading.read_operations is not None
        read_bytes, write_bytes, reads, writes = (
            int(amount) if tells_transfers else None for amount in tree.transfers
        )
        has_kin = self._has_begun_with_kin
        return known({
            "cpu_s": None if look.reading.cpu_s is None else round(tree.cpu_s, 6),
            "children_cpu_s": round(tree.children_cpu_s, 6) if has_kin else None,
            "memory_bytes": look.memory_bytes,
            "children_memory_bytes": self._children_memory_bytes if has_kin else None,
            "children": self._children if has_kin else None, "threads": look.threads,
            "read_bytes": read_bytes, "write_bytes": write_bytes,
            "read_operations": reads, "write_operations": writes,
        })  # fmt: skip

    def since_before(self, look: ProcessLook, fields: dict[str, Any]) -> dict[str, Any]:
        """Return what a ``resource`` record says beside the sample, of the time since the sample before."""
        own = self._own_rate.per_second(fields.get("cpu_s"), look.at_s)
        if look.kin is not None:
            # Between two looks at the children their last rate stands.
            self._children_share = self._children_rate.per_second(fields.get("children_cpu_s"), look.at_s)
        operations = None
        if "read_operations" in fields:
            operations = self._operations.since(fields["read_operations"] + fields["write_operations"])
        memory_bytes = look.memory_bytes
        if memory_bytes is not None:
            memory_bytes += self._children_memory_bytes
        return known({
            "cpu_percent": None if own is None else round(100 * (own + (self._children_share or 0.0)), 3),
            "memory_mb": None if memory_bytes is None else round(memory_bytes / 2**20, 3),
            "io_operations": operations,
        })  # fmt: skip

    def _identify(self) -> psutil.Process | None:
        import psutil

        try:
            process = psutil.Process(self._pid)
        except psutil.NoSuchProcess:
            self.gone = True
            return None
        self._excluded = frozenset(
            psutil.Process(pid) for pid in self._excluded_pids if psutil.pid_exists(pid)
        )
        return process

    def _look_at_kin(self, turn: Turn[Any], process: psutil.Process) -> Kin | None:
        now_s = self._clock()
        if not self._reading.is_due(now_s):
            return None
        kin = Kin(began_s=now_s)
        if self._search.is_due(now_s):
            searched = turn.ask(self._question("list of children"), lambda: self._find(process), _judge)
            if searched is not None:
                kin.found, kin.search_s = searched
        began_s = time.thread_time()
        unknown = [child for child, _ in kin.found or () if not self._knows(child)]
        for child in [*(self._tree.children if self._tree else ()), *unknown]:
            question = Question("process", f"child process {child.pid}", "use")
            decided = self._knows(child) and child not in self._undecided
            seen = turn.ask(question, partial(read_child, child, identify=not decided), _judge)
            if seen is not None and seen.has_ended:
                kin.gone.append(child)
            else:
                kin.living[child] = seen
        kin.reading_s = time.thread_time() - began_s
        return kin

    def _find(self, process: psutil.Process) -> tuple[Found, float]:
        """Return all that descend from the process, and what the search cost."""
        import psutil

        began_s = time.thread_time()
        children = process.children(recursive=True)
        by_pid = {child.pid: child for child in [process, *children]}
        found: Found = []
        for child in children:
            try:
                parent = None if self._knows(child) else by_pid.get(child.ppid())
            except psutil.Error:
                # It has ended since, or may not be asked; then it counts as a child of the process itself.
                parent = None
            found.append((child, parent))
        return found, time.thread_time() - began_s

    def _knows(self, child: psutil.Process) -> bool:
        return self._tree is not None and self._tree.knows(child)

    def _counts(self, child: psutil.Process, seen: ChildLook | None) -> bool:
        if seen is not None and seen.is_courier:
            return False
        return self._tree is None or not self._tree.knows(child) or self._tree.counts(child)

    def _settle_kin(self, tree: ProcessTree, look: ProcessLook, kin: Kin) -> None:
        now_s = look.at_s
        if kin.found is not None:
            self._search.took(kin.search_s, now_s)
            for child, parent in kin.found:
                if child in kin.living and not tree.knows(child):
                    seen = kin.living[child]
                    reading = UNKNOWN if seen is None else seen.reading
                    # Who was not there before has begun since, and all of its use counts.
                    before = NEW if self._has_begun_with_kin else reading
                    tree.add(child, parent, counted=child not in self._excluded, before=before)
                    self._undecided.add(child)
        unseen_cpu_s = self._settle_couriers(tree, look, kin)
        self._reading.took(kin.reading_s, now_s)
        readings: dict[Hashable, Reading | None] = {
            child: None if seen is None else seen.reading for child, seen in kin.living.items()
        }
        gone = [child for child in kin.gone if tree.knows(child)]
        tree.settle(readings | {tree.root: look.reading}, gone, unseen_cpu_s)
        if kin.found is not None:
            # Only now: who has ended was not found either, and has left its use to its parent.
            tree.keep_only({child for child, _ in kin.found})
            self._has_begun_with_kin = True
        counted = [seen for child, seen in kin.living.items() if tree.knows(child) and tree.counts(child)]
        self._children = sum(seen is None or not seen.is_zombie for seen in counted)
        self._children_memory_bytes = sum(seen.memory_bytes or 0 for seen in counted if seen is not None)

    def _settle_couriers(self, tree: ProcessTree, look: ProcessLook, kin: Kin) -> dict[Hashable, float]:
        """Leave out what turned out to be a courier; return what those that ended may have used unseen."""
        for child, seen in kin.living.items():
            if seen is None or not tree.knows(child):
                continue
            if seen.is_courier:
                tree.exclude(child)
            if seen.is_courier or seen.is_zombie or (seen.reading.cpu_s or 0.0) >= ENOUGH_TO_BE_ITSELF_S:
                self._undecided.discard(child)
            if not tree.counts(child):
                self._excluded_since_s.setdefault(child, kin.began_s)
                if seen.reading.cpu_s is not None:
                    # What it used is final once it has ended, although nobody took note yet.
                    self._excluded_since_s[child] = math.inf if seen.is_zombie else kin.began_s
        self._undecided.difference_update(kin.gone)
        # A courier is Python: it computes on one core.
        return {
            child: max(0.0, look.at_s - self._excluded_since_s.pop(child))
            for child in kin.gone
            if child in self._excluded_since_s
        }

    def _question(self, fact: str) -> Question:
        return Question("process", f"process {self._pid}", fact)


class Growth:
    """How much a number has grown since it was last told."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._at_s = 0.0

    def since(self, value: float) -> float | None:
        """Return the growth since the call before; None for the first one."""
        before, self._last = self._last, value
        return None if before is None else value - before

    def per_second(self, value: float | None, at_s: float) -> float | None:
        """Return the growth for each second since the call before; None where one of the two is not known."""
        elapsed_s, self._at_s = at_s - self._at_s, at_s
        if value is None:
            self._last = None
            return None
        growth = self.since(value)
        return None if growth is None or elapsed_s <= 0 else growth / elapsed_s


def read_child(child: psutil.Process, *, identify: bool = False) -> ChildLook:
    """Read a child; what may not be read of it is None.

    Args:
        identify: ask whether it is a courier.
    """
    import psutil

    is_courier = False
    try:
        with child.oneshot():
            times = _permitted(child.cpu_times)
            transfers = _permitted(child.io_counters) if hasattr(child, "io_counters") else None
            memory = _permitted(child.memory_info)
            is_zombie = _permitted(child.status) == psutil.STATUS_ZOMBIE
            if identify and not is_zombie:
                # After its use was read: what it used as a program that is not known yet is next to nothing.
                is_courier = is_command_of_courier(_permitted(child.cmdline) or ())
        # Only now: what was read is that of this process if it still has its pid.
        if not child.is_running():
            return ChildLook(has_ended=True)
    except psutil.ZombieProcess:
        return ChildLook(is_zombie=True)
    except psutil.NoSuchProcess:
        return ChildLook(has_ended=True)
    return ChildLook(
        _reading(times, transfers), None if memory is None else memory.rss, is_zombie, is_courier=is_courier
    )


def _permitted(ask: Callable[[], T]) -> T | None:
    import psutil

    try:
        return ask()
    except (psutil.AccessDenied, PermissionError, NotImplementedError):
        return None


def _reading(times: Any, transfers: Any) -> Reading:
    """Return what psutil tells as one reading."""
    cpu_s = reaped_cpu_s = None
    if times is not None:
        cpu_s = times.user + times.system
        reaped_cpu_s = times.children_user + times.children_system
    if transfers is None:
        return Reading(cpu_s, reaped_cpu_s)
    return Reading(
        cpu_s, reaped_cpu_s,
        transfers.read_bytes, transfers.write_bytes, transfers.read_count, transfers.write_count,
    )  # fmt: skip


def _judge(question: Question, error: Exception) -> str | None:
    """A process that ends while it is read is a normal state."""
    import psutil

    return None if isinstance(error, psutil.NoSuchProcess) else every_failure(question, error)
