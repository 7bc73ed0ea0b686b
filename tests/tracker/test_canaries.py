"""Secrets in whatever a program hands over or happens to run with: none is found afterwards, anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from lezea_mlops.journal import RunFolder, read_run
from tests.conftest import ROOT
from tests.sinks.mlflow.seen import the_run

# Each is a secret that stands in one place of the program below and nowhere else. Those with a shape of their own are
# put together here, so that no program that looks for secrets takes this file for one.
CANARIES = {
    "argument in two words": "canary-argv-two-words", "argument with a sign": "canary-argv-sign",
    "argument of a configuration tool": "canary-argv-dotted", "argument within an argument": "canary-argv-inner",
    "argument in JSON": "canary-argv-json", "header in an argument": "canaryargvheader0123456789",
    "address in an argument": "canary-argv-uri", "environment variable": "canary-environ",
    "variable that is captured": "canary-xla-flags",
    "remote of git": "canary-git-remote", "token as user of git": "ghp_" + "canaryGit" * 4,
    "param": "canary-param", "nested param": "canary-nested", "param in a list": "canary-listed",
    "param with a dotted name": "canary-dotted", "param in camel case": "canary-camel",
    "field of a dataclass": "canary-dataclass", "hyperparameter": "canary-hyper", "tag": "canary-tag",
    "GitHub": "github_pat_" + "canary_" * 6, "GitLab": "glpat-" + "canary-" * 4, "Slack": "xoxb-" + "canary-1" * 3,
    "Amazon": "AKIA" + "CANARY1234567890", "Hugging Face": "hf_" + "canary" * 5, "OpenAI": "sk-" + "canary" * 6,
    "Anthropic": "sk-ant-" + "canary" * 6, "Google": "AIza" + "canary0" * 5, "PyPI": "pypi-" + "canary" * 6,
    "JSON web token": "eyJ" + "canary1.".join(["canary"] * 4) * 2, "private key": "canaryPrivateKeyBody",
    "Mongo": "canary-mongo", "Mongo with a slash": "canary/mongo?#", "dataset address": "canary/s3-dataset",
    "missing file": "canary-file", "dataset metadata": "canary-dataset", "checkpoint": "canary-checkpoint",
    "property of a network": "canary-network", "comment": "canary-comment", "conclusion": "canary-conclusion",
    "text": "canary-text", "line of a text": "canary-yaml", "dictionary": "canary-dict", "result": "canary-result",
    "modification": "canary-modification", "action": "canary-action", "business": "canary-business",
    "query of an address": "canary-query", "signed address": "canary0" * 8, "cookie": "canary-cookie",
    "exception": "canary-exception", "cause of an exception": "canary-cause", "source line": "canary-source",
    "purpose": "canary-purpose", "reason": "canary-reason", "own facts": "canary-facts", "metric": "canary-metric",
    "list": "canary-credentials",
}  # fmt: skip

SHAPES = [
    "GitHub", "GitLab", "Slack", "Amazon", "Hugging Face", "OpenAI", "Anthropic", "Google", "PyPI", "JSON web token",
]  # fmt: skip

# What looks a little like one and is none: all of it has to arrive.
HARMLESS = {
    "max_tokens": 4096, "token_accuracy": 0.75, "tokenizer": "bytes", "token": 5, "pad_token_name": "<pad>",
    "homepage": "https://example.org/a@b?page=2", "author": "ada@example.org", "optimizer": "risk-averse-sk-learn",
    "commit": "da39a3ee5e6b4b0d3255bfef95601890afd80709", "store": "sqlite:///runs@home/mlflow.db",
    "note": "secret=None, password=None and token=5 are no secrets", "local": "http://[::1]:5000/api/@me",
}  # fmt: skip

PROGRAM = """
import json, logging, os, subprocess, sys, time
from dataclasses import dataclass
from pathlib import Path
from lezea_mlops.tracker import ExperimentTracker, NetworkType

logging.basicConfig(level=logging.DEBUG)
canary = json.loads(sys.stdin.read())
harmless, shapes = canary.pop("harmless"), canary.pop("shapes")


@dataclass
class Login:
    user: str = "ada"
    api_key: str = canary["field of a dataclass"]


def connect(uri):
    password = "canary-source"; raise ConnectionError(f"{uri} is down; retry with password={canary['exception']}")


