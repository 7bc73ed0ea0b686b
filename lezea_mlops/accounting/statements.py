"""What accounts tell: resources in hours, costs in EUR."""

from __future__ import annotations

from typing import Any

from lezea_mlops.accounting.modifications import ACCEPTED, REJECTED, VERDICTS, Sums
from lezea_mlops.accounting.prices import KINDS, Prices
from lezea_mlops.accounting.quantities import SECONDS_PER_HOUR, UNNAMED, Quantities, larger_of

UNKNOWN_GPUS = "(unknown)"


def resources(
    processes: Quantities,
    parts: Quantities,
    reported: Quantities,
    core_watts: float,
    peak_memory_mb: float,
) -> dict[str, Any]:
    """Return what was used in all, by the processes, and by nothing that is known.

    Args:
        processes: what samples and counters tell of the processes.
        parts: the sum of what components measured and logged, and of what was reported of single scopes.
        reported: all that ``log_resource_cost`` reported.
        core_watts: estimated power of a busy core.
        peak_memory_mb: the most memory of a process.
    """
    total = larger_of(processes, parts)
    whole, known = total.as_dict(core_watts), parts.as_dict(core_watts)
    told: dict[str, Any] = {
        "total": {"samples": total.samples, **whole},
        "process": {
            "samples": processes.samples, **processes.as_dict(core_watts), "peak_memory_mb": peak_memory_mb,
        },
        "unattributed": {name: max(0.0, value - known[name]) for name, value in whole.items()},
        "gpus": {
            name or UNKNOWN_GPUS: {"used_hours": used_s / SECONDS_PER_HOUR, "held_hours": held_s / SECONDS_PER_HOUR}
            for name, (used_s, held_s, _paid_s) in (total.gpus or {}).items()
        },
    }  # fmt: skip
    if reported.cpu_s or reported.gb_s or reported.io_bytes:
        told["reported"] = reported.as_dict(core_watts)
    return told


def costs(processes: Quantities, parts: Quantities, stated: Quantities, prices: Prices) -> dict[str, Any]:
    """Return what the run cost by kind, its energy, and what has no price; None in EUR where no rate is set."""
    prices.learn(processes)
    total = larger_of(larger_of(processes, stated), parts)
    energy_kwh = total.energy_kwh(prices.core_watts)
    grams = prices.rates.get("co2_g_per_kwh")
    by_kind = _by_kind(total, parts, prices) if prices else {}
    return {
        "eur": sum(by_kind.values()) if prices else None,
        "parts": by_kind,
        "energy_kwh": energy_kwh,
        "co2_g": None if grams is None else energy_kwh * grams,
        "unpriced": prices.unpriced(total) if prices else [],
    }


def _by_kind(total: Quantities, parts: Quantities, prices: Prices) -> dict[str, float]:
    by_kind = prices.by_kind(total)
    # Hours of GPUs without a name are hours of those with one, where the processes had such.
    named = Quantities()
    named.gpus = {name: seconds for name, seconds in (total.gpus or {}).items() if name != UNNAMED}
    by_kind["gpu"] = max(prices.by_kind(named)["gpu"], prices.by_kind(parts)["gpu"])
    by_kind["fixed"] = prices.rates.get("fixed_eur", 0.0)
    return {kind: by_kind[kind] for kind in KINDS}


def modification_costs(sums: Sums, prices: Prices) -> dict[str, Any]:
    """Return what modifications cost by verdict and by operator."""
    verdicts: dict[str, dict[str, Any]] = {
        verdict: {"count": 0, "eur": 0.0 if prices else None} for verdict in VERDICTS
    }
    by_type: dict[str, dict[str, Any]] = {}
    for (operator, verdict), found in sums.items():
        eur = prices.eur(found.used) if prices else None
        verdicts[verdict]["count"] += found.count
        row = by_type.setdefault(
            operator,
            {"accepted": 0, "rejected": 0, "undecided": 0} | {f"{v}_eur": 0.0 for v in verdicts if prices},
        )
        row[verdict] += found.count
        if eur is not None:
            verdicts[verdict]["eur"] += eur
            row[f"{verdict}_eur"] += eur
    accepted = verdicts[ACCEPTED]["count"]
    decided = [verdicts[verdict]["eur"] for verdict in (ACCEPTED, REJECTED)]
    per_accepted = sum(decided) / accepted if prices and accepted else None
    return {**verdicts, "per_accepted_eur": per_accepted, "by_type": by_type}
