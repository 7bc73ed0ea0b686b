"""What a modification costs the program that logs it, and what it takes in the journal.

    python benchmarks/modifications.py [--generations 1000] [--size 1000]

``whole``: id, parent, type, decision, score, target and params. ``long ids``: the same with UUIDs for ids. ``no id``:
the same without one. ``lean``: id, parent, type, decision and score. Each generation is one call. ``network``:
``register_network`` with one parent, a call each. ``individual``: fitness by id, a generation in a snapshot.
``limit``: the journal's lines of ``whole`` encoded with msgspec and written by one ``os.write`` each.
They take turns, a generation of each, so that a machine whose speed drifts slows all. No delivery is due. At last,
each in one call, a line of a tenth of all modifications, and all of them as children of one.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil

from lezea_mlops.tracker import ExperimentTracker

Modification = dict[str, Any]
TYPES = ("widen", "prune", "add_layer", "swap_activation")
encode = msgspec.json.Encoder().encode


class Row:
    """One kind of call: its times, its items' own bytes, and those of the journal."""

    def __init__(
        self, name: str, make: Callable[[int], Any], log: Callable[[int, Any], object], path: Path
    ) -> None:
        self.name = name
        self._make, self._log, self._path = make, log, path
        self.items = self.own_bytes = self.journal_bytes = 0
        self.times_ns: list[int] = []

    def turn(self, generation: int) -> None:
        """Make one generation and log it; only the logging is timed."""
        given = self._make(generation)
        self.items += len(given)
        self.own_bytes += sum(len(encode(item)) for item in given)
        before = self._path.stat().st_size
        began = time.perf_counter_ns()
        self._log(generation, given)
        self.times_ns.append(time.perf_counter_ns() - began)
        self.journal_bytes += self._path.stat().st_size - before

    def line(self) -> str:
        """Return the row of the table."""
        a_call = self.items / len(self.times_ns)
        ordered = sorted(self.times_ns)
        mean = sum(ordered) / self.items / 1e3
        median, p99 = (ordered[len(ordered) * part // 100] / a_call / 1e3 for part in (50, 99))
        own, in_journal = self.own_bytes / self.items, self.journal_bytes / self.items
        return (
            f"| {self.name} | {mean:.2f} | {median:.2f} | {p99:.2f} | {own:.0f} | {in_journal - own:.1f} "
            f"| {in_journal:.0f} |"
        )


def whole(generation: int, size: int, name: Callable[[int, int], str]) -> list[Modification]:
    """Return a generation of modifications of the one before."""
    return [
        {
            "id": name(generation, number),
            "parent_ids": [name(generation - 1, number // 2)] if generation else [],
            "type": TYPES[number % 4],
            "accepted": number % 3 == 0,
            "score": 0.5 + generation * 1e-3 + number * 1e-5,
            "target": f"n{number}",
            "params": {"layer": number % 7, "units": 16},
        }
        for number in range(size)
    ]


def short_name(generation: int, number: int) -> str:
    """Return the id that a program would count up."""
    return f"m{generation}-{number}"


def long_name(generation: int, number: int) -> str:
    """Return an id of 36 characters."""
    return str(uuid.UUID(int=(generation + 1) * 10**30 + number * 10**12))


def without(modifications: list[Modification], *names: str) -> list[Modification]:
    """Return modifications that lack some fields."""
    return [{k: v for k, v in item.items() if k not in names} for item in modifications]


def register(tracker: ExperimentTracker, generation: int, networks: list[Modification]) -> None:
    """Log networks, a call each."""
    for network in networks:
        tracker.register_network(network["network_id"], "tasker", network["parent_ids"], generation)


def rows_of(tracker: ExperimentTracker, size: int, folder: str) -> list[Row]:
    """Return the kinds of calls that are compared."""
    journal, tree = tracker.run_dir / "events.jsonl", tracker.log_modification_tree

    def networks(generation: int) -> list[Modification]:
        made = whole(generation, size, short_name)
        return [{"network_id": item["id"], "parent_ids": item["parent_ids"]} for item in made]

    def snapshot(generation: int, scores: list[tuple[str, float]]) -> None:
        tracker.log_population_snapshot(size, 8, generation, dict(scores), 0.5)

    def limit(generation: int, made: list[Modification]) -> None:
        record["p"] |= {"step": generation, "modifications": made}
        os.write(descriptor, encode(record) + b"\n")

    tree(0, whole(0, size, short_name))
    record = msgspec.json.decode(journal.read_bytes().splitlines()[-1])
    path = Path(folder) / "limit.jsonl"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    lean = ("target", "params")
    return [
        Row("whole", lambda g: whole(g, size, short_name), tree, journal),
        Row("long ids", lambda g: whole(g, size, long_name), tree, journal),
        Row("no id", lambda g: without(whole(g, size, short_name), "id"), tree, journal),
        Row("lean", lambda g: without(whole(g, size, short_name), *lean), tree, journal),
        Row("network", networks, lambda g, made: register(tracker, g, made), journal),
        Row("individual", lambda g: [(short_name(g, n), n * 1e-4) for n in range(size)], snapshot, journal),
        Row("limit", lambda g: whole(g, size, short_name), limit, path),
    ]


def one_call(tracker: ExperimentTracker, name: str, modifications: list[Modification]) -> None:
    """Log one tree, and print what it took of time and, at most, of memory."""
    process = psutil.Process()
    before = process.memory_info().rss
    began = time.perf_counter()
    tracker.log_modification_tree(0, modifications)
    seconds = time.perf_counter() - began
    grown = process.memory_info().rss - before
    count = len(modifications)
    print(f"| {name} of {count:,} | {seconds:.2f} | {seconds / count * 1e6:.2f} | {grown / 1e6:.0f} |")


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--generations", type=int, default=1_000)
    parser.add_argument("--size", type=int, default=1_000)
    parser.add_argument("--folder", default=None, help="where to write; default: a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        tracker = ExperimentTracker(
            "modifications", async_mode=True, runs_dir=folder, settings={"mode": "offline"}
        )
        tracker.start(prometheus_port=None)
        rows = rows_of(tracker, arguments.size, folder)
        for generation in range(arguments.generations):
            for row in rows:
                row.turn(generation)
        print("| | mean µs | median µs | p99 µs | own bytes | overhead bytes | MB a million |")
        print("|---|---|---|---|---|---|---|")
        print("\n".join(row.line() for row in rows))
        total = arguments.generations * arguments.size
        print("\n| in one call | s | µs each | MB grown |\n|---|---|---|---|")
        line = [{"id": str(n), "parent_ids": [str(n - 1)] if n else []} for n in range(total // 10)]
        one_call(tracker, "a line", line)
        one_call(tracker, "children", [{"id": "root"}, *({"parent_ids": ["root"]} for _ in range(total - 1))])
        tracker.end()


if __name__ == "__main__":
    main()
