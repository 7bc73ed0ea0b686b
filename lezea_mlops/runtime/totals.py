"""What a run used and cost in all, as it stands in a summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# They have a row for each of many; their place is the record of the totals.
_TABLES = ("components", "types", "scopes")


def with_totals(summary: dict[str, Any], usage: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a summary with the totals of all that was sampled in place of those that one process knows of."""
    brief = brief_totals(usage)
    return summary | brief | {"costs": summary["costs"] | brief.get("costs", {})}


def brief_totals(usage: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return resources and costs as they stand in a summary; nothing where nobody added them up."""
    if usage is None:
        return {}
    resources, costs = (_object(usage.get(name)) for name in ("resources", "costs"))
    brief = {"resources": resources.get("total"), "unattributed": resources.get("unattributed")}
    shown = {name: value for name, value in costs.items() if name not in _TABLES}
    return {name: value for name, value in brief.items() if value is not None} | {"costs": shown}


def _object(value: Any) -> Mapping[str, Any]:
    """Return what a record tells, if it tells anything."""
    return value if isinstance(value, Mapping) else {}
