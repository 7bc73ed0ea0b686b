"""A run is sampled and watched by a thread where there is no courier: with the thread driver, and offline."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient

from lezea_mlops.journal import RunFolder, read_run
from lezea_mlops.runtime import delivering
from lezea_mlops.runtime.delivering import take_delivery_lock
from lezea_mlops.tracker import ExperimentTracker
from tests.monitored import journaled, of_type, samples


def started(mode: str, port: int | None = None, **settings: Any) -> ExperimentTracker:
    """Return a run that is sampled all the time."""
    tracker = ExperimentTracker("Demo", settings={"mode": mode, "sample_period_s": 0.05} | settings)
    tracker.start(prometheus_port=port)
    return tracker


def page(url: str) -> str:
    """Return what Prometheus would be told."""
    with urllib.request.urlopen(url, timeout=60) as answer:
        return str(answer.read().decode())


def test_a_run_that_is_not_delivered_is_sampled() -> None:
    """Its totals stand in the journal, in the name of its own process; ``lezea sync`` brings them later."""
    tracker = started("offline")
    with tracker.measure("tasker#0", "tasker"):
        sum(range(1_000_000))
    journaled(tracker.run_dir, lambda records: len(samples(records)) >= 3)
    assert (tracker.health()["driver"], tracker.flush(0)) == (None, False)
    tracker.end()
    records = list(read_run(tracker.run_dir))
    [totals] = of_type(records, "resource_totals")
    assert {record.wid for record in [totals, *samples(records)]} == {"main"}
    assert totals.payload["resources"]["components"]["tasker#0"]["gb_hours"] > 0


def test_who_gets_the_right_to_deliver_at_the_end_tells_the_totals(
    mlflow_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process had it, and is past its last look at the journals; nobody else would tell them."""
    tracker = ExperimentTracker("Demo", settings={"sample_period_s": 60.0, "close_timeout_s": 120.0})
    lock = take_delivery_lock(RunFolder(tracker.run_dir))
    assert lock is not None
    tracker.start(prometheus_port=None)
    # It lets go while this process waits for it.
    sleeping = SimpleNamespace(sleep=lambda seconds: lock.release(), monotonic=time.monotonic)
    monkeypatch.setattr(delivering, "time", sleeping)
    tracker.end()
    [totals] = of_type(list(read_run(tracker.run_dir)), "resource_totals")
    assert totals.payload["resources"]["total"]["samples"] > 0


def test_nothing_is_sampled_where_nobody_wants_it() -> None:
    """With neither samples nor a port there is no thread and no driver offline, and no record of resources."""
    tracker = started("offline", sample_period_s=0)
    assert tracker._driver is None
    tracker.end()
    assert {record.type for record in read_run(tracker.run_dir)} == {
        "run_started",
        "environment",
        "run_finished",
    }


def test_mlflow_shows_the_totals(mlflow_store: str) -> None:
    """As metrics and as a file, beside the curves of the samples."""
    tracker = started("online", rates={"core_hour_eur": 3600.0}, close_timeout_s=120.0)
    with tracker.measure("tasker#0", "tasker"):
        sum(range(1_000_000))
    journaled(tracker.run_dir, lambda records: len(samples(records)) >= 3)
    tracker.end()
    client = MlflowClient(mlflow_store)
    run = client.get_run(str(tracker.mlflow_run_id))
    metrics = run.data.metrics
    assert metrics["cost/total/eur"] == pytest.approx(3600 * metrics["resources/total/core_hours"])
    assert metrics["resources/process/memory_mb"] > 10
    assert 0 <= metrics["resources/unattributed/core_hours"] <= metrics["resources/total/core_hours"]
    assert [file.path for file in client.list_artifacts(run.info.run_id, "resources")] == [
        "resources/summary.json"
    ]


def test_runs_of_one_process_share_a_server(tmp_path: Path) -> None:
    """One page shows both; it goes with the last of them."""
    one, other = started("offline", 0), started("offline", 0)
    for tracker in (one, other):
        journaled(tracker.run_dir, lambda _, tracker=tracker: tracker.health()["prometheus"])
    url = one.health()["prometheus"]
    assert other.health()["prometheus"] == url
    text = page(url)
    assert one.experiment_id in text
    assert other.experiment_id in text
    one.end()
    assert one.experiment_id not in page(url)
    other.end()
    with pytest.raises(urllib.error.URLError):
        page(url)


