"""An audit of a run that was delivered well finds nothing, whatever the run holds."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lezea_mlops.events import MAX_NAMES_APART
from lezea_mlops.journal import RunFolder
from lezea_mlops.runtime.audit import AuditReport
from lezea_mlops.runtime.rewind import rewind
from lezea_mlops.sinks.base import destination_id
from lezea_mlops.sinks.mlflow import audit as comparison
from lezea_mlops.sinks.mlflow import audit_survey
from tests.conftest import MlflowServer
from tests.sinks.contract import a_run_like, rich_run
from tests.sinks.mlflow.auditing import Store, audit, deliver, found, offline
from tests.sinks.mlflow.place import Place, place
from tests.sinks.mlflow.records import SHA

__all__ = ["place", "rich_run"]


def delivered(rich_run: RunFolder, name: str) -> RunFolder:
    """Return a copy of the run with every event, two attempts and two writers, delivered."""
    folder = RunFolder(a_run_like(rich_run, name).folder)
    deliver(folder)
    return folder


def nothing_wrong(report: AuditReport) -> bool:
    """Show what is wrong, if something is."""
    assert report.findings == []
    return report.is_right and report.checked > 0


def test_every_call_of_the_facade_is_found(mlflow_store: str, rich_run: RunFolder) -> None:
    """Every type of event, two attempts, two writers, odd names, files, large values, NaN and infinity."""
    report = audit(delivered(rich_run, "audited"))
    assert nothing_wrong(report)
    assert report.checked > 150
    assert (report.merged, report.withheld, report.waiting, report.rejected) == (0, 0, 0, 0)


def test_every_call_of_the_facade_is_found_on_a_server(
    shared_mlflow_server: MlflowServer, rich_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same through HTTP, which has its own way with numbers, pages and files; and what is deleted is missed."""
    monkeypatch.setenv("LEZEA_MLFLOW_TRACKING_URI", shared_mlflow_server.uri)
    folder = delivered(rich_run, "audited-served")
    here = audit(folder)
    assert nothing_wrong(here)
    assert here.checked > 150
    run = Store(shared_mlflow_server.uri, folder).run
    (
        shared_mlflow_server.folder
        / f"artifacts/{run.info.experiment_id}/{run.info.run_id}/artifacts/summary.json"
    ).unlink()
    assert found(folder) == [("missing", "file summary.json")]
    assert audit(folder, repair=True).is_right


def test_nothing_is_wrong_after_all_came_again(mlflow_store: str, rich_run: RunFolder) -> None:
    """A lost cursor, and the whole run a second time."""
    folder = delivered(rich_run, "audited-again")
    [cursor] = folder.cursors.glob("*.json")
    cursor.unlink()
    deliver(folder)
    assert nothing_wrong(audit(folder))


