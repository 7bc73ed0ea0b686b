"""The evolution of a run, read back from its folder."""

from __future__ import annotations

from lezea_mlops import read_evolution
from lezea_mlops.tracker import ExperimentTracker


def test_what_a_tracker_logged_comes_back() -> None:
    """Modifications, networks and populations of a run, joined: what made the champion."""
    tracker = ExperimentTracker("Demo", settings={"mode": "offline"})
    tracker.register_network("n0", generation=0)
    tracker.register_network("n1", parent_ids=["n0"], generation=1)
    tracker.log_modification_tree(
        0,
        [
            {"id": "a", "target": "n0", "accepted": True},
            {"id": "b", "parent_id": "a", "target": "n1", "accepted": False},
            {"id": "c", "parent_id": "a", "target": "n1", "accepted": True},
        ],
    )
    tracker.log_population_snapshot(2, 0, 0, {"n0": 1.0})
    tracker.log_population_snapshot(2, 0, 1, {"n0": 1.0, "n1": 2.0})
    tracker.end()
    evolution = read_evolution(tracker.run_dir)
    assert evolution.problems() == []
    assert evolution.networks.champion() == "n1"
    assert [node.modification.id for node in evolution.path_to("n1")] == ["a", "c"]
    assert (evolution.networks.generations("n0"), evolution.networks.survivors()) == ([0, 1], ["n0", "n1"])
