"""A run that logs something of everything, for Prometheus to scrape: ``python -m scripts.stack.example_run FOLDER``.

It prints the run's id when it is started and logs a step every tenth of a second from then on. It reads lines: after
``quiet``, which it prints too, it logs nothing any more; when nobody can write lines any more it ends.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import queue
import sys
import threading
from pathlib import Path

from lezea_mlops import ExperimentTracker
from lezea_mlops.servers.process import free_port

STEP_EVERY_S = 0.1


def settings(folder: Path) -> dict[str, object]:
    """Return the settings of the run: a store of its own, and a MongoDB that is down, so that delivery fails too."""
    return {
        "runs_dir": folder / "runs",
        "mlflow_tracking_uri": f"sqlite:///{folder / 'mlflow.db'}",
        "mongo_uri": f"mongodb://127.0.0.1:{free_port()}/lezea",
        "prometheus_targets": folder / "targets",
        "sample_period_s": 1,
        "close_timeout_s": 2,
    }


def main(folder: Path) -> None:
    """Log until told to end."""
    tracker = ExperimentTracker("Stack check", async_mode=True, settings=settings(folder))
    tracker.set_budget(0.000001, "run")
    tracker.set_budget(100.0, "builder:1")
    tracker.start(prometheus_port=0)
    _say(tracker.experiment_id)
    orders: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_orders, args=(orders,), daemon=True).start()
    for step in itertools.count():
        log_step(tracker, step)
        with contextlib.suppress(queue.Empty):
            order = orders.get(timeout=STEP_EVERY_S)
            break
    if order == "quiet":
        _say(order)
        orders.get()
    tracker.end()


def log_step(tracker: ExperimentTracker, step: int) -> None:
    """Log a step with all that a dashboard shows."""
    generation, identity = step // 10, f"mod-{step}"
    kind = ("widen", "prune", "crossover")[step % 3]
    with (
        tracker.builder_scope(1),
        tracker.measure("builder#1", "builder"),
        tracker.scope("modification", identity),
    ):
        _work()
        with tracker.measure("tasker#0", "tasker"):
            _work()
    modification = {"id": identity, "type": kind, "accepted": step % 4 == 0, "component_id": "builder#1"}
    tracker.log_modification_tree(step, [modification])
    # The last value of one loss stays not finite.
    tracker.log_training_step(step, {"loss": 1.0 / (1 + step), "accuracy": 1 - 1.0 / (1 + step)})
    tracker.log_metrics({"critic/loss": math.nan}, step)
    tracker.log_component_resources(
        "memory store", "store", cpu_percent=10.0, memory_mb=64.0, gpu_util_percent=5.0
    )
    tracker.log_population_snapshot(10, 2, generation, fitness_scores=[0.1, 0.5 + step / 1000], step=step)
    tracker.log_resource_cost(cpu_hours=1e-4, mem_gb=1e-3, io_bytes=1e6)
    tracker.log_business_metrics(resource_cost_eur=0.001 * step)


def _work() -> float:
    return sum(math.sqrt(number) for number in range(20_000))


def _read_orders(orders: queue.Queue[str]) -> None:
    for line in sys.stdin:
        orders.put(line.strip())
    orders.put("end")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
