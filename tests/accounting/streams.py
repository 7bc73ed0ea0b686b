"""Streams of records for accounts, in plain numbers: seconds, GB, EUR."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from lezea_mlops.accounting import Accounts

US = 1_000_000
GB = 2**30
# When the streams begin, UTC microseconds.
START_US = 1_763_690_000 * US
APPROX = 1e-9

Record = tuple[str, dict[str, Any], Any, int]


def at(seconds: float) -> int:
    """Return a moment so many seconds after the start."""
    return START_US + round(seconds * US)


def sample(
    seconds: float,
    *,
    writer: str = "main",
    pid: int = 4711,
    memory_gb: float | None = None,
    children_gb: float | None = None,
    gpus: list[dict[str, Any]] | None = None,
    **process: Any,
) -> Record:
    """Return a sample of a process; further fields are those of its ``process``."""
    if memory_gb is not None:
        process["memory_bytes"] = memory_gb * GB
    if children_gb is not None:
        process["children_memory_bytes"] = children_gb * GB
    told: dict[str, Any] = {"writer": writer, "pid": pid, "period_s": 5.0, "process": process}
    if gpus is not None:
        told["gpus"] = gpus
    name = "process" if writer == "main" else f"process:{writer}"
    return "resource", {"component_id": name, "component_type": "process", "sample": told}, (), at(seconds)


def gpu(util: float = 100.0, held: bool | None = True, uuid: str = "GPU-1", **fields: Any) -> dict[str, Any]:
    """Return a GPU of a sample."""
    known = {"index": 0, "uuid": uuid, "name": "NVIDIA H200", "util_percent": util} | fields
    return known if held is None else known | {"held": held}


def use(
    component: str, wall_s: float, cpu_s: float = 0.0, *scope: tuple[str, str], **fields: Any
) -> dict[str, Any]:
    """Return a row of measured uses."""
    row = {"component_id": component, "count": 1, "wall_s": wall_s, "cpu_s": cpu_s} | fields
    return row | ({"scope": [list(pair) for pair in scope]} if scope else {})


def window(
    from_s: float,
    to_s: float,
    *uses: dict[str, Any],
    cpu_s: float | None = None,
    writer: str = "main",
    pid: int = 4711,
    **fields: Any,
) -> Record:
    """Return the uses that were measured between two moments."""
    process: dict[str, Any] = {"writer": writer, "pid": pid}
    if cpu_s is not None:
        process["cpu_s"] = cpu_s
    return "resource_use", {
        "from_us": at(from_s), "to_us": at(to_s), "process": process,
        "wall_s": sum(row["wall_s"] for row in uses), "uses": list(uses), **fields,
    }, (), at(to_s)  # fmt: skip


def logged(seconds: float, component: str, scope: Any = (), **fields: Any) -> Record:
    """Return a reading that a component logged."""
    return "resource", {"component_id": component, **fields}, scope, at(seconds)


def rates(**prices: Any) -> Record:
    """Return the prices of a run."""
    return "rates", {"rates": prices}, (), at(0)


def tree(seconds: float, *modifications: Any) -> Record:
    """Return a logged tree of modifications."""
    return "modification_tree", {"modifications": list(modifications), "step": 1}, (), at(seconds)


def told(*records: Record, accounts: Accounts | None = None) -> Accounts:
    """Return accounts that observed the records."""
    accounts = Accounts() if accounts is None else accounts
    for type_name, fields, scope, ts in records:
        accounts.observe(type_name, fields, scope, ts)
    return accounts


def through_json(accounts: Accounts, limit: int = 10_000) -> Accounts:
    """Return accounts that go on from what *accounts* stored as strict JSON."""
    restored = Accounts(limit)
    restored.restore(json.loads(json.dumps(accounts.state(), allow_nan=False)))
    return restored


def everything(accounts: Accounts) -> dict[str, Any]:
    """Return all that accounts tell."""
    return {"resources": accounts.as_dict(), "costs": accounts.costs()}


def numbers(value: Any, path: str = "") -> Iterable[tuple[str, float]]:
    """Yield every number inside *value* with its path."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from numbers(item, f"{path}/{name}")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield path, value
