"""What it takes to read a million modifications back from a journal, and to ask for lines among them.

    python benchmarks/lineage.py [--generations 1000] [--size 1000]

Every modification has a parent in the generation before, every tenth two. ``limit``: msgspec decodes the same lines,
and nothing is made of them; it runs before and after, and the better time counts. Questions are put to a tree that was
just read, so that what is only computed at the first question is part of its time.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from lezea_mlops import read_evolution
from lezea_mlops.evolution import Evolution, StreamingStatistics
from lezea_mlops.journal import JournalWriter, RunFolder, read_run

CROSSOVERS = 0.1
QUICK = (20, 50)


def generation(number: int, size: int, before: list[str], chance: random.Random) -> list[dict[str, Any]]:
    """Return one generation of modifications of networks."""
    return [
        {
            "id": f"m1.main.{number + 1}-{place + 1}",
            "type": chance.choice(["widen", "prune", "mutate"]),
            "accepted": chance.random() < 0.3,
            "score": number * 0.01 + chance.random(),
            "target": f"net{number}-{place}",
            "params": {"by": chance.randrange(64), "layer": place % 7},
            "parent_ids": chance.sample(before, min(len(before), 1 + (chance.random() < CROSSOVERS))),
        }
        for place in range(size)
    ]


def write_run(folder: RunFolder, generations: int, size: int) -> str:
    """Write a journal with a tree per generation, and return the id of a modification of the last."""
    folder.create()
    writer, chance = JournalWriter(folder, "main", durability="process"), random.Random(0)
    before: list[str] = []
    for number in range(generations):
        modifications = generation(number, size, before, chance)
        scope = (("builder", str(number % 10)),)
        writer.append("modification_tree", {"step": number, "modifications": modifications}, scope)
        before = [modification["id"] for modification in modifications]
    writer.close()
    return before[-1]


def decoded(folder: RunFolder) -> int:
    """Decode every line of the run, and return how many there were."""
    decode = msgspec.json.Decoder().decode
    with folder.journal("main").open("rb") as lines:
        return sum(1 for _ in map(decode, lines))


def in_one_pass(folder: RunFolder) -> dict[str, Any]:
    """Return the statistics of the run's modifications without holding them."""
    statistics = StreamingStatistics()
    for record in read_run(folder.path):
        statistics.observe(record)
    return statistics.as_dict()


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that *work* takes, and what it returns."""
    before = time.perf_counter()
    result = work()
    return time.perf_counter() - before, result


def measured(folder: RunFolder, champion: str) -> Iterator[tuple[str, float, str]]:
    """Yield what was done, the seconds that it took, and what came of it."""
    first, _ = timed(lambda: decoded(folder))
    grown_from = resident_mb()
    seconds, evolution = timed(lambda: read_evolution(folder.path))
    memory = resident_mb() - grown_from
    again, _ = timed(lambda: decoded(folder))
    limit = min(first, again)
    yield "limit", limit, "lines decoded, nothing kept"
    yield "`read_evolution`", seconds, f"{seconds / limit:.1f} × limit, {memory:,.0f} MB"
    yield from questions(evolution, champion)
    seconds, figures = timed(lambda: in_one_pass(folder))
    yield "`StreamingStatistics`", seconds, f"{seconds / limit:.1f} × limit, depth {figures['depth']:,}"


def questions(evolution: Evolution, champion: str) -> Iterator[tuple[str, float, str]]:
    """Yield the same of questions to the tree."""
    tree = evolution.modifications
    root = tree.lineage(champion)[0]
    asked: dict[str, Callable[[], Any]] = {
        "`lineage`": lambda: len(tree.lineage(champion)),
        "`ancestors`": lambda: len(tree.ancestors(champion)),
        "`ancestors`, again": lambda: len(tree.ancestors(champion)),
        "`descendants`": lambda: len(tree.descendants(root)),
        "`common_ancestor`": lambda: tree.common_ancestor(champion, tree.best() or champion),
        "`problems`": lambda: len(tree.problems()),
        "`statistics`": lambda: tree.statistics()["survivors"],
    }
    for name, ask in asked.items():
        seconds, answer = timed(ask)
        yield name, seconds, f"{answer:,}" if isinstance(answer, int) else str(answer)


def resident_mb() -> float:
    """Return the most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--generations", type=int, default=1_000)
    parser.add_argument("--size", type=int, default=1_000, help="modifications in each generation")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK[0]} generations of {QUICK[1]}")
    parser.add_argument("--folder", default=None, help="where to write; default: a temporary folder here")
    arguments = parser.parse_args()
    generations, size = QUICK if arguments.quick else (arguments.generations, arguments.size)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as place:
        folder = RunFolder(Path(place) / "run")
        champion = write_run(folder, generations, size)
        bytes_each = folder.journal("main").stat().st_size / (generations * size)
        print(f"{generations:,} generations of {size:,}, {bytes_each:.0f} bytes a modification\n")
        print("| | s | µs per modification | |")
        print("|---|---|---|---|")
        for name, seconds, told in measured(folder, champion):
            print(f"| {name} | {seconds:.3f} | {1e6 * seconds / (generations * size):.2f} | {told} |")


if __name__ == "__main__":
    main()
