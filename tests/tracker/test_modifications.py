"""Modification trees as researchers log them: whole, odd, huge, from several threads, attempts and ranks."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import math
import threading
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.events import MAX_LINE_BYTES, Envelope, Redactor, read_modification
from lezea_mlops.journal import BlobStore, RunFolder, read_run
from lezea_mlops.tracker import ExperimentTracker

OFFLINE = {"mode": "offline"}
MIB = 1024 * 1024


@pytest.fixture
def tracker() -> ExperimentTracker:
    """A tracker that only writes its journal."""
    return ExperimentTracker("Demo", settings=OFFLINE)


def logged(tracker: ExperimentTracker, kind: str = "modification_tree") -> list[Envelope]:
    """Return the records of a kind, after checking that each line of the journal is within the limit."""
    lines = (tracker.run_dir / "events.jsonl").read_bytes().splitlines(keepends=True)
    assert max(map(len, lines)) < MAX_LINE_BYTES
    records = list(read_run(tracker.run_dir))
    assert len(records) == len(lines)
    return [record for record in records if record.type == kind]


def the_tree(tracker: ExperimentTracker) -> list[dict[str, Any]]:
    """Return the modifications of the only tree."""
    (record,) = logged(tracker)
    return list(record.event.modifications)


def aside(tracker: ExperimentTracker) -> list[tuple[str, str]]:
    """Return argument and reason of what was set aside."""
    return [(r.event.argument, r.event.reason) for r in logged(tracker, "rejected_input")]


def content(tracker: ExperimentTracker, pointer: Mapping[str, Any]) -> Any:
    """Return the JSON that a pointer stands for."""
    assert pointer["format"] == "json"
    found = BlobStore(RunFolder(tracker.run_dir).blobs).path(pointer["$blob"]).read_bytes()
    assert len(found) == pointer["size"]
    return json.loads(found)


# ---------------------------------------------------------------------- ids


def test_what_is_no_modification_leaves_an_empty_text_in_its_place(tracker: ExperimentTracker) -> None:
    """The ids stand where their modifications stood; the others are kept, and each of the bad ones is told."""
    ids = tracker.log_modification_tree(1, [{"type": "a"}, "text", {"id": "own"}, None, 7, {"type": "b"}])  # type: ignore[list-item]
    first, second = ids[0], ids[5]
    assert ids == [first, "", "own", "", "", second]
    assert first != second
    assert [(item["id"], item.get("type")) for item in the_tree(tracker)] == [
        (first, "a"), ("own", None), (second, "b"),
    ]  # fmt: skip
    assert [argument for argument, _ in aside(tracker)] == [f"modifications[{index}]" for index in (1, 3, 4)]


def test_the_empty_text_means_no_parent(tracker: ExperimentTracker) -> None:
    """A program that hands on what it got back names no parent that never was."""
    (nothing,) = tracker.log_modification_tree(1, [None])  # type: ignore[list-item]
    tracker.log_modification_tree(
        2, [{"id": "a", "parent_id": nothing}, {"id": "b", "parent_ids": [nothing, "a"]}]
    )
    _, record = logged(tracker)
    assert [item["parent_ids"] for item in record.event.modifications] == [[], ["a"]]
    assert record.event.statistics["computed"]["roots"] == 1


def test_ids_and_parents_may_be_numbers(tracker: ExperimentTracker) -> None:
    """They become texts in the same way, so that they find each other."""
    ids = tracker.log_modification_tree(
        1, [{"id": 7}, {"id": np.int64(8), "parent_ids": [7]}, {"id": 9.5, "parent_ids": np.array([7, 8])}]
    )
    assert ids == ["7", "8", "9.5"]
    assert [item["parent_ids"] for item in the_tree(tracker)] == [[], ["7"], ["7", "8"]]
    assert logged(tracker)[0].event.statistics["computed"]["depth"] == 3


def test_an_id_that_comes_twice_in_a_call_is_kept_twice(tracker: ExperimentTracker) -> None:
    """Nothing is left out: both stand in the journal, both are counted, and the caller gets the id twice."""
    given_items = [{"id": "a", "score": 1}, {"id": "a", "score": 2, "parent_ids": ["b"]}, {"id": "b"}]
    assert tracker.log_modification_tree(1, given_items) == ["a", "a", "b"]
    assert [item.get("score") for item in the_tree(tracker)] == [1, 2, None]
    computed = logged(tracker)[0].event.statistics["computed"]
    assert computed.items() >= {"count": 3, "roots": 1, "root_ids": ["b"], "depth": 2}.items()


def test_ids_are_unique_between_threads() -> None:
    """Trees that two threads log at once stay apart and whole, and no id is given twice."""
    tracker = ExperimentTracker("Demo", settings=OFFLINE)
    both = threading.Barrier(2)
    of_thread: dict[str, list[list[str]]] = {}

    def log(own: str) -> None:
        both.wait()
        of_thread[own] = [tracker.log_modification_tree(step, [{"type": own}] * 20) for step in range(50)]

    threads = [threading.Thread(target=log, args=(own,)) for own in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    returned = of_thread["a"] + of_thread["b"]
    trees = [record.event.modifications for record in logged(tracker)]
    assert all(len({item["type"] for item in items}) == 1 for items in trees)
    journaled = [[item["id"] for item in items] for items in trees]
    assert sorted(journaled) == sorted(returned)
    assert len(set(itertools.chain.from_iterable(returned))) == 2 * 50 * 20


def test_ids_are_unique_between_ranks_and_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """All writers of a run count for themselves, and still none gives an id of another."""
    ids: list[str] = []
    for how in ("experiment_id", "resume"):
        ranks = []
        for rank in range(2):
            monkeypatch.setenv("RANK", str(rank))
            ranks.append(ExperimentTracker("Demo", settings=OFFLINE, **{how: "job"}))
        for tracker in ranks:
            for step in range(3):
                ids += tracker.log_modification_tree(step, [{}, {}])
            tracker.end()
    assert len(set(ids)) == 2 * 2 * 3 * 2
    trees = [record for record in read_run(ranks[0].run_dir) if record.type == "modification_tree"]
    assert {(record.wid, record.att) for record in trees} == {
        ("main", 1), ("rank1", 1), ("main", 2), ("rank1", 2),
    }  # fmt: skip
    assert sorted(item["id"] for record in trees for item in record.event.modifications) == sorted(ids)


def test_without_a_journal_ids_are_given_all_the_same() -> None:
    """A program that builds on its ids runs in the mode ``off`` too."""
    tracker = ExperimentTracker("Demo", settings={"mode": "off"})
    ids = [tracker.log_modification_tree(step, [{}, {"id": "own"}]) for step in range(2)]
    assert len({first for first, _ in ids}) == 2
    assert [second for _, second in ids] == ["own", "own"]


# ---------------------------------------------------------------------- what a modification may be


class Kind(Enum):
    WIDEN = "widen"


@dataclasses.dataclass
class Change:
    type: Kind
    parent_ids: tuple[str, ...]
    score: Any


class Settings:
    """An object of a library that gives itself as a dictionary."""

    def to_dict(self) -> dict[str, Any]:
        return {"type": "prune", "params": {"units": np.int32(16)}}


def test_objects_of_programs_are_modifications_too(tracker: ExperimentTracker) -> None:
    """Dataclasses and what has ``to_dict``, with enumerations and numpy's numbers inside."""
    change = Change(Kind.WIDEN, ("a", "b"), np.float32(0.5))
    ids = tracker.log_modification_tree(1, [change, Settings()])  # type: ignore[list-item]
    assert the_tree(tracker) == [
        {"id": ids[0], "type": "widen", "parent_ids": ["a", "b"], "score": 0.5},
        {"id": ids[1], "type": "prune", "params": {"units": 16}, "parent_ids": []},
    ]
    assert change == Change(Kind.WIDEN, ("a", "b"), np.float32(0.5))


