"""How fast a journal is read back, beside the fastest that its JSON can be decoded, in one process.

    python benchmarks/read.py [--events 1000000]

``read_run``: ``for record in read_run(folder)``, each record an envelope with checked parts.
``limit``: msgspec decodes the same lines, and nothing is made of them.
Both run in turn, several times, so that a machine whose speed drifts slows both; the best time of each counts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from lezea_mlops.journal import JournalWriter, RunFolder, read_run

ROUNDS = 3


def write_run(folder: RunFolder, events: int) -> None:
    """Write a journal of training steps, as one builder's."""
    folder.create()
    writer = JournalWriter(folder, "main", durability="process")
    scope = (("builder", "42"),)
    for i in range(events):
        writer.append(
            "training_step", {"step": i, "metrics": {"loss": 1.0 / (i + 1), "acc": i * 1e-6}}, scope
        )
    writer.close()


def read_all(folder: RunFolder) -> int:
    """Read the run as a program does, and return how many records came."""
    count = 0
    for _record in read_run(folder.path):
        count += 1
    return count


def the_limit(folder: RunFolder) -> int:
    """Decode every line of the run, and return how many there were."""
    decode = msgspec.json.Decoder().decode
    count = 0
    with folder.journal("main").open("rb") as lines:
        for line in lines:
            decode(line)
            count += 1
    return count


def events_per_s(read: Callable[[RunFolder], int], folder: RunFolder) -> float:
    """Return the speed of one reading."""
    before = time.perf_counter()
    return read(folder) / (time.perf_counter() - before)


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--folder", default=None, help="where to write; default: a temporary folder here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as place:
        folder = RunFolder(Path(place) / "run")
        write_run(folder, arguments.events)
        size = folder.journal("main").stat().st_size
        rounds = [(events_per_s(read_all, folder), events_per_s(the_limit, folder)) for _ in range(ROUNDS)]
    ours, limit = (max(speeds) for speeds in zip(*rounds, strict=True))
    print(f"{arguments.events:,} events, {size / arguments.events:.0f} bytes a line, {size / 2**20:.0f} MiB")
    print("| | events/s | µs per event |")
    print("|---|---|---|")
    for name, speed in (("read_run", ours), ("limit", limit)):
        print(f"| {name} | {speed:,.0f} | {1e6 / speed:.2f} |")
    print(f"\nread_run / limit: {ours / limit:.2f}")


if __name__ == "__main__":
    main()
