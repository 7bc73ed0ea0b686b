"""What a resumed run looks like to a reader, through the tracker itself: one curve, and every configuration."""

from __future__ import annotations

import json
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lezea_mlops import ABSENT, read_config, read_history, read_revisions
from lezea_mlops.tracker import ExperimentTracker

OFFLINE = {"mode": "offline"}
Run = Callable[..., "subprocess.CompletedProcess[str]"]

# An attempt whose process is killed behind its last step.
KILLED = """
import json, os, signal
from lezea_mlops.tracker import ExperimentTracker

plan = json.loads(os.environ["PLAN"])
tracker = ExperimentTracker("Resumed", resume=plan["resume"], settings={"mode": "offline"}, auto_start=True)
if plan["config"] is not None:
    tracker.log_lezea_config(64, 4, "SAC", hyperparameters=plan["config"])
for step in range(plan["first"], plan["last"] + 1):
    if plan["metric"] == "loss":
        tracker.log_training_step(step, {"loss": plan["offset"] + step / 1_000})
    else:
        tracker.log_metrics({plan["metric"]: 0.5}, step=step)
print(tracker.experiment_id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def killed_attempt(run_python: Run) -> Callable[..., Path]:
    """Return a function that makes an attempt in a process of its own, which is killed, and returns the run folder."""

    def attempt(run_dir: Path | None, first: int, last: int, **more: Any) -> Path:
        plan = {"resume": run_dir and run_dir.name, "first": first, "last": last}
        plan |= {"config": None, "offset": 0, "metric": "loss"} | more
        done = run_python(KILLED, check=False, PLAN=json.dumps(plan))
        assert done.returncode == -signal.SIGKILL, done.stderr
        return Path("runs").absolute() / done.stdout.strip()

    return attempt


def test_five_times_from_a_checkpoint_gives_one_curve(killed_attempt: Callable[..., Path]) -> None:
    """Checkpoint at 100, crash at 150, resume at 100, five times over: one value per step, of the newest attempt."""
    run_dir = killed_attempt(None, 1, 150, offset=1)
    for number in range(2, 7):
        run_dir = killed_attempt(run_dir, 100, 150, offset=number)

    shown = list(read_history(run_dir, "loss"))
    assert [(point.step, point.att) for point in shown] == [
        (step, 1 if step < 100 else 6) for step in range(1, 151)
    ]
    assert [point.value for point in shown] == [point.att + (point.step or 0) / 1_000 for point in shown]

    everything = list(read_history(run_dir, "loss", all_attempts=True))
    assert Counter(point.att for point in everything) == {1: 150} | dict.fromkeys(range(2, 7), 51)
    assert [point.att for point in everything if point.step == 120] == [1, 2, 3, 4, 5, 6]


def test_an_attempt_that_is_behind_leaves_the_older_points_ahead_of_it(
    killed_attempt: Callable[..., Path],
) -> None:
    """While the second attempt is at 120, the curve goes on to 150 as the first one left it."""
    run_dir = killed_attempt(killed_attempt(None, 1, 150), 100, 120)
    shown = {point.step: point.att for point in read_history(run_dir, "loss")}
    assert shown == {step: 2 if 100 <= step <= 120 else 1 for step in range(1, 151)}


def test_a_new_metric_at_old_steps_is_accepted(killed_attempt: Callable[..., Path]) -> None:
    """It is all there, and takes nothing from the others."""
    run_dir = killed_attempt(killed_attempt(None, 1, 50), 10, 20, metric="accuracy")
    assert [point.step for point in read_history(run_dir, "accuracy")] == list(range(10, 21))
    assert [point.att for point in read_history(run_dir, "loss")] == [1] * 50


def test_three_resumes_with_other_configurations_are_four_revisions(
    killed_attempt: Callable[..., Path],
) -> None:
    """Each with a typed diff and its attempt; a step leads to the configuration that was in force."""
    run_dir = killed_attempt(None, 1, 150, config={"lr": 0.1, "layers": [8, 8]})
    for changed in ({"lr": 0.2}, {"layers": [8, 16]}, {"lr": 1, "clip": 0.5}):
        run_dir = killed_attempt(run_dir, 100, 150, config=changed)

    revisions = read_revisions(run_dir)
    assert [(r.number, r.attempt, r.step) for r in revisions] == [(n, n, None) for n in (1, 2, 3, 4)]
    assert [dict(r.changed) for r in revisions[1:]] == [
        {"hyperparameters.lr": (0.1, 0.2)},
        {"hyperparameters.layers": ([8, 8], [8, 16])},
        {"hyperparameters.lr": (0.2, 1), "hyperparameters.clip": (ABSENT, 0.5)},
    ]
    assert type(revisions[3].changed["hyperparameters.lr"][1]) is int
    assert [r.ts for r in revisions] == sorted(r.ts for r in revisions)

    assert read_config(run_dir, at_step=99) == revisions[0].config
    assert read_config(run_dir, at_step=100) == read_config(run_dir) == revisions[3].config
    assert [read_config(run_dir, attempt=n)["hyperparameters.lr"] for n in (1, 2, 3, 4)] == [0.1, 0.2, 0.2, 1]
    with pytest.raises(ValueError, match="attempt is 9, and the run has these attempts: 1, 2, 3, 4"):
        read_config(run_dir, attempt=9)


def test_values_logged_in_any_order_over_three_axes_all_come_out_in_order() -> None:
    """Ten thousand by step, generation and time: count out is count in, and each axis can be restored."""
    order = random.Random(1)
    steps = order.sample(range(10_000), 9_000)
    generations = order.sample(range(1_000), 500)
    tracker = ExperimentTracker("Orders", settings=OFFLINE, auto_start=True)
    for step in steps:
        tracker.log_metrics({"loss": step / 7}, step=step)
    for generation in generations:
        tracker.log_population_snapshot(generation + 1, 1, generation)
    for _ in range(500):
        tracker.log_resource("host", cpu=order.random() * 100, mem=1.0)
    tracker.end()

    found: dict[str, list[Any]] = {}
    for point in read_history(tracker.run_dir, all_attempts=True):
        found.setdefault(point.name, []).append(point)
    assert [(p.step, p.value) for p in found["loss"]] == [(step, step / 7) for step in sorted(steps)]
    assert [(p.step, p.value) for p in found["population/tasker_count"]] == [
        (generation, generation + 1) for generation in sorted(generations)
    ]
    by_time = found["resources/host/cpu_percent"]
    assert len(by_time) == 500
    assert by_time == sorted(by_time, key=lambda point: point.ts)
    assert [p.step for p in sorted(found["loss"], key=lambda point: point.seq)] == steps
    assert tracker.health()["counts"] == {}


def test_a_long_run_is_sorted_beyond_memory() -> None:
    """More points than are held at once come out sorted and counted, whatever order they were logged in."""
    tracker = ExperimentTracker("Orders", settings=OFFLINE, auto_start=True)
    steps = random.Random(2).sample(range(60_000), 60_000)
    for step in steps:
        tracker.log_metrics({"loss": float(step)}, step=step)
    tracker.end()
    assert [point.value for point in read_history(tracker.run_dir, "loss")] == [
        float(n) for n in range(60_000)
    ]
