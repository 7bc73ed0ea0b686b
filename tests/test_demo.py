"""The demonstration does what it says, on real data, with real stores; and so do the questions that README asks it."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from lezea_mlops import read_evolution
from lezea_mlops.errors import MissingDependencyError
from lezea_mlops.evolution import Evolution
from lezea_mlops.servers import find_mongod
from tests.conftest import MACHINE, ROOT, missing

RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
README = (ROOT / "README.md").read_text()
SECTION = README.partition("\n## Ask how a network came about\n")[2].partition("\n## ")[0]


class Demonstration(NamedTuple):
    """A demonstration that has ended, in a folder of its own."""

    folder: Path
    output: str
    errors: str
    environment: dict[str, str]

    @property
    def run_dir(self) -> Path:
        """The folder of its run."""
        (found,) = (journal.parent for journal in (self.folder / "runs").glob("*/events.jsonl"))
        return found

    @property
    def champion(self) -> str:
        """The network that it names as the best."""
        return re.search(r"^Champion +(\S+):", self.output, re.MULTILINE)[1]  # type: ignore[index]

    def run(self, *arguments: str) -> str:
        """Run Python in its folder and return what it prints."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def demonstration(
    tmp_path_factory: pytest.TempPathFactory, prepared_store: Path, request: pytest.FixtureRequest
) -> Iterator[Demonstration]:
    """The quick demonstration, delivered to a store of its own, and to MongoDB where this machine has one."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "mlflow.db").write_bytes(prepared_store.read_bytes())
    environment = {
        name: value for name, value in MACHINE.items() if not name.startswith(("LEZEA_", "MLFLOW_"))
    }
    environment |= {"PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true", "LEZEA_COURIER": "thread"}
    name = f"lezea_test_{os.urandom(8).hex()}"
    if with_mongodb := _has_mongodb():
        environment["LEZEA_MONGO_URI"] = request.getfixturevalue("shared_mongod").uri_of(name)
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "evolve_digits.py"), "--quick"], cwd=folder, env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    yield Demonstration(folder, done.stdout, done.stderr, environment)
    if with_mongodb:
        from pymongo import MongoClient

        with MongoClient(environment["LEZEA_MONGO_URI"]) as client:
            client.drop_database(name)


def _has_mongodb() -> bool:
    if MACHINE.get("LEZEA_TEST_MONGO_URI"):
        return True
    try:
        find_mongod(MACHINE)
    except MissingDependencyError:
        return False
    return True


@pytest.fixture(scope="module")
def evolution(demonstration: Demonstration) -> Evolution:
    """What the journal of the demonstration says of its modifications and networks."""
    return read_evolution(demonstration.run_dir)


def test_the_demonstration_tells_what_its_modifications_cost(demonstration: Demonstration) -> None:
    """From real measurements: what it prints, and what ``lezea costs`` finds in the journal, are the same sums."""
    printed = {
        verdict: (float(eur), int(count))
        for eur, count, verdict in re.findall(
            r"([\d.e-]+) EUR for trying (\d+) (accepted|rejected) modifications", demonstration.output
        )
    }
    lezea = "from lezea_mlops.cli import app; app()"
    costs = json.loads(demonstration.run("-c", lezea, "costs", str(demonstration.run_dir), "--json"))["costs"]
    for verdict, (eur, count) in printed.items():
        assert eur > 0
        assert count == costs["modifications"][verdict]["count"]
        assert eur == pytest.approx(costs["modifications"][verdict]["eur"], rel=0.1)
    assert printed.keys() == {"accepted", "rejected"}
    assert sum(eur for eur, _ in printed.values()) < costs["eur"]


def test_the_demonstration_evolves_and_leaves_a_finished_run(demonstration: Demonstration) -> None:
    """Accuracy grows over generations, every call is in the journal, and MLflow shows the run as finished."""
    assert demonstration.errors == ""
    records = [json.loads(line) for line in (demonstration.run_dir / "events.jsonl").read_text().splitlines()]
    by_type = {record["t"] for record in records}
    assert by_type >= {
        "lezea_config", "constraints", "training_step", "modification_tree", "modification_stats", "population",
        "network", "reward", "data_splits", "data_usage", "data_score", "resource", "checkpoint", "dataset_version",
        "result", "resource_cost", "business", "comment", "conclusion", "environment",
    }  # fmt: skip
    assert not by_type & {"rejected_input", "gap"}
    accuracies = [
        record["p"]["metrics"]["champion/test_accuracy"]
        for record in records
        if record["t"] == "metric" and "champion/test_accuracy" in record["p"]["metrics"]
    ]
    assert accuracies[-1] > accuracies[0] + 0.2

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{demonstration.folder / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name != "Default"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["champion/test_accuracy"] == accuracies[-1]
    assert "evolution/tree.html" in [
        file.path for file in client.list_artifacts(run.info.run_id, "evolution")
    ]


def test_each_modification_of_the_demonstration_says_what_it_is_and_where_it_comes_from(
    evolution: Evolution,
) -> None:
    """It tells kind, verdict, score, reason, and the network it made, whose parents its own parents made."""
    tree, networks = evolution.modifications, evolution.networks
    assert len(tree) == 16
    assert evolution.problems() == []
    for each in (tree[each].modification for each in tree):
        assert each.type
        assert each.accepted is not None
        assert each.score is not None
        assert each.params["place"]
        assert set(each.data) == {"component_id", "reason"}
        changed = networks[str(each.target)].parent_ids
        assert len(changed) == (2 if each.type == "crossover" else 1)
        made_by = [tree[parent].modification for parent in each.parent_ids]
        assert all(parent.accepted for parent in made_by)
        # A first tasker was made by no modification.
        assert [parent.target for parent in made_by] == [n for n in changed if not n.startswith("net-g0-")]


def test_the_champion_of_the_demonstration_has_a_line_of_modifications(
    demonstration: Demonstration, evolution: Evolution
) -> None:
    """One accepted modification made each network on its line but the first, and it lived in the population."""
    line = evolution.networks.lineage(demonstration.champion)
    path = evolution.path_to(demonstration.champion)
    assert line[0].startswith("net-g0-")
    assert len(line) > 1
    assert [node.modification.target for node in path] == line[1:]
    assert all(node.modification.accepted for node in path)
    assert evolution.networks.generations(demonstration.champion)


def test_the_commands_that_the_demonstration_prints_show_its_run(demonstration: Demonstration) -> None:
    """They can be typed as they stand: the tree, the champion's line, and the audit, which finds all delivered."""
    printed = re.findall(r"^ +\S*lezea (\w+) (.+)$", demonstration.output, re.MULTILINE)
    shown = {name: demonstration.run("-m", "lezea_mlops.cli", name, *rest.split()) for name, rest in printed}
    assert shown["tree"].startswith("16 modifications: ")
    assert shown["lineage"].startswith(f"{demonstration.champion}: ")
    assert "mlflow ui --backend-store-uri sqlite:///" in demonstration.output
    if "LEZEA_MONGO_URI" in demonstration.environment:
        audits = shown["audit"].splitlines()
        assert [re.search(r"→ (\w+): .* everything is there", line)[1] for line in audits] == [
            "mlflow",
            "mongodb",
        ]  # type: ignore[index]


