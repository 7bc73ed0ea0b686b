"""What processes used together, where several tell of the same: a parent of its children, copies of one another.

The name of a writer begins with that of the one it was copied from: ``main.0a1b2c3d`` joined the run of ``main``, from
a child of its process, from another machine, or in the very same process. Only the process id tells the last from the
others, so writers of one family and attempt with equal ids are taken for one process. Processes in different containers
may have equal ids too: of two such that worked at the same time, and whose trackers are copies of one, only the larger
counts here. Ranks are families of their own and are always told apart.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from lezea_mlops.accounting.quantities import Quantities

# Writer, process id (0: unknown), attempt.
ProcessKey = tuple[str, int, int]
# From and to, UTC microseconds.
Span = tuple[int, int]

# What each copy reads for itself. GPUs and their energy are handed out among all who see them, and samples counted.
_READ_BY_EACH = ("wall_s", "io_bytes", "io_operations")


class Told(NamedTuple):
    """What a writer tells of its process.

    Attributes:
        span: when it was used.
        used: with what its samples tell of children.
        own_cpu_s: without that.
        own_gb_s: without that.
    """

    span: Span
    used: Quantities
    own_cpu_s: float
    own_gb_s: float


class _Member:
    """The processes of one writer, while families are summed."""

    def __init__(self) -> None:
        self.below = Quantities()
        self._own = Quantities()
        self._own_cpu_s = self._own_gb_s = 0.0

    def take(self, told: Told) -> None:
        """Add one process of the writer."""
        self._own.add(told.used)
        self._own_cpu_s += told.own_cpu_s
        self._own_gb_s += told.own_gb_s

    def used(self) -> Quantities:
        """Return what it and all below it used; what its samples tell of children counts once."""
        used, below = Quantities(), Quantities()
        used.add(self._own)
        below.add(self.below)
        used.cpu_s = max(self._own.cpu_s, self._own_cpu_s + below.cpu_s)
        used.gb_s = max(self._own.gb_s, self._own_gb_s + below.gb_s)
        used.io_bytes = max(self._own.io_bytes, below.io_bytes)
        used.io_operations = max(self._own.io_operations, below.io_operations)
        below.cpu_s = below.gb_s = below.io_bytes = below.io_operations = 0.0
        used.add(below)
        return used


def used_by_all(known: Iterable[tuple[ProcessKey, Told]]) -> Quantities:
    """Return what all processes used, each counted once whoever tells of it."""
    same: dict[tuple[int, str, int], dict[str, Told]] = {}
    for (writer, pid, attempt), told in known:
        family = writer.partition(".")[0] if pid else writer
        same.setdefault((attempt, family, pid), {})[writer] = told
    members: dict[tuple[int, str], _Member] = {}
    stands_for: dict[tuple[int, str], _Member] = {}
    for (attempt, _family, _pid), copies in same.items():
        first = min(copies, key=lambda writer: (len(writer), writer))
        member = members.setdefault((attempt, first), _Member())
        member.take(_as_one(list(copies.values())))
        for writer in copies:
            stands_for.setdefault((attempt, writer), member)
    stands_for |= members
    total = Quantities()
    # The longest names first: a child's name begins with its parent's.
    for (attempt, writer), member in sorted(members.items(), key=lambda item: -len(item[0][1])):
        parent = stands_for.get((attempt, writer.rpartition(".")[0]))
        (total if parent is None else parent.below).add(member.used())
    return total


def _as_one(copies: Sequence[Told]) -> Told:
    """Return what several copies of a tracker tell of the one process that they are in."""
    if len(copies) == 1:
        return copies[0]

    def most(read: Callable[[Told], float]) -> float:
        return most_apart([(told.span, read(told)) for told in copies])

    used = Quantities()
    for told in copies:
        used.add(told.used)
    for name in _READ_BY_EACH:
        setattr(used, name, most(lambda told, name=name: getattr(told.used, name)))  # type: ignore[misc]
    own_cpu_s, own_gb_s = most(lambda told: told.own_cpu_s), most(lambda told: told.own_gb_s)
    used.cpu_s = own_cpu_s + most(lambda told: told.used.cpu_s - told.own_cpu_s)
    used.gb_s = own_gb_s + most(lambda told: told.used.gb_s - told.own_gb_s)
    spans = [told.span for told in copies]
    span = min(start for start, _ in spans), max(end for _, end in spans)
    return Told(span, used, own_cpu_s, own_gb_s)


def most_apart(counted: Iterable[tuple[Span, float]]) -> float:
    """Return the most that counters of one process tell together, of which no two counted at the same time.

    So a counter that ran beside a longer one adds nothing, counters that ran one after the other are summed, and never
    is more counted than was used.
    """
    in_order = sorted(counted, key=lambda item: item[0][1])
    ends = [end for (_start, end), _ in in_order]
    most = [0.0]
    for number, ((start, _end), amount) in enumerate(in_order):
        most.append(max(most[-1], most[bisect_right(ends, start, hi=number)] + amount))
    return most[-1]
