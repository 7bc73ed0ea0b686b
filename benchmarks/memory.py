"""What a tracker's memory does while millions of events pass.

    python benchmarks/memory.py [--events 5000000]

One process logs training steps in a scope, with 100 metric names, and reads its own resident memory before the first
block and after each tenth of the way.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time

import psutil

from lezea_mlops.tracker import ExperimentTracker

NAMES = [f"metric_{number}" for number in range(100)]
WARM_UP = 20_000


def resident_mb() -> float:
    """Return the resident memory of this process in MB."""
    gc.collect()
    return psutil.Process().memory_info().rss / 1e6


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--folder", default=None, help="where to write; default: a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        tracker = ExperimentTracker("memory", async_mode=True, runs_dir=folder, settings={"mode": "offline"})
        tracker.start(prometheus_port=None)
        with tracker.builder_scope("42"):
            log_steps(tracker, 0, WARM_UP)
            before = resident_mb()
            print(f"| events | resident MB | grown by MB |\n|---|---|---|\n| {WARM_UP:,} | {before:.1f} | |")
            began = time.perf_counter()
            for tenth in range(10):
                log_steps(tracker, tenth * arguments.events // 10, (tenth + 1) * arguments.events // 10)
                now = resident_mb()
                print(
                    f"| {(tenth + 1) * arguments.events // 10:,} | {now:.1f} | {now - before:.1f} |",
                    flush=True,
                )
        seconds = time.perf_counter() - began
        tracker.end()
    print(f"\n{arguments.events / seconds:,.0f} events/s")


def log_steps(tracker: ExperimentTracker, first: int, last: int) -> None:
    """Log the steps from *first* to before *last*."""
    for step in range(first, last):
        tracker.log_training_step(step, {"loss": 1.0 / (step + 1), NAMES[step % 100]: step * 1e-6})


if __name__ == "__main__":
    main()
