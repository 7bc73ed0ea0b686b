"""What a scrape by Prometheus costs: a run with 1,000 series, over HTTP, and what bounds it whatever a run logs.

    python benchmarks/scrape.py [--scrapes 200] [--components 100000]

``a run of 1,000 series``: an HTTP request to the server of this process, from its beginning to the last byte.
``the same page, without HTTP``: the page is made, and nobody is answered.
``limit``: ``prometheus_client`` renders 1,000 gauges of its own that have a name and no label.
All three in turn, so that a machine whose speed drifts slows all; each scrape is timed by itself.

Then so many different components are measured: what accounts and view keep of them, how many series there are, and
how long the page takes, accounts included.
"""

from __future__ import annotations

import argparse
import gc
import http.client
import time
import tracemalloc
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from lezea_mlops.accounting import Accounts
from lezea_mlops.events import Envelope
from lezea_mlops.sinks.prometheus import MAX_SERIES, Exporter, LiveView, Outside, render

WARM_UP = 10
# Different ids in one record, as a second of a run brings them.
IDS_PER_RECORD = 100
USE = {"wall_hours": 2.0, "core_hours": 1.0, "gb_hours": 0.5, "gpu_hours": 0.25, "component_type": "tasker"}
HEALTH = {
    "state": "ok",
    "delivered": 1_000,
    "waiting": 0,
    "lag_s": 0.0,
    "rejected": 0,
    "failures": {"timeout": 1},
}


def records(payloads: Iterator[tuple[str, dict[str, object]]], behind: int = 0) -> Iterator[Envelope]:
    """Yield a record for each type and payload, numbered *behind* those before."""
    for seq, (type_name, payload) in enumerate(payloads, start=behind + 1):
        yield Envelope(
            type_name, {"seq": seq, "ts": 1_763_690_000_000_000 + seq, "wid": "main", "att": 1}, payload
        )


def run_of_a_thousand_series() -> LiveView:
    """Return the view of a run with many components and more metrics than there is room for."""
    components = {f"tasker#{index}": USE for index in range(100)}
    outside = Outside(
        accounts={"components": components, "types": {"tasker": {**USE, "core_hours": 200.0}}},
        costs={"parts": {"cpu": 1.0, "memory": 1.0, "gpu": 1.0}}, sinks={"mlflow": HEALTH, "mongodb": HEALTH},
    )  # fmt: skip
    view = LiveView("3f0c", lambda: outside)
    gpus = [{"index": index, "uuid": f"GPU-{index}", "name": "NVIDIA H200", "util_percent": 37, "power_w": 300.0,
             "memory_used_bytes": 2**30, "temperature_c": 54} for index in range(8)]  # fmt: skip
    counters = {"cpu_s": 1.0, "memory_bytes": 1, "read_bytes": 1, "write_bytes": 1}

    def payloads() -> Iterator[tuple[str, dict[str, object]]]:
        yield "run_started", {"experiment_name": "scrape", "env": {"hostname": "node7"}}
        for index in range(600):
            yield "training_step", {"step": index, "metrics": {"loss": 0.1}, "scope": [["layer", str(index)]]}
        for index in range(25):
            yield "resource", {"sample": {"writer": f"rank{index}", "process": counters, "gpus": gpus}}
        for index in range(40):
            yield f"a type of another program, {index}", {}
        proposed = [{"type": f"operator {i % 10}", "accepted": (True, False, None)[i % 3]} for i in range(60)]
        yield "modification_tree", {"modifications": proposed}

    for record in records(payloads()):
        view.observe(record)
    return view


def gauges() -> Callable[[], bytes]:
    """Return a function that renders as many plain gauges."""
    registry = CollectorRegistry()
    for index in range(MAX_SERIES):
        Gauge(f"plain_{index}", "A gauge.", registry=registry).set(index / 7)
    return lambda: generate_latest(registry)


def over_http(place: tuple[str, int]) -> Callable[[], bytes]:
    """Return a function that asks a server for its page as Prometheus does."""

    def scrape() -> bytes:
        connection = http.client.HTTPConnection(*place)
        connection.request("GET", "/metrics")
        page = connection.getresponse().read()
        connection.close()
        return page

    return scrape


