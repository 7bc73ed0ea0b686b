"""Windows of measured uses, which wait for the samples that tell what their process used meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from lezea_mlops._bounded import stored_count, stored_step, stored_text
from lezea_mlops.accounting.integrals import US_PER_S
from lezea_mlops.accounting.quantities import Quantities, stored_amount
from lezea_mlops.events import ScopePairs

# Where more windows or rows of a process wait, the oldest neighbours become one window.
MAX_WINDOWS = 64
MAX_ROWS = 10_000
# The integrals of a process: four, and then of each name of a GPU three.
MEMORY, IO_BYTES, IO_OPERATIONS, ENERGY = range(4)
FIRST_GPU = 4


class Target(NamedTuple):
    """For whom something was used."""

    component_id: str | None
    component_type: str
    scope: ScopePairs


class Own(NamedTuple):
    """What a use read by itself, in place of its share of what the samples tell; None: it did not."""

    gb_s: float | None = None
    io_bytes: float | None = None
    gpu_s: float | None = None


# Of which quantities the use has readings of its own, and for whom it was.
_Kind: TypeAlias = "tuple[Target, bool, bool, bool]"
Book: TypeAlias = "Callable[[Quantities, Target, int], None]"


class Window:
    """The uses that were measured from one moment to another.

    A use gets the share of what the process used that its wall time has in the time of the window, or in the sum of
    all wall times where they overlap. What uses read by themselves is theirs; the others share the rest.
    """

    __slots__ = ("from_us", "to_us", "wall_s", "missing", "rows", "_own", "_own_wall", "_grown")

    def __init__(self, from_us: int, to_us: int, wall_s: float, parts: int) -> None:
        self.from_us, self.to_us = from_us, to_us
        self.wall_s = wall_s
        self.missing = parts
        self.rows: dict[_Kind, float] = {}
        # Of memory, IO bytes and GPU: what uses read by themselves, and the wall time of these uses.
        self._own = [0.0, 0.0, 0.0]
        self._own_wall = [0.0, 0.0, 0.0]
        self._grown: list[float] = []

    def take(self, target: Target, wall_s: float, own: Own) -> None:
        """Take one row."""
        kind = (target, own.gb_s is not None, own.io_bytes is not None, own.gpu_s is not None)
        self.rows[kind] = self.rows.get(kind, 0.0) + wall_s
        for number, value in enumerate(own):
            if value is not None:
                self._own[number] += value
                self._own_wall[number] += wall_s

    def merge(self, other: Window) -> None:
        """Make one window of two neighbours, of which nothing was booked."""
        self.from_us, self.to_us = min(self.from_us, other.from_us), max(self.to_us, other.to_us)
        self.wall_s += other.wall_s
        for kind, wall_s in other.rows.items():
            self.rows[kind] = self.rows.get(kind, 0.0) + wall_s
        for number in range(3):
            self._own[number] += other._own[number]
            self._own_wall[number] += other._own_wall[number]

    def booked(self) -> bool:
        """Tell whether some of it was booked."""
        return bool(self._grown)

    def settle(self, grown: Sequence[float], names: Sequence[str], book: Book) -> None:
        """Book what became known since the last time.

        Args:
            grown: how much each integral of the process grew in this window, as far as is known.
            names: the names of the GPUs, in the order of their integrals.
            book: takes what was used, for whom, and since when.
        """
        before = self._grown + [0.0] * (len(grown) - len(self._grown))
        now = [max(a, b) for a, b in zip(grown, before, strict=True)]
        if now == before:
            return
        self._grown = now
        gained, shared = self._gains(before, now)
        length_s = max((self.to_us - self.from_us) / US_PER_S, self.wall_s, sum(self.rows.values()))
        parts = [max(0.0, length_s - own_wall) for own_wall in self._own_wall]
        for (target, *own), wall_s in self.rows.items():
            share = wall_s / length_s if length_s > 0 else 0.0
            # Uses with readings of their own have no part in the rest.
            rest = [0.0 if o or p <= 0 else wall_s / p for o, p in zip(own, parts, strict=True)]
            used = Quantities()
            used.gb_s = shared[0] * rest[0]
            used.io_bytes = shared[1] * rest[1]
            used.io_operations = gained[IO_OPERATIONS] * share
            used.energy_j = gained[ENERGY] * share
            for number, name in enumerate(names[: (len(gained) - FIRST_GPU) // 3]):
                at = FIRST_GPU + 3 * number
                used.add_gpu(
                    name, shared[2 + number] * rest[2], gained[at + 1] * share, gained[at + 2] * share
                )
            book(used, target, self.from_us)

    def _gains(self, before: Sequence[float], now: Sequence[float]) -> tuple[list[float], list[float]]:
        """Return what was gained, and what of memory, IO bytes and each GPU's use is left to be shared."""
        gained = [b - a for a, b in zip(before, now, strict=True)]
        rests = [self._rest(values) for values in (before, now)]
        return gained, [max(0.0, b - a) for a, b in zip(*rests, strict=True)]

    def _rest(self, grown: Sequence[float]) -> list[float]:
        gpu_s = sum(grown[FIRST_GPU::3])
        left = max(0.0, gpu_s - self._own[2]) / gpu_s if gpu_s > 0 else 0.0
        return [
            max(0.0, grown[MEMORY] - self._own[0]),
            max(0.0, grown[IO_BYTES] - self._own[1]),
            *(used * left for used in grown[FIRST_GPU::3]),
        ]

    def state(self) -> list[Any]:
        """Return all of it as JSON, for ``restored``."""
        rows = [
            [target.component_id, target.component_type, [list(pair) for pair in target.scope], *own, wall_s]
            for (target, *own), wall_s in self.rows.items()
        ]
        return [
            self.from_us, self.to_us, self.wall_s, self.missing, rows,
            list(self._own), list(self._own_wall), list(self._grown),
        ]  # fmt: skip

    @classmethod
    def restored(cls, state: Any) -> Window:
        """Return a window that goes on from a state.

        Raises:
            TypeError, ValueError: it is damaged.
        """
        from_us, to_us, wall_s, missing, rows, own, own_wall, grown = state
        window = cls(stored_step(from_us), stored_step(to_us), stored_amount(wall_s), stored_count(missing))
        for component_id, component_type, scope, memory, io, gpu, row_wall_s in rows:
            pairs = tuple((stored_text(level), stored_text(identity)) for level, identity in scope)
            target = Target(component_id and stored_text(component_id), stored_text(component_type), pairs)
            window.rows[target, memory is True, io is True, gpu is True] = stored_amount(row_wall_s)
        window._own, window._own_wall, window._grown = (
            [stored_amount(number) for number in numbers] for numbers in (own, own_wall, grown)
        )
        if not len(window._own) == len(window._own_wall) == 3:
            raise ValueError("expected three sums of own readings in a window")
        return window