class Broken:
    """An object of a library whose device is gone."""

    def tolist(self) -> list[float]:
        raise RuntimeError("device lost")


@pytest.mark.parametrize("others", [[], [None]], ids=["among mappings", "beside what is none"])
def test_a_value_that_raises_costs_nothing_but_itself(tracker: ExperimentTracker, others: list[Any]) -> None:
    """The modification that holds it keeps all else, and so do the others, in their places."""
    given_items = [
        {"id": "a"},
        *others,
        {"id": "b", "score": 0.5, "params": {"x": Broken(), "y": 1}},
        {"id": "c"},
    ]
    assert tracker.log_modification_tree(1, given_items) == ["a", *[""] * len(others), "b", "c"]
    assert the_tree(tracker) == [
        {"id": "a", "parent_ids": []},
        {"id": "b", "score": 0.5, "params": {"y": 1}, "parent_ids": []},
        {"id": "c", "parent_ids": []},
    ]
    place = 1 + len(others)
    assert aside(tracker)[-1] == (
        f"modifications[{place}]['params']['x']", "raised RuntimeError: device lost",
    )  # fmt: skip


def test_names_of_operators_are_names(tracker: ExperimentTracker) -> None:
    """What a database would take for a command is data as any other, also where dots and nothing are names."""
    strange = {
        "$where": "sleep(1000)", "$set": {"accepted": True}, "a.b": 1, "": 2, "params": {"$gt": "", "$num": "x"},
        "parent_ids": ["$a", "a.b"], "id": "$id", "type": "$type",
    }  # fmt: skip
    before = copy.deepcopy(strange)
    assert tracker.log_modification_tree(1, [strange]) == ["$id"]
    assert the_tree(tracker) == [before] == [strange]


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet="ab🙂$.", max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet="ab$", max_size=3), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
ANY_MODIFICATION = st.dictionaries(
    st.sampled_from(["type", "op", "accepted", "score", "target", "network_id", "params", "own"]),
    PLAIN,
    max_size=4,
)


