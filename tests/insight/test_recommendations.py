"""Advice: each rule speaks where a run shows what it looks for, with its evidence, and is silent elsewhere."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lezea_mlops.insight import recommendations
from lezea_mlops.tracker import ExperimentTracker


def offline() -> ExperimentTracker:
    """Return a tracker that only writes its journal."""
    return ExperimentTracker("Demo", settings={"mode": "offline"})


def healthy(t: ExperimentTracker) -> None:
    """Log a run that gives no cause for advice."""
    t.log_data_splits(["a"], ["b"])
    for step in range(120):
        t.log_training_step(step, {"loss": 1.0 / (step + 1)}, "train")
        t.log_training_step(step, {"loss": 1.2 / (step + 1), "acc": 0.5}, "val")
    t.log_training_step(120, {"elbo/loss": -10.0})
    t.log_modification_tree(1, [{"type": "widen", "accepted": n % 3 == 0} for n in range(30)])
    for generation in range(10):
        t.log_population_snapshot(8, 2, generation, [0.1 * generation], 0.5 - 0.03 * generation)
    t.log_text("weights", "a.txt")
    t.log_checkpoint(t.run_dir / "events.jsonl")


def losses(*values: float, split: str | None = None) -> Callable[[ExperimentTracker], None]:
    """Return what logs these losses, step by step."""

    def log(t: ExperimentTracker) -> None:
        for step, value in enumerate(values):
            t.log_training_step(step, {"loss": value}, split)

    return log


def both_losses(train: list[float], val: list[float]) -> Callable[[ExperimentTracker], None]:
    """Return what logs the losses of two splits."""
    return lambda t: (losses(*train, split="train")(t), losses(*val, split="val")(t))  # type: ignore[func-returns-value]


def accepted(count: int, of: int) -> Callable[[ExperimentTracker], object]:
    """Return what logs so many accepted modifications of one type."""
    return lambda t: t.log_modification_tree(1, [{"type": "widen", "accepted": n < count} for n in range(of)])


def diversity(*values: float) -> Callable[[ExperimentTracker], None]:
    """Return what logs a population of that diversity, generation by generation."""

    def log(t: ExperimentTracker) -> None:
        for generation, value in enumerate(values):
            t.log_population_snapshot(8, 2, generation, diversity_metric=value)

    return log


FALLING = [1.0, 0.8, 0.6, 0.4, 0.2]
# What is logged, the rule it brings, evidence among others; and what comes close and brings nothing.
RULES: list[tuple[Callable[[Any], object], str | None, dict[str, Any]]] = [
    (healthy, None, {}),
    (lambda t: None, None, {}),
    (losses(1.0, math.nan), "nonfinite_metric", {"metric": "loss", "nonfinite": 1, "count": 2}),
    (losses(1.0, 1.2, 0.9, 1.1, 1.0), "loss_not_improving", {"first": 1.0, "last": 1.0}),
    (losses(1.0, 1.2, 0.9, 1.1), None, {}),
    (losses(math.nan, 1.0, 1.2, 0.9, 1.1), "loss_not_improving", {"first": 1.0, "last": 1.1}),
    (losses(1.0, 0.2, *[0.3] * 30), "loss_plateau", {"min": 0.2, "min_step": 1, "last_step": 31}),
    (
        both_losses(FALLING, [1.0, 0.5, 0.6, 0.8, 0.9]),
        "overfitting",
        {"min": 0.5, "min_step": 1, "last": 0.9},
    ),
    (both_losses(FALLING, [1.0, 0.5, 0.3, 0.29, 0.3]), None, {}),
    (both_losses(FALLING, [-9.0, -9.9, -9.95, -10.0, -9.99]), None, {}),
    (both_losses(FALLING, [-1.0, -9.0, -10.0, -5.0, -3.0]), "overfitting", {"min": -10.0, "last": -3.0}),
    (accepted(0, 20), "modification_rarely_accepted", {"type": "widen", "proposed": 20, "accepted": 0}),
    (accepted(1, 20), None, {}),
    (accepted(17, 20), "modification_nearly_always_accepted", {"proposed": 20, "accepted": 17}),
    (accepted(16, 20), None, {}),
    (accepted(0, 19), None, {}),
    (diversity(0.5, 0.3, 0.09), "diversity_collapsed", {"first": 0.5, "last": 0.09, "generation": 2}),
    (diversity(math.nan, 0.5, 0.05), "diversity_collapsed", {"first": 0.5, "last": 0.05}),
    (diversity(0.5, 0.1), None, {}),
    (losses(*(1.0 / (n + 1) for n in range(100))), "no_checkpoint", {"training_steps": 100}),
    (losses(*(1.0 / (n + 1) for n in range(99))), None, {}),
    (lambda t: t.log_data_splits(["a"], [], ["c"]), "no_validation_split", {"train": 1, "test": 1}),
]


@pytest.mark.parametrize(("log", "rule", "evidence"), RULES)
def test_each_advice_is_given_where_it_belongs_and_nowhere_else(
    log: Callable[[ExperimentTracker], object], rule: str | None, evidence: dict[str, Any]
) -> None:
    """A stream that shows a fault brings its advice with numbers; a healthy one, or one that comes close, none."""
    tracker = offline()
    log(tracker)
    advice = tracker.get_recommendations()
    if rule != "nonfinite_metric":
        # That a value was NaN is told beside what else is wrong.
        advice = [entry for entry in advice if entry["rule"] != "nonfinite_metric"]
    if rule is None:
        assert advice == []
        return
    (told,) = advice
    assert told["rule"] == rule
    assert told["severity"] in ("warning", "info")
    assert told["evidence"].items() >= evidence.items()
    assert told["message"]
    json.dumps(told, allow_nan=False)


def test_the_table_above_names_every_rule() -> None:
    """A rule that is added is tested on both kinds of streams."""
    source = (Path(recommendations.__file__)).read_text()
    assert set(re.findall(r'_advice\(\s*"(\w+)"', source)) == {rule for _, rule, _ in RULES if rule}


def test_warnings_come_first() -> None:
    """The most severe advice stands at the head of the list."""
    tracker = offline()
    losses(*(1.0 / (n + 1) for n in range(100)), math.nan)(tracker)
    assert [entry["severity"] for entry in tracker.get_recommendations()] == ["warning", "info"]
