"""The courier samples its parent, adds up the run, serves Prometheus, and tells totals of a killed process too."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lezea_mlops import tracker as tracker_module
from lezea_mlops.capture.couriers import is_command_of_courier
from lezea_mlops.journal import RunFolder, read_run
from lezea_mlops.tracker import ExperimentTracker
from tests.courier.conftest import PATIENCE_S, Watch, ends_of, next_call_looks_after_the_courier
from tests.monitored import journaled, of_type, samples

RATES = {"core_hour_eur": 3600.0}


@pytest.fixture
def sampled(nowhere: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ExperimentTracker]]:
    """Return a function that begins a run which a courier samples all the time."""
    monkeypatch.setenv("LEZEA_SAMPLE_PERIOD_S", "0.05")
    monkeypatch.setenv("LEZEA_RATE_CORE_HOUR_EUR", "3600")
    monkeypatch.setattr(tracker_module, "TOTALS_TURN_S", PATIENCE_S)
    begun: list[ExperimentTracker] = []

    def begin(**arguments: Any) -> ExperimentTracker:
        settings = {"close_timeout_s": 60.0} | arguments.pop("settings", {})
        begun.append(ExperimentTracker("Demo", async_mode=True, settings=settings, **arguments))
        begun[-1].start(prometheus_port=0)
        return begun[-1]

    yield begin
    for tracker in begun:
        if tracker.status == "running":
            tracker.end()


def is_courier(process: psutil.Process) -> bool:
    """Tell whether a process is somebody's courier, or has ended."""
    try:
        return is_command_of_courier(process.cmdline())
    except psutil.Error:
        return True


def work(tracker: ExperimentTracker) -> None:
    """Use some CPU in a component."""
    with tracker.measure("tasker#0", "tasker"):
        sum(range(2_000_000))


def page_of(tracker: ExperimentTracker) -> str:
    """Scrape the courier."""
    journaled(tracker.run_dir, lambda _: tracker.health()["prometheus"])
    with urllib.request.urlopen(tracker.health()["prometheus"], timeout=60) as page:
        return str(page.read().decode())


def test_the_samples_are_those_of_the_training_process(sampled: Callable[..., ExperimentTracker]) -> None:
    """The courier journals them in its own name, and does not count itself among the children."""
    # Servers that other tests share are children of this process.
    children = [child for child in psutil.Process().children(recursive=True) if not is_courier(child)]
    tracker = sampled()
    records = journaled(tracker.run_dir, lambda records: len(samples(records)) >= 3)
    for record in samples(records):
        told = record.payload["sample"]
        assert (record.wid, record.att, record.payload["component_id"]) == ("courier", 1, "process")
        assert (told["writer"], told["pid"], told["process"]["children"]) == (
            "main",
            os.getpid(),
            len(children),
        )
    assert "cpu_percent" in samples(records)[-1].payload


def test_the_end_tells_the_totals(sampled: Callable[..., ExperimentTracker]) -> None:
    """They stand in a record of the courier, and in the summary; what was measured is in them to its last moment."""
    tracker = sampled()
    work(tracker)
    journaled(tracker.run_dir, lambda records: len(samples(records)) >= 2)
    work(tracker)
    tracker.end()
    records = list(read_run(tracker.run_dir))
    [totals] = of_type(records, "resource_totals")
    [end] = ends_of(tracker.run_dir)
    component = totals.payload["resources"]["components"]["tasker#0"]
    assert totals.wid == "courier"
    assert component["uses"] == 2
    total = totals.payload["resources"]["total"]
    assert 0 < component["core_hours"] <= total["core_hours"]
    assert component["gb_hours"] > 0
    assert totals.payload["costs"]["eur"] == pytest.approx(3600 * total["core_hours"])
    assert end["summary"]["resources"] == total
    assert end["summary"]["costs"]["eur"] == totals.payload["costs"]["eur"]
    assert tracker.get_experiment_summary()["resources"] == total