def test_small_shares_find_the_same(
    mlflow_store: str, rich_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where not all fits into memory the journal is read many times, and each thing is compared once."""
    folder = delivered(rich_run, "audited-in-shares")
    whole = audit(folder)
    monkeypatch.setattr(comparison, "MAX_POINTS", 2)
    monkeypatch.setattr(comparison, "MAX_FILES", 3)
    assert audit(folder) == whole
    store = Store(mlflow_store, folder)
    store.sql("DELETE FROM metrics WHERE key = 'a_b' AND step = 4")
    store.delete("summary.json")
    assert set(found(folder)) == {("missing", "metric a_b step 4"), ("missing", "file summary.json")}


def test_what_people_add_is_theirs(mlflow_store: str, rich_run: RunFolder, tmp_path: Path) -> None:
    """Tags, params, metrics and files of other names, and the description, which they may write anew."""
    folder = delivered(rich_run, "audited-edited")
    client, run_id = Store(mlflow_store, folder).client, Store(mlflow_store, folder).run.info.run_id
    client.set_tag(run_id, "reviewed", "yes")
    client.set_tag(run_id, "mlflow.note.content", "My own words.")
    client.log_param(run_id, "mine", "1")
    client.log_metric(run_id, "mine", 1.0, step=1)
    client.log_text(run_id, "mine", "notes/mine.md")
    assert nothing_wrong(audit(folder))


def test_equal_points_of_one_millisecond_are_merged(place: Place) -> None:
    """MLflow cannot hold them twice; they are told apart from what is missing."""
    place.start()
    for _ in range(50):
        place.log("metric", metrics={"loss": 0.5}, step=1)
    place.ship()
    times = {json.loads(line)["m"]["ts"] // 1000 for line in place.folder.journal("main").open()}
    report = audit(place.folder)
    assert nothing_wrong(report)
    # The first line is the start; it may share its millisecond with points, and with nothing else.
    assert 50 - len(times) <= report.merged <= 50 - len(times) + 1
    Store(place.uri, place.folder).sql("DELETE FROM metrics")
    lost = audit(place.folder)
    assert (lost.merged, lost.missing) == (report.merged, 50 - report.merged)


def test_numbers_that_are_not_finite(place: Place) -> None:
    """Infinity is NaN in MLflow and a tag; both are known."""
    place.start()
    for step, value in enumerate(["NaN", "Infinity", "-Infinity", 1e308, -0.0, 5e-324]):
        place.log("metric", metrics={"loss": value, "n" * 300: value}, step=step)
    place.ship()
    report = audit(place.folder)
    assert nothing_wrong(report)
    store = Store(place.uri, place.folder)
    store.sql("DELETE FROM metrics WHERE key = 'loss' AND is_nan AND step < 2")
    store.sql("DELETE FROM tags WHERE key = 'lezea.nonfinite.loss'")
    assert set(found(place.folder)) == {
        ("missing", "metric loss step 0"),
        ("missing", "metric loss step 1"),
        ("missing", "tag lezea.nonfinite.loss"),
    }


def individuals(place: Place, numbers: range) -> None:
    """Log a step of each of so many taskers."""
    for number in numbers:
        place.log("training_step", scope=[["tasker", str(number)]], step=1, metrics={"loss": number})


def test_individuals_beyond_the_cap_are_withheld_and_not_missing(place: Place) -> None:
    """Those that are shown are compared, one by one; the others are counted."""
    place.start()
    individuals(place, range(MAX_NAMES_APART + 20))
    place.ship()
    report = audit(place.folder)
    assert nothing_wrong(report)
    assert report.withheld == 20
    store = Store(place.uri, place.folder)
    store.sql("DELETE FROM metrics WHERE key = 'tasker:7/loss'")
    store.sql("DELETE FROM tags WHERE key = 'lezea.metric_names_capped'")
    assert set(found(place.folder)) == {
        ("missing", "metric tasker:7/loss step 1"),
        ("missing", "tag lezea.metric_names_capped"),
    }


def test_a_run_resumed_twice_with_changed_params(mlflow_store: str) -> None:
    """Revisions, attempts and steps that came again, whichever attempt was cut off."""
    tracker = offline(tags={"stage": "draft"})
    tracker.log_params({"lr": 0.1, "gamma": 0.9, "long": "x" * 10_000})
    tracker.log_metrics({"loss": 1.0}, step=5)
    tracker.end("failed", "it diverged")
    for lr, step in ((0.2, 3), (0.1, 4)):
        with offline(resume=tracker.experiment_id, tags={"stage": f"again {lr}"}) as again:
            again.log_params({"lr": lr, "long": "y" * 10_000})
            again.log_metrics({"loss": lr}, step=step)
    folder = RunFolder(tracker.run_dir)
    deliver(folder)
    assert nothing_wrong(audit(folder))
    tags = Store(mlflow_store, folder).run.data.tags
    assert (tags["lezea.attempt"], tags["lezea.rev1.lr"], tags["stage"]) == ("3", "0.2", "again 0.1")
    assert tags["lezea.superseded_from_step"] == "3"


@pytest.mark.parametrize("first", ["main", "rank1"])
def test_two_writers_with_one_param(place: Place, first: str) -> None:
    """The value that came first is the param and the other one a revision, whoever was quicker."""
    place.start()
    place.ship()
    for wid in [first, *({"main", "rank1"} - {first})]:
        place.log("param", wid=wid, params={"lr": f"of {wid}"})
        place.log("metric", wid=wid, metrics={"loss": 0.5}, step=1)
        place.ship()
    assert place.run.data.params["lr"] == f"of {first}"
    assert nothing_wrong(audit(place.folder))
    store = Store(place.uri, place.folder)
    store.sql("DELETE FROM params")
    store.sql("DELETE FROM metrics WHERE key LIKE 'rank1/%'")
    assert set(found(place.folder)) >= {("missing", "param lr"), ("missing", "metric rank1/loss step 1")}
    assert audit(place.folder, repair=True).is_right


def test_an_end_that_was_inferred_beside_one_that_was_told(place: Place) -> None:
    """The outcome is that of the newest word, in whatever order they arrived."""
    place.start(tags={"team": "a"})
    place.log("run_finished", status="failed", error={"type": "E", "message": "m", "traceback": "t"})
    place.log("run_started", att=2, experiment_name="Demo")
    place.log("run_finished", wid="courier", att=2, status="killed", reason="gone", inferred=True)
    place.ship()
    assert nothing_wrong(audit(place.folder))
    assert (place.run.info.status, place.run.data.tags["lezea.reason"]) == ("KILLED", "gone")
    store = Store(place.uri, place.folder)
    store.sql("DELETE FROM tags WHERE key IN ('team', 'lezea.attempt', 'lezea.reason')")
    assert audit(place.folder).missing == 3
    assert audit(place.folder, repair=True).is_right
    assert place.run.data.tags["lezea.attempt"] == "2"
    # An older end that comes again alone says nothing of the outcome.
    store.sql("DELETE FROM tags WHERE key = 'team'")
    assert audit(place.folder, repair=True).is_right
    store.client.set_tag(place.run.info.run_id, "lezea.error", "of the first attempt")
    assert found(place.folder) == [("altered", "tag lezea.error")]


def test_the_files_of_an_end_that_came_late_are_not_owed(place: Place) -> None:
    """A newer end by another writer stood there first, and its files are not to be written over."""
    place.start()
    place.ship()
    place.log("run_finished", wid="courier", att=2, status="killed", inferred=True)
    place.ship()
    place.log("run_finished", status="failed", error={"type": "E", "message": "m", "traceback": "t"})
    place.ship()
    assert nothing_wrong(audit(place.folder))


def test_what_waits_may_be_there_already(place: Place) -> None:
    """Its delivery was cut off before the cursor moved: newer values of tags and files are no alterations."""
    place.start(tags={"stage": "draft"})
    place.log("modification_tree", step=1, modifications=[])
    place.log("run_started", att=2, experiment_name="Demo", tags={"stage": "final"})
    place.log("modification_tree", att=2, step=1, modifications=[{"id": "m1"}])
    place.log("run_finished", att=2, status="failed", reason="it diverged")
    place.ship()
    rewind(place.folder, destination_id(place.shipper.sink), {"main": 3})
    report = audit(place.folder)
    assert (report.findings, report.waiting) == ([], 3)
    assert audit(place.folder, repair=True).is_right


def test_a_name_of_an_individual_beyond_the_cap_may_be_another_metric_s(place: Place) -> None:
    """The individual's own values are withheld; those that are logged plainly under that name are owed."""
    place.start()
    place.log("metric", metrics={f"m{number}": 1 for number in range(MAX_NAMES_APART)}, step=1)
    place.log("reward", tasker_id="t0", reward=0.5, step=1)
    place.log("metric", metrics={"reward/t0": 0.25}, step=2)
    place.ship()
    report = audit(place.folder)
    assert nothing_wrong(report)
    assert report.withheld == 1
    Store(place.uri, place.folder).sql("DELETE FROM metrics WHERE key = 'reward/t0'")
    assert found(place.folder) == [("missing", "metric reward/t0 step 2")]


def test_a_param_may_begin_with_the_value_after_one_that_was_refused(place: Place) -> None:
    """What was set aside may have arrived or not."""
    place.start()
    place.log("param", params={"lr": 0.1})
    place.log("param", params={"lr": 0.2})
    place.ship()
    store = Store(place.uri, place.folder)
    store.sql("UPDATE params SET value = '0.2'", "DELETE FROM tags WHERE key LIKE 'lezea.rev%'")
    store.delete("config/revision-1.json")
    assert found(place.folder)[0] == ("altered", "param lr")
    refused = place.folder.rejected(destination_id(place.shipper.sink))
    refused.parent.mkdir()
    refused.write_text('{"wid": "main", "seq": 2}\n')
    assert found(place.folder) == []


def test_what_was_set_aside_may_be_there_in_part(place: Place) -> None:
    """A param that arrived before the file of the same record was refused is neither a stranger nor owed."""
    place.start()
    place.log("param", params={"lr": 0.1, "large": {"$blob": SHA, "size": 9, "format": "json"}})
    place.log("param", params={"lr": 0.2})
    place.log("metric", metrics={"loss": 0.5}, step=1)
    place.ship()
    assert len(place.set_aside()) == 1
    assert place.run.data.params["lr"] == "0.1"
    report = audit(place.folder)
    assert nothing_wrong(report)
    assert report.rejected == 1


def test_files_of_one_name_are_compared_with_the_last(mlflow_store: str, tmp_path: Path) -> None:
    """What replaced them is what must be there."""
    tracker = offline()
    for content in ("first", "the second"):
        tracker.log_text(content, "notes.md")
        (tmp_path / "model.bin").write_text(content)
        tracker.log_checkpoint("model.bin", step=1)
    tracker.end()
    folder = RunFolder(tracker.run_dir)
    deliver(folder)
    assert nothing_wrong(audit(folder))
    Store(mlflow_store, folder).artifact("notes.md").write_text("first")
    [finding] = audit(folder).findings
    assert (finding.kind, finding.what, finding.expected, finding.found) == (
        "altered", "file notes.md", "10 bytes", "5 bytes",
    )  # fmt: skip


def test_captured_files_that_were_removed_since_are_known_by_their_record(
    mlflow_store: str, tmp_path: Path
) -> None:
    """A blob that is no longer here was delivered; it is not taken for missing there."""
    (tmp_path / "model.bin").write_text("weights")
    with offline() as tracker:
        tracker.log_artifact("model.bin")
    folder = RunFolder(tracker.run_dir)
    deliver(folder)
    for blob in folder.blobs.glob("*/*"):
        os.unlink(blob)
    assert nothing_wrong(audit(folder))
    Store(mlflow_store, folder).artifact("model.bin").write_text("w")
    assert found(folder) == [("altered", "file model.bin")]


def test_long_histories_come_in_pages(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page is read, none twice."""
    place.start()
    for step in range(50):
        place.log("metric", metrics={"loss": 1.0, "wild": "NaN"}, step=step)
    place.ship()
    monkeypatch.setattr(audit_survey, "POINTS_PER_PAGE", 7)
    report = audit(place.folder)
    assert nothing_wrong(report)
    assert report.checked == 2 * 50 + len({"status", "attempt", "order"})