@given(st.lists(ANY_MODIFICATION | st.integers() | st.text(max_size=3), max_size=6))
def test_whatever_is_logged_comes_back_in_order_and_is_left_alone(given_items: list[Any]) -> None:
    """Every mapping is journaled with all that it held, under the id that stands in its place; the rest has none."""
    tracker = ExperimentTracker("Demo", settings=OFFLINE)
    before = copy.deepcopy(given_items)
    ids = tracker.log_modification_tree(1, given_items)
    assert json.dumps(given_items) == json.dumps(before)
    expected = [
        {**item, "id": identity, "parent_ids": []}
        for item, identity in zip(given_items, ids, strict=True)
        if isinstance(item, dict)
    ]
    assert the_tree(tracker) == expected
    assert [bool(identity) for identity in ids] == [isinstance(item, dict) for item in given_items]


def test_other_names_of_type_and_target_stay_as_they_were_given(tracker: ExperimentTracker) -> None:
    """``op`` and ``network_id`` are understood by who reads, and the figures count by them."""
    tracker.log_modification_tree(1, [{"op": "widen", "network_id": "n1", "accepted": True}])
    (item,) = the_tree(tracker)
    assert (item["op"], item["network_id"]) == ("widen", "n1")
    read = read_modification(item, "")
    assert (read.type, read.target) == ("widen", "n1")
    counts = {"widen": {"proposed": 1, "accepted": 1}}
    assert logged(tracker)[0].event.statistics["computed"]["by_type"] == counts
    assert tracker.get_experiment_data()["modifications"]["by_type"] == counts


def test_secrets_in_modifications_are_masked(tracker: ExperimentTracker) -> None:
    """Under a secret's name and of a token's shape, at any depth; ids, scores and ordinary words stay."""
    token = "ghp_" + "aB3x" * 9
    tracker.log_modification_tree(
        1,
        [
            {
                "id": "550e8400-e29b-41d4-a716-446655440000", "reason": f"found with {token}", "token": 5,
                "params": {"password": "x", "layers": [{"api_key": "y"}]}, "score": 0.5,
            }
        ],
    )  # fmt: skip
    mask = Redactor.MASK
    assert the_tree(tracker) == [
        {
            "id": "550e8400-e29b-41d4-a716-446655440000", "reason": f"found with {mask}", "token": 5,
            "params": {"password": mask, "layers": [{"api_key": mask}]}, "score": 0.5, "parent_ids": [],
        }
    ]  # fmt: skip


def test_a_generator_is_as_good_as_a_list(tracker: ExperimentTracker) -> None:
    """It is drawn once; and what it gave before it raised is kept, with the reason beside it."""

    def changes() -> Iterator[dict[str, Any]]:
        yield {"id": "a"}
        yield {"id": "b", "parent_ids": ["a"]}
        raise RuntimeError("the builder is gone")

    assert tracker.log_modification_tree(1, changes()) == ["a", "b"]  # type: ignore[arg-type]
    assert [item["id"] for item in the_tree(tracker)] == ["a", "b"]
    ((argument, reason),) = aside(tracker)
    assert (argument, reason) == ("modifications", "raised RuntimeError: the builder is gone")
    ids = tracker.log_modification_tree(2, ({"type": "widen"} for _ in range(3)))  # type: ignore[arg-type]
    assert len(set(ids)) == 3


