"""The demonstration does what it says, on real data, with a real store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_demonstration_evolves_and_leaves_a_finished_run(tmp_path: Path, mlflow_store: str) -> None:
    """Accuracy grows over generations, every call is in the journal, and MLflow shows the run as finished."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "evolve_digits.py"), "--quick"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "LEZEA_CLOSE_TIMEOUT_S": "60"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "mlflow ui --backend-store-uri" in done.stdout
    assert "Traceback" not in done.stderr

    (journal,) = tmp_path.glob("runs/*/events.jsonl")
    records = [json.loads(line) for line in journal.read_text().splitlines()]
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

    client = MlflowClient(mlflow_store)
    (experiment,) = [e for e in client.search_experiments() if e.name != "Default"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["champion/test_accuracy"] == accuracies[-1]
