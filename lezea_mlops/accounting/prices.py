"""Prices, and what quantities cost by them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lezea_mlops.accounting.quantities import (
    BYTES_PER_GB,
    SECONDS_PER_HOUR,
    UNNAMED,
    Quantities,
    amount,
    short_text,
)

KINDS = ("cpu", "memory", "gpu", "io", "storage", "fixed", "energy")
DEFAULT_NAME = "default"

_NUMBERS = (
    "core_hour_eur", "gb_hour_eur", "io_gb_eur", "storage_gb_month_eur", "storage_months", "fixed_eur", "kwh_eur",
    "co2_g_per_kwh", "core_watts",
)  # fmt: skip


class Prices:
    """The prices of a run, as a ``rates`` record tells them; what is no price is left out.

    Attributes:
        rates: the numbers that are set, by name.
        gpu_hour_eur: the price of a GPU-hour by the name of the GPU; ``default`` for all others.
    """

    def __init__(self, told: Mapping[str, Any]) -> None:
        found = {name: amount(told.get(name)) for name in _NUMBERS}
        self.rates: dict[str, float] = {name: value for name, value in found.items() if value is not None}
        self.gpu_hour_eur = _by_name(told.get("gpu_hour_eur"))
        self._core_s = self.rates.get("core_hour_eur", 0.0) / SECONDS_PER_HOUR
        self._gb_s = self.rates.get("gb_hour_eur", 0.0) / SECONDS_PER_HOUR
        self._io_byte = self.rates.get("io_gb_eur", 0.0) / BYTES_PER_GB
        self._kwh = self.rates.get("kwh_eur", 0.0)
        months = self.rates.get("storage_months", 1.0)
        self._stored_byte = self.rates.get("storage_gb_month_eur", 0.0) * months / BYTES_PER_GB
        # What a second of a GPU costs of which the name is not known.
        self._unnamed_s = self.gpu_hour_eur.get(DEFAULT_NAME, 0.0) / SECONDS_PER_HOUR
        self._pay_unnamed_use = False

    def __bool__(self) -> bool:
        # Watts and grams alone cost nothing.
        return bool(self.gpu_hour_eur) or any(name.endswith("_eur") for name in self.rates)

    def as_dict(self) -> dict[str, Any]:
        """Return the prices as a ``rates`` record tells them."""
        return self.rates | ({"gpu_hour_eur": dict(self.gpu_hour_eur)} if self.gpu_hour_eur else {})

    @property
    def core_watts(self) -> float:
        """Estimated power of a busy core."""
        return self.rates.get("core_watts", 0.0)

    def learn(self, processes: Quantities) -> None:
        """Take the GPUs that the processes had: what is told of no name costs as much as they did on average."""
        named = {name: s[2] for name, s in (processes.gpus or {}).items() if name != UNNAMED and s[2] > 0}
        self._pay_unnamed_use = not named
        priced = [(self.price_of(name), paid_s) for name, paid_s in named.items()]
        known = [(price, paid_s) for price, paid_s in priced if price is not None]
        hour = self.gpu_hour_eur.get(DEFAULT_NAME, 0.0)
        if paid_s := sum(s for _price, s in known):
            hour = sum(price * s for price, s in known) / paid_s
        self._unnamed_s = hour / SECONDS_PER_HOUR

    def price_of(self, gpu: str) -> float | None:
        """Return the price of an hour of a GPU by its name; None if there is none."""
        price = self.gpu_hour_eur.get(gpu)
        return self.gpu_hour_eur.get(DEFAULT_NAME) if price is None else price

    def eur(self, used: Quantities) -> float:
        """Return what quantities cost."""
        return sum(self.by_kind(used).values())

    def by_kind(self, used: Quantities) -> dict[str, float]:
        """Return what quantities cost by kind; all but the fixed part."""
        return {
            "cpu": used.cpu_s * self._core_s,
            "memory": used.gb_s * self._gb_s,
            "gpu": self._gpu_eur(used),
            "io": used.io_bytes * self._io_byte,
            "storage": used.storage_bytes * self._stored_byte,
            "energy": used.energy_kwh(self.core_watts) * self._kwh if self._kwh else 0.0,
        }

    def _gpu_eur(self, used: Quantities) -> float:
        if used.gpus is None:
            return 0.0
        eur = 0.0
        for name, (used_s, _held_s, paid_s) in used.gpus.items():
            if name == UNNAMED:
                eur += (max(used_s, paid_s) if self._pay_unnamed_use else paid_s) * self._unnamed_s
            else:
                eur += (self.price_of(name) or 0.0) * paid_s / SECONDS_PER_HOUR
        return eur

    def unpriced(self, used: Quantities) -> list[str]:
        """Return what was used and has no price."""
        names = [name for name, s in (used.gpus or {}).items() if max(s) > 0]
        missing = [f"GPU {name}" for name in names if name != UNNAMED and self.price_of(name) is None]
        if UNNAMED in names and not self._unnamed_s and DEFAULT_NAME not in self.gpu_hour_eur:
            missing.append("GPU of unknown name")
        return missing


def _by_name(told: Any) -> dict[str, float]:
    if isinstance(told, Mapping):
        prices = {short_text(name): amount(price) for name, price in told.items()}
    else:
        prices = {DEFAULT_NAME: amount(told)}
    return {name: price for name, price in prices.items() if name is not None and price is not None}
