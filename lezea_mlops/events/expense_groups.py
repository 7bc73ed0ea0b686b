"""The numbers that records of resources and costs bring, under the names that MLflow and a run's history show.

Any program may have written a record: nothing here raises, and what is no number is left to whoever makes points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from lezea_mlops.events.codec import Envelope
from lezea_mlops.events.numeric import as_number

_READINGS = ("cpu_percent", "memory_mb", "gpu_util_percent", "io_operations")
# Of all that is known of a GPU, what a person looks for in curves.
_OF_A_GPU = ("util_percent", "power_w", "temperature_c")
_BYTES_PER_MB = 2**20

Fields = Mapping[str, Any]


class Group(NamedTuple):
    """Numbers that stand together.

    Attributes:
        numbers: by name; what is none is to be left out.
        path: the parts of their names between the scope and their own.
        step: the step, if it is a whole number.
        individual: they belong to one component of many.
    """

    numbers: Any
    path: tuple[str, ...]
    step: Any
    individual: bool = False


def expense_groups(record: Envelope) -> Iterator[Group]:
    """Yield the groups of a record of resources or costs; nothing for other types."""
    groups = _GROUPS.get(record.type)
    if groups is not None:
        yield from groups(record, record.payload)


def _resource(record: Envelope, p: Fields) -> Iterator[Group]:
    sample, used = _object(p.get("sample")), {name: p.get(name) for name in _READINGS}
    component = p.get("component_id")
    # The processes of a run are few; components are as many as there are individuals.
    path = ("resources", component if isinstance(component, str) else str(component))
    yield Group(used, path, record.seq, not sample)
    gpus = sample.get("gpus")
    for gpu in map(_object, gpus if isinstance(gpus, list) else []):
        figures = {name: gpu.get(name) for name in _OF_A_GPU}
        figures["memory_mb"] = _megabytes(gpu.get("memory_used_bytes"))
        yield Group(figures, ("resources", f"gpu{gpu.get('index')}"), record.seq)
    host = _object(sample.get("host"))
    if host:
        memory_mb = _megabytes(host.get("memory_used_bytes"))
        figures = {"cpu_percent": host.get("cpu_percent"), "memory_mb": memory_mb}
        yield Group(figures, ("resources", "host"), record.seq)


def _resource_totals(record: Envelope, p: Fields) -> Iterator[Group]:
    resources, costs = _object(p.get("resources")), _object(p.get("costs"))
    for name in ("total", "unattributed"):
        yield Group(resources.get(name), ("resources", name), record.att)
    modifications = _object(costs.get("modifications"))
    figures = {f"{name}_eur": value for name, value in _object(costs.get("parts")).items()}
    figures |= {"eur": costs.get("eur"), "co2_g": costs.get("co2_g")}
    for verdict in ("accepted", "rejected"):
        figures[f"{verdict}_modifications_eur"] = _object(modifications.get(verdict)).get("eur")
    figures["per_accepted_modification_eur"] = modifications.get("per_accepted_eur")
    yield Group(figures, ("cost", "total"), record.att)


def _resource_cost(record: Envelope, p: Fields) -> Iterator[Group]:
    yield Group(
        {name: value for name, value in p.items() if name not in ("run_id", "scope")}, ("cost",), record.seq
    )


def _business(record: Envelope, p: Fields) -> Iterator[Group]:
    yield Group(p.get("metrics"), ("cost",), record.seq)


def _object(value: Any) -> Fields:
    return value if isinstance(value, Mapping) else {}


def _megabytes(value: Any) -> float | None:
    number = as_number(value)
    return None if number is None else number / _BYTES_PER_MB


_GROUPS: dict[str, Callable[[Envelope, Fields], Iterator[Group]]] = {
    "resource": _resource,
    "resource_totals": _resource_totals,
    "resource_cost": _resource_cost,
    "business": _business,
}