# ---------------------------------------------------------------------- statistics and scopes


def test_own_statistics_may_be_anything(tracker: ExperimentTracker) -> None:
    """Texts and NaN stay beside what is computed; own figures under the name of ours get another name."""
    own = {"note": "good", "rate": math.nan, "depth": 99, "computed": {"count": 5}, "own_computed": 1}
    before = copy.deepcopy(own)
    tracker.log_modification_tree(1, [{}], own)
    assert own.keys() == before.keys()
    statistics = logged(tracker)[0].event.statistics
    assert statistics.pop("computed")["count"] == 1
    assert statistics == {
        "note": "good", "rate": {"$num": "NaN"}, "depth": 99, "own_computed": 1, "own_own_computed": {"count": 5},
    }  # fmt: skip


def test_a_tree_belongs_to_its_scopes(tracker: ExperimentTracker) -> None:
    """Its record says in which it was logged, and acceptance is counted for each of them."""
    with tracker.builder_scope("42"):
        tracker.log_modification_tree(1, [{"accepted": True}, {"accepted": False}])
        with tracker.layer_scope("3"):
            tracker.log_modification_tree(1, [{"accepted": True}])
    tracker.log_modification_tree(1, [{}])
    assert [record.scope for record in logged(tracker)] == [
        [["builder", "42"]], [["builder", "42"], ["layer", "3"]], [],
    ]  # fmt: skip
    counts = tracker.get_experiment_data()["modifications"]
    assert counts["by_scope"] == {
        "builder": {"42": {"proposed": 3, "accepted": 2}}, "layer": {"3": {"proposed": 1, "accepted": 1}},
    }  # fmt: skip
    assert (counts["proposed"], counts["accepted"], counts["undecided"]) == (4, 2, 1)


def test_gains_are_over_parents_of_earlier_trees(tracker: ExperimentTracker) -> None:
    """A generation builds on the one before, and so do the figures while it is logged."""
    tracker.log_modification_tree(1, [{"id": "a", "score": 0.5}, {"id": "b", "score": 0.25}])
    tracker.log_modification_tree(2, [{"id": "c", "parent_ids": ["a", "b"], "type": "mix", "score": 0.75}])
    tracker.log_modification_tree(3, [{"parent_ids": ["c", "?"], "type": "mix", "score": 0.25}])
    mix = tracker.get_experiment_data()["modifications"]["by_type"]["mix"]
    assert mix["gain"] == {"count": 2, "mean": -0.125, "best": 0.25}


# ---------------------------------------------------------------------- large trees


def test_a_tree_of_60_mb_comes_in_parts(tracker: ExperimentTracker) -> None:
    """Each within a line, all with the same statistics, however large the caller's own are; in order, and whole."""
    modifications = [
        {"id": f"m{n}", "parent_ids": [f"m{n // 2}"] if n else [], "reason": "because " * 1_250}
        for n in range(6_000)
    ]
    own = {"note": "x" * 900_000, "other": "y" * 900_000}
    ids = tracker.log_modification_tree(3, modifications, own)
    parts = logged(tracker)
    assert len(parts) >= 60_000_000 // MAX_LINE_BYTES
    assert [(record.event.part, record.event.parts) for record in parts] == [
        (number, len(parts)) for number in range(1, len(parts) + 1)
    ]
    whole = [item for record in parts for item in record.event.modifications]
    assert whole == modifications
    assert [item["id"] for item in whole] == ids
    statistics = parts[0].event.statistics
    assert [record.event.statistics for record in parts] == [statistics] * len(parts)
    assert (
        statistics["computed"].items() >= {"count": 6_000, "roots": 1, "depth": 14, "max_children": 2}.items()
    )
    assert content(tracker, statistics["own"]) == own
    assert tracker.get_experiment_data()["modifications"]["proposed"] == 6_000


LINE = "x" * 1_000


