"""What memory a long outage takes: of the program, of its courier, and of the process that catches up.

    python benchmarks/backlog.py [--events 1000000] [--sync-s 60]

A process logs training steps while nobody is at MLflow's port; its resident memory and that of its courier are read
before the first tenth and after each. Then ``lezea sync`` delivers the run to a local SQLite store, in a process of its
own; its memory is read when its first batch was taken and from then on. MLflow takes some thousand metrics a second,
so it is stopped after some seconds; what it delivered by then is told.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from trackers import QUIET, prepared_store

from lezea_mlops.journal import Cursor, Position
from lezea_mlops.tracker import ExperimentTracker

NAMES = [f"metric_{number}" for number in range(100)]
WARM_UP = 20_000
# A courier has found that nobody is there, and has loaded what it loads for that.
SETTLED_S = 10.0
FIRST_BATCH_S = 120.0
LOOK_EVERY_S = 0.25


def resident_mb(process: psutil.Process) -> float:
    """Return the resident memory of a process in MB."""
    return float(process.memory_info().rss) / 1e6


def log_steps(tracker: ExperimentTracker, first: int, last: int) -> None:
    """Log the steps from *first* to before *last*."""
    for step in range(first, last):
        tracker.log_training_step(step, {"loss": 1.0 / (step + 1), NAMES[step % 100]: step * 1e-6})


def outage(folder: Path, events: int) -> Path:
    """Log while nobody is there, print a table of the memory, and return the run folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{probe.getsockname()[1]}"
    settings = {"mlflow_tracking_uri": uri, "close_timeout_s": 5.0}
    tracker = ExperimentTracker("backlog", async_mode=True, runs_dir=folder, settings=settings)
    tracker.start(prometheus_port=None)
    me = psutil.Process()
    with tracker.builder_scope("42"):
        log_steps(tracker, 0, WARM_UP)
        tracker.flush(SETTLED_S)
        gc.collect()
        couriers = me.children()
        before = [resident_mb(process) for process in (me, *couriers)]
        whose = ["this process", *["its courier"] * len(couriers)]
        print(f"| events | {' | '.join(f'{name}, MB | grown by' for name in whose)} |")
        print(f"|---|{'---|---|' * len(whose)}")
        for tenth in range(10):
            log_steps(tracker, tenth * events // 10, (tenth + 1) * events // 10)
            gc.collect()
            now = [resident_mb(process) for process in (me, *couriers)]
            pairs = [f"{after:.1f} | {after - first:+.1f}" for after, first in zip(now, before, strict=True)]
            print(f"| {(tenth + 1) * events // 10:,} | {' | '.join(pairs)} |", flush=True)
    began = time.perf_counter()
    tracker.end()
    print(f"\n`end()`: {time.perf_counter() - began:.2f} s")
    return tracker.run_dir


def delivered(run_dir: Path, known: set[Path]) -> int:
    """Return up to which record of the run the cursor of a new destination stands; 0 without one."""
    found = set(run_dir.glob("cursors/*.json")) - known
    return max((Cursor(path).state.positions.get("main", Position()).seq for path in found), default=0)


def catch_up(run_dir: Path, store: Path, seconds: float) -> None:
    """Deliver the run with ``lezea sync`` for a time, and print how its memory grew after its first batch.

    Raises:
        RuntimeError: it delivered nothing.
    """
    known = set(run_dir.glob("cursors/*.json"))
    environment = os.environ | QUIET | {"LEZEA_MLFLOW_TRACKING_URI": f"sqlite:///{store}"}
    command = [sys.executable, "-m", "lezea_mlops.cli", "sync", str(run_dir)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        seen = psutil.Process(process.pid)
        give_up = time.monotonic() + FIRST_BATCH_S
        while not delivered(run_dir, known):
            if process.poll() is not None or time.monotonic() > give_up:
                process.kill()
                raise RuntimeError(f"nothing was delivered; try: {' '.join(command)}")
            time.sleep(LOOK_EVERY_S)
        first, most = resident_mb(seen), 0.0
        began = time.monotonic()
        while process.poll() is None and time.monotonic() - began < seconds:
            most = max(most, resident_mb(seen))
            time.sleep(LOOK_EVERY_S)
        process.kill()
    records, took_s = delivered(run_dir, known), time.monotonic() - began
    print(f"\n`lezea sync`: {first:.1f} MB after its first batch, at most {most:.1f} MB later, ", end="")
    print(f"grown by {most - first:+.1f} MB; {records:,} records in {took_s:.0f} s")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--sync-s", type=float, default=60.0, help="how long lezea sync may deliver")
    parser.add_argument("--folder", default=None, help="where to write; default: a temporary folder")
    arguments = parser.parse_args()
    os.environ |= QUIET
    logging.getLogger("lezea_mlops").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as place:
        folder = Path(place)
        run_dir = outage(folder / "runs", arguments.events)
        catch_up(run_dir, prepared_store(folder), arguments.sync_s)


if __name__ == "__main__":
    main()
