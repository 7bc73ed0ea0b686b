"""What the page on MongoDB shows is true: its programs run, its shell queries answer, its documents are those of a run.

Its Python blocks are marked ``py``, not ``python``: they continue each other and need a server, so they are run here as
one program and not one by one with those of the other pages.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from lezea_mlops.evolution import MongoQueries
from lezea_mlops.sinks.mongodb.delivery import INDEXES
from lezea_mlops.sinks.mongodb.documents import COLLECTION_OF_TYPE, COLLECTIONS
from lezea_mlops.sinks.mongodb.experiment import TYPES_OF_THE_RUN
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "mongodb.md").read_text()
DELETING = "delete_many"


def blocks(language: str) -> list[str]:
    """Return the blocks of the page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def table(heading: str) -> Iterator[list[str]]:
    """Yield the rows of the first table below a heading, as cells."""
    lines: Iterator[str] = iter(PAGE.partition(f"\n## {heading}\n")[2].splitlines())
    lines = itertools.dropwhile(lambda line: not line.startswith("|"), lines)
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines)
    for row in itertools.islice(rows, 2, None):
        yield [cell.strip() for cell in row.strip("|").split(" | ")]


def names_in(cell: str) -> list[str]:
    """Return what stands in code in a cell."""
    return re.findall(r"`([^`]+)`", cell)


@pytest.fixture
def shown(
    mongo_uri: str, mlflow_store: str, run_python: Callable[..., subprocess.CompletedProcess[str]]
) -> Iterator[tuple[Database[Any], str]]:
    """Return a database with the run of the page, and its id; all programs but the one that deletes it have run."""
    programs = [block for block in blocks("py") if DELETING not in block]
    # On a busy machine delivery may take longer than an end waits by itself.
    settings = {"LEZEA_MONGO_URI": mongo_uri, "LEZEA_CLOSE_TIMEOUT_S": "60"}
    done = run_python("\n".join([*programs, "print(run)"]), check=False, **settings)
    assert (done.returncode, done.stderr) == (0, "")
    with MongoClient[Any](mongo_uri) as client:
        yield client.get_default_database(), done.stdout.strip()


def test_the_page_is_true_of_a_real_run(
    shown: tuple[Database[Any], str],
    run_python: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    """One run for all of it: making one takes seconds."""
    database, run = shown
    the_shell_queries_answer_as_the_library_does(database, run)
    the_documents_are_those_of_the_run(database, run)
    assert database.list_collection_names()
    [deleting] = [block for block in blocks("py") if DELETING in block]
    other = database.results.find_one({}, {"run_id": 1})
    for each in (run, other["run_id"] if other else ""):
        exec(deleting, {"database": database, "run": each})
    assert {
        name: database[name].count_documents({}) for name in database.list_collection_names()
    } == dict.fromkeys(database.list_collection_names(), 0)


def the_shell_queries_answer_as_the_library_does(database: Database[Any], run: str) -> None:
    """Each is strict JSON but for the variable, and so can be asked here."""
    queries = MongoQueries(database, run)
    expected: list[Any] = [
        queries.ancestors("mod-3a"),
        queries.descendants("mod-2a"),
        [(row.step, row.type, row.proposed, row.accepted) for row in queries.acceptance_by_type(10)],
        queries.best_path()[-1:],
        [node.modification.id for node in queries.path_to("net-3")],
    ]
    found = []
    for block in blocks("js"):
        if call := re.fullmatch(r"db\.(\w+)\.aggregate\((.*)\)\n", block, re.DOTALL):
            pipeline = json.loads(re.sub(r"(?<=: )run\b", json.dumps(run), call[2]))
            rows = list(database[call[1]].aggregate(pipeline))
            found.append([row["id"] if "id" in row else counted(row) for row in rows])
    assert found == expected


def counted(row: dict[str, Any]) -> tuple[Any, ...]:
    """Return a row of acceptance."""
    return row["_id"]["step"], row["_id"]["type"], row["proposed"], row["accepted"]


def the_documents_are_those_of_the_run(database: Database[Any], run: str) -> None:
    """But for the moments, and for what differs from machine to machine."""
    shown = [re.fullmatch(r"// (\w+)\n(.*)", block, re.DOTALL) for block in blocks("js")]
    documents = [(block[1], json.loads(block[2].replace("RUN", run))) for block in shown if block]
    assert [name for name, _ in documents] == [
        "training_steps", "modifications", "modification_trees", "networks", "populations", "experiments",
    ]  # fmt: skip
    for name, document in documents:
        stored = database[name].find_one({"_id": document["_id"]})
        assert stored is not None, document["_id"]
        assert without_moments(document) == without_moments(stored)
        if name != "experiments":
            assert list(document) == list(stored)


def without_moments(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document without what changes from run to run; of those fields that they are there."""
    changing = {
        "ts",
        "at",
        "finished_at",
        "attempts",
        "env",
        "environment",
        "summary",
        "lezea",
        "duration_ms",
        "source",
    }
    told = {name: value for name, value in document.items() if name not in changing}
    if "attempts" in document:
        # Where the values are left out, the names must be there.
        assert {"env", "environment", "summary", "lezea", "finished_at"} <= document.keys()
        assert {"started_at", "end"} == document["attempts"]["1"].keys()
    return told


def test_the_indexes_of_the_page_are_those_that_are_made() -> None:
    """Neither more nor fewer, in the same order of fields."""
    told: dict[str, Any] = {}
    for name, indexes in table("Indexes"):
        each = tuple(tuple(index.split(", ")) for index in names_in(indexes))
        told |= dict.fromkeys(names_in(name), each) if names_in(name) else {"all others": each}
    others = told.pop("all others")
    assert dict.fromkeys(INDEXES, others) | told == INDEXES


def test_the_collections_of_the_page_are_those_that_are_filled() -> None:
    """With the types of records that each holds."""
    told = {names_in(name)[0]: names_in(types) for name, _, types in table("What stands where")}
    assert set(told) == {*COLLECTIONS, "experiments"}
    found = {
        kind: name
        for name, kinds in told.items()
        for kind in kinds
        if name not in ("experiments", "modifications")
    }
    assert found == COLLECTION_OF_TYPE
    assert set(told["experiments"]) == TYPES_OF_THE_RUN
