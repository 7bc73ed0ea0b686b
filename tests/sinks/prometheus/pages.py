"""Records to feed a view with, and the series of a page."""

from __future__ import annotations

import itertools
import urllib.request
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from lezea_mlops.events import Envelope
from lezea_mlops.sinks.prometheus import LiveView, Outside, render

START_US = 1_763_690_000_000_000

Series = dict[tuple[tuple[str, str], ...], float]


class Feeder:
    """Feeds a view with records, each with a higher number than the one before."""

    def __init__(self, view: LiveView) -> None:
        self.view = view
        self._numbers = itertools.count(1)

    def __call__(self, type_name: str, /, *, wid: str = "main", att: int = 1, **payload: Any) -> None:
        seq = next(self._numbers)
        meta = {"seq": seq, "ts": START_US + seq * 1_000_000, "wid": wid, "att": att}
        self.view.observe(Envelope(type_name, meta, {"run_id": self.view.run_id, **payload}))


def series_in(page: bytes) -> dict[str, Series]:
    """Return the values of a page by name and labels, without the label ``run``; no series may stand there twice."""
    found: dict[str, Series] = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            labels = tuple((name, value) for name, value in sorted(sample.labels.items()) if name != "run")
            values = found.setdefault(sample.name, {})
            assert labels not in values, f"{sample.name} {labels} stands there twice"
            values[labels] = sample.value
    return found


def series_of(view: LiveView) -> dict[str, Series]:
    """Return what a view shows."""
    return series_in(render([view]))


def value_of(view: LiveView, name: str, /, **labels: str) -> float | None:
    """Return the value of one series; None if it is not shown."""
    return series_of(view).get(name, {}).get(tuple(sorted(labels.items())))


def count_of(view: LiveView) -> int:
    """Return how many series a view shows."""
    return sum(map(len, series_of(view).values()))


def get(address: tuple[str, int] | None, path: str = "/metrics") -> bytes:
    """Return the answer of a server."""
    assert address is not None
    with urllib.request.urlopen(f"http://{address[0]}:{address[1]}{path}", timeout=30) as answer:
        page: bytes = answer.read()
    return page


SAMPLE = {
    "writer": "main", "pid": 4711, "period_s": 5.0,
    "process": {
        "cpu_s": 12.25, "children_cpu_s": 0.5, "memory_bytes": 1000, "children_memory_bytes": 24, "children": 2,
        "threads": 9, "read_bytes": 70, "write_bytes": 80, "read_operations": 7, "write_operations": 8,
    },
    "gpus": [{
        "index": 0, "uuid": "GPU-a", "name": "NVIDIA H200", "util_percent": 37, "memory_used_bytes": 2048,
        "memory_total_bytes": 4096, "power_w": 312.5, "temperature_c": 54, "held": True,
    }],
    "host": {
        "cpu_percent": 25.0, "memory_used_bytes": 5000, "memory_total_bytes": 9000, "disk_used_bytes": 30,
        "disk_total_bytes": 120, "disk_read_bytes": 1, "disk_write_bytes": 2, "network_received_bytes": 11,
        "network_sent_bytes": 12,
    },
}  # fmt: skip
USE = {"wall_hours": 2.0, "core_hours": 1.0, "gb_hours": 0.5, "gpu_hours": 0.25}
OUTSIDE = Outside(
    accounts={
        "total": {**USE, "energy_kwh": 2.0}, "unattributed": {"core_hours": 0.5},
        "components": {"tasker#0": {**USE, "component_type": "tasker"}},
        "types": {"tasker": {**USE, "core_hours": 3.0}},
    },
    costs={
        "eur": 1.5, "parts": {"cpu": 1.0, "gpu": 0.5}, "co2_g": 700.0, "energy_kwh": 2.0,
        "modifications": {"accepted": {"count": 1, "eur": 0.25}, "rejected": {"count": 2, "eur": 0.75}},
    },
    sinks={
        "mlflow": {
            "state": "ok", "delivered": 40, "waiting": 2, "lag_s": 1.5, "rejected": 1, "failures": {"timeout": 3},
        },
    },
    budgets={"run": {"budget_eur": 12.0, "spent_eur": 9.0, "ratio": 0.75}},
)  # fmt: skip


def full_view(run_id: str = "run-1") -> LiveView:
    """Return a view that shows something of every name there is."""
    view = LiveView(run_id, lambda: OUTSIDE)
    feed = Feeder(view)
    feed("run_started", experiment_name="Demo", env={"hostname": "node7"})
    feed(
        "training_step",
        step=7,
        metrics={"loss": 0.5, "acc": "NaN"},
        data_split="val",
        scope=[["builder", "42"]],
    )
    feed("resource", component_id="process", component_type="process", cpu_percent=50.0, sample=SAMPLE)
    scores = {"a": 1.0, "b": 3.0}
    feed("population", tasker_count=8, builder_count=2, generation=3, fitness_scores=scores)
    proposed = [
        {"id": "m1", "type": "widen", "accepted": True},
        {"id": "m2", "op": "prune", "accepted": False},
    ]
    feed("modification_tree", step=1, modifications=[*proposed, {"id": "m3", "type": "widen"}])
    return view
