"""A client for MongoDB, and what the errors of its driver mean."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from lezea_mlops._lazy import require
from lezea_mlops.errors import MissingDependencyError
from lezea_mlops.sinks.base import Rejected, Unavailable, without_credentials
from lezea_mlops.sinks.messages import first_line

DEFAULT_DATABASE = "lezea"

# Each is used unless the URI says otherwise. With a write concern of less than a journaled majority a server that is
# killed loses what it had acknowledged.
DEFAULT_OPTIONS: dict[str, Any] = {
    "w": "majority",
    "journal": True,
    "appname": "lezea_mlops",
    "serverSelectionTimeoutMS": 3_000,
    "connectTimeoutMS": 3_000,
    "timeoutMS": 10_000,
}

# Closing tells the server which sessions it may forget.
FAREWELL_S = 0.2

# What a server answers, by its code: reason, and what to do.
_REASON_OF_CODE = {
    13: ("refused", "the user may not write there; grant it the role readWrite on the database"),
    18: ("refused", "user or password are wrong; check LEZEA_MONGO_URI"),
    8000: ("refused", "user or password are wrong; check LEZEA_MONGO_URI"),
    14031: ("full", "the disk of the server is full"),
    50: ("timeout", "the server is too slow"),
    64: ("timeout", "the write was not confirmed in time"),
    121: ("error", "a validation rule of the collection refuses it; remove the rule"),
}
# An index key or a document that is too large for any server.
_TOO_LARGE_CODES = frozenset({10334, 17280, 17419})


def address_of(uri: str) -> str:
    """Return host and database of *uri* without credentials and options: what tells one destination from another."""
    address = without_credentials(uri)
    try:
        path = urlsplit(address).path
    except ValueError:
        return address
    return address if path.strip("/") else f"{address.rstrip('/')}/{DEFAULT_DATABASE}"


def connect(uri: str) -> Any:
    """Return the ``Database`` that *uri* names; nothing is asked of the server yet.

    Raises:
        Unavailable: pymongo is missing, or the URI is none.
    """
    try:
        pymongo = require("pymongo", package="pymongo", needed_for="delivery to MongoDB")
    except MissingDependencyError as error:
        raise Unavailable(str(error), "missing_dependency") from error
    errors = (pymongo.errors.PyMongoError, ValueError, TypeError)
    try:
        # Not by pymongo's own parser, which may have to ask a name server for the hosts.
        given = {name.lower() for name, _ in parse_qsl(urlsplit(uri).query)}
        options = {name: value for name, value in DEFAULT_OPTIONS.items() if name.lower() not in given}
        client = pymongo.MongoClient(uri, **options)
        return client.get_default_database(DEFAULT_DATABASE)
    except errors as error:
        raise Unavailable(
            f"LEZEA_MONGO_URI ({address_of(uri)}) cannot be used: {first_line(error)}; it must be one such as "
            "mongodb://127.0.0.1:27017/lezea?replicaSet=rs0",
            "configuration",
        ) from error


def close(database: Any) -> None:
    """Close the connections; a server that does not answer at once forgets its sessions by itself."""
    import pymongo

    with pymongo.timeout(FAREWELL_S):
        database.client.close()


@contextlib.contextmanager
def translated_errors(address: str) -> Iterator[None]:
    """Turn the errors of pymongo into what a sink may say."""
    from bson.errors import BSONError
    from pymongo import errors

    try:
        yield
    except (errors.DocumentTooLarge, BSONError) as error:
        raise Rejected(f"MongoDB at {address}: {first_line(error)}") from error
    except errors.BulkWriteError as error:
        raise judged_answer(_worst(error.details), address) from error
    except errors.OperationFailure as error:
        raise judged_answer(
            dict(error.details or {"code": error.code, "errmsg": str(error)}), address
        ) from error
    except errors.PyMongoError as error:
        timed_out = isinstance(error, (errors.NetworkTimeout, errors.ExecutionTimeout)) or error.timeout
        unreachable = isinstance(error, errors.ServerSelectionTimeoutError)
        reason = "unreachable" if unreachable or not timed_out else "timeout"
        # Behind it stands what the driver knows of every server, in its own words.
        said = first_line(error).partition(", Timeout: ")[0].partition(" (configured timeouts")[0]
        raise Unavailable(f"MongoDB at {address}: {said}", reason) from error


def judged_answer(answer: dict[str, Any], address: str) -> Exception:
    """Return what an answer of the server means for the records."""
    code = answer.get("code")
    said = str(answer.get("errmsg") or "")[:500]
    if code in _TOO_LARGE_CODES:
        return Rejected(f"MongoDB at {address}: {said} (code {code})")
    reason, remedy = _REASON_OF_CODE.get(code, ("error", ""))  # type: ignore[arg-type]
    return Unavailable(f"MongoDB at {address}: {said} (code {code}){'; ' + remedy if remedy else ''}", reason)


def _worst(details: Any) -> dict[str, Any]:
    """Return the answer of a batch that says most: of the destination first, then of a document."""
    answers = [*details.get("writeConcernErrors", ()), *details.get("writeErrors", ())]
    beyond = [answer for answer in answers if answer.get("code") not in _TOO_LARGE_CODES]
    return dict((beyond or answers or [{}])[0])
