"""The servers of ``docker-compose.yml`` are as they are promised: pinned, private to this machine, with passwords."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pymongo import MongoClient, uri_parser
from pymongo.errors import OperationFailure

from lezea_mlops.servers.process import Program, end, free_port, launch
from lezea_mlops.servers.replica_set import ReplicaSet, User
from scripts.stack.panels import GRAFANA_VERSION
from tests.conftest import ROOT, missing, mongod_program

PASSWORDS = ("POSTGRES_PASSWORD", "MONGODB_ROOT_PASSWORD", "MONGODB_PASSWORD", "GRAFANA_PASSWORD")
Compose = Callable[[], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """What of the repository the servers need, in a folder of the test's own."""
    place = tmp_path / "place"
    shutil.copytree(ROOT / "configs", place / "configs")
    (place / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "make_env", place / "scripts")
    shutil.copy(ROOT / "docker-compose.yml", place)
    return place


def make_env(place: Path) -> str:
    """Run the script from another folder, as a person may, and return what it says."""
    done = subprocess.run(
        [place / "scripts" / "make_env"], cwd="/", capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout


def values(place: Path) -> dict[str, str]:
    """Return the variables in ``.env``."""
    pairs = (line.partition("=") for line in (place / ".env").read_text().splitlines())
    return {name: value for name, _, value in pairs}


@pytest.fixture
def compose(place: Path) -> Compose:
    """Return a function that has docker-compose resolve the file; it needs no engine for that."""
    program = shutil.which("docker-compose")
    if program is None:
        missing("docker-compose (Debian's package of that name)")

    def config() -> subprocess.CompletedProcess[str]:
        assert program is not None
        # Debian's is a Python program: nothing of this environment is for it.
        environment = {"PATH": os.environ["PATH"], "HOME": str(place), "LC_ALL": "C.UTF-8"}
        return subprocess.run([program, "config"], cwd=place, env=environment, capture_output=True, text=True)

    return config


@pytest.fixture
def services(place: Path, compose: Compose) -> dict[str, dict[str, Any]]:
    """The services, as docker-compose resolves them with generated passwords."""
    make_env(place)
    done = compose()
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = yaml.safe_load(done.stdout)["services"]
    assert set(found) >= {"mlflow", "mlflow-database", "mongodb"}
    return found


def test_without_passwords_nothing_starts(compose: Compose) -> None:
    """There is no default one, and the message names the script that makes them."""
    done = compose()
    assert done.returncode != 0
    assert "scripts/make_env" in done.stderr


def test_what_listens_listens_for_this_machine_alone(services: dict[str, dict[str, Any]]) -> None:
    """Ports are published on loopback; what shares the host's network is told to listen there."""
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        if service.get("network_mode") == "host":
            told = [*service.get("command", []), *service.get("environment", {}).values()]
            assert any("127.0.0.1" in str(text) for text in told), name
            assert not any("0.0.0.0" in str(text) for text in told), name
    assert services["mlflow"]["ports"] == ["127.0.0.1:5000:5000/tcp"]
    assert services["mongodb"]["ports"] == ["127.0.0.1:27017:27017/tcp"]
    assert "ports" not in services["mlflow-database"]


def test_every_password_is_a_generated_one(place: Path, services: dict[str, dict[str, Any]]) -> None:
    """Whatever is called a password has a value of ``.env``, and every value there is used."""
    generated = {values(place)[name] for name in PASSWORDS}
    found = {
        value
        for service in services.values()
        for name, value in service.get("environment", {}).items()
        if "PASSWORD" in name
    }
    assert found == generated
    uri = services["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"]
    assert uri.startswith(f"postgresql://mlflow:{values(place)['POSTGRES_PASSWORD']}@mlflow-database:")


def test_mongodb_is_a_replica_set_that_asks_for_passwords(services: dict[str, dict[str, Any]]) -> None:
    """With a key in a file that is made at each start, in memory."""
    command = " ".join(services["mongodb"]["command"])
    assert "--auth" in command
    assert "--replSet rs0" in command
    assert "--keyFile /data/configdb/key" in command
    assert services["mongodb"]["tmpfs"] == ["/data/configdb"]
    assert services["mongodb"]["environment"]["MONGO_INITDB_ROOT_USERNAME"] == "root"


def test_mongodb_starts_with_a_key_of_its_own(
    tmp_path: Path, place: Path, services: dict[str, dict[str, Any]]
) -> None:
    """The service's entry point, run here, hands over to the image's own start, and the server asks for passwords."""
    (tmp_path / "data").mkdir()
    (tmp_path / "bin").mkdir()
    handed_to = tmp_path / "bin" / "docker-entrypoint.sh"
    port = free_port()
    # In place of the image's: it has made the data folder, and now starts what it was told to.
    handed_to.write_text(
        f'#!/bin/sh\nshift\nexec {mongod_program()} --dbpath {tmp_path}/data --port {port} "$@" --bind_ip 127.0.0.1\n'
    )
    handed_to.chmod(0o755)
    command = [
        text.replace("$$", "$").replace("/data/configdb", str(tmp_path)).replace("--owner=mongodb ", "")
        for text in (*services["mongodb"]["entrypoint"], *services["mongodb"]["command"])
        if text != "--bind_ip_all"
    ]
    command[0] = shutil.which(command[0]) or command[0]
    path = {"PATH": f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}"}
    keys = set()
    for _ in range(2):
        server = launch(Program(command, tmp_path, tmp_path / "log", path), bound=True)
        try:
            prepared = ReplicaSet(port, (User("root", "secret"),)).prepared
            while not prepared():
                assert server.is_running(), (tmp_path / "log").read_text()
            with MongoClient(f"mongodb://127.0.0.1:{port}/?replicaSet=rs0") as nobody:
                with pytest.raises(OperationFailure) as refused:
                    nobody.lezea.things.find_one()
                assert refused.value.code == 13
        finally:
            assert end([server], 20)
        assert (tmp_path / "key").stat().st_mode & 0o777 == 0o400
        keys.add((tmp_path / "key").read_bytes())
    assert {len(key) for key in keys} == {128}
    assert len(keys) == 2


def test_images_are_pinned_and_services_are_watched(services: dict[str, dict[str, Any]]) -> None:
    """A new release changes nothing by itself; each service tells when it is ready, and comes back after a reboot."""
    for name, service in services.items():
        assert re.search(r":v?\d+\.\d+", service["image"]), name
        assert "latest" not in service["image"], name
        assert service["healthcheck"]["test"], name
        assert service["restart"] == "unless-stopped", name
    dockerfile = (ROOT / "configs" / "mlflow" / "Dockerfile").read_text()
    version = services["mlflow"]["image"].rpartition(":")[2]
    assert f"mlflow=={version}" in dockerfile
    assert re.search(r"^FROM \S+:\d+\.\d+\.\d+", dockerfile, re.MULTILINE)


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Return the places inside a container by those of the host, for what is mounted from files of the host."""
    found = {}
    for volume in service.get("volumes", []):
        if isinstance(volume, dict):
            found[volume["source"]] = volume["target"]
        elif volume.startswith("/"):
            host, inside = volume.split(":")[:2]
            found[host] = inside
    return found


def test_files_that_are_mounted_exist(place: Path, services: dict[str, dict[str, Any]]) -> None:
    """An engine would make a folder of its own in place of a missing one."""
    mounted = [Path(path) for service in services.values() for path in mounts(service)]
    assert len(mounted) >= 7
    assert all(path.exists() and place in path.parents for path in mounted)


def test_prometheus_finds_trackers_in_a_folder_that_another_user_can_read(
    place: Path, services: dict[str, dict[str, Any]]
) -> None:
    """The folder is there before docker could make it as root, open to the server's user, and mounted for reading."""
    folder = place / "runs" / "prometheus"
    assert values(place)["LEZEA_PROMETHEUS_TARGETS"] == str(folder)
    assert folder.stat().st_mode & 0o777 == 0o755
    [volume] = [volume for volume in services["prometheus"]["volumes"] if isinstance(volume, dict)]
    assert (volume["type"], volume["source"], volume["read_only"]) == ("bind", str(folder), True)
    config = yaml.safe_load((place / "configs" / "prometheus" / "prometheus.yml").read_text())
    [job] = [job for job in config["scrape_configs"] if job["job_name"] == "lezea"]
    assert job["file_sd_configs"] == [{"files": [f"{volume['target']}/*.json"], "refresh_interval": "10s"}]


def test_without_a_folder_in_env_the_one_of_the_repository_is_watched(place: Path, compose: Compose) -> None:
    """That is the folder of a tracker which is started there with the settings that it has by default."""
    make_env(place)
    lines = (place / ".env").read_text().splitlines(keepends=True)
    (place / ".env").write_text(
        "".join(line for line in lines if not line.startswith("LEZEA_PROMETHEUS_TARGETS"))
    )
    service = yaml.safe_load(compose().stdout)["services"]["prometheus"]
    assert mounts(service)[str(place / "runs" / "prometheus")] == "/targets"


def test_a_folder_for_targets_that_a_person_chose_stays_and_is_made(place: Path, tmp_path: Path) -> None:
    """Its users may share it, and a strict umask does not close it to the server."""
    chosen = tmp_path / "shared" / "targets"
    (place / ".env").write_text(f"LEZEA_PROMETHEUS_TARGETS={chosen}\n")
    make_env(place)
    assert values(place)["LEZEA_PROMETHEUS_TARGETS"] == str(chosen)
    assert chosen.stat().st_mode & 0o777 == 0o755
    assert not (place / "runs").exists()


def test_a_path_that_env_cannot_hold_is_left_out_and_said(tmp_path: Path) -> None:
    """A space in it would break the line that exports it; everything else is written."""
    place = tmp_path / "my place"
    (place / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "make_env", place / "scripts")
    done = subprocess.run([place / "scripts" / "make_env"], capture_output=True, text=True, check=True)
    assert "LEZEA_PROMETHEUS_TARGETS is left out" in done.stderr
    assert "LEZEA_PROMETHEUS_TARGETS" not in values(place)
    assert "LEZEA_MONGO_URI" in values(place)
    assert (place / "runs" / "prometheus").is_dir()


def test_grafana_finds_prometheus_and_its_dashboards(services: dict[str, dict[str, Any]]) -> None:
    """The data source asks where Prometheus listens, and the dashboards are read where they are mounted."""
    inside = {Path(host).name: path for host, path in mounts(services["grafana"]).items()}
    [source] = yaml.safe_load((ROOT / "configs/grafana/datasources.yml").read_text())["datasources"]
    assert (
        f"--web.listen-address={source['url'].removeprefix('http://')}" in services["prometheus"]["command"]
    )
    [provider] = yaml.safe_load((ROOT / "configs/grafana/dashboards.yml").read_text())["providers"]
    assert provider["options"]["path"] == inside["dashboards"]
    assert inside["datasources.yml"].startswith("/etc/grafana/provisioning/datasources/")
    assert inside["dashboards.yml"].startswith("/etc/grafana/provisioning/dashboards/")
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (ROOT / "configs/grafana/dashboards" / Path(home).relative_to(inside["dashboards"])).is_file()


def test_prometheus_is_scraped_as_often_as_grafana_believes(services: dict[str, dict[str, Any]]) -> None:
    """What is asked per second spans several scrapes only if both agree; and the versions agree with the images."""
    config = yaml.safe_load((ROOT / "configs/prometheus/prometheus.yml").read_text())
    [source] = yaml.safe_load((ROOT / "configs/grafana/datasources.yml").read_text())["datasources"]
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    assert services["prometheus"]["image"].endswith(f":v{source['jsonData']['prometheusVersion']}")
    assert services["grafana"]["image"].endswith(f":{GRAFANA_VERSION}")


def test_generated_passwords_are_random_and_private(place: Path) -> None:
    """192 bits each, in a file that nobody else reads; none is shown."""
    said = make_env(place)
    first = values(place)
    assert (place / ".env").stat().st_mode & 0o777 == 0o600
    assert all(re.fullmatch("[0-9a-f]{48}", first[name]) for name in PASSWORDS)
    assert len({first[name] for name in PASSWORDS}) == len(PASSWORDS)
    assert not [name for name in PASSWORDS if first[name] in said]
    (place / ".env").unlink()
    make_env(place)
    assert not [name for name in PASSWORDS if values(place)[name] == first[name]]


def test_passwords_that_are_there_stay(place: Path) -> None:
    """A second call changes nothing; of what a person wrote nothing is lost, and what is missing is added."""
    make_env(place)
    before = (place / ".env").read_bytes()
    assert "everything is there already" in make_env(place)
    assert (place / ".env").read_bytes() == before
    (place / ".env").write_text(
        "MINE=1\nMONGODB_PASSWORD=mine\nGRAFANA_PASSWORD=\n# the last line has no end"
    )
    (place / ".env").chmod(0o644)
    make_env(place)
    found = values(place)
    assert (found["MINE"], found["MONGODB_PASSWORD"]) == ("1", "mine")
    assert len(found["POSTGRES_PASSWORD"]) == len(found["GRAFANA_PASSWORD"]) == 48
    assert "lezea:mine@" in found["LEZEA_MONGO_URI"]
    assert (place / ".env").stat().st_mode & 0o777 == 0o600


def test_the_addresses_are_those_of_the_services(place: Path) -> None:
    """The line that the script shows gives a shell what a tracker needs."""
    said = make_env(place)
    [line] = re.findall(r"export \$\(.*\)$", said, re.MULTILINE)
    shown = subprocess.run(
        ["/bin/sh", "-c", f'{line}; printf %s "$LEZEA_MONGO_URI $LEZEA_MLFLOW_TRACKING_URI"'],
        cwd=place, capture_output=True, text=True, check=True,
    )  # fmt: skip
    mongo, mlflow = shown.stdout.split()
    parsed = uri_parser.parse_uri(mongo)
    assert parsed["nodelist"] == [("127.0.0.1", 27017)]
    assert (parsed["username"], parsed["password"]) == ("lezea", values(place)["MONGODB_PASSWORD"])
    assert parsed["database"] == "lezea"
    assert parsed["options"] == {"replicaSet": "rs0"}
    assert mlflow == "http://127.0.0.1:5000"


def test_passwords_are_never_committed() -> None:
    """Git ignores the file that they are in."""
    assert ".env" in (ROOT / ".gitignore").read_text().split()