def test_the_summary_of_a_running_run_counts_what_was_sampled(
    sampled: Callable[..., ExperimentTracker],
) -> None:
    """Also what the courier alone knows, such as memory."""
    tracker = sampled()
    journaled(tracker.run_dir, lambda records: len(samples(records)) >= 3)
    summary = tracker.get_experiment_summary()
    assert summary["resources"]["gb_hours"] > 0
    assert summary["resources"]["samples"] >= 2
    assert tracker.get_experiment_data()["resources"]["process"]["peak_memory_mb"] > 10


KILLED = """
import os, signal, sys
from lezea_mlops.tracker import ExperimentTracker
from tests.monitored import journaled, samples

tracker = ExperimentTracker("Demo", async_mode=True, auto_start=True)
with tracker.measure("tasker#0", "tasker"):
    sum(range(3_000_000))
tracker._meter.flush()
journaled(tracker.run_dir, lambda records: len(samples(records)) >= 3)
print(tracker.run_dir, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_was_killed_has_its_totals(
    nowhere: str, run_python: Callable[..., Any], watch: Watch
) -> None:
    """The courier takes them down, and the end that it infers has them in its summary."""
    done = run_python(KILLED, check=False, LEZEA_SAMPLE_PERIOD_S="0.05")
    assert done.returncode == -signal.SIGKILL, done.stderr
    run_dir = Path(done.stdout.strip())
    records = journaled(run_dir, lambda records: of_type(records, "run_finished"))
    [totals] = of_type(records, "resource_totals")
    [end] = ends_of(run_dir)
    assert (end["status"], end["inferred"]) == ("killed", True)
    assert end["summary"]["resources"] == totals.payload["resources"]["total"]
    assert totals.payload["resources"]["components"]["tasker#0"]["core_hours"] > 0


def test_a_courier_that_was_killed_loses_no_total(
    sampled: Callable[..., ExperimentTracker], watch: Watch
) -> None:
    """The next one reads them back from the journal, and nothing is counted twice."""
    tracker = sampled()
    work(tracker)
    tracker._meter.flush()
    journaled(tracker.run_dir, lambda records: len(samples(records)) >= 4)
    before = tracker.get_experiment_summary()["resources"]
    killed = watch(tracker)
    killed.signal(signal.SIGKILL)
    assert killed.ended()
    next_call_looks_after_the_courier(tracker)
    tracker.log_metrics({"loss": 0.5}, step=1)
    count = len(samples(list(read_run(tracker.run_dir))))
    journaled(tracker.run_dir, lambda records: len(samples(records)) >= count + 2)
    after = tracker.get_experiment_summary()["resources"]
    assert after["gb_hours"] >= before["gb_hours"]
    assert before["core_hours"] <= after["core_hours"] < before["core_hours"] + 60 / 3600
    work(tracker)
    tracker.end()
    [totals] = of_type(list(read_run(tracker.run_dir)), "resource_totals")
    assert totals.payload["resources"]["components"]["tasker#0"]["uses"] == 2


def test_prometheus_is_served_and_found(
    sampled: Callable[..., ExperimentTracker], watch: Watch, tmp_path: Path
) -> None:
    """Where ``health`` says, with an address for Prometheus that goes with the run."""
    tracker = sampled()
    tracker.log_training_step(7, {"loss": 0.25})
    journaled(tracker.run_dir, lambda _: "lezea_training_step" in page_of(tracker))
    journaled(tracker.run_dir, lambda _: "lezea_process_memory_bytes" in page_of(tracker))
    page = page_of(tracker)
    assert f'lezea_metric{{name="loss",run="{tracker.experiment_id}"}} 0.25' in page
    assert f'lezea_delivery_up{{run="{tracker.experiment_id}",sink="mlflow"}} 0.0' in page
    [target] = (tmp_path / "runs" / "prometheus").glob("*.json")
    [address] = json.loads(target.read_text())[0]["targets"]
    assert tracker.health()["prometheus"] == f"http://{address}/metrics"
    courier = watch(tracker)
    tracker.end()
    assert courier.ended()
    assert not target.exists()


def test_two_runs_of_one_program_have_a_port_each(
    sampled: Callable[..., ExperimentTracker], tmp_path: Path
) -> None:
    """Each has a courier of its own; both are found in the one folder."""
    trackers = [sampled(), sampled()]
    pages = [page_of(tracker) for tracker in trackers]
    assert len({tracker.health()["prometheus"] for tracker in trackers}) == 2
    assert len(list((tmp_path / "runs" / "prometheus").glob("*.json"))) == 2
    assert all(tracker.experiment_id in page for tracker, page in zip(trackers, pages, strict=True))


def test_a_rank_has_its_samples_in_a_file_of_its_own(
    sampled: Callable[..., ExperimentTracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its courier does not deliver; the totals of the run count it all the same."""
    first = sampled()
    journaled(first.run_dir, lambda records: samples(records))
    monkeypatch.setenv("RANK", "1")
    rank = sampled(experiment_id=first.experiment_id)
    own = lambda records: [r for r in samples(records) if r.payload["component_id"] == "process:rank1"]  # noqa: E731
    records = journaled(first.run_dir, lambda records: len(own(records)) >= 2)
    [wid] = {record.wid for record in own(records)}
    assert wid.startswith("rank1.")
    assert RunFolder(first.run_dir).journal(wid).exists()
    rank.end()
    first.end()
    assert {record.wid for record in of_type(list(read_run(first.run_dir)), "resource_totals")} == {"courier"}


