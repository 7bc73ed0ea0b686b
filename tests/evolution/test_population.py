"""Populations: the newest generation, the best individual ever, and how many networks there are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.evolution import PopulationHistory, scores_by_individual


def history(*snapshots: dict[str, Any]) -> dict[str, Any]:
    """Return what is known after these snapshots."""
    known = PopulationHistory()
    for snapshot in snapshots:
        known.observe(snapshot)
    return known.as_dict()


@pytest.mark.parametrize(
    ("scores", "pairs"),
    [
        ({"t0": 0.5, "t1": 2}, [("t0", 0.5), ("t1", 2.0)]),
        ([0.5, 2], [("0", 0.5), ("1", 2.0)]),
        ({"t0": "NaN", "t1": "Infinity", "t2": {"$num": "NaN"}, "t3": "text", "t4": None, "t5": 1.0}, [("t5", 1.0)]),
        (None, []), ("text", []), (5, []),
        ({"$blob": "ab", "size": 160_000, "shape": [20_000]}, []),
    ],
)  # fmt: skip
def test_scores_are_read_by_individual(scores: Any, pairs: list[tuple[str, float]]) -> None:
    """From a mapping or a list; what is no finite number is left out, and a pointer to a blob is no individual."""
    assert list(scores_by_individual(scores)) == pairs


def test_the_newest_generation_is_known() -> None:
    """Its sizes, mean and best fitness and diversity are those of the last snapshot."""
    known = history(
        {"generation": 0, "tasker_count": 4, "builder_count": 2, "fitness_scores": [0.9], "diversity_metric": 0.5},
        {"generation": 1, "tasker_count": 8, "builder_count": 1, "fitness_scores": {"a": 0.2, "b": 0.6},
         "diversity_metric": 0.4},
    )  # fmt: skip
    assert (known["generation"], known["tasker_count"], known["builder_count"]) == (1, 8, 1)
    assert (known["mean_fitness"], known["best_fitness"]) == (0.4, 0.6)
    assert (known["first_diversity"], known["last_diversity"], known["snapshots"]) == (0.5, 0.4, 2)
    assert known["best"] == {"fitness": 0.9, "id": "0", "generation": 0}


def test_a_snapshot_without_scores_does_not_carry_those_of_the_last() -> None:
    """Fitness that was not told is not there; the best ever stays."""
    known = history({"generation": 0, "fitness_scores": [0.9]}, {"generation": 1})
    assert "best_fitness" not in known
    assert known["best"]["fitness"] == 0.9


def test_diversity_that_is_not_finite_is_none() -> None:
    """The first that counts is the first that is a number."""
    known = history({"diversity_metric": "NaN"}, {"diversity_metric": 0.5}, {"diversity_metric": "Infinity"})
    assert (known["first_diversity"], known["last_diversity"]) == (0.5, None)


@given(st.lists(st.lists(st.floats(-1e6, 1e6), max_size=4), min_size=1, max_size=10))
def test_the_best_is_the_first_with_the_highest_fitness(generations: list[list[float]]) -> None:
    """Over all generations, negative fitness included."""
    known = history(*({"generation": n, "fitness_scores": scores} for n, scores in enumerate(generations)))
    flat = [(s, str(i), n) for n, scores in enumerate(generations) for i, s in enumerate(scores)]
    if not flat:
        assert known["best"] == {}
        return
    highest = max(score for score, _, _ in flat)
    score, identity, generation = next(entry for entry in flat if entry[0] == highest)
    assert known["best"] == {"fitness": score, "id": identity, "generation": generation}


def test_networks_are_counted_by_type() -> None:
    """Each registration counts once."""
    known = PopulationHistory()
    for kind in ("tasker", "builder", "tasker"):
        known.observe_network({"network_type": kind})
    assert known.as_dict()["networks"] == {"tasker": 2, "builder": 1}
    assert known.as_dict()["snapshots"] == 0