Path("weights.bin").write_bytes(b"weights")
tracker = ExperimentTracker(
    "Canaries", f"run with --token {canary['purpose']}", {"password": canary["tag"], "team": "a"}, auto_start=True,
)
print(tracker.run_dir, flush=True)
tracker.log_params({
    "password": canary["param"], "server": {"auth": {"token": canary["nested param"]}},
    "stores": [{"name": "one", "secret": canary["param in a list"]}], "db.password": canary["param with a dotted name"],
    "clientSecret": canary["param in camel case"], "login": Login(), "harmless": harmless,
    "shapes": [canary[name] for name in shapes],
    "key file": "-----BEGIN RSA PRIVATE KEY-----\\n" + canary["private key"] + "\\n-----END RSA PRIVATE KEY-----",
    "mongo": f"mongodb://ada:{canary['Mongo']}@db.example:27017,db2.example/lezea",
    "mongo 2": f"mongodb://ada:{canary['Mongo with a slash']}@db.example/lezea",
    "query": f"https://example.org/data?api_key={canary['query of an address']}&page=2",
    "signed": f"https://example.org/blob?sv=2020&sig={canary['signed address']}%3D",
})
tracker.log_lezea_config(64, 4, "SAC", hyperparameters={"lr": 3e-4, "hf_token": canary["hyperparameter"]})
tracker.log_dataset_version(
    "digits", "v1", f"s3://KEYID:{canary['dataset address']}@bucket/x", {"credentials": canary["dataset metadata"]},
)
tracker.log_artifact(f"https://ada:{canary['missing file']}@example.org/weights.bin")
tracker.log_checkpoint("weights.bin", 1, metadata={"secret_key": canary["checkpoint"]})
tracker.register_network("n1", NetworkType.TASKER, metadata={"access_key": canary["property of a network"]})
tracker.log_metrics({"loss": 0.5, "password": canary["metric"]}, step=1)
tracker.log_params({"credentials": ["ada", canary["list"]]})
tracker.log_comment(f"start it with PASSWORD={canary['comment']} ./train.sh")
tracker.log_conclusion(f"see postgresql+psycopg2://ada:{canary['conclusion']}@db.example/results")
tracker.log_text(f"export API_KEY='{canary['text']}'\\nserver:\\n  pwd: {canary['line of a text']}\\n", "notes.txt")
tracker.log_dict({"deep": [{"deeper": {"passphrase": canary["dictionary"]}}]}, "config.json")
tracker.log_results({"private_key": canary["result"]}, action_outputs=[{"token": canary["action"]}], step=1)
tracker.log_modification_tree(1, [{"type": "widen", "params": {"secret": canary["modification"]}}])
tracker.log_business_metrics(1.5, auth_token=canary["business"])
tracker.log_environment_info({"curl": f"curl -H 'Cookie: session={canary['cookie']}' https://example.org"})
tracker.log_environment_info({"vault": {"passwd": canary["own facts"]}})
tracker.log_training_step(1, {"loss": 0.5, "token_accuracy": 0.75, "max_tokens": 4096})
tracker.flush(60)
seen = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
print(json.dumps([line for line in seen.splitlines() if f"lezea-courier {tracker.experiment_id}" in line]), flush=True)
print(json.dumps(tracker.health()), flush=True)
try:
    with tracker:
        try:
            raise KeyError(f"https://ada:{canary['cause of an exception']}@example.org")
        except KeyError as error:
            connect(f"redis://:{canary['reason']}@cache.example:6379/0")
except ConnectionError:
    pass
"""


def arguments() -> list[str]:
    """Return a command line with secrets of every kind."""
    return [
        "--password", CANARIES["argument in two words"], f"--api-key={CANARIES['argument with a sign']}",
        f"+server.token={CANARIES['argument of a configuration tool']}",
        f"--opts=lr=0.1,secret={CANARIES['argument within an argument']}",
        "--config", json.dumps({"client_secret": CANARIES["argument in JSON"], "lr": 0.1}),
        "--header", f"Authorization: Bearer {CANARIES['header in an argument']}",
        "--store", f"mongodb://ada:{CANARIES['address in an argument']}@db.example/lezea", "--max-tokens", "4096",
    ]  # fmt: skip


def surroundings() -> dict[str, str]:
    """Return environment variables with secrets."""
    return {
        "DATABASE_PASSWORD": CANARIES["environment variable"],
        "XLA_FLAGS": f"--xla_dump_to=gs://ada:{CANARIES['variable that is captured']}@bucket/x",
    }


def remote() -> str:
    """Return the address of a repository, with user and password."""
    return f"https://{CANARIES['token as user of git']}:{CANARIES['remote of git']}@example.org/team/repository.git"


@dataclass(frozen=True)
class Finished:
    """What the program left."""

    folder: RunFolder
    couriers: list[str]
    health: dict[str, Any]
    said: str
    work: Path
    uri: str


def everything(finished: Finished) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of every file that was written, the log, and the command lines of its processes."""
    yield "the log", finished.said.encode()
    yield "the arguments of the couriers", json.dumps(finished.couriers).encode()
    for path in sorted(finished.work.rglob("*")):
        if path.is_file() and ".git" not in path.relative_to(finished.work).parts:
            yield str(path.relative_to(finished.work)), path.read_bytes()


