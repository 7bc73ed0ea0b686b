"""Prices in EUR: from a YAML file, the environment above it, and arguments above both; each checked once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lezea_mlops.errors import ConfigurationError

if TYPE_CHECKING:
    from omegaconf import OmegaConf

VARIABLE_PREFIX = "LEZEA_RATE_"
# The price of all GPUs that are not named.
DEFAULT_GPU = "default"
# Nothing that is measured here costs more for one; what is above it is a slip of the pen.
LARGEST = 1e9


@dataclass(frozen=True)
class Rates:
    """What is to be paid for; None: not set, and then it costs nothing.

    Attributes:
        core_hour_eur: an hour of one processor core.
        gb_hour_eur: an hour of one GB (2**30 bytes) of memory.
        gpu_hour_eur: an hour of a GPU; by the names of GPUs where they differ, with ``default`` for all others.
        io_gb_eur: a GB (2**30 bytes) read or written.
        storage_gb_month_eur: a GB (2**30 bytes) of files kept for a month.
        storage_months: for how many months files are kept; 1 if it is not set.
        fixed_eur: what the run costs in any case.
        kwh_eur: a kWh of electricity.
        co2_g_per_kwh: grams of CO2 that a kWh stands for.
        core_watts: power of a busy core, for an estimate of the energy that no meter tells; 0 if it is not set.
    """

    core_hour_eur: float | None = None
    gb_hour_eur: float | None = None
    gpu_hour_eur: float | Mapping[str, float] | None = None
    io_gb_eur: float | None = None
    storage_gb_month_eur: float | None = None
    storage_months: float | None = None
    fixed_eur: float | None = None
    kwh_eur: float | None = None
    co2_g_per_kwh: float | None = None
    core_watts: float | None = None

    @property
    def any(self) -> bool:
        """Whether anything is set."""
        return bool(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """Return what is set, by name."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in named.items()
            if value is not None
        }


NAMES = tuple(field.name for field in fields(Rates))


def read_rates(
    file: Path | None, environ: Mapping[str, str], given: Mapping[str, Any] | None = None
) -> Rates:
    """Put the prices together.

    Args:
        file: a YAML file with a line for each price, such as ``configs/rates.yaml``; None: there is none.
        environ: environment variables; ``LEZEA_RATE_CORE_HOUR_EUR`` and so on stand above the file.
        given: prices by name that stand above both; None as a price counts as not given.

    Raises:
        ConfigurationError: the file cannot be read, or a name or a value is wrong; the message names where it stands,
            what was found and what is allowed.
    """
    values: dict[str, Any] = {}
    if file is not None:
        values |= _checked(_read_file(file), f"{file}: {{}}".format)
    variables = {
        variable.removeprefix(VARIABLE_PREFIX).lower(): _number_in(text)
        for variable, text in environ.items()
        if variable.startswith(VARIABLE_PREFIX) and text
    }
    values |= _checked(variables, lambda name: VARIABLE_PREFIX + name.upper())
    if given is not None and not isinstance(given, Mapping):
        raise ConfigurationError(f"rates is {given!r:.80}; it must be a mapping of names to prices in EUR")
    values |= _checked(given or {}, "rates: {}".format)
    return Rates(**values)


def _read_file(file: Path) -> Mapping[Any, Any]:
    """Return what a YAML file says, with its interpolations resolved."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError  # type: ignore[import-untyped]

    try:
        content = _loaded(file, OmegaConf)
    except OSError as error:
        raise ConfigurationError(
            f"{file}: the file of rates cannot be read: {error.strerror or error}"
        ) from error
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{file}: the file of rates is no YAML of names and prices: {error}"
        ) from error
    if not isinstance(content, Mapping):
        raise ConfigurationError(
            f"{file}: found {content!r:.80}; expected a line for each price, such as core_hour_eur: 0.04"
        )
    return content


def _loaded(file: Path, library: type[OmegaConf]) -> Any:
    return library.to_container(library.load(file), resolve=True)


def _number_in(text: str) -> Any:
    """Return the number that a variable holds; its text where it holds none, for the message."""
    try:
        return float(text)
    except ValueError:
        return text


def _checked(values: Mapping[Any, Any], place_of: Callable[[str], str]) -> dict[str, Any]:
    """Return the prices that are set.

    Args:
        values: what was found, by name.
        place_of: returns how a message calls the place of a name.
    """
    checked: dict[str, Any] = {}
    for name, value in values.items():
        if name not in NAMES:
            near = get_close_matches(str(name), NAMES, n=1)
            # A variable that is to be mended is named as a variable.
            hint = f"did you mean {_spelled(near[0], place_of)}?" if near else f"known are {', '.join(NAMES)}"
            raise ConfigurationError(f"{place_of(str(name))} is no rate; {hint}")
        if value is not None:
            checked[name] = _price(name, value, place_of(name))
    return checked


def _spelled(name: str, place_of: Callable[[str], str]) -> str:
    place = place_of(name)
    return place if place.startswith(VARIABLE_PREFIX) else repr(name)


def _price(name: str, value: Any, place: str) -> Any:
    if name != "gpu_hour_eur" or not isinstance(value, Mapping):
        by_name = ", or such a number by name of the GPU" if name == "gpu_hour_eur" else ""
        return _number(value, place, by_name)
    prices = {}
    for gpu, price in value.items():
        if not isinstance(gpu, str) or not gpu:
            raise ConfigurationError(
                f"{place} names the GPU {gpu!r}; it must be a name as the driver tells it, such as "
                f"'NVIDIA H200', or {DEFAULT_GPU!r} for all others"
            )
        prices[gpu] = _number(price, f"{place}[{gpu!r}]", "")
    return prices


def _number(value: Any, place: str, otherwise: str) -> float:
    kind = type(value)
    # Of NaN both comparisons are false.
    if (kind is int or kind is float) and 0 <= value <= LARGEST:
        return float(value)
    raise ConfigurationError(
        f"{place} is {value!r:.80}; it must be a number from 0 to {LARGEST:,.0f}{otherwise}, without a unit"
    )
