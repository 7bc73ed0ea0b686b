"""What can be set, by argument, by environment variable, by default; in that order."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lezea_mlops.config.rates import VARIABLE_PREFIX, Rates, read_rates
from lezea_mlops.errors import ConfigurationError

NO_RATES = Rates()


@dataclass(frozen=True)
class Settings:
    """All settings of a tracker; paths are absolute, so that a later ``os.chdir`` changes nothing.

    Attributes:
        runs_dir: where run folders are made (``LEZEA_RUNS_DIR``, ``./runs``).
        mlflow_tracking_uri: MLflow's store or server (``LEZEA_MLFLOW_TRACKING_URI``, then
            ``MLFLOW_TRACKING_URI``, then ``sqlite:///<cwd>/mlflow.db``).
        mlflow_artifact_location: where a local store keeps artifacts; None lets the server decide.
        mongo_uri: MongoDB's server and database (``LEZEA_MONGO_URI``); None: no MongoDB. The database is the one that
            the URI names, else ``lezea``.
        mode: ``online``, ``offline`` (journal only) or ``off`` (no file, thread or socket) (``LEZEA_MODE``).
        strict: mistakes raise (``LEZEA_STRICT``).
        experiment_id: an id from outside, shared by the processes of one run (``LEZEA_EXPERIMENT_ID``).
        durability: ``process``, ``interval`` or ``record`` (``LEZEA_DURABILITY``).
        capture: ``copy`` or ``reference`` for files that are logged.
        capture_max_mb: largest file that is copied (``LEZEA_CAPTURE_MAX_MB``).
        close_timeout_s: the one deadline of ``end`` (``LEZEA_CLOSE_TIMEOUT_S``).
        start_timeout_s: how long ``start`` waits for backends when it waits at all.
        courier: which driver delivers: ``process`` or ``thread`` (``LEZEA_COURIER``).
        redact: secrets are removed before anything is journaled.
        sample_period_s: how often the driver samples what the run uses; 0: never (``LEZEA_SAMPLE_PERIOD_S``).
        prometheus_port: where ``start`` is given no port of its own: that port or the next free one, 0 for any, or
            ``off`` (``LEZEA_PROMETHEUS_PORT``).
        prometheus_address: the address that Prometheus is served on (``LEZEA_PROMETHEUS_ADDRESS``).
        prometheus_targets: folder for the addresses that Prometheus finds runs by; None: ``prometheus`` in
            ``runs_dir`` (``LEZEA_PROMETHEUS_TARGETS``).
        prometheus_textfile: folder for files of metrics, instead of a port; None: a port
            (``LEZEA_PROMETHEUS_TEXTFILE``).
        rates: what is to be paid for: a mapping of prices by name, or a file of them (``LEZEA_RATES``, and single ones
            as ``LEZEA_RATE_CORE_HOUR_EUR``).
        budget_eur: what a run may cost before it is warned about; None: no budget (``LEZEA_BUDGET_EUR``).
    """

    runs_dir: Path
    mlflow_tracking_uri: str
    mlflow_artifact_location: str | None = None
    mongo_uri: str | None = None
    mode: str = "online"
    strict: bool = False
    experiment_id: str | None = None
    durability: str = "interval"
    capture: str = "copy"
    capture_max_mb: float = 256.0
    close_timeout_s: float = 10.0
    start_timeout_s: float = 30.0
    courier: str = "thread" if sys.platform == "win32" else "process"
    redact: bool = True
    sample_period_s: float = 5.0
    prometheus_port: int | str = 8000
    prometheus_address: str = "127.0.0.1"
    prometheus_targets: Path | None = None
    prometheus_textfile: Path | None = None
    rates: Rates = NO_RATES
    budget_eur: float | None = None


def _choice(*allowed: str) -> Callable[[str, Any], str]:
    def check(name: str, value: Any) -> str:
        if value not in allowed:
            raise ConfigurationError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")
        return str(value)

    return check


def _flag(name: str, value: Any) -> bool:
    words = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
    }
    if isinstance(value, bool):
        return value
    if str(value).lower() not in words:
        raise ConfigurationError(f"{name} is {value!r}; it must be one of {', '.join(words)}")
    return words[str(value).lower()]


def _not_negative(name: str, value: Any) -> float:
    return _number(name, value, "a number, zero or above", lambda number: number >= 0)


def _positive(name: str, value: Any) -> float:
    return _number(name, value, "a number above zero", lambda number: number > 0)


def _number(name: str, value: Any, wanted: str, fits: Callable[[float], bool]) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and fits(number)):
        raise ConfigurationError(f"{name} is {value!r}; it must be {wanted}")
    return number


def _folder(name: str, value: Any) -> Path:
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ConfigurationError(f"{name} is {value!r}; it must be the path of a folder")
    return Path(value).expanduser().absolute()


# What says that there shall be no port.
NO_PORT = "off"
MAX_PORT = 65535


def check_port(name: str, value: Any) -> int | str:
    """Return *value* as a port from 0 (any free one) to 65535, or ``off``."""
    if isinstance(value, str) and value.strip().lower() in (NO_PORT, "none"):
        return NO_PORT
    text = value.strip() if isinstance(value, str) else value
    whole = isinstance(text, int) or (isinstance(text, str) and text.isascii() and text.isdecimal())
    if isinstance(value, bool) or not whole or not 0 <= int(text) <= MAX_PORT:
        raise ConfigurationError(
            f"{name} is {value!r}; it must be a whole number from 0 (any free port) to {MAX_PORT}, or {NO_PORT!r}"
        )
    return int(text)


def _address(name: str, value: Any) -> str:
    try:
        return str(ip_address(value.strip() if isinstance(value, str) else value))
    except ValueError:
        raise ConfigurationError(
            f"{name} is {value!r}; it must be an IP address of this machine, such as 127.0.0.1 (only this machine) or "
            "0.0.0.0 (whoever can reach it)"
        ) from None


def _known_place(name: str, value: Any) -> Any:
    """Return what names prices as it is: all their places together make the rates, see ``_all_rates``."""
    if isinstance(value, (Rates, Mapping)):
        return value
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ConfigurationError(
            f"{name} is {value!r}; it must be the path of a file of prices, or prices by name such as "
            '{"core_hour_eur": 0.04}'
        )
    return _folder(name, value)


def _all_rates(given: Any, environ: Mapping[str, str]) -> Rates:
    """Return the prices: given ones above single variables, and these above a file."""
    if isinstance(given, Rates):
        return given
    variable = f"{VARIABLE_PREFIX.rstrip('_')}S"
    file = environ.get(variable) if given is None or isinstance(given, Mapping) else given
    prices = given if isinstance(given, Mapping) else None
    return read_rates(_folder("rates", file) if file else None, environ, prices)


def check_experiment_id(name: str, value: Any) -> str:
    """Return *value* if it can be an experiment id, which is also a folder's name and part of a URL."""
    allowed = isinstance(value, str) and value.replace("-", "").replace("_", "").isalnum() and value.isascii()
    if not allowed or not 1 <= len(value) <= 128:
        raise ConfigurationError(
            f"{name} is {value!r}; it must be 1 to 128 ASCII letters, digits, hyphens and underscores"
        )
    return str(value)