def test_a_courier_that_is_slow_tells_the_totals_later(
    sampled: Callable[..., ExperimentTracker], watch: Watch
) -> None:
    """Once, and nobody else does in the meantime; the end does not wait for it."""
    tracker = sampled(settings={"close_timeout_s": 1.0})
    work(tracker)
    journaled(tracker.run_dir, lambda records: len(samples(records)) >= 3)
    stopped = watch(tracker)
    stopped.signal(signal.SIGSTOP)
    tracker.end()
    assert of_type(list(read_run(tracker.run_dir)), "resource_totals") == []
    stopped.signal(signal.SIGCONT)
    records = journaled(tracker.run_dir, lambda records: of_type(records, "resource_totals"))
    [totals] = of_type(records, "resource_totals")
    assert totals.wid == "courier"
    assert totals.payload["resources"]["components"]["tasker#0"]["uses"] == 1


def test_many_business_metrics_do_not_keep_the_totals_from_being_told(
    sampled: Callable[..., ExperimentTracker],
) -> None:
    """A message between the processes has an end; what the training process knows itself is not in it."""
    tracker = sampled()
    tracker.log_business_metrics(**{f"metric {number} {'x' * 100}": number for number in range(2_000)})
    work(tracker)
    journaled(tracker.run_dir, lambda records: len(samples(records)) >= 3)
    assert tracker.get_experiment_summary()["resources"]["samples"] >= 2
    tracker.end()
    assert [record.wid for record in of_type(list(read_run(tracker.run_dir)), "resource_totals")] == [
        "courier"
    ]


def test_a_rank_tells_no_totals_of_its_own(
    sampled: Callable[..., ExperimentTracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the courier of a rank delivers the run, it tells them; ``main`` does not tell them once more."""
    monkeypatch.setenv("RANK", "1")
    rank = sampled(experiment_id="shared")
    journaled(rank.run_dir, samples)
    monkeypatch.setenv("RANK", "0")
    main = sampled(experiment_id="shared")
    work(main)
    main.end()
    records = journaled(main.run_dir, lambda records: of_type(records, "resource_totals"))
    assert [record.wid for record in of_type(records, "resource_totals")] == ["courier"]
    rank.end()
