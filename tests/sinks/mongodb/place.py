"""A database and a run folder whose journal is written by hand: where the sink's tests take place."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from lezea_mlops.journal import RunFolder
from lezea_mlops.sinks.base import AuditCounts, Finding, Run
from lezea_mlops.sinks.mongodb import MongoSink
from tests.conftest import SharedMongod
from tests.sinks.contract import records_of
from tests.sinks.hand import WrittenByHand

RUN = "run-1"


class Place(WrittenByHand):
    """A database, and a run folder whose journal is written by hand."""

    def __init__(self, uri: str, folder: Path, client: MongoClient[Any], run: str = RUN) -> None:
        self.uri = uri
        self.database = client.get_default_database()
        super().__init__(RunFolder(folder / run), lambda: MongoSink(self.uri))

    def log_tree(self, step: int, modifications: list[Any], *, wid: str = "main", **fields: Any) -> None:
        """Append one logged tree."""
        self.log("modification_tree", wid=wid, step=step, modifications=modifications, **fields)

    def modifications(self) -> dict[str, dict[str, Any]]:
        """Return the documents of the modifications by ``_id`` without the run."""
        found = self.database.modifications.find({"run_id": RUN})
        return {each["_id"].removeprefix(f"{RUN}/"): each for each in found}

    def audit(self) -> tuple[list[Finding], AuditCounts]:
        """Compare all that the journal holds with the database."""
        counts = AuditCounts()
        sink = MongoSink(self.uri)
        run = Run(RUN, self.folder.path)
        journal = zip(records_of(self.folder), itertools.repeat(True), strict=False)
        kept = list(journal)
        return list(sink.audit(run, {}, lambda: iter(kept), counts)), counts


@pytest.fixture(scope="session")
def emptied_mongo_uri(shared_mongod: SharedMongod) -> Iterator[str]:
    """The URI of a database for all tests that have a place; making its indexes takes a second."""
    name = f"lezea_test_{os.urandom(8).hex()}"
    uri = shared_mongod.uri_of(name)
    yield uri
    with MongoClient[Any](uri) as client:
        client.drop_database(name)


@pytest.fixture
def place(emptied_mongo_uri: str, tmp_path: Path) -> Iterator[Place]:
    """Return a database without documents and an empty run folder."""
    with MongoClient[Any](emptied_mongo_uri, tz_aware=True) as client:
        database = client.get_default_database()
        for name in database.list_collection_names():
            database[name].delete_many({})
        place = Place(emptied_mongo_uri, tmp_path, client)
        yield place
        place.shipper.close()
