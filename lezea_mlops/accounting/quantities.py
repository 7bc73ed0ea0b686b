"""What was used: quantities that can be added up, and what of a record counts as one."""

from __future__ import annotations

from typing import Any

from lezea_mlops._bounded import stored_count, stored_number, stored_text

SECONDS_PER_HOUR = 3_600.0
JOULES_PER_KWH = 3_600_000.0
BYTES_PER_GB = float(2**30)
# No machine reaches it in any unit; beyond it a value is a mistake, and sums of such could leave the numbers.
LARGEST = 1e18
_LARGEST_SUM = 1e60
# The id of a component is not kept longer.
MAX_TEXT = 200
# GPU time of which nothing says on which GPU it was.
UNNAMED = ""

# Used (weighted by utilisation), held by a process of ours, and to be paid for: seconds.
GpuSeconds = list[float]

_NUMBERS = ("wall_s", "cpu_s", "gb_s", "io_bytes", "io_operations", "energy_j", "storage_bytes")


def amount(value: Any, largest: float = LARGEST) -> float | None:
    """Return *value* if it is a number from 0 to *largest*; None if it is anything else."""
    kind = type(value)
    # Of NaN both comparisons are false; a text is that of a number that is not finite.
    if (kind is float or kind is int) and 0 <= value <= largest:
        return float(value)
    return None


def short_text(value: Any) -> str | None:
    """Return *value* if it is text, cut where it is longer than is kept; None if it is none."""
    if type(value) is not str:
        return None
    return value if len(value) <= MAX_TEXT else value[: MAX_TEXT - 1] + "…"


def stored_amount(value: Any) -> float:
    """Return a stored sum.

    Raises:
        ValueError: it is no number from zero on that sums reach.
    """
    number = float(stored_number(value))
    if 0 <= number <= _LARGEST_SUM:
        return number
    raise ValueError(f"expected a sum from 0 on, found {value!r:.80}")


class Quantities:
    """Sums of what was used, none of them ever below zero.

    Attributes:
        wall_s: seconds of time.
        cpu_s: seconds of one core.
        gb_s: GB of memory × seconds.
        io_bytes: bytes read and written.
        io_operations: read and write operations.
        energy_j: joules that a meter told.
        storage_bytes: bytes of files that were kept.
        samples: how many samples it was made of.
        uses: how many uses were measured.
        gpus: by the name of a GPU the seconds used, held, and to be paid for; None: none at all.
    """

    __slots__ = (*_NUMBERS, "samples", "uses", "gpus")

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = self.gb_s = self.io_bytes = 0.0
        self.io_operations = self.energy_j = self.storage_bytes = 0.0
        self.samples = self.uses = 0
        self.gpus: dict[str, GpuSeconds] | None = None

    def add(self, other: Quantities) -> None:
        """Add what *other* holds."""
        self.wall_s += other.wall_s
        self.cpu_s += other.cpu_s
        self.gb_s += other.gb_s
        self.io_bytes += other.io_bytes
        self.io_operations += other.io_operations
        self.energy_j += other.energy_j
        self.storage_bytes += other.storage_bytes
        self.samples += other.samples
        self.uses += other.uses
        if other.gpus is not None:
            for name, (used, held, paid) in other.gpus.items():
                self.add_gpu(name, used, held, paid)

    def add_gpu(self, name: str, used_s: float, held_s: float, paid_s: float) -> None:
        """Add seconds of a GPU: used, held, and to be paid for."""
        if self.gpus is None:
            self.gpus = {}
        seconds = self.gpus.get(name)
        if seconds is None:
            self.gpus[name] = [used_s, held_s, paid_s]
        else:
            seconds[0] += used_s
            seconds[1] += held_s
            seconds[2] += paid_s

    def take_away(self, other: Quantities) -> None:
        """Take away what was added before; what rounding leaves below zero is zero."""
        for name in _NUMBERS:
            setattr(self, name, max(0.0, getattr(self, name) - getattr(other, name)))
        self.samples -= other.samples
        self.uses -= other.uses
        for name, seconds in (other.gpus or {}).items():
            own = (self.gpus or {}).get(name)
            if own is not None:
                own[:] = [max(0.0, a - b) for a, b in zip(own, seconds, strict=True)]

    def as_dict(self, core_watts: float = 0.0) -> dict[str, float]:
        """Return the sums in the units of a bill, all but ``samples`` and ``uses``.

        Args:
            core_watts: power of a busy core, for the energy that no meter tells.
        """
        used_s = held_s = 0.0
        if self.gpus is not None:
            for seconds in self.gpus.values():
                used_s += seconds[0]
                held_s += seconds[1]
        return {
            "wall_hours": self.wall_s / SECONDS_PER_HOUR,
            "core_hours": self.cpu_s / SECONDS_PER_HOUR,
            "gb_hours": self.gb_s / SECONDS_PER_HOUR,
            "gpu_hours": used_s / SECONDS_PER_HOUR,
            "gpu_held_hours": held_s / SECONDS_PER_HOUR,
            "io_bytes": self.io_bytes,
            "io_operations": self.io_operations,
            "energy_kwh": self.energy_kwh(core_watts),
        }

    def energy_kwh(self, core_watts: float) -> float:
        """Return the energy that meters told and that of busy cores of *core_watts* each."""
        return (self.energy_j + self.cpu_s * core_watts) / JOULES_PER_KWH

    def state(self) -> list[Any]:
        """Return all of it as JSON, for ``put_back``."""
        numbers = [getattr(self, name) for name in _NUMBERS]
        gpus = None if self.gpus is None else {name: list(seconds) for name, seconds in self.gpus.items()}
        return [*numbers, self.samples, self.uses, gpus]

    def put_back(self, state: Any) -> None:
        """Take over a state.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        *numbers, samples, uses, gpus = state
        for name, number in zip(_NUMBERS, numbers, strict=True):
            setattr(self, name, stored_amount(number))
        self.samples, self.uses = stored_count(samples), stored_count(uses)
        self.gpus = None if gpus is None else {stored_text(n): _stored_seconds(s) for n, s in gpus.items()}

    @classmethod
    def restored(cls, state: Any) -> Quantities:
        """Return quantities that go on from a state.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        quantities = cls()
        quantities.put_back(state)
        return quantities


def larger_of(one: Quantities, other: Quantities) -> Quantities:
    """Return of each quantity the larger one; of ``samples`` and ``uses`` the sum."""
    larger = Quantities()
    for name in _NUMBERS:
        setattr(larger, name, max(getattr(one, name), getattr(other, name)))
    larger.samples, larger.uses = one.samples + other.samples, one.uses + other.uses
    a, b = one.gpus or {}, other.gpus or {}
    for name in a | b:
        pairs = zip(a.get(name, _NO_SECONDS), b.get(name, _NO_SECONDS), strict=True)
        larger.add_gpu(name, *(max(pair) for pair in pairs))
    return larger


_NO_SECONDS = (0.0, 0.0, 0.0)


def _stored_seconds(state: Any) -> GpuSeconds:
    used, held, paid = map(stored_amount, state)
    return [used, held, paid]
