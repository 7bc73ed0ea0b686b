"""A program that ends without ``end()`` delivers by a thread of its own when the interpreter takes no new work."""

from __future__ import annotations

from collections.abc import Callable
from subprocess import CompletedProcess
from typing import Any

from pymongo import MongoClient

PROGRAM = """
from lezea_mlops.tracker import ExperimentTracker

tracker = ExperimentTracker("Forgotten", async_mode=True)
tracker.start(prometheus_port=None)
tracker.log_modification_tree(1, [{"id": f"m{number}"} for number in range(5_000)])
for step in range(5_000):
    tracker.log_training_step(step, {"loss": 1.0})
"""


def test_a_forgotten_end_delivers_more_than_one_batch(
    run_python: Callable[..., CompletedProcess[str]], mlflow_store: str, mongo_uri: str
) -> None:
    """Nothing is told of a failure, and all of it is there."""
    done = run_python(PROGRAM, LEZEA_MONGO_URI=mongo_uri, LEZEA_CLOSE_TIMEOUT_S="100")
    assert "does not declare" not in done.stderr
    with MongoClient[Any](mongo_uri) as client:
        database = client.get_default_database()
        assert database.training_steps.count_documents({}) == 5_000
        assert database.modifications.count_documents({}) == 5_000
        [experiment] = database.experiments.find()
        assert experiment["status"] == "completed"
