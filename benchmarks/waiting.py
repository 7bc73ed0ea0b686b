"""What a call that waits costs: with MLflow at hand beside MLflow's own call, and with MLflow away beside not waiting.

    python benchmarks/waiting.py [--calls 1000] [--away-calls 50000]

With a local SQLite store: ``tracker.log_training_step`` with ``async_mode=False``, which returns when the record is in
the store or after 50 ms, in turn with ``MlflowClient.log_batch`` of the same three metrics. With a port where nobody
listens: ``async_mode=False`` in turn with ``async_mode=True``, both in the state that the outage brought.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import statistics
import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trackers import QUIET, metrics_of, prepared_store

from lezea_mlops.tracker import ExperimentTracker

BLOCK = 25
AWAY_BLOCK = 500
AWAY_S = 5.0
LET_GO_MS = 50
# Nothing reaches a SQLite file in less.
DID_NOT_WAIT_US = 200


def a_tracker(folder: Path, uri: str, *, async_mode: bool) -> ExperimentTracker:
    """Return a run that has begun, and that MLflow has if it is there."""
    settings = {"mlflow_tracking_uri": uri, "close_timeout_s": 1.0, "start_timeout_s": 60.0}
    tracker = ExperimentTracker("waiting", runs_dir=folder, async_mode=async_mode, settings=settings)
    tracker.start(prometheus_port=None)
    return tracker


def bare_call(uri: str) -> Callable[[int], object]:
    """Return a function that logs a step with MLflow's client."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    client = MlflowClient(uri)
    run_id = client.create_run(client.create_experiment("bare")).info.run_id

    def log(step: int) -> None:
        now_ms = time.time_ns() // 1_000_000
        metrics = metrics_of(step) | {"delta_loss": 1.0 / (step + 1)}
        client.log_batch(run_id, [Metric(name, value, now_ms, step) for name, value in metrics.items()])

    return log


def timed(call: Callable[[int], object], first: int, count: int, times_ns: array[int]) -> float:
    """Run one block of *call*, add the time of each call, and return the median in microseconds."""
    clock = time.perf_counter_ns
    begin = len(times_ns)
    for step in range(first, first + count):
        before = clock()
        call(step)
        times_ns.append(clock() - before)
    return statistics.median(times_ns[begin:]) / 1e3


def compared(
    ours: Callable[[int], object],
    other: Callable[[int], object],
    calls: int,
    block: int,
    between: Callable[[], object] = lambda: None,
) -> tuple[array[int], array[int], float]:
    """Run both in turn; return the times of each, in nanoseconds, and the median ratio of a pair of blocks.

    What is done *between* blocks is not timed.
    """
    mine, others, ratios = array("q"), array("q"), []
    timed(ours, 0, block, array("q"))
    timed(other, 0, block, array("q"))
    for first in range(block, block + calls, block):
        between()
        mine_us = timed(ours, first, block, mine)
        between()
        ratios.append(mine_us / timed(other, first, block, others))
    return mine, others, statistics.median(ratios)


def rows(names: tuple[str, str], found: tuple[array[int], array[int], float]) -> None:
    """Print a table of two rows and the ratio."""
    print("| | median µs | mean µs | longest ms |\n|---|---|---|---|")
    for name, times_ns in zip(names, found, strict=False):
        print(
            f"| {name} | {statistics.median(times_ns) / 1e3:,.2f} | {statistics.mean(times_ns) / 1e3:,.2f} "
            f"| {max(times_ns) / 1e6:.1f} |"
        )
    print(f"\n{names[0]} / {names[1]}, medians of pairs: {found[2]:.3f}\n")


def with_store(folder: Path, calls: int) -> None:
    """Compare a call that waits with MLflow's own."""
    uri = f"sqlite:///{prepared_store(folder)}"
    tracker = a_tracker(folder, uri, async_mode=False)
    tracker.flush(60.0)

    def log(step: int) -> None:
        tracker.log_training_step(step, metrics_of(step))

    # After a call that was let go, others do not wait until the store has caught up; the store is also the other's.
    mine, others, ratio = compared(log, bare_call(uri), calls, BLOCK, lambda: tracker.flush(60.0))
    late = sum(1 for time_ns in mine if time_ns >= LET_GO_MS * 1e6)
    did_not = sum(1 for time_ns in mine if time_ns < DID_NOT_WAIT_US * 1e3)
    print(f"A local SQLite store, {calls:,} calls each; of ours {late:,} were let go after 50 ms, ", end="")
    print(f"and {did_not:,} did not wait because of that\n")
    rows(("`async_mode=False`", "`MlflowClient.log_batch`"), (mine, others, ratio))
    tracker.end()


def with_nobody(folder: Path, calls: int) -> None:
    """Compare waiting and not waiting while nobody is there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{probe.getsockname()[1]}"
    waits = a_tracker(folder, uri, async_mode=False)
    does_not = a_tracker(folder, uri, async_mode=True)

    def log_to(tracker: ExperimentTracker) -> Callable[[int], Any]:
        return lambda step: tracker.log_training_step(step, metrics_of(step))

    # Both drivers have started and found nobody.
    for tracker in (waits, does_not):
        tracker.flush(AWAY_S)
    print(f"Nobody at the port, {calls:,} calls each\n")
    found = compared(log_to(waits), log_to(does_not), calls, AWAY_BLOCK)
    rows(("`async_mode=False`", "`async_mode=True`"), found)
    for tracker in (waits, does_not):
        tracker.end()


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=1_000)
    parser.add_argument("--away-calls", type=int, default=50_000)
    parser.add_argument("--folder", default=None, help="where to write; default: a temporary folder")
    arguments = parser.parse_args()
    os.environ |= QUIET
    logging.getLogger("lezea_mlops").setLevel(logging.CRITICAL)
    for measure, calls in ((with_store, arguments.calls), (with_nobody, arguments.away_calls)):
        with tempfile.TemporaryDirectory(dir=arguments.folder, ignore_cleanup_errors=True) as folder:
            measure(Path(folder), calls)


if __name__ == "__main__":
    main()
