"""Reading the evolution of a run back: all of it from its folder, or answers to single questions from MongoDB."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from lezea_mlops.config import load_settings
from lezea_mlops.errors import JournalError
from lezea_mlops.evolution import Evolution, JournalQueries, ModificationTree, MongoQueries, Queries
from lezea_mlops.journal import RunFolder, recorded_run_id
from lezea_mlops.runtime.history import RunDir, whole_records
from lezea_mlops.sinks.base import Unavailable

log = logging.getLogger("lezea_mlops")

__all__ = ["Evolution", "ModificationTree", "query_evolution", "read_evolution"]

# Delivery gives up after seconds, since it will try again; who asks of a million modifications waits.
_READ_TIMEOUT_MS = 600_000


def read_evolution(run_dir: RunDir) -> Evolution:
    """Return the modifications and networks of a run, as its journals hold them.

    Args:
        run_dir: the run folder; the run may be going on.

    Raises:
        JournalError: the folder holds no journal, or it cannot be read.
    """
    return Evolution().read(whole_records(run_dir))


@contextlib.contextmanager
def query_evolution(run: RunDir, *, mongo_uri: str | None = None) -> Iterator[Queries]:
    """Ask for lines, descendants, acceptance and what made a network: MongoDB if it has the run, else the journal.

    The answers are the same, as far as the run is delivered. MongoDB gives them without reading the run as a whole; the
    journal is read at once, into memory. Where MongoDB cannot be asked, a warning says so, and the journal answers.
    What pymongo raises later, at a question, is not caught.

    Args:
        run: the run folder, or the experiment id of a run in ``LEZEA_RUNS_DIR`` or in MongoDB.
        mongo_uri: MongoDB's server and database; None: ``LEZEA_MONGO_URI``, and without that the journal.

    Raises:
        ConfigurationError: *mongo_uri* is no URI of MongoDB.
        JournalError: the run is neither in MongoDB, nor is there a journal of it that can be read.
    """
    settings = load_settings(mongo_uri=mongo_uri)
    folder = RunFolder(Path(run))
    if not folder.journals():
        folder = RunFolder(settings.runs_dir / run)
    run_id = (recorded_run_id(folder) if folder.journals() else None) or Path(run).name
    with contextlib.ExitStack() as opened:
        database = None if settings.mongo_uri is None else _database_with(settings.mongo_uri, run_id)
        if database is not None:
            opened.callback(database.client.close)
            yield MongoQueries(database, run_id)
        elif folder.journals():
            yield JournalQueries(read_evolution(folder.path))
        else:
            where = "" if settings.mongo_uri is None else " and MongoDB has no such run, or cannot be asked"
            raise JournalError(
                f"{os.fspath(run)}: {folder.path} holds no journal (events.jsonl){where}; pass a run folder, or the id "
                "of a run in LEZEA_RUNS_DIR or in the database that LEZEA_MONGO_URI names"
            )


def _database_with(uri: str, run_id: str) -> Any:
    """Return the database if it has the run; None if not, or if it cannot be asked."""
    # They import the driver, which reading a journal does not need.
    from lezea_mlops.sinks.mongodb.connection import address_of, close, connect, translated_errors

    database = None
    try:
        database = connect(_patient(uri))
        with translated_errors(address_of(uri)):
            if database["experiments"].find_one({"_id": run_id}, {"_id": 1}) is not None:
                return database
    except Unavailable as error:
        log.warning("%s; the journal of the run %s answers instead", error, run_id)
    if database is not None:
        close(database)
    return None


def _patient(uri: str) -> str:
    """Return *uri* with a timeout for reading, unless it names one."""
    parts = urlsplit(uri)
    if any(name.lower() == "timeoutms" for name, _ in parse_qsl(parts.query)):
        return uri
    query = "&".join([*filter(None, [parts.query]), f"timeoutMS={_READ_TIMEOUT_MS}"])
    return parts._replace(path=parts.path or "/", query=query).geturl()
