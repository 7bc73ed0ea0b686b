"""Folds: thousands of individuals seen together, and every single value still in the journal."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from statistics import mean

from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.evolution import Folds
from lezea_mlops.journal import read_run
from lezea_mlops.tracker import ExperimentTracker

OFFLINE = {"mode": "offline"}


def fields(step: int, **metrics: float | str) -> dict[str, object]:
    """Return the fields of a training step."""
    return {"step": step, "metrics": metrics}


def test_a_step_is_folded_when_the_next_one_begins() -> None:
    """Mean, least, greatest and the best individual of a step come out once, when it is over."""
    folds = Folds()
    assert list(folds.take(fields(1, acc=0.2), (("tasker", "a"),))) == []
    assert list(folds.take(fields(1, acc=0.6), (("tasker", "b"),))) == []
    (fold,) = folds.take(fields(2, acc=0.9), (("tasker", "a"),))
    assert (fold.level, fold.metric, fold.step, fold.count) == ("tasker", "acc", 1, 2)
    assert (fold.mean, fold.min, fold.max, fold.best_id) == (0.4, 0.2, 0.6, "b")
    (rest,) = folds.finish()
    assert (rest.step, rest.count) == (2, 1)
    assert list(folds.finish()) == []


def test_the_least_loss_is_the_best() -> None:
    """Of a loss the individual with the least value is named."""
    folds = Folds()
    for identity, loss in (("a", 0.3), ("b", 0.1), ("c", 0.2)):
        assert list(folds.take(fields(1, loss=loss), (("tasker", identity),))) == []
    (fold,) = folds.finish()
    assert fold.best_id == "b"


def test_what_stands_inside_an_individual_is_folded_across_individuals() -> None:
    """The same layer of all taskers is one fold; builders and taskers are two."""
    folds = Folds()
    for identity in "ab":
        assert not list(folds.take(fields(1, norm=1.0), (("tasker", identity), ("layer", "3"))))
    assert not list(folds.take(fields(1, norm=1.0), (("builder", "x"),)))
    found = {(fold.level, fold.metric): fold.count for fold in folds.finish()}
    assert found == {("tasker", "layer:3/norm"): 2, ("builder", "norm"): 1}


def test_what_no_individual_logged_is_not_folded() -> None:
    """Networks, layers and algorithms stand for themselves."""
    folds = Folds()
    assert not list(folds.take(fields(1, acc=0.2), (("network", "n"), ("layer", "1"))))
    assert not list(folds.finish())


@given(st.lists(st.floats(-1e6, 1e6) | st.sampled_from(["NaN", "Infinity"]), min_size=1, max_size=40))
def test_figures_are_those_of_the_finite_values(values: list[float | str]) -> None:
    """Values that are not finite are left out of the fold; they stay in the journal."""
    folds = Folds()
    for number, value in enumerate(values):
        assert not list(folds.take(fields(7, m=value), (("tasker", str(number)),)))
    finite = [value for value in values if isinstance(value, float)]
    found = list(folds.finish())
    assert len(found) == bool(finite)
    for fold in found:
        assert (fold.count, fold.min, fold.max) == (len(finite), min(finite), max(finite))
        assert abs(fold.mean - mean(finite)) <= 1e-6 * max(1.0, *map(abs, finite))


def test_a_large_population_is_folded_and_a_small_one_is_not(tmp_path: Path) -> None:
    """Above a thousand metric names folds begin, each value stays in the journal; below, there are none."""
    counts = {}
    for taskers in (10, 700):
        with ExperimentTracker("folds", async_mode=True, runs_dir=tmp_path, settings=OFFLINE) as tracker:
            for step in range(3):
                for number in range(taskers):
                    with tracker.tasker_scope(number):
                        tracker.log_training_step(step, {"acc": number / taskers, "loss": 1.0})
        counts[taskers] = Counter(record.type for record in read_run(tracker.run_dir))
        assert counts[taskers]["training_step"] == 3 * taskers
    assert counts[10]["fold"] == 0
    assert counts[700]["fold"] >= 4


def test_individuals_inside_individuals_are_folded_with_them() -> None:
    """A builder's taskers make one fold for all of them, not one for each tasker of each builder."""
    folds = Folds()
    for number in range(30):
        scope = (("builder", str(number % 3)), ("layer", "0"), ("tasker", f"t{number}"))
        assert list(folds.take({"metrics": {"loss": float(number)}, "step": 1}, scope)) == []
    [fold] = folds.finish()
    assert (fold.level, fold.metric, fold.count, fold.best_id) == ("tasker", "builder/layer:0/loss", 30, "t0")
