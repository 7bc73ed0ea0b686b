"""How fast a run's records reach MongoDB, beside a bare loop of ``insert_many`` of the very same documents.

    python benchmarks/mongodb.py [--steps 100000] [--modifications 100000] [--rounds 5] [--uri mongodb://…]

``bare``: pymongo's ``insert_many``, unordered, batches of 1,000 documents made beforehand, into a collection with the
same indexes and under the same write concern.
``sync``: the journal of a run that was logged offline, delivered as ``lezea sync`` does: it is read, decoded, made into
documents and inserted.
``again``: the same journal delivered once more, when all of it is there already.
Training steps and modifications are measured apart, in turn and in one process. Without ``--uri`` a server is started
here, a replica set of one, as ``lezea up`` does.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lezea_mlops.delivery import Shipper, Step
from lezea_mlops.journal import RunFolder, read_run
from lezea_mlops.runtime.own_process import prepare_own_process
from lezea_mlops.servers import Mongod, find_mongod
from lezea_mlops.sinks.mongodb import MongoSink
from lezea_mlops.sinks.mongodb.connection import connect
from lezea_mlops.sinks.mongodb.delivery import make_indexes
from lezea_mlops.sinks.mongodb.documents import documents_of
from lezea_mlops.tracker import ExperimentTracker

PER_REQUEST = 1_000
GENERATION = 1_000


def log_steps(tracker: ExperimentTracker, count: int) -> None:
    """Log so many training steps of a builder."""
    with tracker.builder_scope("42"):
        for step in range(count):
            tracker.log_training_step(step, {"loss": 1.0 / (step + 1), "accuracy": step / count}, "val")


def log_modifications(tracker: ExperimentTracker, count: int) -> None:
    """Log so many modifications in generations, each with a parent in the generation before."""
    for generation in range(-(-count // GENERATION)):
        tracker.log_modification_tree(
            generation,
            [
                {
                    "id": f"m{generation}-{number}",
                    "parent_ids": [f"m{generation - 1}-{number // 2}"] if generation else [],
                    "type": ("widen", "deepen", "prune")[number % 3],
                    "accepted": number % 4 == 0,
                    "score": number / GENERATION,
                    "target": f"n{number}",
                    "params": {"layer": number % 7, "units": 16},
                }
                for number in range(min(GENERATION, count - generation * GENERATION))
            ],
        )


KINDS: dict[str, tuple[Callable[[ExperimentTracker, int], None], str]] = {
    "training steps": (log_steps, "training_steps"),
    "modifications": (log_modifications, "modifications"),
}


def logged(folder: Path, kind: str, count: int) -> RunFolder:
    """Return a run that was logged offline."""
    tracker = ExperimentTracker(kind, async_mode=True, runs_dir=folder, settings={"mode": "offline"})
    tracker.start(prometheus_port=None)
    KINDS[kind][0](tracker, count)
    tracker.end()
    return RunFolder(tracker.run_dir)


def bare(uri: str, run: RunFolder, collection: str) -> float:
    """Insert the documents of a run in full batches; return the seconds."""
    documents = [
        document
        for record in read_run(run.path)
        for place, document in documents_of(record, "bare")
        if place == collection
    ]
    database = connect(uri)
    database.client.admin.command("ping")
    began = time.perf_counter()
    for first in range(0, len(documents), PER_REQUEST):
        database[collection].insert_many(documents[first : first + PER_REQUEST], ordered=False)
    seconds = time.perf_counter() - began
    database.client.close()
    return seconds


def sync(uri: str, run: RunFolder) -> float:
    """Deliver the journal of a run from its beginning; return the seconds.

    Raises:
        RuntimeError: it was not delivered.
    """
    with contextlib.suppress(FileNotFoundError):
        for cursor in (run.path / "cursors").iterdir():
            cursor.unlink()
    shipper = Shipper(run, MongoSink(uri), time.monotonic)
    began = time.perf_counter()
    while (step := shipper.ship_once()) is Step.SHIPPED:
        pass
    seconds = time.perf_counter() - began
    shipper.close()
    if step is not Step.IDLE:
        raise RuntimeError(f"the journal was not delivered: {shipper.health.last_error}")
    return seconds


@contextlib.contextmanager
def server(uri: str | None, folder: Path) -> Iterator[str]:
    """Yield the URI of a database: of a server that is there, or of one that is started and ended here."""
    if uri is not None:
        yield uri
        return
    mongod = Mongod(folder / "mongod", program=find_mongod(os.environ), bound=True)
    mongod.start()
    try:
        yield mongod.uri
    finally:
        mongod.stop()


def emptied(uri: str) -> str:
    """Return *uri*, its database being without documents, and with indexes: every way begins with that."""
    database = connect(uri)
    database.client.drop_database(database.name)
    make_indexes(database)
    database.client.close()
    return uri


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--modifications", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--uri", default=None, help="a MongoDB whose database may be dropped")
    arguments = parser.parse_args()
    prepare_own_process()
    counts = {"training steps": arguments.steps, "modifications": arguments.modifications}
    with tempfile.TemporaryDirectory() as place, server(arguments.uri, Path(place)) as uri:
        runs = {kind: logged(Path(place), kind, count) for kind, count in counts.items()}
        found = {kind: rounds(uri, run, KINDS[kind][1], arguments.rounds) for kind, run in runs.items()}
    report(found, counts)


def rounds(uri: str, run: RunFolder, collection: str, count: int) -> dict[str, list[float]]:
    """Return the seconds of each way, round by round; the first round is warm-up."""
    seconds: dict[str, list[float]] = {"bare": [], "sync": [], "again": []}
    for number in range(count + 1):
        ways = ["bare", "sync"] if number % 2 else ["sync", "bare"]
        for way in ways:
            emptied(uri)
            taken = bare(uri, run, collection) if way == "bare" else sync(uri, run)
            if number:
                seconds[way].append(taken)
            if way == "sync":
                again = sync(uri, run)
                if number:
                    seconds["again"].append(again)
    return seconds


def report(found: dict[str, dict[str, list[float]]], counts: dict[str, int]) -> None:
    """Print the median rates, and how they compare within a round."""
    print("| | documents | documents/s | of the bare loop |\n|---|---|---|---|")
    for kind, ways in found.items():
        for way, seconds in ways.items():
            rate = counts[kind] / statistics.median(seconds)
            shares = [limit / taken for taken, limit in zip(seconds, ways["bare"], strict=True)]
            print(f"| {kind}, {way} | {counts[kind]:,} | {rate:,.0f} | {statistics.median(shares):.2f} |")


if __name__ == "__main__":
    main()
