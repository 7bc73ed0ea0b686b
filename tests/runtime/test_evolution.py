"""The evolution of a run, read back from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lezea_mlops import ModificationTree, read_evolution
from lezea_mlops.errors import JournalError
from lezea_mlops.events import Envelope, encode_envelope
from lezea_mlops.journal import RunFolder, read_run
from lezea_mlops.tracker import ExperimentTracker


def offline(**settings: Any) -> ExperimentTracker:
    """Return a tracker that only journals."""
    return ExperimentTracker("Demo", settings={"mode": "offline"}, **settings)


def test_what_a_tracker_logged_comes_back() -> None:
    """Modifications, networks and populations of a run, joined: what made the champion."""
    tracker = offline()
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
    assert type(evolution.modifications) is ModificationTree
    assert evolution.problems() == []
    assert evolution.networks.champion() == "n1"
    assert [node.modification.id for node in evolution.path_to("n1")] == ["a", "c"]
    assert (evolution.networks.generations("n0"), evolution.networks.survivors()) == ([0, 1], ["n0", "n1"])


def test_a_tree_that_was_journaled_in_parts_is_whole() -> None:
    """However many lines it took."""
    tracker = offline()
    note = "x" * 500_000
    ids = tracker.log_modification_tree(
        3, [{"note": note, "type": "widen", "parent_ids": []} for _ in range(20)]
    )
    tracker.end()
    assert sum(record.type == "modification_tree" for record in read_run(tracker.run_dir)) > 1
    tree = read_evolution(tracker.run_dir).modifications
    assert list(tree) == ids
    assert {(tree[name].step, tree[name].modification.data["note"]) for name in ids} == {(3, note)}


def test_a_population_too_large_for_a_line_has_all_its_individuals() -> None:
    """Its scores are read from where they were set aside."""
    tracker = offline()
    tracker.log_population_snapshot(20_000, 0, 0, [float(number) for number in range(20_000)])
    tracker.end()
    networks = read_evolution(tracker.run_dir).networks
    assert (len(networks), networks.champion()) == (20_000, "19999")


def test_a_resumed_run_has_what_its_newest_attempt_says() -> None:
    """A modification that was logged again counts as the later attempt had it, and the earlier content is told."""
    first = offline()
    first.log_modification_tree(
        0, [{"id": "a", "accepted": True}, {"id": "b", "parent_id": "a", "accepted": True}]
    )
    first.end()
    second = offline(resume=first.experiment_id)
    second.log_modification_tree(
        0, [{"id": "a", "accepted": True}, {"id": "b", "parent_id": "a", "accepted": False}]
    )
    second.end()
    evolution = read_evolution(second.run_dir)
    tree = evolution.modifications
    assert [node.modification.accepted for node in tree.versions("b")] == [True, False]
    assert (tree["b"].modification.accepted, tree.survivors()) == (False, ["a"])
    assert [(problem.kind, problem.id) for problem in evolution.problems()] == [("duplicate", "b")]


def test_writers_are_one_tree_in_the_order_of_their_records(tmp_path: Path) -> None:
    """Journals are read one after the other, and a parent may stand in a file that comes later."""
    for wid, place, names in (("main", 2, "bd"), ("rank1", 1, "ac")):
        lines = []
        for number, name in enumerate(names):
            meta = {"seq": number + 1, "ts": place + 2 * number, "wid": wid, "att": 1}
            above = {"b": ["a"], "c": ["b"], "d": ["c"]}.get(name, [])
            payload = {"run_id": "r", "step": 0, "modifications": [{"id": name, "parent_ids": above}]}
            lines.append(encode_envelope(Envelope("modification_tree", meta, payload)) + b"\n")
        RunFolder(tmp_path).journal(wid).write_bytes(b"".join(lines))
    evolution = read_evolution(tmp_path)
    assert list(evolution.modifications) == evolution.modifications.lineage("d") == list("abcd")
    assert evolution.problems() == []


def test_a_folder_without_a_journal_is_an_error(tmp_path: Path) -> None:
    """Said at once, with the folder."""
    with pytest.raises(JournalError, match="holds no journal"):
        read_evolution(tmp_path)
