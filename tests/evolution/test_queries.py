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
from lezea_mlops.evolution import (
    JournalQueries,
    MongoQueries,
    Queries,
    mongo_queries,
    read_evolution_from_mongo,
)
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


IDS = ["a", "b", "$where", "a.b", 'say "x"', "a#b", "7", "%24"]
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
    after another one of its id is left out: MongoDB keeps when a content was first logged, and not that it was again.
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
            new: list[Any] = []
            for content in draw(st.lists(contents(), max_size=4)):
                versions = seen.setdefault(str(content["id"]), [])
                twice = content["id"] is not None and content["id"] in [each["id"] for each in new]
                if twice or repr(content) in versions[:-1]:
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


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(logged=runs(), other=runs())
def test_runs_in_one_database_do_not_meet(place: Place, logged: list[Logged], other: list[Logged]) -> None:
    """Though their modifications and networks have the same ids; a run id may even begin another."""
    run_id = os.urandom(8).hex()
    asked = [place.run(*logged, run_id=run_id), place.run(*other, run_id=f"{run_id}-2")]
    for mongo, journal in asked:
        assert answers(mongo, IDS, IDS) == answers(journal, IDS, IDS)


def test_what_is_no_text_is_refused_before_anything_is_asked(place: Place) -> None:
    """An operator can come in nowhere, and the message names the argument."""
    both = place.run(*drawn())
    for value in ({"$gt": ""}, {"$where": "sleep(1000)"}, None, 7, ["a"], b"a"):
        for queries in both:
            for name in ("lineage", "ancestors", "descendants"):
                with pytest.raises(TypeError, match=r"modification_id is .*; pass the id as text"):
                    getattr(queries, name)(value)
            for name in ("network_lineage", "path_to"):
                with pytest.raises(TypeError, match=r"network_id is .*; pass the id as text"):
                    getattr(queries, name)(value)
        with pytest.raises(TypeError, match="run_id is"):
            MongoQueries(place.database, value)
        with pytest.raises(TypeError, match="run_id is"):
            read_evolution_from_mongo(place.database, value)


def test_steps_that_count_nothing_are_refused(place: Place) -> None:
    """With what was expected."""
    for queries in place.run(*drawn()):
        for steps in (0, -1, True, 1.5, "10", None):
            with pytest.raises(ValueError, match=r"steps is .*; pass how many steps"):
                queries.acceptance_by_type(steps)


def test_an_id_that_was_not_logged_is_a_key_error(place: Place) -> None:
    """Also one that was only named as a parent; what made a network of which nothing is known is nothing."""
    for queries in place.run(tree({"id": "a", "parent_ids": ["ghost"]}), network("n", "m")):
        for ask in (queries.lineage, queries.ancestors, queries.descendants):
            for name in ("ghost", ""):
                with pytest.raises(KeyError, match=f"'{name}' was logged"):
                    ask(name)
        with pytest.raises(KeyError, match="'m' was logged"):
            queries.network_lineage("m")
        assert (queries.lineage("a"), queries.network_lineage("n")) == (["a"], ["n"])


