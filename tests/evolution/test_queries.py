"""The same questions to MongoDB and to the journal have the same answers, whatever was logged."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo import MongoClient
from pymongo.database import Database

from lezea_mlops import read_evolution
from lezea_mlops.evolution import JournalQueries, MongoQueries, Queries, read_evolution_from_mongo
from lezea_mlops.journal import JournalWriter, RunFolder, read_run
from lezea_mlops.sinks.base import Run
from lezea_mlops.sinks.mongodb import MongoSink


class Logged(NamedTuple):
    """One record of a journal to be written."""

    kind: str
    fields: dict[str, Any]
    wid: str = "main"
    att: int = 1


class Place:
    """A database, and runs whose journals are written by hand and delivered by the sink itself."""

    def __init__(self, uri: str, folder: Path, database: Database[Any]) -> None:
        self.database = database
        self._uri = uri
        self._folder = folder

    def run(self, *logged: Logged, run_id: str | None = None) -> tuple[MongoQueries, JournalQueries]:
        """Return the questions to a new run with these records, to MongoDB and to its journal."""
        run_id = run_id or os.urandom(8).hex()
        folder = RunFolder(self._folder / run_id)
        folder.create()
        for (wid, att), records in itertools.groupby(logged, key=lambda each: (each.wid, each.att)):
            writer = JournalWriter(folder, wid, attempt=att, durability="process")
            for each in records:
                fields = dict(each.fields)
                writer.append(each.kind, fields, fields.pop("scope", ()))
            writer.close()
        sink = MongoSink(self._uri)
        sink.open(Run(run_id, folder.path), {})
        # A writer's records come in order, and the writers one after the other.
        for _, of_writer in itertools.groupby(
            sorted(read_run(folder.path), key=lambda r: r.wid), lambda r: r.wid
        ):
            sink.deliver(list(of_writer))
        sink.close()
        return MongoQueries(self.database, run_id), JournalQueries(read_evolution(folder.path))


@pytest.fixture
def place(mongo_uri: str, tmp_path: Path) -> Iterator[Place]:
    """Return an empty database, and a folder for runs."""
    with MongoClient[Any](mongo_uri) as client:
        yield Place(mongo_uri, tmp_path, client.get_default_database())


def tree(*modifications: Any, step: Any = 1, wid: str = "main", att: int = 1, **fields: Any) -> Logged:
    """Return a logged tree."""
    return Logged(
        "modification_tree", {"step": step, "modifications": list(modifications), **fields}, wid, att
    )


def network(network_id: Any, *parents: Any, **fields: Any) -> Logged:
    """Return a registered network."""
    return Logged(
        "network", {"network_id": network_id, "network_type": "tasker", "parent_ids": parents, **fields}
    )


def population(generation: int, fitness_scores: Any) -> Logged:
    """Return a generation of the population."""
    return Logged("population", {"generation": generation, "fitness_scores": fitness_scores})


def answer(ask: Any) -> str:
    """Return an answer as text, in which NaN is equal to itself; an error by its kind."""
    try:
        return repr(ask())
    except KeyError:
        return "KeyError"


def answers(queries: Queries, modifications: list[str], networks: list[str]) -> dict[str, str]:
    """Return all answers about these ids."""
    asked = {f"{name} of {each}": answer(lambda n=name, e=each: getattr(queries, n)(e))
             for name in ("lineage", "ancestors", "descendants") for each in modifications}  # fmt: skip
    asked |= {f"{name} of {each}": answer(lambda n=name, e=each: getattr(queries, n)(e))
              for name in ("network_lineage", "path_to") for each in networks}  # fmt: skip
    asked["best_path"] = answer(queries.best_path)
    for steps in (1, 3):
        asked[f"acceptance of {steps}"] = answer(lambda s=steps: queries.acceptance_by_type(s))
    return asked


def drawn() -> list[Logged]:
    """Return a small run: a ─ b ─ d, a ─ c, and e, a crossover of d and c; networks n1 ─ n2 ─ n3."""
    return [
        network("n1"), network("n2", "n1"), network("n3", "n2", "n1"), population(0, {"n1": 1.0, "wild": 2.0}),
        tree({"id": "a", "accepted": True, "score": 1.0, "type": "widen", "target": "n1"}, step=1),
        tree(
            {"id": "b", "parent_ids": ["a"], "accepted": True, "score": 3, "type": "prune", "target": "n2"},
            {"id": "c", "parent_ids": ["a"], "accepted": False, "score": 9, "type": "widen", "target": "n2"}, step=2,
        ),
        tree(
            {"id": "d", "parent_ids": ["b"], "score": "NaN", "type": "widen", "target": "n3"},
            {"id": "e", "parent_ids": ["d", "c"], "accepted": True, "score": 2.5, "target": "n3"}, step=3,
        ),
    ]  # fmt: skip


def test_the_answers_about_a_small_run(place: Place) -> None:
    """Each as drawn, from MongoDB and from the journal."""
    for queries in place.run(*drawn()):
        assert queries.lineage("e") == ["a", "b", "d", "e"]
        assert queries.ancestors("e") == ["a", "b", "c", "d"]
        assert queries.descendants("b") == ["d", "e"]
        assert queries.best_path() == ["a", "b"]
        assert queries.network_lineage("n3") == ["n1", "n2", "n3"]
        assert queries.network_lineage("wild") == ["wild"]
        assert [node.modification.id for node in queries.path_to("n3")] == ["a", "b", "d", "e"]
        assert queries.path_to("nobody") == []
        assert queries.acceptance_by_type(2) == [
            (0, "widen", 1, 1),
            (2, None, 1, 1),
            (2, "prune", 1, 1),
            (2, "widen", 2, 0),
        ]


IDS = ["a", "b", "$where", "a.b", 'say "x"', "a#1", "7", "%24"]
SCORES = (
    st.none() | st.integers(-3, 3)
    | st.sampled_from([0.5, {"$num": "NaN"}, {"$num": "Infinity"}, "NaN", 2**63 + 1, 2**63 + 2, -0.0])
)  # fmt: skip


@st.composite
def contents(draw: st.DrawFn) -> dict[str, Any]:
    """Return a modification of one of a few ids, or without one."""
    content = {
        "id": draw(st.sampled_from([*IDS, None])),
        "parent_ids": draw(st.lists(st.sampled_from([*IDS, "never", "$$ROOT"]), max_size=3)),
        "type": draw(st.sampled_from(["widen", "prune", None])), "accepted": draw(st.sampled_from([True, False, None])),
        "score": draw(SCORES), "target": draw(st.sampled_from([None, *IDS])),
    }  # fmt: skip
    return content | draw(
        st.sampled_from([{}, {"params": {"$set": {"a.b": 1}, "": 2**70}}, {"own": {"$b64": "AAE="}}])
    )


@st.composite
def runs(draw: st.DrawFn) -> list[Logged]:
    """Return the records of a run of two writers, in logged order.

    Parents may never come, come late, or be descendants; ids come again with other contents. A content that comes again
    after another one of its id is left out.
    """
    found: list[Logged] = []
    seen: dict[str, list[str]] = {}
    for number in range(draw(st.integers(1, 6))):
        wid, att = draw(st.sampled_from(["main", "rank1"])), 1 + number // 4
        kind = draw(st.sampled_from(["tree", "tree", "network", "population"]))
        if kind == "network":
            name = draw(st.sampled_from([*IDS, 7]))
            parents = draw(st.lists(st.sampled_from([*IDS, 7, None]), max_size=2) | st.sampled_from(IDS))
            record = network(name, generation=number)
            record.fields["parent_ids"] = parents
            found.append(record._replace(wid=wid, att=att))
        elif kind == "population":
            alive = st.dictionaries(st.sampled_from([*IDS, "wild"]), st.floats(0, 1)) | st.lists(
                st.floats(0, 1)
            )
            found.append(population(number, draw(alive))._replace(wid=wid, att=att))
        else:
            new = []
            for content in draw(st.lists(contents(), max_size=4)):
                versions = seen.setdefault(str(content["id"]), [])
                if repr(content) in versions[:-1]:
                    continue
                versions += [repr(content)] if repr(content) not in versions else []
                new.append(content)
            step = draw(st.sampled_from([None, 0, 1, 4, -2, 2**63, "late", 1.5]))
            found.append(
                tree(
                    *new, step=step, wid=wid, att=att, scope=draw(st.sampled_from([(), (("builder", "1"),)]))
                )
            )
    return found


# The database is one for all examples; each is a run of its own.
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(logged=runs())
def test_mongodb_answers_as_the_journal_does(place: Place, logged: list[Logged]) -> None:
    """Of any forest: crossovers, parents that never came, cycles, ids that came again, odd ids, two writers."""
    mongo, journal = place.run(*logged)
    ids = [*IDS, "main.1.1", "never"]
    networks = [*IDS, "wild", "0", "1", "nobody"]
    expected = answers(journal, ids, networks)
    assert answers(mongo, ids, networks) == expected
    again = JournalQueries(read_evolution_from_mongo(place.database, mongo.run_id))
    assert answers(again, ids, networks) == expected
