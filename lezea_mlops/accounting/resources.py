"""Totals of resources: integrals over the time between samples, never sums of percents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lezea_mlops._bounded import BoundedTable
from lezea_mlops.events import as_number

US_PER_HOUR = 3_600_000_000
# Two samples further apart do not tell what was used between them.
LONGEST_GAP_US = 10 * 60 * 1_000_000


class ComponentUse:
    """What one component used, by the trapezoid between its samples."""

    __slots__ = ("component_type", "core_hours", "gb_hours", "gpu_hours", "io_operations", "peak_memory_mb",
                 "samples", "_cpu", "_gpu", "_memory", "_ts")  # fmt: skip

    def __init__(self) -> None:
        self.component_type: str | None = None
        self.core_hours = self.gb_hours = self.gpu_hours = self.peak_memory_mb = 0.0
        self.io_operations = 0.0
        self.samples = 0
        self._ts: int | None = None
        self._cpu = self._gpu = self._memory = 0.0

    def observe(self, ts: int, fields: Mapping[str, Any]) -> None:
        """Take one sample at *ts* (UTC microseconds): percent of one core, MB, percent of a GPU, operations."""
        cpu = _finite(fields.get("cpu_percent"))
        memory = _finite(fields.get("memory_mb"))
        gpu = _finite(fields.get("gpu_util_percent"))
        if self._ts is not None and 0 < ts - self._ts <= LONGEST_GAP_US:
            hours = (ts - self._ts) / US_PER_HOUR
            self.core_hours += hours * (cpu + self._cpu) / 200
            self.gb_hours += hours * (memory + self._memory) / 2048
            self.gpu_hours += hours * (gpu + self._gpu) / 200
        self._ts, self._cpu, self._memory, self._gpu = ts, cpu, memory, gpu
        self.component_type = fields.get("component_type", self.component_type)
        self.peak_memory_mb = max(self.peak_memory_mb, memory)
        self.io_operations += _finite(fields.get("io_operations"))
        self.samples += 1

    def as_dict(self) -> dict[str, Any]:
        """Return the totals by name."""
        return {
            "component_type": self.component_type, "samples": self.samples, "core_hours": self.core_hours,
            "gb_hours": self.gb_hours, "gpu_hours": self.gpu_hours, "peak_memory_mb": self.peak_memory_mb,
            "io_operations": self.io_operations,
        }  # fmt: skip


class ResourceTotals:
    """Totals per component and for all; at most 10,000 components are remembered apart."""

    def __init__(self) -> None:
        self._components: BoundedTable[str, ComponentUse] = BoundedTable(ComponentUse)

    def observe(self, ts: int, fields: Mapping[str, Any]) -> None:
        """Take one sample of one component."""
        self._components[str(fields.get("component_id"))].observe(ts, fields)

    def as_dict(self) -> dict[str, Any]:
        """Return the totals of all components together, and of each."""
        components = {name: use.as_dict() for name, use in self._components.items()}
        summed = ("samples", "core_hours", "gb_hours", "gpu_hours", "io_operations")
        return {
            "total": {name: sum(use[name] for use in components.values()) for name in summed},
            "components": components,
            "partial": bool(self._components.evicted),
        }


def _finite(value: Any) -> float:
    number = as_number(value)
    return number if number is not None and abs(number) < float("inf") else 0.0
