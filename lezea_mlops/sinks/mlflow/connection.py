"""A client for MLflow's store or server, and what its failures mean. Only ``MlflowClient``: never the fluent API, the
global URI or the active run, which belong to the user."""

from __future__ import annotations

import contextlib
import http.client
import logging
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

from lezea_mlops._files import locked
from lezea_mlops._lazy import require
from lezea_mlops.errors import MissingDependencyError
from lezea_mlops.sinks.base import Rejected, Unavailable, without_credentials
from lezea_mlops.sinks.messages import first_line

PROBE_TIMEOUT_S = 3.0
_SQLITE = "sqlite:///"
# What a gateway answers to a file that is too large for it, whoever sends it and how often.
_TOO_LARGE = (413, 414)
# What these tell while they work for us, a training program's output is not the place for: how tables are made, line
# by line, and every failure and retry, which the shipper tells once. What they do for the user's own calls they tell.
_TALKATIVE = (
    "alembic.runtime.migration", "alembic.runtime.plugins.autogenerate", "alembic.runtime.plugins.setup",
    "mlflow.store.db.utils", "mlflow.store.tracking.sqlalchemy_store", "mlflow.utils.rest_utils",
    "urllib3.connectionpool",
)  # fmt: skip


class RunGone(Unavailable):
    """The run or the experiment is not there, or not active."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "removed")


def connect(uri: str) -> Any:
    """Return an ``MlflowClient`` of a store or server that answers.

    Raises:
        Unavailable: it does not answer, or cannot be used.
    """
    if _address(uri).scheme in ("", "file"):
        raise Unavailable(
            f"MLflow's file store ({without_credentials(uri)}) keeps repeated points twice and is in maintenance mode; "
            "set LEZEA_MLFLOW_TRACKING_URI to sqlite:///mlflow.db or to the address of a server",
            "configuration",
        )
    probe(uri)
    try:
        tracking = require("mlflow.tracking", package="mlflow", needed_for="delivery to MLflow")
    except MissingDependencyError as error:
        raise Unavailable(str(error), "missing_dependency") from error
    with translated_errors(uri), _first_opening(uri):
        client = tracking.MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    return client


def probe(uri: str) -> None:
    """Ask a server whether it is there, with a short time-out: MLflow's own takes minutes to give up.

    Raises:
        Unavailable: nothing answers, or the answer is a fault of the server's.
    """
    parts = _address(uri)
    if parts.scheme not in ("http", "https"):
        return
    shown = without_credentials(uri)
    health = urlunsplit(
        (parts.scheme, parts.netloc.rpartition("@")[2], f"{parts.path.rstrip('/')}/health", "", "")
    )
    try:
        with urllib.request.urlopen(health, timeout=PROBE_TIMEOUT_S):
            return
    except urllib.error.HTTPError as error:
        # A server behind a gateway may not know /health; it is there nevertheless.
        if error.code >= 500:
            raise Unavailable(f"MLflow at {shown} answers HTTP {error.code}", "error") from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            # It is there; whether its certificate is trusted, MLflow decides by settings of its own.
            return
        timed_out = isinstance(reason, TimeoutError)
        what = (
            f"does not answer within {PROBE_TIMEOUT_S:g} s" if timed_out else f"cannot be reached ({reason})"
        )
        raise Unavailable(f"MLflow at {shown} {what}", "timeout" if timed_out else "unreachable") from error
    except (http.client.HTTPException, ValueError) as error:
        raise Unavailable(
            f"{shown} is no address of an MLflow server: {first_line(error)}", "configuration"
        ) from error


def _address(uri: str) -> SplitResult:
    try:
        return urlsplit(uri)
    except ValueError as error:
        raise Unavailable(f"{without_credentials(uri)} is no address: {error}", "configuration") from error


@contextlib.contextmanager
def _first_opening(uri: str) -> Iterator[None]:
    """Let one process at a time make the tables of a SQLite store: three at once destroy a fresh one."""
    path = uri[len(_SQLITE) :].partition("?")[0] if uri.startswith(_SQLITE) else ""
    if not path or path == ":memory:":
        yield
        return
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with locked(Path(f"{path}.init.lock")):
            yield
    except OSError as error:
        raise Unavailable(f"MLflow's store {path} cannot be opened: {error}", "configuration") from error


@contextlib.contextmanager
def translated_errors(uri: str) -> Iterator[None]:
    """Turn the errors of MLflow and the libraries below it into what a sink may say, and keep them quiet."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with _quiet():
            yield
    except (Unavailable, Rejected):
        raise
    except MlflowException as error:
        raise _judged(error, uri) from error
    except (SQLAlchemyError, OSError) as error:
        message = f"MLflow at {without_credentials(uri)}: {first_line(error)}"
        if getattr(getattr(error, "response", None), "status_code", None) in _TOO_LARGE:
            raise Rejected(message) from error
        raise Unavailable(message, _reason(str(error))) from error


class _NotOurs(logging.Filter):
    """Lets pass what other threads have done, none of which deliver for us."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(_OURS, "quiet", False)


_OURS = threading.local()
_NOT_OURS = _NotOurs()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    for name in _TALKATIVE:
        # Adding it twice does nothing; no level, handler or setting of the user's is touched.
        logging.getLogger(name).addFilter(_NOT_OURS)
    before = getattr(_OURS, "quiet", False)
    _OURS.quiet = True
    try:
        yield
    finally:
        _OURS.quiet = before


def _judged(error: Any, uri: str) -> Exception:
    message = f"MLflow at {without_credentials(uri)}: {first_line(error)}"
    if error.error_code == "RESOURCE_DOES_NOT_EXIST" or "must be in the 'active' state" in str(error):
        return RunGone(message)
    if error.error_code == "INVALID_PARAMETER_VALUE":
        return Rejected(message)
    return Unavailable(message, _reason(str(error)))


def _reason(text: str) -> str:
    if "database is locked" in text:
        return "locked"
    return "timeout" if "timed out" in text or "timeout" in text else "error"
