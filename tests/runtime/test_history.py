"""Reading a run folder back: writers, other programs' journals, damage, and the names that MLflow shows."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lezea_mlops.errors import JournalError
from lezea_mlops.events import Envelope, encode_envelope
from lezea_mlops.insight import points_of
from lezea_mlops.journal import RunFolder, read_run
from lezea_mlops.runtime.history import Point, read_config, read_history, read_revisions
from lezea_mlops.sinks.mlflow.names import unescape
from lezea_mlops.sinks.mlflow.translation import translate
from lezea_mlops.tracker import ExperimentTracker


def line(kind: str, seq: int, wid: str = "main", att: int = 1, **payload: Any) -> bytes:
    """Return a record as a line of a journal."""
    meta = {"seq": seq, "ts": seq, "wid": wid, "att": att}
    return encode_envelope(Envelope(kind, meta, {"run_id": "r"} | payload)) + b"\n"


def journal(folder: Path, wid: str, *lines: bytes) -> None:
    """Write a journal of the writer."""
    RunFolder(folder).journal(wid).write_bytes(b"".join(lines))


def test_writers_have_histories_and_configurations_of_their_own(tmp_path: Path) -> None:
    """A later attempt of one rank hides nothing of another, and ranks with other params are no changes."""
    for wid, last_att in (("main", 2), ("rank1", 1)):
        lines = [line("param", 1, wid, 1, params={"seed": wid})]
        lines += [line("metric", 2 + n, wid, 1, step=n, metrics={"loss": n}) for n in range(4)]
        if last_att == 2:
            lines += [line("metric", 6 + n, wid, 2, step=n, metrics={"loss": -n}) for n in range(1, 3)]
        journal(tmp_path, wid, *lines)
    shown = [(point.wid, point.step, point.att) for point in read_history(tmp_path)]
    assert shown == [("main", 0, 1), ("main", 1, 2), ("main", 2, 2), ("main", 3, 1)] + [
        ("rank1", step, 1) for step in range(4)
    ]
    assert len(read_revisions(tmp_path)) == len(read_revisions(tmp_path, wid="rank1")) == 1
    assert (read_config(tmp_path), read_config(tmp_path, wid="rank1")) == (
        {"seed": "main"},
        {"seed": "rank1"},
    )


def test_what_other_programs_wrote_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    """Missing fields, steps that are texts, unknown types: values stay, and nothing raises."""
    journal(
        tmp_path, "main",
        b'{"v":1,"t":"metric_batch","m":{"seq":1,"ts":1},"p":{"metrics":{"a":1},"step":"7"}}\n',
        b'{"v":1,"t":"metric","m":{"seq":2,"ts":2},"p":{"key":"a","value":"NaN","step":3}}\n',
        b'{"v":1,"t":"metric","m":{"seq":3,"ts":3},"p":{}}\n',
        b'{"v":1,"t":"from_the_future","m":{"seq":4,"ts":4},"p":{"metrics":{"a":1},"step":9}}\n',
        b'{"v":1,"t":"training_step","m":{"seq":5,"ts":5},"p":{"metrics":[1],"step":null,"scope":"builder"}}\n',
        b'{"v":1,"t":"param","m":{"seq":6,"ts":6},"p":{"params":"none"}}\n',
        b'{"v":1,"t":"param","m":{"seq":7,"ts":7},"p":{"key":"lr","value":0.1}}\n',
    )  # fmt: skip
    assert [repr(tuple(point)) for point in read_history(tmp_path)] == [
        "('a', None, 1, 1, 'main', 1, 1)",
        "('a', 3, nan, 2, 'main', 1, 2)",
    ]
    assert [(r.step, dict(r.changed)["lr"][1]) for r in read_revisions(tmp_path)] == [(3, 0.1)]


def test_damaged_lines_are_stepped_over_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What stands before and behind them is read, and an unfinished last line is left."""
    lines = [line("metric", n, step=n, metrics={"a": n}) for n in (1, 2, 3)]
    journal(tmp_path, "main", lines[0], b"{torn\n", lines[1], b"\xff\xfe\n", lines[2][:-5])
    with caplog.at_level(logging.WARNING, "lezea_mlops"):
        assert [point.value for point in read_history(tmp_path)] == [1, 2]
    [told] = caplog.messages
    assert "2 places" in told


@pytest.mark.parametrize("read", [read_history, read_revisions, read_config])
def test_a_folder_without_a_journal_is_said_at_the_call(read: Any, tmp_path: Path) -> None:
    """Not when the first point is asked for."""
    with pytest.raises(JournalError, match="holds no journal"):
        read(tmp_path / "nothing")


