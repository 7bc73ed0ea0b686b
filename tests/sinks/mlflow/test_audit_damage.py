"""Whatever is damaged in the store is found and named; what is missing comes back, and nothing is doubled by that."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lezea_mlops.journal import RunFolder
from lezea_mlops.sinks.mlflow.runs import RUN_TAG
from tests.sinks.mlflow.auditing import Store, audit, deliver, found, offline

Found = list[tuple[str, str]]


@dataclass(frozen=True)
class Damage:
    """What is done to a store, what an audit says of it, and what still stands there after a repair."""

    do: Callable[[Store], object]
    found: Found
    left: Found = field(default_factory=list)


def second_run(store: Store) -> None:
    """Make another run that claims to be this one."""
    run = store.run
    store.client.create_run(run.info.experiment_id, tags={RUN_TAG: run.data.tags[RUN_TAG]})


def logged_again(store: Store, key: str, value: float, step: int, later_ms: int) -> None:
    """Log a point a second time, so many milliseconds later."""
    run_id = store.run.info.run_id
    [point] = [each for each in store.client.get_metric_history(run_id, key) if each.step == step]
    store.client.log_metric(run_id, key, value, point.timestamp + later_ms, step)


DAMAGES: dict[str, Damage] = {
    "a point deleted": Damage(
        lambda s: s.sql("DELETE FROM metrics WHERE key = 'builder:42/loss' AND step = 3"),
        [("missing", "metric builder:42/loss step 3")],
    ),
    "all points deleted": Damage(
        lambda s: s.sql("DELETE FROM metrics WHERE key = 'wild'", "DELETE FROM latest_metrics WHERE key = 'wild'"),
        [("missing", "metric wild step 1"), ("missing", "metric wild step 2")],
    ),
    "a value changed": Damage(
        lambda s: s.sql("UPDATE metrics SET value = 0.7 WHERE key = 'builder:42/loss' AND step = 3"),
        [("altered", "metric builder:42/loss step 3")],
        # The true value is there again; MLflow deletes no point, so the false one stays.
        [("altered", "metric builder:42/loss step 3")],
    ),
    "NaN made into a number": Damage(
        lambda s: s.sql("UPDATE metrics SET is_nan = 0 WHERE key = 'wild' AND step = 1"),
        [("altered", "metric wild step 1")], [("altered", "metric wild step 1")],
    ),
    "a time changed": Damage(
        lambda s: s.sql("UPDATE metrics SET timestamp = timestamp + 5 WHERE key = 'builder:42/loss' AND step = 3"),
        [("altered", "metric builder:42/loss step 3")],
        # With the original back, the other one is its double.
        [("doubled", "metric builder:42/loss step 3")],
    ),
    "a point doubled": Damage(
        lambda s: logged_again(s, "builder:42/loss", 1 / 3, 3, 1),
        [("doubled", "metric builder:42/loss step 3")], [("doubled", "metric builder:42/loss step 3")],
    ),
    "a point that nobody logged": Damage(
        lambda s: logged_again(s, "builder:42/loss", 99.0, 3, 0),
        [("altered", "metric builder:42/loss step 3")], [("altered", "metric builder:42/loss step 3")],
    ),
    "a param deleted": Damage(
        lambda s: s.sql("DELETE FROM params WHERE key = 'lr'"), [("missing", "param lr")]
    ),
    "a param changed": Damage(
        lambda s: s.sql("UPDATE params SET value = '7' WHERE key = 'net.width'"),
        [("altered", "param net.width")], [("altered", "param net.width")],
    ),
    "a revision deleted": Damage(
        lambda s: s.sql("DELETE FROM tags WHERE key = 'lezea.rev1.lr'"), [("missing", "tag lezea.rev1.lr")]
    ),
    "a revision changed": Damage(
        lambda s: s.sql("UPDATE tags SET value = '0.9' WHERE key = 'lezea.rev1.lr'"),
        [("altered", "tag lezea.rev1.lr")],
    ),
    "a revision's file deleted": Damage(
        lambda s: s.delete("config/revision-1.json"), [("missing", "file config/revision-1.json")]
    ),
    "a tag changed": Damage(
        lambda s: s.client.set_tag(s.run.info.run_id, "stage", "final"), [("altered", "tag stage")]
    ),
    "tags of the start deleted": Damage(
        lambda s: s.sql("DELETE FROM tags WHERE key IN ('lezea.hostname', 'stage')"),
        [("missing", "tag lezea.hostname"), ("missing", "tag stage")],
    ),
    "the outcome deleted": Damage(
        lambda s: s.sql("DELETE FROM tags WHERE key = 'lezea.error'"), [("missing", "tag lezea.error")]
    ),
    "an artifact deleted": Damage(
        lambda s: s.delete("model.bin"), [("missing", "file model.bin")]
    ),
    "an artifact cut short": Damage(
        lambda s: s.artifact("checkpoints/step_1/model.bin").write_bytes(b"we"),
        [("altered", "file checkpoints/step_1/model.bin")],
    ),
    "a folder of artifacts deleted": Damage(
        lambda s: shutil.rmtree(s.artifact("notes")),
        [("missing", "file notes/comment_")],
    ),
    "summary and traceback deleted": Damage(
        lambda s: s.delete("summary.json", "error/traceback.txt"),
        [("missing", "file error/traceback.txt"), ("missing", "file summary.json")],
    ),
    "a dataset deleted": Damage(
        lambda s: s.sql("DELETE FROM inputs"), [("missing", "dataset digits")]
    ),
    "another status": Damage(
        lambda s: s.client.update_run(s.run.info.run_id, "RUNNING"), [("altered", "status")]
    ),
    "a second run": Damage(
        second_run, [("doubled", "run with the experiment id")], [("doubled", "run with the experiment id")]
    ),
}  # fmt: skip


@pytest.fixture
def folder(mlflow_store: str) -> RunFolder:
    """A run that failed, with something of everything, delivered."""
    Path("model.bin").write_bytes(b"weights")
    with contextlib.suppress(ValueError), offline(tags={"stage": "draft"}) as tracker:
        tracker.log_params({"lr": 0.1, "net": {"width": 64}})
        for step in range(1, 6):
            with tracker.builder_scope("42"):
                tracker.log_training_step(step, {"loss": 1 / step})
        tracker.log_metrics({"wild": float("nan")}, step=1)
        tracker.log_metrics({"wild": float("inf")}, step=2)
        tracker.log_params({"lr": 0.2})
        tracker.log_artifact("model.bin")
        tracker.log_checkpoint("model.bin", step=1)
        tracker.log_dataset_version("digits", "v1", "model.bin")
        tracker.log_comment("Slow at first.")
        raise ValueError("it diverged")
    folder = RunFolder(tracker.run_dir)
    deliver(folder)
    return folder


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_and_what_is_missing_is_repaired(
    mlflow_store: str, folder: RunFolder, damage: str
) -> None:
    """Exactly what was damaged is named; a repair brings it back, and leaves only what nobody can take back."""
    told = DAMAGES[damage]
    told.do(Store(mlflow_store, folder))
    assert_found(found(folder), told.found)
    repaired = audit(folder, repair=True)
    assert_found([(finding.kind, finding.what) for finding in repaired.findings], told.left)


def assert_found(found: Found, expected: Found) -> None:
    """Compare kinds and the beginnings of the words, whose ends hold ids."""
    assert len(found) == len(expected), found
    for (kind, what), (expected_kind, beginning) in zip(sorted(found), sorted(expected), strict=True):
        assert kind == expected_kind
        assert what.startswith(beginning)


def test_a_finding_says_what_was_expected_and_what_is_there(mlflow_store: str, folder: RunFolder) -> None:
    """With the record that brought it, so that a person finds it in the journal."""
    store = Store(mlflow_store, folder)
    store.sql("UPDATE metrics SET value = 0.7 WHERE key = 'builder:42/loss' AND step = 2")
    store.client.set_tag(store.run.info.run_id, "stage", "final")
    by_what = {finding.what: finding for finding in audit(folder).findings}
    point, tag = by_what["metric builder:42/loss step 2"], by_what["tag stage"]
    assert (point.wid, point.seq) == ("main", 4)
    assert str(point.expected).startswith("0.5 at 20")
    assert point.found == str(point.expected).replace("0.5", "0.7", 1)
    assert (tag.wid, tag.seq, tag.expected, tag.found) == ("main", 1, "draft", "final")


def test_a_repair_delivers_from_the_first_damage_on_and_says_how_much(
    mlflow_store: str, folder: RunFolder
) -> None:
    """Not the whole run, where the end of it is what is missing."""
    records = len(folder.journal("main").read_bytes().splitlines())
    Store(mlflow_store, folder).delete("summary.json")
    report = audit(folder, repair=True)
    assert report.is_right
    assert report.delivered == 1
    Store(mlflow_store, folder).sql("DELETE FROM tags WHERE key = 'lezea.hostname'")
    assert audit(folder, repair=True).delivered == records


def test_a_store_that_lost_everything_of_the_run_is_filled_again(
    mlflow_store: str, folder: RunFolder
) -> None:
    """Metrics, params, tags, files: all of it at once."""
    store = Store(mlflow_store, folder)
    for table in ("metrics", "latest_metrics", "params", "inputs"):
        store.sql(f"DELETE FROM {table}")
    store.sql(f"DELETE FROM tags WHERE key != '{RUN_TAG}'")
    for file in store.artifact("").glob("**/*.*"):
        file.unlink()
    checked = audit(folder)
    assert checked.missing > 30
    assert (checked.doubled, checked.altered) == (0, 0)
    assert audit(folder, repair=True).is_right


def test_an_audit_changes_nothing(mlflow_store: str, folder: RunFolder) -> None:
    """Neither in the store nor in the run folder."""
    Store(mlflow_store, folder).sql("DELETE FROM params WHERE key = 'lr'")
    store = Path(mlflow_store.removeprefix("sqlite:///"))
    before = store.read_bytes(), {path: path.stat().st_mtime_ns for path in folder.path.glob("**/*")}
    assert audit(folder).missing == 1
    assert (
        store.read_bytes(),
        {path: path.stat().st_mtime_ns for path in folder.path.glob("**/*")},
    ) == before
