"""What a URI means, what is set where it says nothing, and what the errors of the driver mean."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient, errors

from lezea_mlops.config import load_settings
from lezea_mlops.runtime.assembly import build_sinks, destinations
from lezea_mlops.servers import Mongod
from lezea_mlops.sinks.base import Rejected, Run, Unavailable, destination_id
from lezea_mlops.sinks.mongodb import MongoSink, address_of
from lezea_mlops.sinks.mongodb.connection import connect, translated_errors
from lezea_mlops.sinks.mongodb.delivery import INDEXES


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("mongodb://127.0.0.1:27017", "mongodb://127.0.0.1:27017/lezea"),
        ("mongodb://127.0.0.1:27017/?replicaSet=rs0", "mongodb://127.0.0.1:27017/lezea"),
        ("mongodb://me:pass%40word@HOST/lab?authSource=admin", "mongodb://host/lab"),
        ("mongodb+srv://cluster.example/lab", "mongodb+srv://cluster.example/lab"),
        ("mongodb://a:1,b:2/lab", "mongodb://a:1,b:2/lab"),
    ],
)
def test_host_and_database_tell_destinations_apart(uri: str, address: str) -> None:
    """Neither a password nor an option does; it is the name of the cursor, known without a driver too."""
    assert address_of(uri) == MongoSink(uri).destination == address
    settings = load_settings({"mongo_uri": uri}, {})
    assert destinations(settings) == {sink.name: destination_id(sink) for sink in build_sinks(settings)}


def test_without_a_uri_there_is_no_mongodb() -> None:
    """Nothing is looked for and nothing waits."""
    assert [sink.name for sink in build_sinks(load_settings(environ={}))] == ["mlflow"]


@contextlib.contextmanager
def connected(uri: str) -> Iterator[Any]:
    """Yield the database of a URI; nobody need be there."""
    database = connect(uri)
    yield database
    database.client.close()


@pytest.mark.parametrize(
    ("options", "concern"), [("", {"w": "majority", "j": True}), ("?w=2&journal=false", {"w": 2, "j": False})]
)
def test_writes_are_confirmed_by_a_journaled_majority_unless_the_uri_says_otherwise(
    options: str, concern: dict[str, Any]
) -> None:
    """Less than that loses what was acknowledged when a server is killed."""
    with connected(f"mongodb://127.0.0.1:1/lab{options}") as database:
        assert database.write_concern.document == concern


@pytest.mark.parametrize(("options", "timeout_s"), [("", 10.0), ("?timeoutMS=500", 0.5)])
def test_no_request_takes_longer_than_some_seconds_unless_the_uri_says_otherwise(
    options: str, timeout_s: float
) -> None:
    """The driver's own patience is half a minute for each."""
    with connected(f"mongodb://127.0.0.1:1/{options}") as database:
        assert database.client.options.timeout == timeout_s


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://me:hunter2@host:port/lab", "mongodb://me:hunter2@/lab", "mongodb://me:hunter2@host/lab?w=0",
    ],
)  # fmt: skip
def test_a_uri_that_the_driver_refuses_is_told_without_its_password(uri: str, tmp_path: Path) -> None:
    """The sink waits with the reason; nothing else of the run is harmed."""
    with pytest.raises(
        Unavailable, match=r"LEZEA_MONGO_URI .* cannot be used: .*must be one such as"
    ) as raised:
        MongoSink(uri).open(Run("run-1", tmp_path), {})
    assert raised.value.reason == "configuration"
    assert "hunter2" not in str(raised.value)


def answer(code: int) -> errors.OperationFailure:
    """Return the error that pymongo makes of a server's answer."""
    return errors.OperationFailure("said the server", code, {"code": code, "errmsg": "said the server"})


def bulk(*codes: int, concern: int | None = None) -> errors.BulkWriteError:
    """Return the error of a batch."""
    wrong = [{"code": code, "errmsg": "said the server", "index": index} for index, code in enumerate(codes)]
    concerns = [] if concern is None else [{"code": concern, "errmsg": "not confirmed"}]
    return errors.BulkWriteError({"writeErrors": wrong, "writeConcernErrors": concerns})


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (errors.ServerSelectionTimeoutError("nobody"), Unavailable, "unreachable"),
        (errors.AutoReconnect("cut"), Unavailable, "unreachable"),
        (errors.NetworkTimeout("slow"), Unavailable, "timeout"),
        (answer(18), Unavailable, "refused"),
        (answer(13), Unavailable, "refused"),
        (answer(14031), Unavailable, "full"),
        (answer(50), Unavailable, "timeout"),
        (answer(121), Unavailable, "error"),
        (answer(99_999), Unavailable, "error"),
        (bulk(17280), Rejected, None),
        (bulk(17280, 13), Unavailable, "refused"),
        (bulk(17280, concern=64), Unavailable, "timeout"),
        (bulk(), Unavailable, "error"),
        (errors.DocumentTooLarge("17 MB"), Rejected, None),
        (errors.ConfigurationError("odd"), Unavailable, "unreachable"),
    ],
)  # fmt: skip
def test_errors_mean_the_destination_unless_only_this_record_is_wrong(
    error: Exception, kind: type[Exception], reason: str | None
) -> None:
    """What a server says of itself, of the user or of its rules is no reason to set a record aside."""
    with pytest.raises(kind) as raised, translated_errors("mongodb://host/lab"):
        raise error
    assert getattr(raised.value, "reason", None) == reason
    assert "mongodb://host/lab" in str(raised.value)


def test_the_indexes_are_there_and_made_once(mongo_uri: str, tmp_path: Path) -> None:
    """Opening again changes nothing."""
    for _ in range(2):
        sink = MongoSink(mongo_uri)
        sink.open(Run("run-1", tmp_path), {})
        sink.close()
    with MongoClient[Any](mongo_uri) as client:
        database = client.get_default_database()
        for collection, indexes in INDEXES.items():
            found = [tuple(index["key"]) for index in database[collection].list_indexes()]
            assert found == [("_id",), *indexes]


@pytest.mark.chaos
def test_a_server_that_is_gone_is_not_waited_for_at_the_end(mongod: Mongod, tmp_path: Path) -> None:
    """It would be told which sessions it may forget; it forgets them by itself."""
    uri = f"{mongod.uri_of('lezea')}&serverSelectionTimeoutMS=600000"
    sink = MongoSink(uri)
    sink.open(Run("run-1", tmp_path), {})
    mongod.kill()
    closing = threading.Thread(target=sink.close, daemon=True)
    closing.start()
    # Five times what it may take is a second; a machine may have other work.
    closing.join(30.0)
    assert not closing.is_alive()
