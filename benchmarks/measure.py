"""What measuring a component costs: ``with tracker.measure(…): pass`` beside the clocks that it has to read.

    python benchmarks/measure.py [--uses 200000]

In one process, in turn: the four readings of clocks that two ends of a block need (wall time and the thread's CPU time
at each), a plain use, one inside a scope and another use, one of many components, and one that reads memory and IO.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from time import perf_counter_ns, thread_time_ns

from lezea_mlops.tracker import ExperimentTracker

BLOCK = 1_000
# Reads files of the system each time.
DETAILED_BLOCK = 20
COMPONENTS = 64
NAMES = [f"tasker#{number}" for number in range(COMPONENTS)]

Use = Callable[[int], None]


def uses_of(tracker: ExperimentTracker) -> dict[str, tuple[Use, int]]:
    """Return what is compared, each with how many times it is done in a block."""
    measure = tracker.measure

    def clocks(count: int) -> None:
        for _ in range(count):
            perf_counter_ns(), thread_time_ns(), thread_time_ns(), perf_counter_ns()

    def plain(count: int) -> None:
        for _ in range(count):
            with measure("tasker#0", "tasker"):
                pass

    def nested(count: int) -> None:
        with tracker.builder_scope("1"), measure("builder#1", "builder"):
            for _ in range(count):
                with measure("tasker#0", "tasker"):
                    pass

    def many(count: int) -> None:
        for number in range(count):
            with measure(NAMES[number % COMPONENTS], "tasker"):
                pass

    def detailed(count: int) -> None:
        for _ in range(count):
            with measure("tasker#0", "tasker", detail=True):
                pass

    return {
        "limit: four clocks": (clocks, BLOCK),
        "`measure`": (plain, BLOCK),
        "inside a scope and a use": (nested, BLOCK),
        f"{COMPONENTS} components in turn": (many, BLOCK),
        "`detail=True`": (detailed, DETAILED_BLOCK),
    }


def timed(use: Use, count: int) -> float:
    """Do a block, and return the microseconds that one of it took."""
    before = perf_counter_ns()
    use(count)
    return (perf_counter_ns() - before) / count / 1e3


def main() -> None:
    """Compare, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--uses", type=int, default=200_000, help="of each kind that reads clocks alone")
    uses = parser.parse_args().uses
    found: dict[str, list[float]] = {}
    # Journaled alone: what delivers and samples is another program's business.
    settings = {"mode": "offline", "sample_period_s": 0, "prometheus_port": "off"}
    with (
        tempfile.TemporaryDirectory() as folder,
        ExperimentTracker("measure", runs_dir=folder, settings=settings) as tracker,
    ):
        for _ in range(max(2, uses // BLOCK)):
            for name, (use, count) in uses_of(tracker).items():
                found.setdefault(name, []).append(timed(use, count))
    limit = statistics.median(found["limit: four clocks"])
    print("| | median µs | limits |\n|---|---|---|")
    for name, times_us in found.items():
        median = statistics.median(times_us)
        print(f"| {name} | {median:.2f} | {median / limit:.2f} |")


if __name__ == "__main__":
    main()
