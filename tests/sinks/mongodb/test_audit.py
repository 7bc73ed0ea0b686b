"""An audit finds every difference between the journal and MongoDB, and delivering again mends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pymongo.database import Database

from lezea_mlops.config import load_settings
from lezea_mlops.runtime.replay import Order, deliver_run
from tests.sinks.mongodb.place import RUN, Place, emptied_mongo_uri, place

__all__ = ["emptied_mongo_uri", "place"]

Damage = Callable[[Database[Any]], object]


@pytest.fixture
def delivered(place: Place) -> Place:
    """Return a place whose run is delivered, and right."""
    place.log("run_started", experiment_name="Demo", tags={"team": "a"})
    place.log("param", params={"lr": 0.1})
    for step in range(1, 4):
        place.log("training_step", step=step, metrics={"loss": 1.0 / step, "wild": "NaN"})
    place.log_tree(
        1, [{"id": "m1", "score": 0.5}, {"id": "m2", "parent_ids": ["m1"], "score": {"$num": "NaN"}}]
    )
    place.log_tree(2, [{"id": "m1", "score": 0.5}, {"id": "m2", "score": 0.75}], wid="rank1")
    place.log("comment", text="fine", wid="rank1")
    place.ship()
    findings, counts = place.audit()
    assert findings == []
    # Documents of steps, trees, modifications and comment, and the values of the run's own document.
    assert counts.checked == 3 + 2 + 4 + 1 + len(
        ["name", "tags.team", "outcome", "attempts.1.started_at", "params.lr"]
    )
    return place


def one(collection: str, **query: Any) -> Callable[[Database[Any], dict[str, Any]], None]:
    """Return what changes one document of a collection."""

    def change(database: Database[Any], update: dict[str, Any]) -> None:
        if update:
            assert database[collection].update_one({"run_id": RUN} | query, update).modified_count == 1
        else:
            assert database[collection].delete_one({"run_id": RUN} | query).deleted_count == 1

    return change


@pytest.mark.parametrize(
    ("change", "update", "kind", "what"),
    [
        (one("training_steps", step=2), {}, "missing", "training_steps run-1/main/4"),
        (one("training_steps", step=2), {"$set": {"data.metrics.loss": 7.0}}, "altered", "training_steps run-1/main/4"),
        (one("training_steps", step=2), {"$unset": {"data.metrics.wild": 1}}, "altered", "training_steps run-1/main/4"),
        (one("training_steps", step=2), {"$set": {"note": "mine"}}, "altered", "training_steps run-1/main/4"),
        (one("comments"), {}, "missing", "comments run-1/rank1/2"),
        (one("modification_trees", wid="rank1"), {}, "missing", "modification_trees run-1/rank1/1"),
        (one("modifications", id="m1"), {}, "missing", "modification m1"),
        (one("modifications", id="m2", wid="rank1"), {}, "missing", "modification m2"),
        (one("modifications", id="m1"), {"$set": {"accepted": True}}, "altered", "modification m1"),
        (one("experiments"), {"$set": {"params.lr": 0.5}}, "altered", "experiments params.lr"),
        (one("experiments"), {"$unset": {"tags.team": 1}}, "missing", "experiments tags.team"),
        (one("experiments"), {"$set": {"status": "completed"}}, "altered", "experiments outcome"),
    ],
)  # fmt: skip
def test_a_difference_is_found_and_mended(
    delivered: Place, change: Callable[..., None], update: dict[str, Any], kind: str, what: str
) -> None:
    """Once, with the record that brings it; delivering that again makes it right."""
    change(delivered.database, update)
    findings, _ = delivered.audit()
    assert {(finding.kind, finding.what) for finding in findings} == {(kind, what)}
    assert all(finding.mendable and finding.wid and finding.seq for finding in findings)
    delivered.forget()
    delivered.ship()
    assert delivered.audit()[0] == []


def test_a_modification_twice_is_doubled(delivered: Place) -> None:
    """Whatever the name of the second document is."""
    [copy] = delivered.database.modifications.find({"id": "m1"})
    delivered.database.modifications.insert_one(copy | {"_id": f"{RUN}/m1#9", "seq": 9})
    findings, _ = delivered.audit()
    assert [finding.kind for finding in findings if finding.what == "modification m1"] == ["doubled"]


def test_a_run_that_is_deleted_while_it_is_delivered_does_not_come_back_in_part(delivered: Place) -> None:
    """The next record of the run as a whole finds its document gone, and says so."""
    delivered.database.experiments.delete_many({})
    delivered.log("param", params={"lr": 0.2})
    assert delivered.ship().health.state == "removed"
    assert delivered.database.experiments.count_documents({}) == 0


def test_a_document_that_somebody_else_wrote_meanwhile_is_read_again(delivered: Place) -> None:
    """Two deliveries of one run, which nothing but a wrong clock of locks allows, do not overwrite each other."""
    delivered.database.experiments.update_one({}, {"$set": {"lezea.revision": 100}})
    delivered.log("param", params={"lr": 0.2})
    health = delivered.ship().health
    assert health.failures["waiting"] == 1
    assert delivered.ship().health.state == "ok"
    [found] = delivered.database.experiments.find()
    assert (found["params"], found["lezea"]["revision"]) == ({"lr": 0.2}, 101)


@pytest.mark.parametrize("collection", ["training_steps", "modifications", "events", "rewards"])
def test_a_document_of_no_record_is_told(delivered: Place, collection: str) -> None:
    """Somebody else wrote it; delivering again cannot mend that."""
    stranger = {"_id": "mine", "run_id": RUN, "wid": "main", "seq": 1_000}
    delivered.database[collection].insert_one(stranger)
    delivered.database[collection].insert_one({"_id": 7, "run_id": RUN})
    findings, _ = delivered.audit()
    told = {(finding.kind, finding.what, finding.mendable) for finding in findings}
    assert told == {("altered", f"{collection} mine", False), ("altered", f"{collection} 7", False)}


def test_documents_of_other_runs_are_none_of_its_business(delivered: Place) -> None:
    """They may lie in the same collections."""
    delivered.database.training_steps.insert_one({"_id": "other", "run_id": "run-2"})
    assert delivered.audit()[0] == []


def test_a_run_that_was_deleted_is_noticed_and_delivered_anew_on_request(delivered: Place) -> None:
    """Neither in silence nor without being asked."""
    delivered.database.client.drop_database(delivered.database.name)
    delivered.shipper.close()
    delivered.shipper = delivered.make_shipper()
    delivered.log("comment", text="later")
    health = delivered.ship().health
    assert (health.state, health.failures["removed"]) == ("removed", 1)
    assert "`lezea sync --recreate --to mongodb run-1`" in str(health.last_error)
    # Steps, trees, modifications, comments, and the run's own document.
    findings, _ = delivered.audit()
    assert len([finding for finding in findings if finding.kind == "missing"]) == 3 + 2 + 3 + 2 + 1
    order = Order(sinks=["mongodb"], recreate=True)
    settings = load_settings({"mongo_uri": delivered.uri, "runs_dir": delivered.folder.path.parent}, {})
    [report] = deliver_run(delivered.folder, settings, order)
    assert report.error is None
    assert delivered.audit()[0] == []