def _uri(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(
            f"{name} is {value!r}; it must be a URI such as http://host:5000 or sqlite:///x.db"
        )
    try:
        return absolute_uri(value.strip())
    except ValueError:
        raise ConfigurationError(
            # What stands before the last @ may be a password.
            f"{name} is {value.rpartition('@')[2]!r}, which is no URI; it must be one such as http://host:5000 or "
            "sqlite:///x.db"
        ) from None


def _mongo_uri(name: str, value: Any) -> str:
    uri = value.strip() if isinstance(value, str) else ""
    if not uri.startswith(("mongodb://", "mongodb+srv://")):
        # What stands before the last @ may be a password.
        shown = value.rpartition("@")[2] if isinstance(value, str) else value
        raise ConfigurationError(
            f"{name} is {shown!r}; it must be a URI such as mongodb://127.0.0.1:27017/lezea?replicaSet=rs0"
        )
    rest = uri.partition("://")[2]
    behind_user = re.sub("^[^/?#@]*@", "", rest)
    place = behind_user.partition("?")[0]
    if "@" in (place if "/" in place else behind_user):
        raise ConfigurationError(
            f"{name} names the host {rest.rpartition('@')[2]!r} behind a user or a password with the signs / ? # or @; "
            "they must be escaped there: urllib.parse.quote_plus does it"
        )
    return uri


# What MLflow takes for a store by its name alone.
_NAMED_STORES = ("databricks", "databricks-uc")


def absolute_uri(uri: str) -> str:
    """Make the path of a relative SQLite URI or of a bare folder absolute."""
    prefix = "sqlite:///"
    if uri.startswith(prefix) and not uri.startswith(prefix + "/") and uri != "sqlite:///:memory:":
        return prefix + str(Path(uri[len(prefix) :]).absolute())
    return uri if urlsplit(uri).scheme or uri in _NAMED_STORES else str(Path(uri).absolute())


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "runs_dir": _folder,
    "mlflow_tracking_uri": _uri,
    "mlflow_artifact_location": _uri,
    "mongo_uri": _mongo_uri,
    "mode": _choice("online", "offline", "off"),
    "strict": _flag,
    "experiment_id": check_experiment_id,
    "durability": _choice("process", "interval", "record"),
    "capture": _choice("copy", "reference"),
    "capture_max_mb": _not_negative,
    "close_timeout_s": _not_negative,
    "start_timeout_s": _not_negative,
    "courier": _choice("process", "thread"),
    "redact": _flag,
    "sample_period_s": _not_negative,
    "prometheus_port": check_port,
    "prometheus_address": _address,
    "prometheus_targets": _folder,
    "prometheus_textfile": _folder,
    "rates": _known_place,
    "budget_eur": _positive,
}