def _asked(language: str) -> list[tuple[str, str]]:
    """Return the questions that README asks the demonstration in this language, with the answers it shows."""
    return re.findall(rf"^```{language}\n(.*?)^```\n+```text\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)


def test_readme_asks_in_the_terminal(demonstration: Demonstration) -> None:
    """The line of the champion begins with its first ancestor, under the headings that README shows."""
    ((command, shown),) = _asked("shell")
    words = RUN_ID.sub(demonstration.run_dir.name, command).split()
    assert words[:2] == ["lezea", "lineage"]
    answer = demonstration.run("-m", "lezea_mlops.cli", *words[1:-1], demonstration.champion)
    for text in (answer, shown):
        assert re.match(r"net-g\d+-t\d: \d+ networks in line, \d+ modifications?\n", text)
        assert re.match(r"net-g0-t\d +0 +[\d.]+ +tasker +0", text.splitlines()[2])
    assert answer.splitlines()[1].split() == shown.splitlines()[1].split()


@pytest.mark.parametrize("place", range(2))
def test_readme_asks_in_python(demonstration: Demonstration, place: int) -> None:
    """Each block runs on the run it names, and answers in the form that README shows."""
    code, shown = _asked("py")[place]
    if "LEZEA_MONGO_URI" in code and "LEZEA_MONGO_URI" not in demonstration.environment:
        missing("a MongoDB server (pip install 'lezea-mlops[embedded]')")
    answer = demonstration.run("-c", RUN_ID.sub(demonstration.run_dir.name, code))
    assert answer
    beginnings = {line[:6] for line in shown.splitlines()}
    assert {line[:6] for line in answer.splitlines()} == beginnings
    if "MongoClient" in code:
        assert sum(ast.literal_eval(line)["proposed"] for line in answer.splitlines()) == 16