def run_program(work: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program in a repository whose remote has a token; its file is gone afterwards."""
    for command in (["init", "-q"], ["remote", "add", "origin", remote()]):
        subprocess.run(["git", *command], cwd=work, check=True)
    (work / "train.py").write_text(PROGRAM)
    program = subprocess.run(
        [sys.executable, "train.py", *arguments()], cwd=work, capture_output=True, text=True, timeout=300,
        env=os.environ | surroundings() | {"PYTHONPATH": str(ROOT)} | environment,
        input=json.dumps(CANARIES | {"harmless": HARMLESS, "shapes": SHAPES}),
    )  # fmt: skip
    (work / "train.py").unlink()
    assert program.returncode == 0, program.stderr
    return program


@pytest.fixture(scope="module")
def finished(prepared_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Run the program with a courier and a store of its own."""
    work = tmp_path_factory.mktemp("canaries")
    (work / "mlflow.db").write_bytes(prepared_store.read_bytes())
    uri = f"sqlite:///{work}/mlflow.db"
    program = run_program(work, LEZEA_MLFLOW_TRACKING_URI=uri, LEZEA_COURIER="process")
    run_dir, couriers, health = program.stdout.splitlines()
    return Finished(
        RunFolder(Path(run_dir)), json.loads(couriers), json.loads(health), program.stderr, work, uri
    )


def test_every_canary_is_used() -> None:
    """In the program or around it; and none is a part of another."""
    around = [*arguments(), *surroundings().values(), remote(), CANARIES["source line"]]
    for name, canary in CANARIES.items():
        assert (
            f"""canary['{name}']""" in PROGRAM.replace('"', "'")
            or name in SHAPES
            or canary in " ".join(around)
        )
        assert not [other for other in CANARIES.values() if other != canary and canary in other]
    assert len(CANARIES) >= 30


def test_no_canary_is_found_anywhere(finished: Finished) -> None:
    """Not in the journal, blobs, cursors, logs, figures, locks, the store, its files, the log or a command line."""
    names = [name for name, _ in everything(finished)]
    assert any(name.endswith("events.jsonl") for name in names)
    assert any("/blobs/" in name for name in names)
    assert any("/cursors/" in name for name in names)
    assert any(name.startswith("mlartifacts") for name in names)
    found = [
        (name, where)
        for where, content in everything(finished)
        for name, canary in CANARIES.items()
        if canary.encode() in content
    ]
    assert found == []


def test_without_redaction_the_canaries_are_found(tmp_path: Path) -> None:
    """``LEZEA_REDACT=no`` means what it says; and each canary was where it could have been found.

    Not the variables that are not captured, and never what an address of a repository has before its host.
    """
    run_program(tmp_path, LEZEA_REDACT="no", LEZEA_MODE="offline")
    content = b"".join(path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file())
    missing = {name for name, canary in CANARIES.items() if canary.encode() not in content}
    assert missing == {"environment variable", "remote of git", "token as user of git"}


def test_the_run_arrived(finished: Finished) -> None:
    """Else it would be no wonder that nothing is found."""
    client = MlflowClient(finished.uri)
    run = the_run(client, finished.folder.run_id)
    assert run.info.status == "FAILED"
    assert run.data.params["password"] == "[redacted]"
    assert run.data.tags["password"] == "[redacted]"
    assert len(finished.couriers) == 1
    types = {record.type for record in read_run(finished.folder.path)}
    assert types >= {
        "run_started", "param", "lezea_config", "dataset_version", "rejected_input", "checkpoint", "network", "comment",
        "conclusion", "artifact", "result", "modification_tree", "business", "environment", "run_finished",
    }  # fmt: skip


def test_what_is_no_secret_is_as_it_was(finished: Finished) -> None:
    """Numbers, names of metrics, addresses without a user, and words that resemble a secret's name."""
    records = list(read_run(finished.folder.path))
    params = next(record.payload["params"] for record in records if record.type == "param")
    assert params["harmless"] == HARMLESS
    assert params["login"] == {"user": "ada", "api_key": "[redacted]"}
    assert params["mongo"] == "mongodb://[redacted]@db.example:27017,db2.example/lezea"
    assert params["query"] == "https://example.org/data?api_key=[redacted]&page=2"
    [step] = [record.payload["metrics"] for record in records if record.type == "training_step"]
    assert step == {"loss": 0.5, "token_accuracy": 0.75, "max_tokens": 4096}
    [argv] = [r.payload["facts"]["host"]["argv"] for r in records if "host" in r.payload.get("facts", {})]
    assert argv[-2:] == ["--max-tokens", "4096"]
    assert argv[:3] == ["train.py", "--password", "[redacted]"]
    [git] = [r.payload["facts"]["git"] for r in records if "git" in r.payload.get("facts", {})]
    assert git["remote"] == "https://example.org/team/repository.git"


def test_what_was_removed_is_counted_by_name(finished: Finished) -> None:
    """While the run goes on in ``health()``, and afterwards in the summary of its end."""
    [end] = [record for record in read_run(finished.folder.path) if record.type == "run_finished"]
    told = end.payload["summary"]["redacted"]
    assert told["userinfo of a URI"] >= 7
    for kind in ("github", "gitlab", "slack", "amazon", "huggingface", "openai", "google", "jwt", "bearer"):
        assert told[f"token of {kind}"] >= 1
    for name in ("password", "token", "apikey", "secret", "private key"):
        assert told[name] >= 1
    before = finished.health["redacted"]
    assert all(count <= told[name] for name, count in before.items())
    assert finished.health["counts"]["redacted"] == sum(before.values()) >= 50
