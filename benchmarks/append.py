"""What a log call costs, beside the least it could cost, in one process.

    python benchmarks/append.py [--calls 200000]

``tracker``: ``tracker.log_training_step(i, {"loss": x, "acc": y})`` inside a scope, no sink due.
``limit``: the same record encoded with msgspec and written by one ``os.write``.
Both run in turn, in blocks, so that a machine whose speed drifts slows both; each call is timed by itself.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from lezea_mlops.tracker import ExperimentTracker

BLOCK = 1_000


def timed(call: Callable[[int], object], first: int, times_ns: list[int]) -> None:
    """Run one block of *call*, and add the time of each call in nanoseconds."""
    clock = time.perf_counter_ns
    for i in range(first, first + BLOCK):
        before = clock()
        call(i)
        times_ns.append(clock() - before)


def figures(times_ns: list[int]) -> tuple[float, float, float]:
    """Return median, 99th percentile and mean in microseconds."""
    ordered = sorted(times_ns)
    count = len(ordered)
    return ordered[count // 2] / 1e3, ordered[count * 99 // 100] / 1e3, sum(ordered) / count / 1e3


def the_limit(run_dir: Path, path: Path) -> Callable[[int], object]:
    """Return a function that encodes the last training step of *run_dir* anew and writes it to *path*."""
    line = (run_dir / "events.jsonl").read_bytes().splitlines()[-1]
    record = json.loads(line)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    encode = msgspec.json.Encoder().encode

    def write(i: int) -> None:
        record["p"]["step"] = record["m"]["seq"] = i
        os.write(descriptor, encode(record) + b"\n")

    return write


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=200_000)
    parser.add_argument("--folder", default=None, help="where to write; default: a temporary folder here")
    calls = parser.parse_args().calls
    with tempfile.TemporaryDirectory(dir=parser.parse_args().folder) as folder:
        tracker = ExperimentTracker("append", async_mode=True, runs_dir=folder, settings={"mode": "offline"})
        tracker.start(prometheus_port=None)
        ours: list[int] = []
        limit: list[int] = []
        with tracker.builder_scope("42"):
            log = tracker.log_training_step

            def step(i: int) -> None:
                log(i, {"loss": 1.0 / (i + 1), "acc": i * 1e-6})

            timed(step, 0, [])
            write = the_limit(tracker.run_dir, Path(folder) / "limit.jsonl")
            timed(write, 0, [])
            gc.collect()
            for first in range(BLOCK, calls + BLOCK, BLOCK):
                timed(step, first, ours)
                timed(write, first, limit)
        tracker.end()
        line_bytes = (tracker.run_dir / "events.jsonl").stat().st_size / (calls + BLOCK)
    report(figures(ours), figures(limit), calls, line_bytes)


def report(ours: tuple[float, ...], limit: tuple[float, ...], calls: int, line_bytes: float) -> None:
    """Print both rows and the ratio of the medians."""
    print(f"{calls:,} calls each, {line_bytes:.0f} bytes a line")
    print("| | median µs | p99 µs | mean µs |")
    print("|---|---|---|---|")
    for name, row in (("tracker", ours), ("limit", limit)):
        print(f"| {name} | {row[0]:.2f} | {row[1]:.2f} | {row[2]:.2f} |")
    print(f"\ntracker / limit, medians: {ours[0] / limit[0]:.2f}")


if __name__ == "__main__":
    main()
