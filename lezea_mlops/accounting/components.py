"""Components and what each used, as its own samples and measured uses tell it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, Generic, TypeVar

from lezea_mlops._bounded import BoundedTable, stored_step, stored_text
from lezea_mlops.accounting.integrals import Integral
from lezea_mlops.accounting.quantities import UNNAMED, Quantities, amount, short_text, stored_amount

MB_PER_GB = 1024
# A million cores, ten thousand GPUs, an exabyte: what is above it is no sample.
_MOST_PERCENT, _MOST_GPU_PERCENT, _MOST_MB = 1e8, 1e6, 1e12


class Counted(Quantities):
    """What was used under one name."""

    __slots__ = ()

    def shown(self, core_watts: float) -> dict[str, Any]:
        """Return what was used by name."""
        return {"samples": self.samples, "uses": self.uses, **self.as_dict(core_watts)}

    @classmethod
    def restored(cls, state: Any) -> Counted:
        """Return what goes on from a state.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        counted = cls()
        counted.put_back(state)
        return counted


class Component(Quantities):
    """What one component used: measured uses, and the integrals over its own samples."""

    __slots__ = ("component_type", "peak_memory_mb", "_attempt", "_integrals")

    def __init__(self) -> None:
        super().__init__()
        self.component_type: str | None = None
        self.peak_memory_mb = 0.0
        self._attempt = 0
        # Of CPU, GPU and memory; most components are measured and have none.
        self._integrals: tuple[Integral, Integral, Integral] | None = None

    def sample(self, ts: int, fields: Mapping[str, Any], attempt: int) -> Quantities:
        """Take one sample at *ts* (UTC microseconds), and return what it adds.

        It is percent of one core, MB, percent of a GPU, and operations since the last sample.
        """
        cpu, gpu, memory = self._integrals_of(attempt)
        used = Quantities()
        used.samples = 1
        used.cpu_s = cpu.add(ts, amount(fields.get("cpu_percent"), _MOST_PERCENT)) / 100
        memory_mb = amount(fields.get("memory_mb"), _MOST_MB)
        used.gb_s = memory.add(ts, memory_mb) / MB_PER_GB
        gpu_s = gpu.add(ts, amount(fields.get("gpu_util_percent"), _MOST_GPU_PERCENT)) / 100
        if gpu_s:
            used.add_gpu(UNNAMED, gpu_s, 0.0, gpu_s)
        used.io_operations = amount(fields.get("io_operations")) or 0.0
        self.peak_memory_mb = max(self.peak_memory_mb, memory_mb or 0.0)
        return used

    def _integrals_of(self, attempt: int) -> tuple[Integral, Integral, Integral]:
        if self._integrals is None:
            self._integrals = Integral(), Integral(), Integral()
        if attempt != self._attempt:
            # Nothing was used between two attempts.
            for integral in self._integrals:
                integral.restart()
            self._attempt = attempt
        return self._integrals

    def shown(self, core_watts: float) -> dict[str, Any]:
        """Return what it used by name."""
        return {
            "component_type": self.component_type, "samples": self.samples, "uses": self.uses,
            **self.as_dict(core_watts), "peak_memory_mb": self.peak_memory_mb,
        }  # fmt: skip

    def state(self) -> list[Any]:
        """Return all of it as JSON, for ``restored``."""
        integrals = self._integrals and [integral.state() for integral in self._integrals]
        return [super().state(), self.component_type, self.peak_memory_mb, self._attempt, integrals]

    @classmethod
    def restored(cls, state: Any) -> Component:
        """Return what goes on from a state.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        component = cls()
        quantities, component_type, peak, attempt, integrals = state
        component.put_back(quantities)
        component.component_type = None if component_type is None else stored_text(component_type)
        component.peak_memory_mb = stored_amount(peak)
        component._attempt = stored_step(attempt)
        if integrals is not None:
            cpu, gpu, memory = map(Integral.restored, integrals)
            component._integrals = cpu, gpu, memory
        return component


Q = TypeVar("Q", bound=Quantities)


class Ledger(Generic[Q]):
    """Quantities by name in bounded memory, of which some names stay for good."""

    def __init__(self, kind: type[Q], limit: int, first: int = 0) -> None:
        """Make an empty ledger.

        Args:
            kind: what it holds.
            limit: how many names it holds; the least recently used leaves first.
            first: so many names stay in the order of their appearance, whatever comes later.
        """
        self._kind = kind
        self._first = min(first, limit - 1)
        self._kept: dict[str, Q] = {}
        self._rest: BoundedTable[str, Q] = BoundedTable(kind, limit - self._first)

    @property
    def evicted(self) -> int:
        """How many names had to leave."""
        return self._rest.evicted

    def __len__(self) -> int:
        return sum(1 for _row in self.items())

    def __getitem__(self, name: str) -> Q:
        """Return what stands under a name, made now if it is new."""
        kept = self._kept.get(name)
        if kept is not None:
            return kept
        if len(self._kept) < self._first and name not in self._rest:
            kept = self._kept[name] = self._kind()
            return kept
        return self._rest[name]

    def keep(self, name: str, most: int) -> None:
        """Let a name stay for good, where not as many as *most* do already."""
        if name in self._kept or len(self._kept) >= most:
            return
        self._kept[name] = self._rest[name] if name in self._rest else self._kind()
        if name in self._rest:
            # A table gives no key away; what is left there is never asked, and leaves when its time has come.
            self._rest[name] = self._kind()

    def items(self) -> Iterator[tuple[str, Q]]:
        """Yield names and what stands under them, first those that stay."""
        rest = ((name, used) for name, used in self._rest.items() if name not in self._kept)
        return chain(list(self._kept.items()), rest)

    def kept(self, most: int) -> Iterator[tuple[str, Q]]:
        """Yield the first of the names that stay, in the order of their appearance."""
        return iter(list(self._kept.items())[:most])

    def state(self) -> dict[str, Any]:
        """Return all of it as JSON, for ``restore``."""
        return {
            "kept": {name: kept.state() for name, kept in self._kept.items()},
            "rest": self._rest.state(self._kind.state),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        restored: Any = self._kind.restored
        self._kept = {stored_text(name): restored(kept) for name, kept in state["kept"].items()}
        self._rest.restore(state["rest"], stored_text, restored)


def component_name(value: Any) -> str:
    """Return the name of a component as it is kept; also of what is no text."""
    return short_text(value if type(value) is str else str(value)) or ""