def series_of(page: bytes) -> int:
    """Return how many series stand on a page."""
    return sum(not line.startswith(b"#") for line in page.splitlines())


def times_ms(ways: list[Callable[[], bytes]], scrapes: int) -> list[list[float]]:
    """Return how long each of so many calls of each way took, in turn, sorted."""
    times: list[list[float]] = [[] for _ in ways]
    gc.collect()
    for scrape in range(scrapes + WARM_UP):
        for way, taken in zip(ways, times, strict=True):
            before = time.perf_counter()
            way()
            if scrape >= WARM_UP:
                taken.append((time.perf_counter() - before) * 1e3)
    return [sorted(taken) for taken in times]


def compare_scrapes(scrapes: int) -> None:
    """Print what a scrape takes, beside the least it could take."""
    view, exporter = run_of_a_thousand_series(), Exporter()
    exporter.add(view)
    place = exporter.serve(0)
    if place is None:
        raise SystemExit("no port could be had; the log says why")
    ways = [over_http(place), lambda: render([view]), gauges()]
    page = ways[0]()
    rows = zip(
        ("a run of 1,000 series", "the same page, without HTTP", "limit"),
        times_ms(ways, scrapes),
        strict=True,
    )
    print(f"{series_of(page):,} series of a run, {len(page) / 1e3:.0f} kB; {scrapes} scrapes each")
    print("| | median ms | p99 ms |")
    print("|---|---|---|")
    medians = []
    for name, taken in rows:
        medians.append(taken[len(taken) // 2])
        print(f"| {name} | {medians[-1]:.2f} | {taken[len(taken) * 99 // 100]:.2f} |")
    print(f"\nscrape / limit, medians: {medians[0] / medians[2]:.2f}")
    exporter.remove(view)


class RunOfManyComponents:
    """A run in which components come and go, each with a metric: its accounts, and its view.

    Attributes:
        view: shows it as the driver does.
    """

    def __init__(self) -> None:
        self._accounts = Accounts()
        self.view = LiveView("3f0c", self._outside)

    def _outside(self) -> Outside:
        live = self._accounts.live()
        return Outside(live["resources"], live["costs"])

    def grow(self, number: int) -> Iterator[int]:
        """Take in so many components; yield how many there are after a tenth, a half, and all of them."""
        for seq, first in enumerate(range(0, number, IDS_PER_RECORD)):
            ids = range(first, first + IDS_PER_RECORD)
            uses = [{"component_id": f"tasker#{index}", "wall_s": 0.01, "cpu_s": 0.01} for index in ids]
            metrics = {f"m{index}": 1.0 for index in ids}
            payloads = [
                ("resource_use", {"uses": uses}),
                ("metric", {"metrics": metrics, "scope": [["tasker", "1"]]}),
            ]
            for record in records(iter(payloads), 2 * seq):
                self._accounts.observe(record.type, record.payload, (), record.ts, record.att)
                self.view.observe(record)
            if ids.stop in (number // 10, number // 2, number):
                yield ids.stop


def measure_components(number: int) -> None:
    """Print what is kept of so many different components and metrics, and what a page of them takes."""
    run = RunOfManyComponents()
    pages = {}
    for there in run.grow(number):
        ((taken_ms,),) = times_ms([lambda: render([run.view])], 1)
        pages[there] = f"{series_of(render([run.view])):,} | {taken_ms:.1f}"
    print("\n| different components, and metrics | kept of them, MB | series | a page, ms |")
    print("|---|---|---|---|")
    tracemalloc.start()
    run = RunOfManyComponents()
    for there in run.grow(number):
        print(f"| {there:,} | {tracemalloc.get_traced_memory()[0] / 1e6:.2f} | {pages[there]} |")
    tracemalloc.stop()


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scrapes", type=int, default=200)
    parser.add_argument("--components", type=int, default=100_000, help="a multiple of 1,000")
    arguments = parser.parse_args()
    compare_scrapes(arguments.scrapes)
    measure_components(arguments.components)


if __name__ == "__main__":
    main()
