"""What a person finds of a run in MongoDB, as plain values for comparison."""

from __future__ import annotations

from typing import Any

from bson import json_util
from pymongo.database import Database

from lezea_mlops.sinks.mongodb.delivery import INDEXES
from lezea_mlops.sinks.mongodb.large import BUCKET


def documents(database: Database[Any], run_id: str) -> dict[str, dict[str, Any]]:
    """Return the documents of a run by collection and ``_id``, the run's own id taken out of all of them."""
    return {
        collection: {
            each["_id"].replace(run_id, "RUN"): each | {"_id": "", "run_id": ""}
            for each in database[collection].find({"run_id": run_id})
        }
        for collection in INDEXES
    }


def seen(database: Database[Any], run_id: str) -> dict[str, Any]:
    """Return all of the run: its documents, and its large values."""
    found = documents(database, run_id)
    for experiment in found["experiments"].values():
        # It counts the writes, of which there may be more or fewer.
        del experiment["lezea"]["revision"]
    # As text, for NaN is not equal to itself.
    told = {
        collection: {identity: json_util.dumps(each, sort_keys=True) for identity, each in of_run.items()}
        for collection, of_run in found.items()
    }
    large = database[f"{BUCKET}.files"].find({"metadata.run_id": run_id})
    return told | {"large": sorted((each["_id"].replace(run_id, "RUN"), each["length"]) for each in large)}