def test_where_no_port_may_be_opened_a_file_is_written(tmp_path: Path) -> None:
    """For the node exporter; it goes with the run."""
    folder = tmp_path / "textfile"
    tracker = started("offline", 0, prometheus_textfile=folder)
    tracker.log_metrics({"loss": 0.5}, step=1)
    file = folder / f"lezea-{tracker.experiment_id}.prom"
    journaled(tracker.run_dir, lambda _: file.exists())
    assert "lezea_run_info" in file.read_text()
    assert tracker.health()["prometheus"] is None
    tracker.end()
    assert not file.exists()


def test_the_setting_counts_where_start_is_given_no_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """``LEZEA_PROMETHEUS_PORT=off`` serves nothing; a port of ``start``'s own stands above it."""
    monkeypatch.setenv("LEZEA_PROMETHEUS_PORT", "off")
    tracker = ExperimentTracker("Demo", settings={"mode": "offline"})
    tracker.start()
    assert tracker._driver is None
    tracker.end()
    served = ExperimentTracker("Demo", settings={"mode": "offline"})
    served.start(prometheus_port=0)
    journaled(served.run_dir, lambda _: served.health()["prometheus"])
    served.end()


def test_a_resumed_run_adds_up_over_its_attempts() -> None:
    """The totals of the second attempt count the first."""
    first = started("offline")
    with first.measure("tasker#0", "tasker"):
        sum(range(1_000_000))
    journaled(first.run_dir, lambda records: len(samples(records)) >= 2)
    first.end()
    second = ExperimentTracker(
        "Demo", resume=first.experiment_id, settings={"mode": "offline", "sample_period_s": 0.05}
    )
    second.start(prometheus_port=None)
    with second.measure("tasker#0", "tasker"):
        sum(range(1_000_000))
    second.end()
    one, both = of_type(list(read_run(second.run_dir)), "resource_totals")
    assert (one.att, both.att) == (1, 2)
    assert both.payload["resources"]["components"]["tasker#0"]["uses"] == 2
    hours = [record.payload["resources"]["total"]["core_hours"] for record in (one, both)]
    assert hours[0] < hours[1]
    parts = sum(row["core_hours"] for row in both.payload["resources"]["components"].values())
    assert parts <= hours[1]


SIGNAL = """
import os, signal, sys, threading
from lezea_mlops.tracker import ExperimentTracker

settings = {"mode": "offline", "sample_period_s": 0.01, "close_timeout_s": 3, "runs_dir": "runs"}
tracker = ExperimentTracker("Demo", settings=settings, auto_start=True)

def handle(number, frame):
    tracker.get_experiment_summary()
    tracker.end("killed", "told to")
    os._exit(0)

signal.signal(signal.SIGTERM, handle)
threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
step = 0
while True:
    tracker.log_training_step(step, {"loss": 0.5})
    step += 1
"""


def test_a_handler_of_a_signal_may_end_the_run_in_the_middle_of_a_call(
    run_python: Any, tmp_path: Path
) -> None:
    """Whatever the thread that samples does at that moment: neither waits for the other for ever."""
    for _ in range(2):
        run_python(SIGNAL, timeout_s=60)
    runs = [journal.parent for journal in (tmp_path / "runs").glob("*/events.jsonl")]
    ends = [record for run in runs for record in of_type(list(read_run(run)), "run_finished")]
    assert [end.payload["reason"] for end in ends] == ["told to"] * 2


def test_several_threads_may_take_notices(tmp_path: Path) -> None:
    """Who comes too late for one takes none."""
    tracker = started("offline")
    notices = tracker._driver.notices
    stop = threading.Event()

    def give() -> None:
        while not stop.is_set():
            notices.append({"prometheus": "here"})

    failed: list[BaseException] = []

    def take() -> None:
        try:
            for _ in range(3_000):
                tracker._take_notices()
        except BaseException as error:
            failed.append(error)
            raise

    giving, taking = threading.Thread(target=give), [threading.Thread(target=take) for _ in range(4)]
    for thread in (giving, *taking):
        thread.start()
    for thread in taking:
        thread.join()
    stop.set()
    giving.join()
    tracker.end()
    assert failed == []
