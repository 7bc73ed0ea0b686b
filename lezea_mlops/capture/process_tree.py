"""What a process and those that it started have used together, from readings of each of them.

A process that ends leaves its use to its parent: the parent's counters of ended children grow by all that the child
had used, also by what was read of it while it lived. So each process that has vanished leaves a debt with its heir, and
the heir's growth pays it before it counts as new. What is left is the use of children that nobody ever saw alive, and
what those that were seen used after their last reading.

A debt is kept for two readings of the heir and then forgotten: a process leaves the table after its parent has its use,
so the second reading has it for certain; where the system gave the use to nobody, as with ignored SIGCHLD, later growth
is real.

Some processes do not count. What such a one has used after its last reading comes to its heir like news of any other
child, and nobody can tell the two apart; so its debt includes the most that it may have used meanwhile. The sums are
never ahead of the truth by it. They may stay behind by what others have used that were never seen, and ended in the
same moments.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from types import MappingProxyType
from typing import NamedTuple


class Reading(NamedTuple):
    """What a process has used since it began, None where that is unknown.

    All but *cpu_s* hold the use of children that have ended and were waited for.
    """

    cpu_s: float | None = None
    reaped_cpu_s: float | None = None
    read_bytes: float | None = None
    write_bytes: float | None = None
    read_operations: float | None = None
    write_operations: float | None = None

    @property
    def left_to_parents(self) -> tuple[float | None, ...]:
        """What comes to it from ended children: processor time, then transfers."""
        return self[1:]


NOTHING: tuple[float, ...] = (0.0,) * 5
ALL_SEEN: Mapping[Hashable, float] = MappingProxyType({})


class Member:
    """A process of the tree."""

    def __init__(self, parent: Member | None, counted: bool, last: Reading) -> None:
        self.parent = parent
        self.counted = counted
        self.last = last
        self.gone = False
        self.owed = [NOTHING, NOTHING]

    def legacy(self) -> tuple[float, ...]:
        """Return what its parent gets that is known already, with what it owes itself."""
        cpu_s, reaped_cpu_s, *transfers = (value or 0.0 for value in self.last)
        amounts = (cpu_s + reaped_cpu_s, *transfers)
        return tuple(map(sum, zip(amounts, *self.owed, strict=True)))

    def heir(self) -> Member | None:
        """Return who got its use: the nearest of its ancestors that lives."""
        member = self.parent
        while member is not None and member.gone:
            member = member.parent
        return member

    def owe(self, amounts: Collection[float]) -> None:
        """Take on a debt: growth of these amounts is no news."""
        self.owed[1] = tuple(before + amount for before, amount in zip(self.owed[1], amounts, strict=True))

    def take_own(self, cpu_s: float | None) -> float:
        """Take a new reading of its own processor time; return the growth."""
        own = _growth(cpu_s, self.last.cpu_s)
        self.last = self.last._replace(cpu_s=_latest(cpu_s, self.last.cpu_s))
        return own

    def take(self, reading: Reading) -> tuple[float, tuple[float, ...]]:
        """Take a new reading; return the growth of its own processor time, and what is news of the rest."""
        own = self.take_own(reading.cpu_s)
        grown = map(_growth, reading.left_to_parents, self.last.left_to_parents)
        news, left = [], []
        for growth, old, new in zip(grown, *self.owed, strict=True):
            news.append(max(0.0, growth - old - new))
            left.append(max(0.0, new - max(0.0, growth - old)))
        self.owed = [tuple(left), NOTHING]
        self.last = Reading(*map(_latest, reading, self.last))
        return own, tuple(news)


class ProcessTree:
    """Sums up the use of a process and of all that descend from it; no sum ever falls.

    Whoever reads must read parents before their children. A child that is waited for in between is then missing from
    the table before its use is found with its parent, and never the other way round.

    Args:
        root: names the process; any value that is equal for equal processes.
        reading: its use until now, which does not count.
        transfers_move: whether a child's transfers come to its parent when it ends, as on Linux.

    Attributes:
        cpu_s: processor time of the root.
        children_cpu_s: that of all others, alive or ended.
        transfers: bytes read and written, operations of both kinds, of all.
    """

    def __init__(self, root: Hashable, reading: Reading, *, transfers_move: bool) -> None:
        self.root = root
        self.cpu_s = 0.0
        self.children_cpu_s = 0.0
        self.transfers: tuple[float, ...] = NOTHING[1:]
        self._transfers_move = transfers_move
        self._members = {root: Member(None, True, reading)}

    @property
    def children(self) -> list[Hashable]:
        """All known descendants, parents before their children."""
        return [member for member in self._members if member != self.root]

    def knows(self, process: Hashable) -> bool:
        """Tell whether *process* is in the tree."""
        return process in self._members

    def counts(self, process: Hashable) -> bool:
        """Tell whether the use of *process* counts."""
        return self._members[process].counted

    def add(self, process: Hashable, parent: Hashable, *, counted: bool, before: Reading) -> None:
        """Take a descendant in, whose use *before* does not count: zero for one that has begun since the last look."""
        above = self._members.get(parent, self._members[self.root])
        self._members[process] = Member(above, counted and above.counted, before)

    def exclude(self, process: Hashable) -> None:
        """Count the use of *process* no more, nor that of its descendants; what was counted stays."""
        self._members[process].counted = False
        for member in self._members.values():
            if member.parent is not None and not member.parent.counted:
                member.counted = False

    def keep_only(self, found: Collection[Hashable]) -> None:
        """Note which of the known were *found* below the root; another one that lives has left, and has no heir."""
        for process, member in self._members.items():
            if process != self.root and process not in found:
                member.parent = None

    def settle(
        self,
        readings: Mapping[Hashable, Reading | None],
        gone: Collection[Hashable],
        unseen_cpu_s: Mapping[Hashable, float] = ALL_SEEN,
    ) -> None:
        """Take new readings of all members.

        Args:
            readings: None where there is none now.
            gone: who of them has ended.
            unseen_cpu_s: of those that have ended and do not count, the most that each may have used since it was read.
        """
        for process in gone:
            member = self._members.pop(process)
            member.gone = True
            if (heir := member.heir()) is not None:
                cpu_s, *transfers = member.legacy()
                cpu_s += 0.0 if member.counted else unseen_cpu_s.get(process, 0.0)
                heir.owe((cpu_s, *transfers) if self._transfers_move else (cpu_s, *NOTHING[1:]))
        for process, member in self._members.items():
            reading = readings.get(process)
            if reading is not None:
                own, news = member.take(reading)
                if member.counted:
                    self._count(process, own, news)

    def settle_root(self, cpu_s: float | None) -> None:
        """Take the root's own processor time alone, between two looks at all."""
        self.cpu_s += self._members[self.root].take_own(cpu_s)

    def _count(self, process: Hashable, own: float, news: tuple[float, ...]) -> None:
        if process == self.root:
            self.cpu_s += own
        else:
            self.children_cpu_s += own
        self.children_cpu_s += news[0]
        self.transfers = tuple(before + new for before, new in zip(self.transfers, news[1:], strict=True))


def _growth(now: float | None, before: float | None) -> float:
    return 0.0 if now is None or before is None else max(0.0, now - before)


def _latest(now: float | None, before: float | None) -> float | None:
    if now is None or before is None:
        return before if now is None else now
    return max(now, before)
