"""What calls that wait for MLflow cost while it is away.

    python benchmarks/outage.py [--calls 200]

A tracker with ``async_mode=False`` logs so many training steps, each timed by itself, while its MLflow works, is not
there, never answers, answers 500, or is a store that another program holds. The first call of an outage in the middle
of a run waits 50 ms at most; those after it do not wait until MLflow took something again.
"""

from __future__ import annotations

import argparse
import contextlib
import http.server
import logging
import os
import socket
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lezea_mlops.tracker import ExperimentTracker

LOOPBACK = "127.0.0.1"


class Broken(http.server.BaseHTTPRequestHandler):
    """Answers everything with an error 500."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_error(500)

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


@contextlib.contextmanager
def working(folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield a SQLite store that works."""
    yield f"sqlite:///{folder}/mlflow.db", lambda: None


@contextlib.contextmanager
def absent(folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield an address where nobody is."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    yield f"http://{LOOPBACK}:{port}", lambda: None


@contextlib.contextmanager
def silent(folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield a port that takes connections and never answers."""
    with socket.create_server((LOOPBACK, 0), backlog=64) as listener:
        yield f"http://{LOOPBACK}:{listener.getsockname()[1]}", lambda: None


@contextlib.contextmanager
def broken(folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield a server that answers 500."""
    with http.server.ThreadingHTTPServer((LOOPBACK, 0), Broken) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{LOOPBACK}:{server.server_port}", lambda: None
        server.shutdown()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield a store that works until another program takes all of it."""
    path = folder / "mlflow.db"
    with contextlib.ExitStack() as stack:

        def hold() -> None:
            connection = sqlite3.connect(path, isolation_level=None)
            stack.callback(connection.close)
            connection.execute("BEGIN EXCLUSIVE")

        yield f"sqlite:///{path}", hold


def main() -> None:
    """Measure and print one line per outage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=200)
    calls = parser.parse_args().calls
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    logging.getLogger("lezea_mlops").setLevel(logging.CRITICAL)
    print(f"{calls} waiting calls, milliseconds each")
    print(f"{'MLflow':<10}{'median':>10}{'longest':>10}{'together':>10}")
    for outage in (working, absent, silent, broken, locked):
        times_ms = measured(outage, calls)
        median, longest = sorted(times_ms)[len(times_ms) // 2], max(times_ms)
        print(f"{outage.__name__:<10}{median:>10.3f}{longest:>10.1f}{sum(times_ms):>10.0f}")


def measured(
    outage: Callable[[Path], contextlib.AbstractContextManager[tuple[str, Callable[[], object]]]], calls: int
) -> list[float]:
    """Return the milliseconds of each call of a run that lives through an outage."""
    with tempfile.TemporaryDirectory() as place, outage(Path(place)) as (uri, begin):
        settings = {"mlflow_tracking_uri": uri, "close_timeout_s": 0.5, "start_timeout_s": 60.0}
        tracker = ExperimentTracker("Outage", runs_dir=Path(place, "runs"), settings=settings)
        tracker.start()
        tracker.flush(5.0)
        begin()
        times_ms = []
        for step in range(calls):
            before = time.perf_counter()
            tracker.log_training_step(step, {"loss": 1.0, "acc": 0.5})
            times_ms.append((time.perf_counter() - before) * 1e3)
        tracker.end()
    return times_ms


if __name__ == "__main__":
    main()
