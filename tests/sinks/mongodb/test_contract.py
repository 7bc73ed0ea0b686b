"""The MongoDB sink keeps the contract of every sink, with a real server."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pymongo import MongoClient

from lezea_mlops.journal import RunFolder
from lezea_mlops.sinks.base import Run, Sink
from lezea_mlops.sinks.mongodb import MongoSink
from tests.sinks.contract import SinkContract, a_run_like, clean, destination, records_of, rich_run
from tests.sinks.mongodb.seen import seen

__all__ = ["clean", "destination", "rich_run"]


def drop_database(uri: str) -> None:
    """Delete a database that a test was given."""
    with MongoClient[Any](uri) as client:
        client.drop_database(client.get_default_database().name)


class TestMongoSink(SinkContract):
    """A replica set of one."""

    @classmethod
    def place(cls, request: pytest.FixtureRequest) -> str:
        """Return the URI of a database of the class's own."""
        uri: str = request.getfixturevalue("shared_mongod").uri_of(f"lezea_test_{os.urandom(8).hex()}")
        request.addfinalizer(lambda: drop_database(uri))
        return uri

    def make(self, destination: str) -> Sink:
        """Return a sink that delivers to this database."""
        return MongoSink(destination)

    def seen(self, destination: str, sink: Sink, run: Run) -> Any:
        """Return all documents of the run."""
        with MongoClient[Any](destination, tz_aware=True) as client:
            return seen(client.get_default_database(), run.run_id)


def test_runs_that_begin_at_once_in_an_unknown_database(mongo_uri: str, rich_run: RunFolder) -> None:
    """The database, its collections and indexes are made by whoever comes first, and each run is whole."""
    records = records_of(rich_run)

    def deliver(number: int) -> Any:
        run = a_run_like(rich_run, f"at-once-{number}")
        sink = MongoSink(mongo_uri)
        sink.open(run, {})
        for record in records:
            sink.deliver([record])
        sink.close()
        with MongoClient[Any](mongo_uri, tz_aware=True) as client:
            return seen(client.get_default_database(), run.run_id)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(deliver, range(4)))
    assert found[0]["experiments"]
    assert all(each == found[0] for each in found)
