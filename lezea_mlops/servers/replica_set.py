"""The replica set of one that makes a lone mongod keep what it acknowledged: made, and moved to another port."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lezea_mlops.servers.process import HOST, ServerError

if TYPE_CHECKING:
    from pymongo import MongoClient

REPLICA_SET = "rs0"

_AUTHENTICATION_FAILED = 18
_ALREADY_INITIALIZED = 23
_INVALID_CONFIG = 93
_NOT_YET_INITIALIZED = 94
_USER_EXISTS = 51003

# How long one answer may take; a server that starts on a busy disk takes its time to make its files.
_ANSWER_MS = 20_000
_CONNECT_MS = 1_000


@dataclass(frozen=True)
class User:
    """Who may enter a server.

    Attributes:
        name: of the user.
        password: of the user.
        role: ``root``, or what may be done with *database*: ``readWrite``, ``read``.
        database: the one that the role is for.
    """

    name: str
    password: str
    role: str = "root"
    database: str = "admin"


class ReplicaSet:
    """The replica set of the one server that listens on a port."""

    def __init__(self, port: int, users: tuple[User, ...] = ()) -> None:
        """Nothing is contacted yet.

        Args:
            port: where the server listens on loopback.
            users: who may enter; the first has the role ``root``.
        """
        self.port = port
        self.users = users

    def prepared(self) -> bool:
        """Do the next thing that is missing, and tell whether the server takes writes and knows its users.

        Raises:
            ServerError: the server refuses, for instance because its first user has another password.
        """
        from pymongo.errors import ConnectionFailure, OperationFailure

        first = next(iter(self.users), None)
        try:
            try:
                return self._step(first)
            except OperationFailure as error:
                if error.code != _AUTHENTICATION_FAILED:
                    raise
                # There is no user yet: until there is one, whoever connects from this machine may make it.
                self._step(None)
                return False
        except ConnectionFailure:
            return False
        except OperationFailure as error:
            raise ServerError(
                f"the MongoDB server at {HOST}:{self.port} refuses to be set up: {error}"
            ) from None

    def _step(self, user: User | None) -> bool:
        with self._client(user) as client:
            if not client.admin.command("hello")["isWritablePrimary"]:
                _make_or_move(client, f"{HOST}:{self.port}")
                return False
            _make_users(client, self.users if user else self.users[:1])
            return True

    def _client(self, user: User | None) -> MongoClient[dict[str, Any]]:
        from pymongo import MongoClient

        entrance: Any = {} if user is None else {"username": user.name, "password": user.password}
        return MongoClient(
            HOST, self.port, directConnection=True, serverSelectionTimeoutMS=_CONNECT_MS,
            socketTimeoutMS=_ANSWER_MS, **entrance,
        )  # fmt: skip


def _make_or_move(client: MongoClient[dict[str, Any]], address: str) -> None:
    """Make the replica set, or give it its new port; while it elects itself there is nothing to do."""
    from pymongo.errors import OperationFailure

    try:
        client.admin.command("replSetGetStatus")
    except OperationFailure as error:
        if error.code == _NOT_YET_INITIALIZED:
            make_replica_set(client, address)
        elif error.code == _INVALID_CONFIG:
            # It remembers itself under another port, and waits for that server for ever.
            config = client.admin.command("replSetGetConfig")["config"]
            config["members"][0]["host"] = address
            config["version"] += 1
            client.admin.command("replSetReconfig", config, force=True)
        else:
            raise


def make_replica_set(client: MongoClient[dict[str, Any]], address: str) -> None:
    """Make the replica set, whose only member has that address, unless there is one."""
    from pymongo.errors import OperationFailure

    try:
        client.admin.command(
            "replSetInitiate", {"_id": REPLICA_SET, "members": [{"_id": 0, "host": address}]}
        )
    except OperationFailure as error:
        # While it still looks whether the server at its former port is itself, it seems to be new.
        if error.code != _ALREADY_INITIALIZED:
            raise


def _make_users(client: MongoClient[dict[str, Any]], users: tuple[User, ...]) -> None:
    if not users:
        return
    from pymongo.errors import OperationFailure

    for user in users:
        try:
            client.admin.command(
                "createUser", user.name, pwd=user.password, roles=[{"role": user.role, "db": user.database}]
            )
        except OperationFailure as error:
            if error.code != _USER_EXISTS:
                raise