@pytest.mark.parametrize("many", [0, 50_000])
def test_of_several_contents_the_one_logged_last_answers(
    place: Place, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    """What was proposed first and decided later counts once, as decided; former parents are none any more."""
    # Above so many documents it is asked in another way which of them count.
    monkeypatch.setattr(mongo_queries, "_MANY", many)
    for queries in place.run(
        tree({"id": "a", "type": "widen"}, {"id": "b", "type": "widen"}, step=1),
        tree(
            {"id": "c", "parent_ids": ["a"], "type": "widen", "score": 9, "accepted": True, "target": "n"},
            step=1,
        ),
        tree(
            {"id": "c", "parent_ids": ["b"], "type": "prune", "score": 1, "accepted": False, "target": "n"},
            step=2,
        ),
        tree(
            {"id": "d", "type": "widen", "score": 5, "accepted": True, "target": "n"},
            {"id": "e", "type": "widen"},
            {"id": "d", "type": "prune", "accepted": False, "parent_ids": ["e"]},
            step=2,
        ),
    ):
        assert queries.lineage("c") == [*queries.ancestors("c"), "c"] == ["b", "c"]
        assert (queries.descendants("a"), queries.descendants("b")) == ([], ["c"])
        assert (queries.best_path(), queries.path_to("n")) == ([], [])
        # In one record the later one counts, and stands where it was logged.
        assert (queries.lineage("d"), queries.descendants("e")) == (["e", "d"], ["d"])
        expected = [(1, "widen", 2, 0), (2, "prune", 2, 0), (2, "widen", 1, 0)]
        assert queries.acceptance_by_type() == expected


def test_the_best_is_found_behind_many_that_were_taken_back(place: Place) -> None:
    """However many higher scores stand in documents that do not count any more."""
    first = [{"id": f"m{n}", "accepted": True, "score": 1000 + n} for n in range(300)]
    then = [{"id": f"m{n}", "accepted": n == 7, "score": n} for n in range(300)]
    for queries in place.run(tree(*first), tree(*then), tree({"id": "last", "accepted": True, "score": 7})):
        assert queries.best_path() == ["m7"]


LONG = 3_000


def test_long_lines_and_wide_families_have_every_answer(place: Place) -> None:
    """A line of thousands, a node with as many children, crossovers all along, and parents logged behind children."""
    line = [{"id": f"m{n}", "parent_ids": [f"m{n - 1}", f"m{n // 2}"] if n else []} for n in range(LONG)]
    fan = [{"id": f"f{n}", "parent_ids": ["m0", "never"], "target": "n"} for n in range(LONG)]
    nets = [network(f"n{n}", f"n{n - 1}") for n in range(1, 300)]
    mongo, journal = place.run(tree(*fan), tree(*line[::-1]), *nets)
    last = f"m{LONG - 1}"
    assert mongo.lineage(last) == journal.lineage(last) == [each["id"] for each in line]
    assert mongo.ancestors(last) == journal.ancestors(last)
    assert len(mongo.descendants("m0")) == 2 * LONG - 1
    assert mongo.descendants("m0") == journal.descendants("m0")
    assert repr(mongo.path_to("n")) == repr(journal.path_to("n"))
    assert (
        mongo.network_lineage("n299") == journal.network_lineage("n299") == [f"n{n}" for n in range(1, 300)]
    )


@pytest.mark.slow
def test_where_the_server_refuses_a_search_it_is_asked_piece_by_piece(place: Place) -> None:
    """It takes 100 MB for one; here the documents that lead to the answer are three times that."""
    heavy = {"params": {"weights": "x" * 1_000_000}}
    records = [
        tree({"id": f"m{n}", "parent_ids": [f"m{n - 1}"] if n else [], **heavy}, {"id": f"c{n}", "parent_ids": ["m0"]})
        for n in range(300)
    ]  # fmt: skip
    mongo, journal = place.run(*records)
    with pytest.raises(Exception, match="maximum memory"):
        list(mongo._searches._search(["m299"], True, 1_000))
    for ask in ("lineage", "ancestors"):
        assert getattr(mongo, ask)("m299") == getattr(journal, ask)("m299")
    assert mongo.descendants("m0") == journal.descendants("m0")


def test_values_too_large_for_a_document_do_not_hide_lines_and_lives(place: Place) -> None:
    """Parents and fitness are read from where they were moved to; params stay pointers."""
    many = [f"parent {number} of a very wide crossover" for number in range(100_000)]
    fitness = {f"individual {number} of a very large population": number / 7 for number in range(80_000)}
    weights = [number % 10 for number in range(1_000_000)]
    mongo, journal = place.run(
        tree({"id": many[0]}, {"id": many[99_999]}),
        tree({"id": "child", "parent_ids": many}),
        tree({"id": "heavy", "target": "n", "params": {"weights": weights}}),
        population(1, fitness),
    )
    [stored] = place.database.modifications.find({"id": "child"})
    assert "%large" in stored["parent_ids"]
    assert mongo.lineage("child") == journal.lineage("child") == [many[0], "child"]
    assert mongo.ancestors("child") == journal.ancestors("child") == [many[0], many[99_999]]
    name = "individual 79999 of a very large population"
    assert mongo.network_lineage(name) == journal.network_lineage(name) == [name]
    assert mongo.path_to("n")[0].modification.params["weights"]["%large"]["bytes"] > 1_000_000
    again = read_evolution_from_mongo(place.database, mongo.run_id)
    assert again.networks.fitness(name) == {1: 79_999 / 7}
    assert again.modifications["child"].modification.parent_ids == tuple(many)


def test_what_mongodb_returns_is_the_evolution_of_the_journal(place: Place) -> None:
    """Nodes with all that was logged of them, statistics, problems, networks and lives are equal."""
    mongo, journal = place.run(
        *drawn(),
        tree(
            {
                "id": "f",
                "parent_ids": ["g"],
                "params": {"a.b": {"$num": "NaN"}, "": 2**63},
                "own": [{"$b64": "AA=="}],
            }
        ),
        tree(
            {"id": "g", "parent_ids": ["f", "ghost"]},
            {"id": "a", "score": 5},
            scope=(("builder", "1"), ("layer", "2")),
        ),
    )
    again, expected = read_evolution_from_mongo(place.database, mongo.run_id), journal._evolution
    assert list(again.modifications) == list(expected.modifications)
    for name in expected.modifications:
        assert repr(again.modifications.versions(name)) == repr(expected.modifications.versions(name))
    assert again.modifications.statistics() == expected.modifications.statistics()
    assert again.problems() == expected.problems()
    assert {problem.kind for problem in again.problems()} == {"unknown_parent", "duplicate", "cycle"}
    for name in expected.networks:
        assert again.networks[name] == expected.networks[name]
        assert again.networks.fitness(name) == expected.networks.fitness(name)
    assert (again.networks.survivors(), again.networks.champion()) == (["n1", "wild"], "wild")


def test_of_a_run_that_is_not_there_nothing_is_known(place: Place) -> None:
    """An unknown database is an empty one."""
    queries = MongoQueries(place.database, "no-such-run")
    assert (queries.best_path(), queries.acceptance_by_type(), queries.path_to("n")) == ([], [], [])
    assert len(read_evolution_from_mongo(place.database, "no-such-run").modifications) == 0
    with pytest.raises(KeyError):
        queries.descendants("m")
