"""What it takes to ask MongoDB for lines among a million modifications, beside the same questions to the journal.

    python benchmarks/queries.py [--modifications 10000 100000 1000000] [--uri mongodb://…]

A run of 1,000 generations: every modification has a parent in the generation before, every tenth two, so that the line
to one of the last is 1,000 deep. The sink delivers it. Each question is asked of MongoDB three times, and the median
counts; ``journal``: the same question to the evolution that was read from the journal, asked for the first time.
Reading it is a row of its own. The answers are compared, and must be equal. Without ``--uri`` a server is started here,
a replica set of one, as ``lezea up`` does.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mongodb import server

from lezea_mlops import read_evolution
from lezea_mlops.delivery import Shipper, Step
from lezea_mlops.evolution import JournalQueries, MongoQueries, Queries, read_evolution_from_mongo
from lezea_mlops.journal import JournalWriter, RunFolder
from lezea_mlops.sinks.mongodb import MongoSink
from lezea_mlops.sinks.mongodb.connection import connect

GENERATIONS = 1_000
CROSSOVERS = 0.1
ROUNDS = 3


def write_run(folder: RunFolder, modifications: int) -> str:
    """Write a journal with a tree and a network per generation, and return the id of a modification of the last."""
    folder.create()
    writer, chance = JournalWriter(folder, "main", durability="process"), random.Random(0)
    writer.append("run_started", {"experiment_name": "Queries"})
    before: list[str] = []
    for number in range(GENERATIONS):
        names = [f"m1.main.{number + 1}-{place + 1}" for place in range(modifications // GENERATIONS)]
        tree = [
            {
                "id": name,
                "type": chance.choice(["widen", "prune", "mutate"]),
                "accepted": chance.random() < 0.3,
                "score": number * 0.01 + chance.random(),
                "target": f"net{number}",
                "params": {"by": chance.randrange(64), "layer": chance.randrange(7)},
                "parent_ids": chance.sample(before, min(len(before), 1 + (chance.random() < CROSSOVERS))),
            }
            for name in names
        ]
        parents = [f"net{number - 1}"] if number else []
        writer.append("network", {"network_id": f"net{number}", "parent_ids": parents, "generation": number})
        writer.append("modification_tree", {"step": number, "modifications": tree})
        before = names
    writer.close()
    return before[-1]


def deliver(folder: RunFolder, uri: str) -> None:
    """Bring the journal into MongoDB.

    Raises:
        RuntimeError: it was not delivered.
    """
    shipper = Shipper(folder, MongoSink(uri), time.monotonic)
    while (step := shipper.ship_once()) is Step.SHIPPED:
        pass
    shipper.close()
    if step is not Step.IDLE:
        raise RuntimeError(f"the journal was not delivered: {shipper.health.last_error}")


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that *work* takes, and what it returns."""
    before = time.perf_counter()
    result = work()
    return time.perf_counter() - before, result


def questions(champion: str, root: str) -> dict[str, Callable[[Queries], Any]]:
    """Return what is asked, by name."""
    return {
        "lineage": lambda queries: queries.lineage(champion),
        "ancestors": lambda queries: queries.ancestors(champion),
        "descendants of the first": lambda queries: queries.descendants(root),
        "best_path": lambda queries: queries.best_path(),
        "acceptance_by_type(10)": lambda queries: queries.acceptance_by_type(10),
        "network_lineage": lambda queries: queries.network_lineage(f"net{GENERATIONS - 1}"),
    }


def measured(folder: RunFolder, champion: str, uri: str) -> Iterator[tuple[str, float, float, int]]:
    """Yield what was asked, the seconds that MongoDB and the journal took, and how much came.

    Raises:
        RuntimeError: the answers differ.
    """
    database = connect(f"{uri}&timeoutMS=0" if "?" in uri else f"{uri}/?timeoutMS=0")
    mongo = MongoQueries(database, folder.run_id)
    reading, evolution = timed(lambda: read_evolution(folder.path))
    from_mongo, again = timed(lambda: read_evolution_from_mongo(database, folder.run_id))
    yield "read all of it", from_mongo, reading, len(again.modifications)
    del again
    journal = JournalQueries(evolution)
    for name, ask in questions(champion, evolution.modifications.lineage(champion)[0]).items():
        at_journal, expected = timed(lambda ask=ask: ask(journal))
        rounds = [timed(lambda ask=ask: ask(mongo)) for _ in range(ROUNDS)]
        if any(answer != expected for _, answer in rounds):
            raise RuntimeError(f"{name}: MongoDB and the journal differ")
        yield name, statistics.median(seconds for seconds, _ in rounds), at_journal, len(expected)
    database.client.close()


def main() -> None:
    """Measure and print a table for each size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--modifications", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--uri", default=None, help="a MongoDB; the runs stay there")
    parser.add_argument("--folder", default=None, help="where to write; default: a temporary folder here")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=arguments.folder) as place,
        server(arguments.uri, Path(place)) as uri,
    ):
        for count in arguments.modifications:
            folder = RunFolder(Path(place) / f"queries-{count}-{os.urandom(4).hex()}")
            champion = write_run(folder, count)
            seconds, _ = timed(lambda folder=folder: deliver(folder, uri))
            print(f"\n{count:,} modifications in {GENERATIONS:,} generations, delivered in {seconds:.0f} s\n")
            print("| | MongoDB, ms | journal, ms | |\n|---|---|---|---|", flush=True)
            for name, in_mongo, at_journal, length in measured(folder, champion, uri):
                print(
                    f"| {name} | {1e3 * in_mongo:,.1f} | {1e3 * at_journal:,.1f} | {length:,} |", flush=True
                )


if __name__ == "__main__":
    main()
