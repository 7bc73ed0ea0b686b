"""``lezea lineage``: what led to a network, or to a modification."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from lezea_mlops.cli import app
from lezea_mlops.tracker import ExperimentTracker, NetworkType


def lineage(*arguments: object) -> Result:
    """Call the command in this process."""
    return CliRunner().invoke(app, ["lineage", *map(str, arguments)])


@pytest.fixture
def run() -> Path:
    """Return a run of three networks: one descends from another, and a third is its second parent."""
    with ExperimentTracker("Lines", settings={"mode": "offline"}) as tracker:
        tracker.register_network("n0", NetworkType.TASKER, generation=0)
        tracker.register_network("x0", NetworkType.TASKER, generation=0)
        tracker.log_population_snapshot(2, 1, 0, fitness_scores={"n0": 0.25, "x0": 0.125})
        tracker.log_modification_tree(
            1,
            [
                {
                    "id": "m1",
                    "type": "widen",
                    "accepted": True,
                    "score": 0.5,
                    "target": "n1",
                    "params": {"units": 4},
                },
                {"id": "m2", "type": "prune", "accepted": False, "score": 0.1, "target": "n1"},
                {"id": "m3", "parent_ids": ["m1", "m9"], "type": "cross", "score": 0.75, "target": "n1"},
            ],
        )
        tracker.register_network("n1", NetworkType.TASKER, parent_ids=["n0", "x0"], generation=1)
        for generation in (1, 2, 3, 5):
            tracker.log_population_snapshot(2, 1, generation, fitness_scores={"n1": 0.5 + generation / 8})
    return Path(tracker.run_dir)


def test_the_line_of_a_network_and_what_made_each_step(run: Path) -> None:
    """From its first ancestor: birth, generations alive, fitness; the modifications that were not rejected."""
    result = lineage(run, "n1")
    assert result.exit_code == 0
    assert [line.rstrip() for line in result.stdout.splitlines()] == [
        "n1: 2 networks in line, 2 modifications",
        "network  born  fitness   gain  type    lived",
        "n0          0     0.25         tasker  0",
        "n1          1    1.125         tasker  1–3, 5  also from x0",
        '  ● m1      1      0.5         widen           {"units": 4}',
        "  ■ m3      1     0.75  +0.25  cross           also from m9",
    ]


def test_the_line_of_a_modification(run: Path) -> None:
    """Its ancestors along the first parent, and itself."""
    assert lineage(run, "m3").stdout.splitlines() == [
        "m3: 2 modifications in line",
        "modification  step  score   gain  type   target",
        '● m1             1    0.5         widen  n1      {"units": 4}',
        "■ m3             1   0.75  +0.25  cross  n1      also from m9",
    ]


def test_a_network_that_only_modifications_name_has_a_line(run: Path) -> None:
    """Of itself alone."""
    with ExperimentTracker("Named", settings={"mode": "offline"}) as tracker:
        tracker.log_modification_tree(1, [{"id": "m1", "target": "net"}])
    result = lineage(tracker.run_dir, "net")
    assert "net: 1 network in line, 1 modification" in result.stdout
    assert "never registered" in result.stdout


def test_an_id_of_both_shows_both() -> None:
    """A network and a modification of one name."""
    with ExperimentTracker("Both", settings={"mode": "offline"}) as tracker:
        tracker.register_network("same", "tasker")
        tracker.log_modification_tree(1, [{"id": "same"}])
    output = lineage(tracker.run_dir, "same").stdout
    assert "same: 1 network in line, 0 modifications" in output
    assert "same: 1 modification in line" in output


def test_programs_get_all_of_it(run: Path) -> None:
    """Whole numbers, every parent, and what else was logged."""
    found = json.loads(lineage(run, "n1", "--json").stdout)
    first, last = found["networks"]
    assert (first["network_id"], first["modifications"]) == ("n0", [])
    assert (last["parent_ids"], last["generation"], last["network_type"]) == (["n0", "x0"], 1, "tasker")
    assert last["fitness"] == {"1": 0.625, "2": 0.75, "3": 0.875, "5": 1.125}
    assert [(m["id"], m["parent_ids"], m["gain"]) for m in last["modifications"]] == [
        ("m1", [], None),
        ("m3", ["m1", "m9"], 0.25),
    ]
    assert found["modifications"] == []
    assert [m["id"] for m in json.loads(lineage(run, "m3", "--json").stdout)["modifications"]] == ["m1", "m3"]


def test_scores_that_are_no_numbers_stay_strict_json() -> None:
    """NaN is a text."""
    with ExperimentTracker("Odd", settings={"mode": "offline"}) as tracker:
        tracker.log_modification_tree(1, [{"id": "m", "score": float("nan")}])
    text = lineage(tracker.run_dir, "m", "--json").stdout
    assert json.loads(text, parse_constant=pytest.fail)["modifications"][0]["score"] == "NaN"
    assert "nan" in lineage(tracker.run_dir, "m").stdout


def test_an_unknown_id_names_the_nearest(run: Path) -> None:
    """Networks and modifications; exit code 2."""
    result = lineage(run, "n2")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "there is no network or modification 'n2' in this run; there is n1, n0, m2\n"
    with ExperimentTracker("Empty", settings={"mode": "offline"}) as tracker:
        pass
    assert "the run has none" in lineage(tracker.run_dir, "n2").stderr


def test_a_run_that_is_not_there_is_said() -> None:
    """As by the other commands."""
    result = lineage("nowhere", "n1")
    assert (result.exit_code, "is no run in" in " ".join(result.stderr.split())) == (2, True)


def test_a_line_with_a_cycle_ends() -> None:
    """Where it meets itself; an unknown parent ends it too."""
    with ExperimentTracker("Round", settings={"mode": "offline"}) as tracker:
        tracker.register_network("a", "tasker", parent_ids=["b"])
        tracker.register_network("b", "tasker", parent_ids=["a"])
        tracker.register_network("c", "tasker", parent_ids=["never"])
    assert "a: 2 networks in line" in lineage(tracker.run_dir, "a").stdout
    assert "c: 1 network in line" in lineage(tracker.run_dir, "c").stdout


def test_many_lives_are_told_in_short() -> None:
    """A network that comes and goes."""
    with ExperimentTracker("Lives", settings={"mode": "offline"}) as tracker:
        for generation in range(0, 20, 2):
            tracker.log_population_snapshot(1, 0, generation, fitness_scores={"n": 1.0})
    assert "0, 2, …, 18" in lineage(tracker.run_dir, "n").stdout