_VARIABLES: dict[str, tuple[str, ...]] = {name: (f"LEZEA_{name.upper()}",) for name in _CHECKS}
_VARIABLES["mlflow_tracking_uri"] = ("LEZEA_MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI")


def load_settings(
    settings: Mapping[str, Any] | Settings | None = None,
    environ: Mapping[str, str] | None = None,
    **arguments: Any,
) -> Settings:
    """Put settings together.

    Args:
        settings: a mapping of names to values, or settings that are complete: then the environment adds nothing.
        environ: environment variables; those of this process if None.
        arguments: single settings, before all others; None counts as not given.

    Raises:
        ConfigurationError: a name or a value is wrong; the message names it and what is allowed.
    """
    if isinstance(settings, Settings):
        environ = {}
    environ = os.environ if environ is None else environ
    given = _as_mapping(settings) | {name: value for name, value in arguments.items() if value is not None}
    values: dict[str, Any] = {}
    for name, check in _CHECKS.items():
        if name in given:
            values[name] = check(name, given[name])
            continue
        variable = next((v for v in _VARIABLES[name] if environ.get(v)), None)
        if variable is not None:
            values[name] = check(variable, environ[variable])
    values["rates"] = _all_rates(given.get("rates"), environ)
    values.setdefault("runs_dir", Path("runs").absolute())
    values.setdefault("prometheus_targets", values["runs_dir"] / "prometheus")
    if "mlflow_tracking_uri" not in values:
        values["mlflow_tracking_uri"] = f"sqlite:///{Path('mlflow.db').absolute()}"
    if values["mlflow_tracking_uri"].startswith("sqlite:"):
        values.setdefault("mlflow_artifact_location", Path("mlartifacts").absolute().as_uri())
    return Settings(**values)


def _as_mapping(settings: Mapping[str, Any] | Settings | None) -> dict[str, Any]:
    if settings is None:
        return {}
    if isinstance(settings, Settings):
        return {
            field.name: value
            for field in fields(settings)
            if (value := getattr(settings, field.name)) is not None
        }
    if not isinstance(settings, Mapping):
        raise ConfigurationError(f"settings is {settings!r}; it must be a mapping of names to values")
    for name in settings:
        if name not in _CHECKS:
            near = get_close_matches(str(name), _CHECKS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(_CHECKS)}"
            raise ConfigurationError(f"settings has the unknown name {name!r}{hint}")
    return {name: value for name, value in settings.items() if value is not None}
