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
    resources = usage["resources"]
    costs = {name: value for name, value in usage["costs"].items() if name not in _TABLES}
    return {"resources": resources["total"], "unattributed": resources["unattributed"], "costs": costs}
