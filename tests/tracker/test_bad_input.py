"""Bad input: what is good of a call is kept, the rest is set aside with its reason, and nothing raises."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lezea_mlops.journal import read_run
from lezea_mlops.tracker import ExperimentTracker

Do = Callable[[Any], object]
Kept = list[tuple[str, dict[str, Any]]]
# Argument and the beginning of the reason.
Aside = list[tuple[str, str]]

OFFLINE = {"mode": "offline"}


class Hostile:
    """An object of a broken library: whatever is asked of it raises, its own description too."""

    shape = ()

    def item(self) -> float:
        raise RuntimeError("device lost")

    def tolist(self) -> list[float]:
        raise RuntimeError("device lost")

    def __str__(self) -> str:
        raise RuntimeError("device lost")

    __repr__ = __str__


class HostileMapping(Mapping[str, float]):
    """A mapping that cannot be read."""

    def __getitem__(self, key: str) -> float:
        raise OSError("gone")

    def __iter__(self) -> Iterator[str]:
        raise OSError("gone")

    def __len__(self) -> int:
        return 1


def journaled(tracker: ExperimentTracker) -> tuple[Kept, list[dict[str, Any]]]:
    """Return what was kept and what was set aside, after checking that every line is strict JSON."""
    for line in (tracker.run_dir / "events.jsonl").read_bytes().splitlines():
        json.loads(line.decode(), parse_constant=pytest.fail)
    records = [(record.type, dict(record.payload)) for record in read_run(tracker.run_dir)][1:]
    for _, payload in records:
        payload.pop("run_id")
    kept = [(kind, fields) for kind, fields in records if kind != "rejected_input"]
    return kept, [fields for kind, fields in records if kind == "rejected_input"]


def step(**metrics: Any) -> tuple[str, dict[str, Any]]:
    """Return the training step that is expected."""
    return "training_step", {"step": 1, "metrics": metrics}


TEXT, NONE = "is text, and a number was expected", "is None, and a number was expected"

# What is called, what is kept of it, what is set aside.
TABLE: dict[str, tuple[Do, Kept, Aside]] = {
    "metric that is text": (
        lambda t: t.log_training_step(1, {"loss": 0.5, "note": "high"}),
        [step(loss=0.5)], [("metrics['note']", TEXT)],
    ),
    "metric that is None": (
        lambda t: t.log_training_step(1, {"loss": 0.5, "acc": None}),
        [step(loss=0.5)], [("metrics['acc']", NONE)],
    ),
    "metric that is complex": (
        lambda t: t.log_training_step(1, {"loss": 0.5, "z": 1 + 2j}),
        [step(loss=0.5)], [("metrics['z']", "is of type complex, and a number was expected")],
    ),
    "metric that is an array": (
        lambda t: t.log_training_step(1, {"loss": 0.5, "a": np.zeros(3)}),
        [step(loss=0.5)], [("metrics['a']", "has 3 elements, and one number was expected")],
    ),
    "metric whose own methods raise": (
        lambda t: t.log_training_step(1, {"loss": 0.5, "h": Hostile()}),
        [step(loss=0.5)], [("metrics['h']", "is of type Hostile that gives no number")],
    ),
    "integer too large for a number": (
        lambda t: t.log_training_step(1, {"loss": 0.5, "n": 10**5000}),
        [step(loss=0.5)], [("metrics['n']", "is too large")],
    ),
    "integer beyond 64 bits": (lambda t: t.log_training_step(1, {"n": 2**64}), [step(n=2.0**64)], []),
    "integers of 64 bits": (
        lambda t: t.log_training_step(1, {"a": 2**64 - 1, "b": -(2**63)}), [step(a=2**64 - 1, b=-(2**63))], [],
    ),
    "not finite": (
        lambda t: t.log_training_step(1, {"a": math.nan, "b": math.inf, "c": -math.inf}),
        [step(a="NaN", b="Infinity", c="-Infinity")], [],
    ),
    "numbers of numpy": (
        lambda t: t.log_training_step(1, {"a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True)}),
        [step(a=0.5, b=3, c=1)], [],
    ),
    "arrays with one element": (
        lambda t: t.log_training_step(1, {"a": np.array(0.5), "b": np.array([[2]]), "c": np.array([math.nan])}),
        [step(a=0.5, b=2, c="NaN")], [],
    ),
    "decimal and bool": (
        lambda t: t.log_training_step(1, {"a": Decimal("0.25"), "b": True}), [step(a=0.25, b=1)], [],
    ),
    "only bad metrics": (
        lambda t: t.log_training_step(1, {"a": "x"}, sample_ids=[7]),
        [("training_step", {"step": 1, "metrics": {}, "sample_ids": [7]})], [("metrics['a']", TEXT)],
    ),
    "metrics that are no mapping": (
        lambda t: t.log_training_step(1, [0.5]),
        [step()], [("metrics", "is no mapping of names to numbers")],
    ),
    "metrics that cannot be read": (
        lambda t: t.log_metrics(HostileMapping(), 4), [], [("*", "raised OSError: gone")],
    ),
    "only bad metrics, by log_metrics": (
        lambda t: t.log_metrics({"a": "x"}, 4), [], [("metrics['a']", TEXT)],
    ),
    "names that are not text": (
        lambda t: t.log_training_step(1, {3: 0.5, None: 1.0, ("a", 1): 2.0}),
        [step(**{"3": 0.5, "None": 1.0, "('a', 1)": 2.0})], [],
    ),
    "two names with the same text": (
        lambda t: t.log_training_step(1, {3: 0.5, "3": 1.0}),
        [step(**{"3": 0.5})], [("metrics['3']", "has the same name as another metric")],
    ),
    "odd names": (
        lambda t: t.log_training_step(1, {"tasker#0": 1.0, "AR@100": 2.0, "\"q\"'": 3.0, "a\nb": 4.0, "🙂": 5.0}),
        [step(**{"tasker#0": 1.0, "AR@100": 2.0, "\"q\"'": 3.0, "a\nb": 4.0, "🙂": 5.0})], [],
    ),
    "a name of 1 KB": (lambda t: t.log_training_step(1, {"k" * 1024: 1.0}), [step(**{"k" * 1024: 1.0})], []),
    "lone surrogates": (
        lambda t: (t.log_training_step(1, {"a\ud800": 1.0}), t.log_comment("b\udfff")),
        [step(**{"a\ufffd": 1.0}), ("comment", {"text": "b\ufffd"})], [],
    ),
    "negative step": (
        lambda t: t.log_training_step(-1, {"loss": 0.5}), [step(loss=0.5)], [("step", "is outside 0 to")],
    ),
    "step beyond 63 bits": (
        lambda t: t.log_training_step(2**63, {"loss": 0.5}), [step(loss=0.5)], [("step", "is outside 0 to")],
    ),
    "step that is no whole number": (
        lambda t: t.log_training_step(1.5, {"loss": 0.5}),
        [step(loss=0.5)], [("step", "is no whole number")],
    ),
    "step that is not finite": (
        lambda t: t.log_training_step(math.nan, {"loss": 0.5}),
        [step(loss=0.5)], [("step", "is no whole number")],
    ),
    "step that is text": (
        lambda t: t.log_training_step("1", {"loss": 0.5}),
        [step(loss=0.5)], [("step", f"{TEXT} (a whole number from 0)")],
    ),
    "whole float as step": (
        lambda t: t.log_training_step(1.0, {"loss": 0.5}), [step(loss=0.5)], [],
    ),
    "steps out of order": (
        lambda t: [t.log_training_step(at, {"acc": 0.5}) for at in (3, 1, 2)],
        [("training_step", {"step": at, "metrics": {"acc": 0.5}}) for at in (3, 1, 2)], [],
    ),
    "missing checkpoint": (
        lambda t: t.log_checkpoint("nowhere.pt", step=3), [], [("path", "does not exist")],
    ),
    "folder as checkpoint": (lambda t: t.log_checkpoint(".", 3), [], [("path", "is a folder")]),
    "pipe as checkpoint": (
        lambda t: (os.mkfifo("pipe"), t.log_checkpoint("pipe")), [], [("path", "is no plain file")],
    ),
    "file below a file": (
        lambda t: (Path("a").write_text("x"), t.log_artifact("a/b.txt")), [],
        [("path", "cannot be captured: Not a directory")],
    ),
    "path that is none": (lambda t: t.log_artifact(None), [], [("path", "is no path")]),
    "path with a zero byte": (lambda t: t.log_artifact("a\0b"), [], [("path", "cannot be captured")]),
    "path with a lone surrogate": (lambda t: t.log_artifact("a\udcff"), [], [("path", "does not exist")]),
    "artifact without a name": (
        lambda t: t.log_text("x", "/"), [], [("artifact_file", "names no file")],
    ),
    "text that is None": (
        lambda t: t.log_text(None, "a.txt"), [], [("text", "is None, and text was expected")],
    ),
    "figure that is none": (lambda t: t.log_figure(3, "a.png"), [], [("figure", "raised TypeError: a int")]),
    "figure that cannot be drawn": (
        lambda t: t.log_figure(type("F", (), {"savefig": lambda *a, **k: 1 / 0})(), "a.png"), [],
        [("figure", "raised ZeroDivisionError")],
    ),
    "params that are no mapping": (
        lambda t: t.log_params(math.nan), [],
        [("params", "is of type float, and a mapping of names to values was expected")],
    ),
    "params that are None": (
        lambda t: t.log_params(None), [], [("params", "is None, and a mapping")],
    ),
    "one param that raises": (
        lambda t: t.log_params({"lr": 0.1, "net": {"depth": 2, "bad": Hostile()}, "list": [1, Hostile()]}),
        [("param", {"params": {"lr": 0.1, "net": {"depth": 2}, "list": [1]}})],
        [("params['net']['bad']", "raised RuntimeError"), ("params['list'][1]", "raised RuntimeError")],
    ),
    "config, one argument bad": (
        lambda t: t.log_lezea_config("many", 4, hyperparameters=[1]),
        [("lezea_config", {"builder_population_size": 4})],
        [("tasker_population_size", f"{TEXT} (a whole"), ("hyperparameters", "is of type list, and a mapping")],
    ),
    "config, nothing good": (
        lambda t: t.log_lezea_config("many"), [], [("tasker_population_size", TEXT)],
    ),
    "config of nothing": (lambda t: t.log_lezea_config(), [], [("*", "nothing was given")]),
    "constraints of nothing": (lambda t: t.log_constraints(), [], [("*", "nothing was given")]),
    "results of nothing": (lambda t: t.log_results(step=3), [], [("*", "nothing was given")]),
    "cost that is text": (
        lambda t: t.log_resource_cost("3 h", mem_gb=2), [("resource_cost", {"mem_gb": 2})],
        [("cpu_hours", TEXT)],
    ),
    "modification that is no mapping": (
        lambda t: t.log_modification_tree(2, [{"id": "a"}, "b", None]),
        [("modification_tree", {
            "step": 2, "modifications": [{"id": "a", "parent_ids": []}],
            "statistics": {"computed": {
                "count": 1, "roots": 1, "depth": 1, "max_children": 0, "root_ids": ["a"],
                "by_type": {"None": {"proposed": 1, "accepted": 0}},
            }},
        })],
        [("modifications[1]", "is of type str, and a mapping"), ("modifications[2]", "is no mapping")],
    ),
    "modifications that are no list": (
        lambda t: t.log_modification_tree(2, "none"), [],
        [("modifications", "is no list of mappings")],
    ),
    "ids that are a number": (
        lambda t: t.log_data_splits(["a"], 5), [("data_splits", {"train_ids": ["a"], "sizes": {"train": 1}})],
        [("val_ids", "is of type int, and a list of ids was expected")],
    ),
    "ids that are None": (
        lambda t: t.log_data_usage(None, 3), [], [("sample_ids", "is None, and a list")],
    ),
    "stats that are no mapping": (
        lambda t: t.log_modification_stats(5), [], [("stats", "is of type int, and a mapping")],
    ),
    "reward that is text": (lambda t: t.log_reward("t0", "good"), [], [("reward", TEXT)]),
    "reward without a tasker": (lambda t: t.log_reward("", 0.5), [], [("tasker_id", "is empty")]),
    "dataset that is not there": (
        lambda t: t.log_dataset_version("d", "v1", "nowhere"),
        [("dataset_version", {"dataset_name": "d", "version_tag": "v1", "dataset_path": "nowhere"})],
        [("dataset_path", "cannot be fingerprinted")],
    ),
    "dataset path that is none": (
        lambda t: t.log_dataset_version("d", "v1", 5),
        [("dataset_version", {"dataset_name": "d", "version_tag": "v1"})],
        [("dataset_path", "cannot be fingerprinted")],
    ),
    "parents that are a number": (
        lambda t: t.register_network("n", parent_ids=5),
        [("network", {"network_id": "n", "network_type": "tasker", "parent_ids": []})],
        [("parent_ids", "is of type int, and a list of ids was expected")],
    ),
    "network type that is none": (
        lambda t: t.register_network("n", "pilot"),
        [("network", {"network_id": "n", "network_type": "pilot", "parent_ids": []})],
        [("network_type", "is none of tasker, builder, hybrid")],
    ),
    "empty comment": (lambda t: t.log_comment(""), [], [("text", "is empty, and text was expected")]),
}  # fmt: skip


def reasons(aside: list[dict[str, Any]], expected: Aside) -> list[tuple[str, str]]:
    """Return argument and reason of what was set aside, each cut to the length of what is expected."""
    assert len(aside) == len(expected)
    return [
        (entry["argument"], entry["reason"][: len(reason)])
        for entry, (_, reason) in zip(aside, expected, strict=True)
    ]


@pytest.mark.parametrize("case", TABLE)
def test_what_is_good_is_kept_and_the_rest_set_aside(case: str) -> None:
    """Nothing raises; the good part is journaled, each bad argument with its reason, and health counts it."""
    do, kept, expected = TABLE[case]
    tracker = ExperimentTracker("Demo", settings=OFFLINE)
    do(tracker)
    found, aside = journaled(tracker)
    assert found == kept
    assert reasons(aside, expected) == expected
    assert tracker.health()["counts"].get("rejected_input", 0) == len(expected)


@pytest.mark.parametrize("case", TABLE)
def test_strict_keeps_the_good_part_too_and_then_raises(case: str) -> None:
    """With ``strict`` the journal is the same, and a mistake then raises and names call and argument."""
    do, kept, expected = TABLE[case]
    tracker = ExperimentTracker("Demo", strict=True, settings=OFFLINE)
    if expected:
        with pytest.raises(
            (TypeError, ValueError), match=r"^log_\w+\(\): |^register_network\(\): "
        ) as raised:
            do(tracker)
        assert expected[0][0] in str(raised.value)
    else:
        do(tracker)
    found, aside = journaled(tracker)
    assert found == kept
    assert reasons(aside, expected) == expected


def test_a_wrong_kind_is_a_type_error_and_a_wrong_value_a_value_error() -> None:
    """``strict`` raises what Python raises for such a mistake."""
    tracker = ExperimentTracker("Demo", strict=True, settings=OFFLINE)
    with pytest.raises(TypeError, match="loss"):
        tracker.log_training_step(1, {"loss": "low"})
    with pytest.raises(ValueError, match="step is outside"):
        tracker.log_training_step(-1, {"loss": 0.5})
    with pytest.raises(ValueError, match="device lost") as raised:
        tracker.log_comment(Hostile())
    assert isinstance(raised.value.__cause__, RuntimeError)


# Calls that record nothing without the argument that is bad here, and what was good of them.
NOTHING_RECORDED: dict[str, tuple[Do, dict[str, Any]]] = {
    "reward": (lambda t: t.log_reward(None, 0.5, 7), {"reward": 0.5, "step": 7}),
    "reward of a tasker": (lambda t: t.log_reward("t0", "x"), {"tasker_id": "t0"}),
    "reward flow": (
        lambda t: t.log_reward_flow("b0", None, "builder", reward=0.5),
        {"source_id": "b0", "source_type": "builder", "reward": 0.5},
    ),
    "delta": (lambda t: t.log_delta_loss(5, math.nan, "x"), {"epoch": 5, "loss": {"$num": "NaN"}}),
    "score": (lambda t: t.log_data_score("a", None, 0.5), {"sample_id": "a", "after_loss": 0.5}),
    "resource": (lambda t: t.log_resource("", cpu=3.0, mem=5), {"cpu": 3.0, "mem": 5}),
    "component": (
        lambda t: t.log_component_resources(None, "tasker", 3.0),
        {"component_type": "tasker", "cpu_percent": 3.0},
    ),
    "checkpoint": (
        lambda t: t.log_checkpoint("nowhere", 3, role="best", metadata={"a": 1}),
        {"step": 3, "role": "best", "metadata": {"a": 1}},
    ),
    "dataset": (
        lambda t: t.log_dataset_version("", "v1", version_metadata={"rows": 2}),
        {"version_tag": "v1", "version_metadata": {"rows": 2}},
    ),
    "network": (
        lambda t: t.register_network(None, "builder", ["a"], 3),
        {"network_type": "builder", "parent_ids": ["a"], "generation": 3},
    ),
    "tree": (
        lambda t: t.log_modification_tree(3, None, {"mutations": 5}),
        {"step": 3, "statistics": {"mutations": 5}},
    ),
    "text": (lambda t: t.log_text("plan", ""), {"text": "plan"}),
    "dictionary": (lambda t: t.log_dict({"a": 1}, ""), {"dictionary": {"a": 1}}),
    "metrics": (lambda t: t.log_metrics({"a": "x"}, 4), {"step": 4}),
    "usage": (lambda t: t.log_data_usage(None, 3), {"epoch": 3}),
}  # fmt: skip


@pytest.mark.parametrize("case", NOTHING_RECORDED)
def test_where_nothing_can_be_recorded_the_good_arguments_stand_beside_the_bad_one(case: str) -> None:
    """Nothing that was good is lost: the rejected input holds the rest of its call."""
    do, rest = NOTHING_RECORDED[case]
    tracker = ExperimentTracker("Demo", settings=OFFLINE)
    do(tracker)
    found, aside = journaled(tracker)
    assert found == []
    assert [entry.get("rest") for entry in aside] == [rest]
