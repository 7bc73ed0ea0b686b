"""No document comes near what a server refuses, whatever is logged; what is large comes back whole."""

from __future__ import annotations

import json
from typing import Any

import bson
import pytest

from lezea_mlops.config import load_settings
from lezea_mlops.events import from_document
from lezea_mlops.journal import RunFolder, read_run
from lezea_mlops.runtime.replay import Order, deliver_run
from lezea_mlops.sinks.mongodb.large import BUCKET, MAX_DOCUMENT_BYTES, LargeValues
from lezea_mlops.tracker import ExperimentTracker
from tests.sinks.mongodb.place import Place, emptied_mongo_uri, place

__all__ = ["emptied_mongo_uri", "place"]

# Integers take six times as much in BSON as in JSON.
MANY = [number % 10 for number in range(1_000_000)]


def largest(place: Place) -> int:
    """Return the size of the largest document of the database but the pieces of large values."""
    names = [name for name in place.database.list_collection_names() if not name.startswith(BUCKET)]
    return max(len(bson.encode(each)) for name in names for each in place.database[name].find())


def read(place: Place, value: Any) -> Any:
    """Return a value as it was logged."""
    return from_document(value, LargeValues(place.database, "run-1").read)


@pytest.mark.parametrize(
    ("kind", "fields", "collection"),
    [
        ("training_step", {"step": 1, "metrics": {"loss": 1.0}, "sample_ids": MANY}, "training_steps"),
        ("result", {"result_dict": {"all": MANY, "few": [1]}}, "results"),
        ("result", {"result_dict": {f"metric {number}": number for number in range(300_000)}}, "results"),
        ("telepathy", {"thought": {"$where": MANY}}, "events"),
    ],
)
def test_a_large_value_moves_out_of_its_document(
    place: Place, kind: str, fields: dict[str, Any], collection: str
) -> None:
    """In its place stand head, digest and address, and with them it comes back equal."""
    place.log(kind, **fields)
    place.ship()
    assert largest(place) <= MAX_DOCUMENT_BYTES
    [found] = place.database[collection].find()
    logged = {name: value for name, value in fields.items() if name != "step"}
    assert read(place, found["data"]) == logged
    assert json.dumps(found["data"], default=str).count("sha256") == 1
    assert place.audit()[0] == []
    place.forget()
    place.ship()
    assert place.database[f"{BUCKET}.files"].count_documents({}) == 1


def test_a_large_modification_keeps_its_place_in_the_tree(place: Place) -> None:
    """Only its params move out; id, parents and score can be asked for as of any other."""
    place.log_tree(
        1, [{"id": "m1", "parent_ids": ["m0"], "score": 0.5, "params": {"weights": MANY}}, {"id": "m2"}]
    )
    place.ship()
    assert largest(place) <= MAX_DOCUMENT_BYTES
    found = place.modifications()
    assert (found["m1"]["parent_ids"], found["m1"]["score"]) == (["m0"], 0.5)
    assert read(place, found["m1"]["params"]) == {"weights": MANY}
    assert place.audit()[0] == []


def test_many_and_long_params_fit_into_the_document_of_the_run(place: Place) -> None:
    """They are read back when another process goes on, and what is not used any more is deleted."""
    place.log("run_started", experiment_name="Demo")
    place.log("param", params={f"p{number}": "x" * 1_000 for number in range(6_000)})
    place.ship()
    place.shipper.close()
    place.shipper = place.make_shipper()
    place.log("param", params={"p7": "new", "p6000": "more"})
    place.ship()
    assert largest(place) <= MAX_DOCUMENT_BYTES
    [found] = place.database.experiments.find()
    params = read(place, found["params"])
    assert (len(params), params["p7"], params["p8"]) == (6_001, "new", "x" * 1_000)
    assert place.database[f"{BUCKET}.files"].count_documents({}) == 1
    assert place.audit()[0] == []


def test_a_large_value_that_is_gone_is_missed_by_the_audit_and_comes_again(place: Place) -> None:
    """Though its document stands there as it should."""
    place.log("result", result_dict={"all": MANY})
    place.ship()
    place.database[f"{BUCKET}.files"].delete_many({})
    place.database[f"{BUCKET}.chunks"].delete_many({})
    [finding], _ = place.audit()
    assert (finding.kind, finding.wid, finding.seq, finding.mendable) == ("missing", "main", 1, True)
    place.forget()
    place.ship()
    assert place.audit()[0] == []


@pytest.mark.slow
def test_a_tree_of_60_mb_is_one_tree_and_its_modifications(emptied_mongo_uri: str, place: Place) -> None:
    """Logged by one call, journaled in parts, delivered by the command's own code."""
    tracker = ExperimentTracker("Large", runs_dir=place.folder.path.parent, settings={"mode": "offline"})
    genes = "ACGT" * 250
    logged = [
        {"id": f"m{number}", "parent_ids": [f"m{number // 2}"], "params": {"genes": genes}}
        for number in range(60_000)
    ]
    tracker.log_modification_tree(1, logged)
    tracker.end()
    folder = RunFolder(tracker.run_dir)
    assert folder.journal("main").stat().st_size > 60_000_000
    settings = load_settings({"mongo_uri": emptied_mongo_uri, "runs_dir": folder.path.parent}, {})
    [report] = deliver_run(folder, settings, Order(sinks=["mongodb"]))
    assert report.error is None
    database = place.database
    [tree] = database.modification_trees.find({"run_id": folder.run_id, "type": "modification_tree"})
    assert (tree["data"]["parts"], tree["data"]["statistics"]["computed"]["count"]) == (
        max(
            record.payload["parts"] for record in read_run(folder.path) if record.type == "modification_tree"
        ),
        60_000,
    )
    assert database.modifications.count_documents({"run_id": folder.run_id}) == 60_000
    assert largest(place) <= MAX_DOCUMENT_BYTES