def test_a_full_temporary_folder_is_said_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader at night learns which variable to set."""
    journal(
        tmp_path, "main",
        *(line("metric", n, step=n, metrics={f"m{i}": n for i in range(100)}) for n in range(1, 502)),
    )  # fmt: skip
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "full"))
    with pytest.raises(JournalError, match="let TMPDIR name a folder with room, or ask for one metric"):
        next(read_history(tmp_path))
    assert next(read_history(tmp_path, "m7")).name == "m7"


def test_names_and_steps_are_those_that_mlflow_shows() -> None:
    """For every call that logs numbers, point by point; MLflow shows step 0 where there is none."""
    with ExperimentTracker("All", settings={"mode": "offline"}) as tracker:
        with tracker.builder_scope("42"), tracker.layer_scope(3):
            tracker.log_training_step(1, {"loss": 2, "x": float("inf")}, data_split="val")
            tracker.log_training_step(2, {"loss": 1.5}, "val", modification_statistics={"kept": {"all": 1}})
            tracker.log_metrics({"speed": 3.5})
        tracker.log_modification_tree(1, [{"type": "add", "accepted": True, "score": 1}], {"mine": 2})
        tracker.log_modification_tree_stats({"depth": 2})
        tracker.log_modification_stats({"crossover": 2, "by": {"kind": 1}}, step=4)
        tracker.log_data_splits([1, 2], [3])
        tracker.log_data_usage([1, 2], epoch=1)
        tracker.log_data_usage([1, 2])
        tracker.log_data_score("s1", 2.0, 1.0)
        tracker.log_delta_loss(3, 1.0, 1.5)
        tracker.log_resource("gpu0", 10.0, 20.0, 30.0)
        tracker.log_component_resources("b1", "builder", 1.0, 2.0, 3.0, 4)
        tracker.log_results({"acc": 0.9}, {"t0": 1.0}, {"b0": 2.0})
        tracker.log_reward("t0", 0.7)
        tracker.log_reward_flow("b0", "t1", "builder", "tasker", 0.5)
        tracker.log_population_snapshot(2, 1, 5, {"a": 1.0, "b": 2.0}, 0.3)
        tracker.log_resource_cost(1.0, 2.0, 3)
        tracker.log_business_metrics(4.0, saved=1)
    records = list(read_run(tracker.run_dir))
    in_mlflow = Counter(
        (unescape(point.key), point.step, repr(float(point.value)))
        for record in records
        for point in translate(record).points
    )
    ours = Counter((p.name, p.step or 0, repr(float(p.value))) for p in points_of(records))
    assert ours == in_mlflow
    assert len({name.partition("/")[0] for name, _, _ in ours}) > 8
    assert len(list(read_history(tracker.run_dir, all_attempts=True))) == ours.total()


def test_values_that_were_too_large_for_a_line_come_back_whole(caplog: pytest.LogCaptureFixture) -> None:
    """A parameter of megabytes, thousands of nested keys, and a call with more metrics than a line has room for."""
    text = "ä" * 2**20
    nested = {f"g{i}": {f"k{j}": i * j for j in range(50)} for i in range(100)}
    # Each text stays below the limit of its own; together they are too long for a line.
    many = {f"t{i}": f"{i}" * 250_000 for i in range(40)}
    metrics = {f"metric-{'x' * 200}-{i}": i for i in range(40_000)}
    with ExperimentTracker("Large", settings={"mode": "offline"}) as tracker:
        tracker.log_params({"prompt": {"text": text}, **nested})
        tracker.log_params({"many": many})
        tracker.log_metrics(metrics, step=3)
    config = read_config(tracker.run_dir)
    assert config.pop("prompt.text") == text
    assert {name: config.pop(f"many.{name}") for name in many} == many
    assert config == {f"g{i}.k{j}": i * j for i in range(100) for j in range(50)}
    assert {p.name: p.value for p in read_history(tracker.run_dir) if p.name.startswith("metric-")} == metrics

    folder = RunFolder(tracker.run_dir)
    for path in folder.blobs.rglob("*"):
        if path.is_file():
            path.unlink()
    with caplog.at_level(logging.WARNING, "lezea_mlops"):
        assert read_config(tracker.run_dir)["prompt.text"]["$blob"]
    [told] = caplog.messages
    assert "a value that was too large for a line cannot be read" in told


def test_the_end_of_a_run_is_not_waited_for() -> None:
    """A run that goes on shows what it has so far."""
    tracker = ExperimentTracker("Live", settings={"mode": "offline"}, auto_start=True)
    tracker.log_metrics({"a": 1}, step=1)
    assert [(p.step, p.value) for p in read_history(tracker.run_dir, "a")] == [(1, 1)]
    tracker.log_metrics({"a": 2}, step=2)
    shown: list[Point] = list(read_history(tracker.run_dir, "a"))
    assert [point.value for point in shown] == [1, 2]
    tracker.end()


def test_the_readers_are_public_names_that_load_no_backend(run_python: Any) -> None:
    """Reading a run on a machine without MLflow works, and importing the package loads nothing of it."""
    run_python(
        "import sys, lezea_mlops; before = set(sys.modules); "
        "assert not [name for name in before if name.startswith('lezea_mlops.')], before; "
        "from lezea_mlops import ABSENT, read_config, read_history, read_revisions; "
        "assert not {'mlflow', 'pymongo', 'numpy', 'lezea_mlops.tracker'} & set(sys.modules)"
    )
