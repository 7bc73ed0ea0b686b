"""A program whose courier delivers to a MongoDB that asks for a password."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pymongo import MongoClient

from lezea_mlops.config import load_settings
from lezea_mlops.journal import RunFolder
from lezea_mlops.runtime.audit import audit_run
from lezea_mlops.servers import Mongod
from tests.conftest import ROOT, WRITER

PROGRAM = """
import json, sys
from lezea_mlops.tracker import ExperimentTracker

tracker = ExperimentTracker("Demo", tags={"stage": "test"}, async_mode=True)
tracker.start(prometheus_port=None)
tracker.log_params({"lr": 0.1})
parents = tracker.log_modification_tree(1, [{"type": "widen", "accepted": True, "score": 0.5}])
tracker.log_modification_tree(2, [{"type": "prune", "parent_ids": parents, "accepted": False}])
tracker.end()
imported = [name for name in ("mlflow", "pymongo", "bson", "gridfs") if name in sys.modules]
print(json.dumps({"run": str(tracker.run_dir), "imported": imported, "health": tracker.health()}))
"""


@pytest.mark.chaos
def test_the_whole_way_with_a_password(tmp_path: Path, mlflow_store: str, mongod_with_users: Mongod) -> None:
    """All of it arrives, the program loads no driver, and the password stands in no file of the run."""
    uri = mongod_with_users.uri_of("lezea", WRITER)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=200,
        env=os.environ | {"PYTHONPATH": str(ROOT), "LEZEA_MONGO_URI": uri, "LEZEA_CLOSE_TIMEOUT_S": "100"},
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert told["imported"] == []
    assert told["health"]["sinks"]["mongodb"]["state"] == "ok"
    folder = RunFolder(Path(told["run"]))
    with MongoClient(uri) as client:
        database = client.get_default_database()
        [experiment] = database.experiments.find()
        assert (experiment["_id"], experiment["status"], experiment["params"]) == (
            folder.run_id, "completed", {"lr": 0.1},
        )  # fmt: skip
        [first, second] = database.modifications.find().sort("step")
        assert second["parent_ids"] == [first["id"]]
    [report] = audit_run(folder, load_settings({"mongo_uri": uri}), sinks=["mongodb"])
    assert report.is_right
    escaped = uri.partition("://lezea:")[2].partition("@")[0]
    for file in filter(Path.is_file, folder.path.rglob("*")):
        content = file.read_bytes()
        assert WRITER.password.encode() not in content, file
        assert escaped.encode() not in content, file
