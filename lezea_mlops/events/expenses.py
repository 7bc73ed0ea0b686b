"""What a run uses and costs, as events: readings, measured use, totals, prices, budgets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from lezea_mlops.events.scoped import EventInScope, JsonObject, Number


class ResourceLogged(EventInScope):
    """What a component used: CPU percent of one core, memory in MB, GPU percent, IO operations.

    One that the driver sampled has ``sample`` beside them: what was read of processes, GPUs and host.
    """

    type: ClassVar[str] = "resource"
    __slots__ = ()
    component_id: str
    component_type: str | None = None
    cpu_percent: Number | None = None
    memory_mb: Number | None = None
    gpu_util_percent: Number | None = None
    io_operations: Number | None = None
    sample: JsonObject | None = None


class ResourcesUsed(EventInScope):
    """What ``measure`` summed between two moments (UTC microseconds), one row for each component and scope.

    Times of rows are in seconds and exclusive: what an inner use took is not in the outer one's.
    """

    type: ClassVar[str] = "resource_use"
    __slots__ = ()
    from_us: int
    to_us: int
    process: JsonObject
    wall_s: float
    uses: Sequence[JsonObject]
    part: int | None = None
    parts: int | None = None


class ResourceTotals(EventInScope):
    """What an attempt had used and cost in all when it ended: integrals over time, by component, type and scope."""

    type: ClassVar[str] = "resource_totals"
    __slots__ = ()
    resources: JsonObject
    costs: JsonObject


class RatesSet(EventInScope):
    """The prices that costs of this run are computed with, in EUR."""

    type: ClassVar[str] = "rates"
    __slots__ = ()
    rates: JsonObject


class BudgetSet(EventInScope):
    """What the run, or a branch of it, may cost; passing it warns and stops nothing."""

    type: ClassVar[str] = "budget"
    __slots__ = ()
    branch: str
    budget_eur: Number


class BudgetReached(EventInScope):
    """A share of a budget is spent."""

    type: ClassVar[str] = "budget_reached"
    __slots__ = ()
    branch: str
    budget_eur: Number
    spent_eur: Number
    share: float


class ResourceCostLogged(EventInScope):
    """Resources consumed: CPU hours, memory in GB, IO in bytes (spec 1.7)."""

    type: ClassVar[str] = "resource_cost"
    __slots__ = ()
    cpu_hours: Number | None = None
    mem_gb: Number | None = None
    io_bytes: Number | None = None


class BusinessMetricsLogged(EventInScope):
    """Business numbers by name, for instance ``resource_cost_eur``."""

    type: ClassVar[str] = "business"
    __slots__ = ()
    metrics: JsonObject
