"""How long a run takes to begin and to end, in fresh interpreters, and what it leaves imported.

    python benchmarks/start.py [--runs 20]

A fresh interpreter makes ``ExperimentTracker(…, async_mode=True, auto_start=True)`` with MLflow on a local SQLite
store, logs some steps, waits until all is delivered, and ends the run. Bare interpreters stand in turn with it. The
first run of each is not counted, so that what they read is in the disk cache.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from trackers import QUIET, prepared_store

HEAVY = ("mlflow", "pymongo", "numpy", "pandas", "torch")
PROGRAM = f"""
import time
began = time.perf_counter()
from lezea_mlops import ExperimentTracker
ExperimentTracker.__name__
imported = time.perf_counter()
tracker = ExperimentTracker("start", async_mode=True, auto_start=True)
started = time.perf_counter()
at_start = time.monotonic()
for step in range(100):
    tracker.log_training_step(step, {{"loss": 1.0 / (step + 1), "acc": step * 1e-6}})
assert tracker.flush(60), tracker.health()
delivered = time.perf_counter()
tracker.end()
ended = time.perf_counter()
import json, sys
print(json.dumps({{
    "import": imported - began, "start": started - imported, "deliver": delivered - started,
    "end": ended - delivered, "at_start": at_start, "heavy": [name for name in {HEAVY!r} if name in sys.modules],
}}))
"""
ROWS = {
    "bare": "a bare interpreter, start to exit",
    "import": "`from lezea_mlops import ExperimentTracker`",
    "start": "`ExperimentTracker(…, async_mode=True, auto_start=True)`",
    "whole": "from the start of the interpreter until the run has begun",
    "deliver": "100 steps, until the first `flush` returns",
    "end": "`end()`, all being delivered",
}


def one_run(environment: dict[str, str]) -> dict[str, float | list[str]]:
    """Run both programs; return their times in seconds."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    bare, began = time.monotonic() - began, time.monotonic()
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, check=True, stdout=subprocess.PIPE
    )
    found = dict(json.loads(answer.stdout))
    return found | {"bare": bare, "whole": found["at_start"] - began}


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--folder", default=None, help="where to write; default: a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as place:
        folder = Path(place)
        environment = os.environ | QUIET | {
            "LEZEA_MLFLOW_TRACKING_URI": f"sqlite:///{prepared_store(folder)}",
            "LEZEA_RUNS_DIR": str(folder / "runs"),
        }  # fmt: skip
        found = [one_run(environment) for _ in range(arguments.runs + 1)][1:]
    print(f"{arguments.runs} runs\n\n| | median ms | longest ms |\n|---|---|---|")
    for name, text in ROWS.items():
        times = [float(run[name]) * 1e3 for run in found]  # type: ignore[arg-type]
        print(f"| {text} | {statistics.median(times):.1f} | {max(times):.1f} |")
    heavy = sorted({name for run in found for name in run["heavy"]})  # type: ignore[union-attr]
    print(f"\nof {', '.join(HEAVY)} the process has imported: {', '.join(heavy) or 'none'}")


if __name__ == "__main__":
    main()
