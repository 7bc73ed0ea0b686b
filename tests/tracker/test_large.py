"""Large values: no line grows beyond what a reader must hold, and no content is lost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from lezea_mlops.events import MAX_LINE_BYTES, Envelope
from lezea_mlops.journal import BlobStore, RunFolder, read_run
from lezea_mlops.tracker import ExperimentTracker

MIB = 1024 * 1024


@pytest.fixture
def tracker() -> ExperimentTracker:
    """A tracker that only writes its journal."""
    return ExperimentTracker("Demo", settings={"mode": "offline"})


def records_of(tracker: ExperimentTracker) -> list[Envelope]:
    """Return what was logged, after checking that each line is within the limit and nothing was set aside."""
    lines = (tracker.run_dir / "events.jsonl").read_bytes().splitlines()
    assert max(map(len, lines)) < MAX_LINE_BYTES
    records = list(read_run(tracker.run_dir))[1:]
    assert len(records) == len(lines) - 1
    assert not [record for record in records if record.type in ("rejected_input", "gap")]
    return records


def blob(tracker: ExperimentTracker, pointer: Mapping[str, Any]) -> bytes:
    """Return the content that a pointer stands for."""
    content = BlobStore(RunFolder(tracker.run_dir).blobs).path(pointer["$blob"]).read_bytes()
    assert len(content) == pointer["size"]
    return content


def test_results_of_50_mb_become_a_blob_and_the_rest_of_the_call_stays(tracker: ExperimentTracker) -> None:
    """The field that is too large is a pointer to its JSON; rewards and step stand in the line."""
    results = {"outputs": ["x" * 1_000_000] * 52, "scores": [i * 0.5 for i in range(10_000)]}
    tracker.log_results(results, tasker_rewards={"t0": 0.5}, step=3)
    (record,) = records_of(tracker)
    assert (record.event.tasker_rewards, record.event.step) == ({"t0": 0.5}, 3)
    assert record.event.result_dict["format"] == "json"
    content = blob(tracker, record.event.result_dict)
    assert len(content) > 52_000_000
    assert json.loads(content) == results
    assert tracker.health()["counts"]["blob"] == 1


def test_figures_keep_a_bearable_part_of_what_is_large(tracker: ExperimentTracker) -> None:
    """Summary and data hold the beginning of huge results and params, and say that they are partial."""
    tracker.log_results({"outputs": list(range(1_000_000))})
    tracker.log_params({"table": {str(i): i for i in range(50_000)}, "lr": 0.1, "note": "x" * 100_000})
    data = tracker.get_experiment_data()
    assert data["partial"]
    assert data["results"]["result_dict"]["outputs"][:3] == [0, 1, 2]
    assert data["params"]["lr"] == 0.1
    assert data["params"]["table"]["7"] == 7
    assert data["params"]["note"] == "x" * 10_000 + "…"
    assert len(json.dumps(data)) < 100_000
    tracker.end()
    assert (tracker.run_dir / "events.jsonl").read_bytes().splitlines()[-1].count(b",") < 3_000


def test_a_tree_of_50_000_modifications_is_split_and_comes_together_again(tracker: ExperimentTracker) -> None:
    """Its parts are numbered, each within a line, in order; ids are returned for all and given to all."""
    modifications = [
        {
            "parent_ids": [f"n{index // 2}"] if index else [], "id": f"n{index}" if index % 2 else None,
            "type": "widen", "accepted": index % 4 == 0, "params": {"by": index, "note": "because " * 20},
        }
        for index in range(50_000)
    ]  # fmt: skip
    ids = tracker.log_modification_tree(7, modifications, {"own": 1})
    records = records_of(tracker)
    assert len(records) > 2
    assert [record.event.part for record in records] == list(range(1, len(records) + 1))
    assert {(record.event.parts, record.event.step) for record in records} == {(len(records), 7)}
    whole = [modification for record in records for modification in record.event.modifications]
    assert [modification["id"] for modification in whole] == ids
    assert len(set(ids)) == 50_000
    for got, given in zip(whole, modifications, strict=True):
        assert given["id"] in (None, got["id"])
        assert {**got, "id": given["id"]} == given
    assert records[0].event.statistics["computed"]["count"] == 50_000
    assert tracker.get_experiment_data()["modifications"]["proposed"] == 50_000


def test_the_large_value_of_a_modification_is_a_blob(tracker: ExperimentTracker) -> None:
    """The modification itself stays in its tree, with its place in the line of parents and all that is small."""
    params = list(range(2_000_000))
    given = [{"id": "a"}, {"id": "b", "parent_ids": ["a"], "params": params, "score": 0.5}, {"id": "c"}]
    tracker.log_modification_tree(1, given)
    (record,) = records_of(tracker)
    first, second, third = record.event.modifications
    assert [first, third] == [{"id": "a", "parent_ids": []}, {"id": "c", "parent_ids": []}]
    pointer = second.pop("params")
    assert second == {"id": "b", "parent_ids": ["a"], "score": 0.5}
    assert pointer["format"] == "json"
    assert json.loads(blob(tracker, pointer)) == params


@pytest.mark.parametrize("size", [MIB, MIB + 1, 20 * MIB])
def test_texts_above_one_mebibyte_become_blobs(tracker: ExperimentTracker, size: int) -> None:
    """In parameters, comments and conclusions alike; up to the limit they stay in the line."""
    text = "é" * (size // 2) + "." * (size % 2)
    tracker.log_params({"note": text})
    tracker.log_comment(text)
    tracker.log_conclusion(text)
    params, comment, conclusion = records_of(tracker)
    for value in (params.event.params["note"], comment.event.text, conclusion.event.text):
        if size <= MIB:
            assert value == text
        else:
            assert value["format"] == "text"
            assert blob(tracker, value).decode() == text


@pytest.mark.parametrize("shape", [(100, 100), (100, 101), (1_000, 1_000)])
def test_arrays_above_ten_thousand_elements_become_blobs(
    tracker: ExperimentTracker, shape: tuple[int, int]
) -> None:
    """The pointer says type and shape, so that numpy reads the content back; smaller ones are lists."""
    array = np.arange(shape[0] * shape[1], dtype=np.float32).reshape(shape)
    tracker.log_results(action_outputs=array)
    (record,) = records_of(tracker)
    value = record.event.action_outputs
    if array.size <= 10_000:
        assert value == array.tolist()
    else:
        read = np.frombuffer(blob(tracker, value), dtype=value["dtype"]).reshape(value["shape"])
        assert (read == array).all()
        assert read.dtype == array.dtype


def test_ids_and_scores_in_large_arrays_are_counted(tracker: ExperimentTracker) -> None:
    """Splits, usage and fitness given as arrays keep their sizes; a pointer is never taken for scores."""
    tracker.log_data_splits(np.arange(20_000), np.arange(5))
    tracker.log_data_usage(np.arange(20_000), epoch=1)
    tracker.log_population_snapshot(20_000, 4, 0, np.arange(20_000.0))
    splits, usage, population = records_of(tracker)
    assert splits.event.sizes == {"train": 20_000, "val": 5}
    assert usage.event.count == 20_000
    assert population.event.fitness_scores["shape"] == [20_000]
    data = tracker.get_experiment_data()
    assert data["data"]["sample_uses"] == 20_000
    assert data["population"]["best"] == {}


def test_metrics_beyond_a_line_are_a_blob_and_count_all_the_same(tracker: ExperimentTracker) -> None:
    """A step with so many names that they fill a line keeps them, and the loss is among the figures."""
    metrics = {f"{'k' * 1_000}{number}": 0.5 for number in range(9_000)} | {"loss": 0.25}
    tracker.log_training_step(1, metrics)
    (record,) = records_of(tracker)
    assert record.event.step == 1
    assert json.loads(blob(tracker, record.event.metrics)) == metrics
    assert tracker.get_experiment_data()["metrics"]["loss"]["last"] == 0.25


def test_what_cannot_be_stored_is_counted_and_said_once(
    tracker: ExperimentTracker, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a line needs a blob and none can be made, the call is lost in the open, and the run goes on."""
    (tracker.run_dir / "blobs").write_text("in the way")
    for _ in range(2):
        tracker.log_results({"outputs": ["x" * 1_000_000] * 9})
    assert tracker.health()["journal"]["lost"] == 2
    assert len(caplog.messages) == 1
    tracker.log_comment("still here")
    assert [record.type for record in records_of(tracker)] == ["comment"]
    assert "takes records again" in caplog.messages[1]


def test_a_large_traceback_and_a_large_reason_do_not_hinder_the_end(tracker: ExperimentTracker) -> None:
    """A run that fails with an endless message has an end."""
    with pytest.raises(ValueError, match="x"), tracker:
        raise ValueError("x" * (10 * MIB))
    end = records_of(tracker)[-1]
    assert (end.type, end.event.status) == ("run_finished", "failed")
