"""Where a run is to be delivered to, kept in its folder: whoever delivers it later need not be told again."""

from __future__ import annotations

import json
import logging
import os
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from lezea_mlops._files import replace_atomically
from lezea_mlops.config import Settings
from lezea_mlops.journal import RunFolder
from lezea_mlops.sinks.base import without_credentials

log = logging.getLogger("lezea_mlops")

# These say something else, for instance where a run is to be moved to.
_MLFLOW_VARIABLES = ("LEZEA_MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI")
_MONGO_VARIABLE = "LEZEA_MONGO_URI"
# Options of a MongoDB URI that say how to connect and hold no secret.
_MONGO_OPTIONS = frozenset({"replicaset", "directconnection", "tls", "ssl", "tlscafile", "w", "journal"})


def remember_destinations(folder: RunFolder, settings: Settings) -> None:
    """Write down where the run is delivered to; a password or a token in an address is not."""
    content = {
        "v": 1,
        "mlflow_tracking_uri": _without_secrets(settings.mlflow_tracking_uri),
        "mlflow_artifact_location": settings.mlflow_artifact_location,
        "mongo_uri": settings.mongo_uri and _mongo_without_secrets(settings.mongo_uri),
    }
    try:
        replace_atomically(folder.destinations, json.dumps(content).encode())
    except OSError as error:
        log.warning("where the run in %s is delivered to cannot be written down: %s", folder.path, error)


def _without_secrets(uri: str) -> str:
    """Return *uri* without what may be secret; one that holds no secret stays as it was written."""
    # A profile in ``databricks://Profile`` is a name, and would be lost in small letters.
    return without_credentials(uri) if "@" in uri or "?" in uri else uri


def _mongo_without_secrets(uri: str) -> str:
    """Return *uri* without user, password and the options that may hold a secret."""
    parts = urlsplit(uri)
    options = [(name, value) for name, value in parse_qsl(parts.query) if name.lower() in _MONGO_OPTIONS]
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path or "/", urlencode(options), ""))


def as_remembered(
    folder: RunFolder, settings: Settings, environ: Mapping[str, str] | None = None
) -> Settings:
    """Return *settings* with the destinations that the run remembers, unless the environment names others."""
    environ = os.environ if environ is None else environ
    try:
        content = json.loads(folder.destinations.read_bytes())
        uri, location = content["mlflow_tracking_uri"], content["mlflow_artifact_location"]
        mongo_uri = content.get("mongo_uri")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # A run of former days, or of another program: the settings are all there is.
        return settings
    known = isinstance(uri, str) and isinstance(location, (str, type(None)))
    if known and not any(environ.get(name) for name in _MLFLOW_VARIABLES):
        settings = replace(settings, mlflow_tracking_uri=uri, mlflow_artifact_location=location)
    if not environ.get(_MONGO_VARIABLE) and isinstance(mongo_uri, str):
        settings = replace(settings, mongo_uri=mongo_uri)
    return settings


def sync_command(folder: RunFolder) -> str:
    """Return the command that delivers the run, as it can be typed in the folder where the program runs."""
    runs_dir = Path(os.environ.get("LEZEA_RUNS_DIR") or "runs")
    try:
        known = runs_dir.expanduser().absolute() == folder.path.parent
    except (OSError, RuntimeError):
        # The working folder was deleted, or there is no such home.
        known = False
    return f"lezea sync {folder.run_id if known else shlex.quote(str(folder.path))}"
