"""Who answers questions to a run's evolution: MongoDB where it has the run, else the journal."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from pymongo.errors import InvalidOperation

from lezea_mlops import ExperimentTracker, query_evolution
from lezea_mlops.errors import ConfigurationError, JournalError
from lezea_mlops.evolution import JournalQueries, MongoQueries
from lezea_mlops.servers.process import free_port
from tests.sinks.mongodb.place import Place, emptied_mongo_uri, place

__all__ = ["emptied_mongo_uri", "place"]


def grow(place: Place) -> Path:
    """Log a small tree, and return the run folder."""
    place.log("run_started", experiment_name="Demo")
    place.log_tree(1, [{"id": "m1"}, {"id": "m2", "parent_ids": ["m1"]}])
    return place.folder.path


def test_mongodb_answers_where_it_has_the_run(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """By folder, and by id where the folder is elsewhere; the environment names the server, or the argument does."""
    folder = grow(place)
    place.ship()
    with query_evolution(folder, mongo_uri=place.uri) as queries:
        assert isinstance(queries, MongoQueries)
        assert queries.lineage("m2") == ["m1", "m2"]
    monkeypatch.setenv("LEZEA_MONGO_URI", place.uri)
    with query_evolution("run-1") as queries:
        assert isinstance(queries, MongoQueries)
        assert queries.descendants("m1") == ["m2"]


def test_the_journal_answers_where_mongodb_does_not_know_the_run(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Because no MongoDB is named, the run was not delivered, or is in another database; that is no problem."""
    folder = grow(place)
    for uri in (None, place.uri):
        with query_evolution(folder, mongo_uri=uri) as queries:
            assert isinstance(queries, JournalQueries)
            assert queries.lineage("m2") == ["m1", "m2"]
    monkeypatch.setenv("LEZEA_RUNS_DIR", str(folder.parent))
    with query_evolution("run-1") as queries:
        assert queries.lineage("m2") == ["m1", "m2"]
    assert caplog.records == []


def test_the_journal_answers_where_mongodb_is_down(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A warning says so; no question is worth less for it."""
    tracker = ExperimentTracker("Demo", settings={"mode": "offline"}, auto_start=True)
    tracker.log_modification_tree(1, [{"id": "m1", "type": "widen", "accepted": True}])
    tracker.end()
    uri = f"mongodb://user:secret@127.0.0.1:{free_port()}/lezea?serverSelectionTimeoutMS=100&timeoutMS=200"
    with caplog.at_level(logging.WARNING), query_evolution(tracker.run_dir, mongo_uri=uri) as queries:
        assert queries.acceptance_by_type() == [(1, "widen", 1, 1)]
    [said] = [record.getMessage() for record in caplog.records]
    assert "the journal of the run" in said
    assert "secret" not in said


def test_a_renamed_folder_is_asked_as_the_run_that_it_holds(place: Place, tmp_path: Path) -> None:
    """Its records carry the id under which MongoDB has them."""
    folder = grow(place)
    place.ship()
    renamed = folder.rename(tmp_path / "renamed")
    with query_evolution(renamed, mongo_uri=place.uri) as queries:
        assert isinstance(queries, MongoQueries)
        assert queries.lineage("m2") == ["m1", "m2"]
    renamed.rename(folder)


def test_a_run_that_is_nowhere_is_told(mongo_uri: str, tmp_path: Path) -> None:
    """With the folder that was looked at, and what may be passed."""
    with pytest.raises(JournalError, match=r"nobody: .*runs/nobody holds no journal.*; pass a run folder"):
        query_evolution("nobody").__enter__()
    with pytest.raises(JournalError, match="MongoDB has no such run"):
        query_evolution(tmp_path, mongo_uri=mongo_uri).__enter__()
    with pytest.raises(ConfigurationError, match="mongodb://"):
        query_evolution(tmp_path, mongo_uri="http://here").__enter__()


def test_the_connection_is_closed_behind_the_questions(place: Place) -> None:
    """Also after an error."""
    folder = grow(place)
    place.ship()
    with (
        pytest.raises(KeyError, match="'never' was logged"),
        query_evolution(folder, mongo_uri=place.uri) as asked,
    ):
        asked.lineage("never")
    with pytest.raises(InvalidOperation, match="after close"):
        asked.lineage("m1")
