"""What the failures of a store or server mean, and that looking for it disturbs nobody."""

from __future__ import annotations

import logging
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    PERMISSION_DENIED,
    RESOURCE_DOES_NOT_EXIST,
    TEMPORARILY_UNAVAILABLE,
)
from requests import HTTPError, Response
from sqlalchemy.exc import OperationalError

from lezea_mlops.sinks.base import Rejected, Unavailable
from lezea_mlops.sinks.mlflow import connection
from lezea_mlops.sinks.mlflow.connection import RunGone, connect, probe, translated_errors
from tests.gate import Gate


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Return a port where nobody is."""
    gate = Gate()
    yield gate
    gate.close()


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a probe give up at once."""
    monkeypatch.setattr(connection, "PROBE_TIMEOUT_S", 0.2)


def refusal(do: Callable[[], object]) -> Unavailable:
    """Return the error that says that the destination cannot be used now."""
    with pytest.raises(Unavailable) as caught:
        do()
    return caught.value


# ---------------------------------------------------------------------- looking for a server


def test_nobody_there_is_unreachable(gate: Gate) -> None:
    """A port where nothing listens answers at once, and the message names it."""
    error = refusal(lambda: connect(gate.uri))
    assert error.reason == "unreachable"
    assert gate.uri in str(error)


def test_a_server_that_never_answers_is_a_timeout(gate: Gate, patience: None) -> None:
    """MLflow's own client would wait for minutes."""
    gate.be_silent()
    assert refusal(lambda: connect(gate.uri)).reason == "timeout"


