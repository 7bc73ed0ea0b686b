"""Totals of resources: integrals over the time between samples, never sums of percents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lezea_mlops._bounded import (
    MAX_KEYS,
    BoundedTable,
    number_state,
    stored_count,
    stored_number,
    stored_step,
    stored_text,
)
from lezea_mlops.events import as_number

US_PER_HOUR = 3_600_000_000
# Two samples further apart do not tell what was used between them.
LONGEST_GAP_US = 10 * 60 * 1_000_000
MB_PER_GB = 1024


class Integral:
    """One quantity integrated over time, by the trapezoid between its own samples."""

    __slots__ = ("_last", "_ts")

    def __init__(self) -> None:
        self._ts: int | None = None
        self._last = 0.0

    def add(self, ts: int, value: float | None) -> float:
        """Take a sample at *ts* (UTC microseconds), and return what it adds, in units × hours."""
        if value is None:
            # A call that does not speak of this quantity says nothing about it, least of all that it is zero.
            return 0.0
        before, last = self._ts, self._last
        self._ts, self._last = ts, value
        if before is None or not 0 < ts - before <= LONGEST_GAP_US:
            return 0.0
        return (ts - before) / US_PER_HOUR * (value + last) / 2

    def restart(self) -> None:
        """Forget the last sample: nothing was used between two attempts."""
        self._ts = None

    def state(self) -> tuple[int | None, float | str]:
        """Return time and value of the last sample as JSON, for ``restore``."""
        return self._ts, number_state(self._last)

    def restore(self, ts: Any, last: Any) -> None:
        """Go on from a state."""
        self._ts = None if ts is None else stored_step(ts)
        self._last = stored_number(last)


class ComponentUse:
    """What one component used, or all of them together: sums of the integrals over their samples."""

    __slots__ = ("component_type", "core_hours", "gb_hours", "gpu_hours", "io_operations", "peak_memory_mb",
                 "samples", "_cpu", "_gpu", "_memory")  # fmt: skip

    def __init__(self) -> None:
        self.component_type: str | None = None
        self.core_hours = self.gb_hours = self.gpu_hours = self.peak_memory_mb = 0.0
        self.io_operations = 0.0
        self.samples = 0
        self._cpu, self._gpu, self._memory = Integral(), Integral(), Integral()

    def observe(self, ts: int, fields: Mapping[str, Any], total: ComponentUse) -> None:
        """Take one sample at *ts* (UTC microseconds), and add what it adds to *total* too.

        It is percent of one core, MB, percent of a GPU, and operations since the last sample.
        """
        memory = _finite(fields.get("memory_mb"))
        core_hours = self._cpu.add(ts, _finite(fields.get("cpu_percent"))) / 100
        gpu_hours = self._gpu.add(ts, _finite(fields.get("gpu_util_percent"))) / 100
        gb_hours = self._memory.add(ts, memory) / MB_PER_GB
        operations = _finite(fields.get("io_operations")) or 0.0
        for use in (self, total):
            use.core_hours += core_hours
            use.gpu_hours += gpu_hours
            use.gb_hours += gb_hours
            use.io_operations += operations
            use.samples += 1
        self.component_type = fields.get("component_type", self.component_type)
        self.peak_memory_mb = max(self.peak_memory_mb, memory or 0.0)

    def as_dict(self) -> dict[str, Any]:
        """Return the totals by name."""
        return {
            "component_type": self.component_type, **self.sums(), "peak_memory_mb": self.peak_memory_mb,
        }  # fmt: skip

    def sums(self) -> dict[str, float]:
        """Return what may be added up over components."""
        return {
            "samples": self.samples, "core_hours": self.core_hours, "gb_hours": self.gb_hours,
            "gpu_hours": self.gpu_hours, "io_operations": self.io_operations,
        }  # fmt: skip

    def restart(self) -> None:
        """Begin a new attempt: its first samples are integrated with none of the attempt before."""
        for integral in (self._cpu, self._gpu, self._memory):
            integral.restart()

    def state(self) -> list[Any]:
        """Return all of it as JSON, for ``restored``."""
        return [
            self.component_type, self.samples,
            number_state(self.core_hours), number_state(self.gb_hours), number_state(self.gpu_hours),
            number_state(self.io_operations), number_state(self.peak_memory_mb),
            *self._cpu.state(), *self._gpu.state(), *self._memory.state(),
        ]  # fmt: skip

    @classmethod
    def restored(cls, state: Any) -> ComponentUse:
        """Return what goes on from a state.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        use = cls()
        use.component_type, samples, core, gb, gpu, operations, peak, *last = state
        use.samples = stored_count(samples)
        use.core_hours, use.gb_hours, use.gpu_hours = (
            stored_number(core),
            stored_number(gb),
            stored_number(gpu),
        )
        use.io_operations, use.peak_memory_mb = stored_number(operations), stored_number(peak)
        cpu_ts, cpu_percent, gpu_ts, gpu_percent, memory_ts, memory_mb = last
        use._cpu.restore(cpu_ts, cpu_percent)
        use._gpu.restore(gpu_ts, gpu_percent)
        use._memory.restore(memory_ts, memory_mb)
        return use


class ResourceTotals:
    """Totals for all components, and per component for at most *limit* of them."""

    def __init__(self, limit: int = MAX_KEYS) -> None:
        self._total = ComponentUse()
        self._components: BoundedTable[str, ComponentUse] = BoundedTable(ComponentUse, limit)

    def observe(self, ts: int, fields: Mapping[str, Any]) -> None:
        """Take one sample of one component."""
        self._components[str(fields.get("component_id"))].observe(ts, fields, self._total)

    def as_dict(self) -> dict[str, Any]:
        """Return the totals of all components together, and of each that is remembered."""
        return {
            "total": self._total.sums(),
            "components": {name: use.as_dict() for name, use in self._components.items()},
            "partial": bool(self._components.evicted),
        }

    def restart(self) -> None:
        """Begin a new attempt: its first samples are integrated with none of the attempt before."""
        for _name, use in self._components.items():  # noqa: PERF102 (a bounded table has no ``values``)
            use.restart()

    def state(self) -> dict[str, Any]:
        """Return all of it as JSON, for ``restore``."""
        return {"total": self._total.state(), "components": self._components.state(ComponentUse.state)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        self._total = ComponentUse.restored(state["total"])
        self._components.restore(state["components"], stored_text, ComponentUse.restored)


def _finite(value: Any) -> float | None:
    number = as_number(value)
    return number if number is not None and abs(number) < float("inf") else None
