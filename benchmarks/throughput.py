"""How fast a run's metrics reach MLflow, beside a bare loop of ``log_batch`` with full batches, on the same store.

    python benchmarks/throughput.py [--steps 20000] [--rounds 5] [--profile]

``bare``: ``MlflowClient.log_batch`` with 1,000 metrics a call, made beforehand.
``sync``: the journal of a run that was logged offline, delivered as ``lezea sync`` does.
``live``: a run that is logged at full speed while it is delivered, from the first step until ``flush`` returns.
All three bring as many metrics of the same names and steps to one local SQLite store, in turn and in one process (a
courier is its own); each step has two metrics and the ``delta_loss`` that the tracker adds.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from trackers import QUIET, metrics_of, prepared_store

from lezea_mlops.config import load_settings
from lezea_mlops.journal import RunFolder
from lezea_mlops.runtime.own_process import prepare_own_process
from lezea_mlops.runtime.replay import deliver_run
from lezea_mlops.tracker import ExperimentTracker

PER_REQUEST = 1_000
# Two metrics of each step, and a delta_loss of each but the first.
PER_STEP = 3
DELIVERED_S = 600.0


def bare(folder: Path, uri: str, steps: int) -> float:
    """Log the metrics of so many steps in full batches; return the seconds."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("bare")
    experiment_id = experiment.experiment_id if experiment else client.create_experiment("bare")
    run_id = client.create_run(experiment_id).info.run_id
    now_ms = time.time_ns() // 1_000_000
    metrics = [
        Metric(name, value, now_ms, step)
        for step in range(steps)
        for name, value in (metrics_of(step) | {"delta_loss": 1.0 / (step + 1)}).items()
    ]
    began = time.perf_counter()
    for first in range(0, len(metrics), PER_REQUEST):
        client.log_batch(run_id, metrics=metrics[first : first + PER_REQUEST])
    return time.perf_counter() - began


def sync(folder: Path, uri: str, steps: int) -> float:
    """Deliver the finished journal of an offline run; return the seconds.

    Raises:
        RuntimeError: it was not delivered.
    """
    tracker = ExperimentTracker("sync", async_mode=True, runs_dir=folder, settings={"mode": "offline"})
    tracker.start(prometheus_port=None)
    for step in range(steps):
        tracker.log_training_step(step, metrics_of(step))
    tracker.end()
    settings = load_settings({"mlflow_tracking_uri": uri}, runs_dir=folder)
    began = time.perf_counter()
    reports = deliver_run(RunFolder(tracker.run_dir), settings)
    seconds = time.perf_counter() - began
    if errors := [report.error for report in reports if report.error]:
        raise RuntimeError(f"the journal was not delivered: {errors[0]}")
    return seconds


def live(folder: Path, uri: str, steps: int) -> float:
    """Log so many steps at full speed and wait until all are delivered; return the seconds.

    Raises:
        RuntimeError: they were not delivered.
    """
    tracker = ExperimentTracker(
        "live", async_mode=True, runs_dir=folder, settings={"mlflow_tracking_uri": uri}
    )
    tracker.start(prometheus_port=None)
    if not tracker.flush(DELIVERED_S):
        raise RuntimeError(f"the run was not begun in MLflow: {tracker.health()}")
    began = time.perf_counter()
    for step in range(steps):
        tracker.log_training_step(step, metrics_of(step))
    delivered = tracker.flush(DELIVERED_S)
    seconds = time.perf_counter() - began
    if not delivered:
        raise RuntimeError(f"the steps were not delivered: {tracker.health()}")
    tracker.end()
    return seconds


WAYS: dict[str, Callable[[Path, str, int], float]] = {"bare": bare, "sync": sync, "live": live}


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", default=None, help="where to write; default: a temporary folder")
    parser.add_argument(
        "--profile", action="store_true", help="tell where the time of sync goes; it is slower then"
    )
    arguments = parser.parse_args()
    os.environ |= QUIET
    # As ``lezea sync`` does in its process; here the bare loop has the good of it too.
    prepare_own_process()
    rates: dict[str, list[float]] = {name: [] for name in WAYS}
    profile = cProfile.Profile() if arguments.profile else None
    with tempfile.TemporaryDirectory(dir=arguments.folder) as place:
        folder = Path(place)
        uri = f"sqlite:///{prepared_store(folder)}"
        for number in range(arguments.rounds + 1):
            # The first round is warm-up; then each way is the first in turn.
            order = list(WAYS)[number % 3 :] + list(WAYS)[: number % 3]
            for name in order:
                with profile if profile and name == "sync" and number else nullcontext():
                    seconds = WAYS[name](folder, uri, arguments.steps if number else 1_000)
                if number:
                    rates[name].append(arguments.steps * PER_STEP / seconds)
    report(rates, arguments.steps)
    if profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


def report(rates: dict[str, list[float]], steps: int) -> None:
    """Print the median rates, and how they compare within a round."""
    print(f"{len(rates['bare'])} rounds of {steps:,} steps, {steps * PER_STEP:,} metrics\n")
    print("| | metrics/s | of the bare loop |\n|---|---|---|")
    for name, found in rates.items():
        shares = [rate / limit for rate, limit in zip(found, rates["bare"], strict=True)]
        print(f"| {name} | {statistics.median(found):,.0f} | {statistics.median(shares):.2f} |")


if __name__ == "__main__":
    main()