@pytest.mark.parametrize("code", [500, 502, 503])
def test_a_server_at_fault_is_an_error(code: int, gate: Gate) -> None:
    """Its number is told."""
    gate.be_broken(b"HTTP/1.1 %d Oh\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % code)
    error = refusal(lambda: connect(gate.uri))
    assert error.reason == "error"
    assert str(code) in str(error)


@pytest.mark.parametrize("code", [401, 403, 404])
def test_a_gateway_that_does_not_know_the_question_is_there(code: int, gate: Gate) -> None:
    """Only the health question is unknown or not allowed; the API may be."""
    gate.be_broken(b"HTTP/1.1 %d Oh\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % code)
    probe(gate.uri)
    assert gate.connections == 1


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.6\r\n", b"", b"\0\1\2\3", b"HTTP/1.1 abc\r\n\r\n"])
def test_a_port_that_speaks_otherwise_is_unavailable(answer: bytes, gate: Gate) -> None:
    """Whatever it says, it is an answer of this kind and no surprise."""
    gate.be_broken(answer)
    assert refusal(lambda: connect(gate.uri)).reason in ("configuration", "unreachable")


def test_a_web_server_that_is_not_mlflow_is_an_error(gate: Gate) -> None:
    """It answers everything with a page, of which a line is told and not all of it."""
    page = b"<html>" + b"x" * 100_000
    gate.be_broken(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(page) + page)
    error = refusal(lambda: connect(gate.uri))
    assert error.reason == "error"
    assert "JSON" in str(error)
    assert len(str(error)) < 1_000


def test_a_port_without_tls_is_not_taken_for_one_with_a_strange_certificate(
    gate: Gate, patience: None
) -> None:
    """MLflow may trust certificates that Python does not; no handshake at all is something else."""
    gate.be_broken()
    assert refusal(lambda: probe(gate.uri.replace("http:", "https:"))).reason == "unreachable"


@pytest.mark.parametrize("uri", ["http://host:port", "http://[bad", "http://a b/"])
def test_an_address_that_is_none_is_a_matter_of_configuration(uri: str) -> None:
    """Nothing is asked; the message shows the address."""
    error = refusal(lambda: probe(uri))
    assert error.reason == "configuration"
    assert "no address" in str(error)


def test_credentials_are_neither_needed_by_the_question_nor_shown(gate: Gate) -> None:
    """``user:password@`` in the address does not confuse it and stands in no message."""
    uri = gate.uri.replace("http://", "http://me:s3cret@")
    assert "s3cret" not in str(refusal(lambda: probe(uri)))
    gate.be_broken(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    probe(uri)


# ---------------------------------------------------------------------- stores


@pytest.mark.parametrize("uri", ["./mlruns", "/data/mlruns", "file:///data/mlruns", "mlruns"])
def test_a_file_store_is_refused_with_the_remedy(uri: str) -> None:
    """It keeps repeated points twice, so nothing is written there."""
    error = refusal(lambda: connect(uri))
    assert error.reason == "configuration"
    assert "sqlite:///mlflow.db" in str(error)
    assert "LEZEA_MLFLOW_TRACKING_URI" in str(error)


def test_a_store_in_a_folder_that_is_none_is_a_matter_of_configuration(tmp_path: Path) -> None:
    """The message names the path."""
    (tmp_path / "file").write_text("x")
    error = refusal(lambda: connect(f"sqlite:///{tmp_path}/file/mlflow.db"))
    assert error.reason == "configuration"
    assert str(tmp_path) in str(error)


def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    """It is not overwritten."""
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to look at" * 100)
    refusal(lambda: connect(f"sqlite:///{tmp_path}/mlflow.db"))
    assert (tmp_path / "mlflow.db").read_text().startswith("not a database")


def test_a_store_is_opened_and_its_folder_made(prepared_store: Path, tmp_path: Path) -> None:
    """A store that is there is used as it is."""
    path = tmp_path / "deep" / "er" / "mlflow.db"
    path.parent.mkdir(parents=True)
    path.write_bytes(prepared_store.read_bytes())
    assert connect(f"sqlite:///{path}").search_experiments()[0].name == "Default"


# ---------------------------------------------------------------------- errors


def answered(code: int) -> Response:
    """Return a server's answer."""
    response = Response()
    response.status_code = code
    return response


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (MlflowException("Run with id=x not found", RESOURCE_DOES_NOT_EXIST), RunGone, "removed"),
        (
            MlflowException("The run must be in the 'active' state.", INVALID_PARAMETER_VALUE),
            RunGone,
            "removed",
        ),
        (MlflowException("Invalid metric name", INVALID_PARAMETER_VALUE), Rejected, None),
        (MlflowException("no permission", PERMISSION_DENIED), Unavailable, "error"),
        (HTTPError("413 Client Error: too large", response=answered(413)), Rejected, None),
        (HTTPError("507 Server Error: no space", response=answered(507)), Unavailable, "error"),
        (
            MlflowException(
                "(sqlite3.OperationalError) database is locked\n[SQL: …]", TEMPORARILY_UNAVAILABLE
            ),
            Unavailable,
            "locked",
        ),
        (MlflowException("API request failed with timeout exception"), Unavailable, "timeout"),
        (OperationalError("x", {}, sqlite3.OperationalError("database is locked")), Unavailable, "locked"),
        (ConnectionResetError("reset by peer"), Unavailable, "error"),
        (PermissionError(13, "denied"), Unavailable, "error"),
    ],
)
def test_every_error_of_the_libraries_is_one_of_three_things(
    error: Exception, kind: type[Exception], reason: str | None
) -> None:
    """The run is gone, the destination is unavailable, or this record can never be taken."""

    def fail() -> None:
        with translated_errors("http://me:secret@host"):
            raise error

    with pytest.raises((Unavailable, Rejected)) as caught:
        fail()
    assert type(caught.value) is kind
    assert getattr(caught.value, "reason", None) == reason
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is error


def test_what_is_declared_passes_and_what_is_a_bug_passes_too() -> None:
    """The shipper knows what to do with both."""
    for error in (Unavailable("x"), Rejected("x"), ZeroDivisionError()):
        with pytest.raises(type(error)) as caught, translated_errors("http://host"):
            raise error
        assert caught.value is error


# ---------------------------------------------------------------------- quiet


def test_the_libraries_are_quiet_while_they_work_for_us_and_only_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Failures below are told once, by us; what they tell of the user's own calls in other threads is told."""
    log = logging.getLogger("mlflow.store.db.utils")
    inside, told = threading.Event(), threading.Event()

    def user() -> None:
        inside.wait(60)
        log.error("the user's own")
        told.set()

    thread = threading.Thread(target=user)
    thread.start()
    log.error("before")
    with translated_errors("http://host"):
        inside.set()
        assert told.wait(60)
        log.error("ours")
        with translated_errors("http://host"):
            log.error("ours, inside")
        log.error("ours again")
    log.error("after")
    thread.join()
    assert caplog.messages == ["before", "the user's own", "after"]


def test_nobody_s_log_settings_change(mlflow_store: str) -> None:
    """Levels and handlers are those of before."""

    def settings() -> dict[str, Any]:
        return {
            name: (logger.level, list(logger.handlers), logger.propagate, logger.disabled)
            for name, logger in logging.root.manager.loggerDict.items()
            if isinstance(logger, logging.Logger)
        }

    MlflowClient(mlflow_store).search_experiments()
    before = settings()
    connect(mlflow_store)
    assert {name: settings()[name] for name in before} == before


def test_a_port_in_use_by_another_program_is_not_ours_to_close(gate: Gate) -> None:
    """A probe leaves nothing open behind it."""
    gate.be_broken(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    for _ in range(3):
        probe(gate.uri)
    with socket.create_connection(("127.0.0.1", gate.port)):
        assert gate.connections >= 3
