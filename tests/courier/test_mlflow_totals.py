"""What a courier samples and adds up has plain names in MLflow, and the newest attempt's totals stand there."""

from __future__ import annotations

import json

import pytest
from mlflow import MlflowClient

from lezea_mlops.insight import points_of
from lezea_mlops.journal import RunFolder, read_run
from lezea_mlops.sinks.mlflow.names import unescape
from lezea_mlops.sinks.mlflow.translation import translate
from lezea_mlops.tracker import ExperimentTracker
from tests.courier.conftest import Watch
from tests.monitored import journaled, of_type, samples
from tests.sinks.mlflow.auditing import Store, audit, deliver, found
from tests.sinks.mlflow.records import metrics
from tests.sinks.mlflow.seen import history


@pytest.fixture(autouse=True)
def sampled_and_priced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sample all the time, and give an hour of a core a price."""
    monkeypatch.setenv("LEZEA_SAMPLE_PERIOD_S", "0.05")
    monkeypatch.setenv("LEZEA_RATE_CORE_HOUR_EUR", "3600")


def a_run_of_a_courier(watch: Watch) -> RunFolder:
    """Return a run that came to its end, and whose courier is gone."""
    tracker = ExperimentTracker("Demo", async_mode=True, settings={"close_timeout_s": 120.0})
    tracker.start(prometheus_port=None)
    with tracker.measure("tasker#0", "tasker"):
        sum(range(1_000_000))
    journaled(tracker.run_dir, lambda records: len(samples(records)) >= 3)
    courier = watch(tracker)
    tracker.end()
    assert courier.ended()
    return RunFolder(tracker.run_dir)


def test_the_courier_s_samples_and_totals_have_plain_names(mlflow_store: str, watch: Watch) -> None:
    """As the documents say, and as in the history that is read from the journal; an audit finds all of it."""
    folder = a_run_of_a_courier(watch)
    records = list(read_run(folder.path))
    [totals] = of_type(records, "resource_totals")
    assert {record.wid for record in [totals, *samples(records)]} == {"courier"}
    run = Store(mlflow_store, folder).run
    assert run.data.metrics["resources/process/memory_mb"] > 10
    total = run.data.metrics["resources/total/core_hours"]
    assert total == totals.payload["resources"]["total"]["core_hours"] > 0
    assert run.data.metrics["cost/total/eur"] == pytest.approx(3600 * total)
    assert [name for name in run.data.metrics if name.startswith("courier")] == []
    assert {unescape(name) for name in run.data.metrics} == {point.name for point in points_of(records)}
    of_memory = history(MlflowClient(mlflow_store), run, "resources/process/memory_mb")
    assert {step for step, _, _ in of_memory} == {record.seq for record in samples(records)}
    report = audit(folder)
    assert report.findings == []
    assert report.is_right


def test_a_newer_attempt_s_totals_stand_whoever_told_the_older_ones(
    mlflow_store: str, nowhere: str, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A courier told those of the first attempt; the second was offline, and its file is delivered before."""
    folder = a_run_of_a_courier(watch)
    monkeypatch.setenv("LEZEA_RATE_CORE_HOUR_EUR", "7200")
    settings = {"mode": "offline", "sample_period_s": 0.05}
    with ExperimentTracker("Demo", resume=folder.run_id, settings=settings) as again:
        again.log_metrics({"loss": 0.5}, step=1)
    monkeypatch.setenv("LEZEA_MLFLOW_TRACKING_URI", mlflow_store)
    deliver(folder)
    records = list(read_run(folder.path))
    newest, oldest = of_type(records, "resource_totals")
    assert [(record.wid, record.att) for record in (oldest, newest)] == [("courier", 1), ("main", 2)]
    store = Store(mlflow_store, folder)
    [written] = translate(newest).texts
    summary = store.artifact("resources/summary.json")
    assert json.loads(summary.read_text()) == json.loads(written.content)
    rates = json.loads(store.artifact("business/rates.json").read_text())
    assert rates["rates"]["core_hour_eur"] == 7200
    assert store.run.data.metrics["cost/total/eur"] == metrics(translate(newest))["cost/total/eur"][0]
    assert audit(folder).is_right
    summary.write_text(translate(oldest).texts[0].content)
    assert found(folder) == [("altered", "file resources/summary.json")]
    assert audit(folder, repair=True).is_right