@pytest.mark.parametrize(
    "large",
    [
        {"id": "large", "parent_ids": [f"{n}{LINE}" for n in range(9_000)]},
        {"id": "large", "parent_ids": ["a"]} | {f"k{n}": LINE for n in range(9_000)},
    ],
    ids=["of many parents", "of many values"],
)
def test_what_fits_no_line_is_a_blob_in_a_part_of_its_own(
    tracker: ExperimentTracker, large: dict[str, Any]
) -> None:
    """A part of the tree is then its JSON in one blob, not in thousands; the other modifications are not touched."""
    assert tracker.log_modification_tree(1, [{"id": "a"}, large, {"id": "c"}]) == ["a", "large", "c"]
    first, second, third = (record.event.modifications for record in logged(tracker))
    assert [first, third] == [[{"id": "a", "parent_ids": []}], [{"id": "c", "parent_ids": []}]]
    assert content(tracker, second) == [large]
    assert tracker.health()["counts"]["blob"] == 1


def test_several_large_values_leave_their_modification(tracker: ExperimentTracker) -> None:
    """As many as it takes, the largest first; what then fits stays readable in the line."""
    weights = {name: ["w" * 1_000] * count for name, count in (("a", 9_000), ("b", 5_000), ("c", 1_000))}
    tracker.log_modification_tree(1, [{"id": "m", "score": 0.5, **weights}])
    (item,) = the_tree(tracker)
    assert (item["id"], item["score"], item["c"]) == ("m", 0.5, weights["c"])
    assert [content(tracker, item[name]) for name in "ab"] == [weights["a"], weights["b"]]


def test_a_large_value_that_cannot_be_stored_is_set_aside_alone(tracker: ExperimentTracker) -> None:
    """The modification is kept with all that is small, and the journal says what is missing and why."""
    blobs = RunFolder(tracker.run_dir).blobs
    blobs.parent.write_text("a file where a folder should be")
    ids = tracker.log_modification_tree(1, [{"id": "m", "score": 0.5, "params": ["w" * 1_000] * 9_000}])
    assert ids == ["m"]
    assert the_tree(tracker) == [{"id": "m", "score": 0.5, "params": None, "parent_ids": []}]
    ((argument, reason),) = aside(tracker)
    assert argument == "modifications['m']['params']"
    assert reason.startswith("raised NotADirectoryError")


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_line_of_a_hundred_thousand_in_one_call(tracker: ExperimentTracker, newest_first: bool) -> None:
    """Depth needs no recursion, whichever end of the line is told first."""
    count = 100_000
    line = [{"id": str(n), "parent_ids": [str(n - 1)] if n else []} for n in range(count)]
    tracker.log_modification_tree(1, line[::-1] if newest_first else line)
    parts = logged(tracker)
    assert sum(len(record.event.modifications) for record in parts) == count
    expected = {"count": count, "depth": count, "roots": 1, "root_ids": ["0"], "max_children": 1}
    assert parts[0].event.statistics["computed"].items() >= expected.items()


@pytest.mark.slow
def test_a_million_children_of_one_in_one_call() -> None:
    """They are recorded, counted and given ids, and every line of the journal stays within its limit."""
    tracker = ExperimentTracker("Demo", settings=OFFLINE)
    count = 1_000_000
    modifications: list[dict[str, Any]] = [{"id": "root"}, *[{"parent_ids": ["root"]}] * count]
    ids = tracker.log_modification_tree(1, modifications)
    assert len(set(ids)) == count + 1
    (root, *others) = (record.event for record in logged(tracker))
    expected = {"count": count + 1, "depth": 2, "roots": 1, "root_ids": ["root"], "max_children": count}
    assert root.statistics["computed"].items() >= expected.items()
    assert len(root.modifications) + sum(len(part.modifications) for part in others) == count + 1


# ---------------------------------------------------------------------- networks


def test_parents_of_networks_are_texts_whatever_they_came_in(tracker: ExperimentTracker) -> None:
    """Numbers, arrays however long, and sets; nothing and empty text are no parents."""
    tracker.register_network("a", parent_ids=[1, "b", None, ""])
    tracker.register_network("b", parent_ids=np.arange(20_000))
    tracker.register_network("c", parent_ids={"y", "x"})
    tracker.register_network("d", parent_ids=np.array(5))
    assert [record.event.parent_ids for record in logged(tracker, "network")] == [
        ["1", "b"], [str(n) for n in range(20_000)], ["x", "y"], [],
    ]  # fmt: skip
    ((argument, _),) = aside(tracker)
    assert argument == "parent_ids"
