"""Each modification is one document, also where its id was logged several times."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.delivery import Step
from lezea_mlops.sinks.mongodb.modifications import settled
from tests.sinks.mongodb.place import Place, emptied_mongo_uri, place

__all__ = ["emptied_mongo_uri", "place"]


def test_a_modification_is_a_document_of_its_own(place: Place) -> None:
    """Its known fields stand at the top under the names of the design, all else under ``data``."""
    place.log("run_started", experiment_name="Demo")
    place.log_tree(
        3,
        [
            {"id": "m1", "type": "widen", "accepted": True, "score": 0.5, "target": "n1", "params": {"by": 2}},
            {"id": 7, "parent_ids": ["m1", "m0"], "op": "cross", "network_id": 12, "reason": "why not", "score": "bad"},
        ],
        scope=[["builder", "42"]],
        statistics={"computed": {"count": 2}},
    )  # fmt: skip
    place.ship()
    found = place.modifications()
    one = found["m1"]
    assert one.pop("at").tzinfo is not None
    assert one.pop("ts") > 0
    assert one == {
        "_id": "run-1/m1", "run_id": "run-1", "wid": "main", "seq": 2, "att": 1, "step": 3,
        "scope": [["builder", "42"]], "index": 0, "id": "m1", "parent_ids": [], "type": "widen", "accepted": True,
        "score": 0.5, "target": "n1", "params": {"by": 2}, "data": {},
    }  # fmt: skip
    other = found["7"]
    assert (other["parent_ids"], other["type"], other["target"]) == (["m1", "m0"], "cross", "12")
    assert (other["score"], other["data"]) == (None, {"reason": "why not", "score": "bad"})
    [tree] = place.database.modification_trees.find({"run_id": "run-1"})
    assert tree["data"] == {"statistics": {"computed": {"count": 2}}}


def test_what_is_logged_again_unchanged_adds_nothing(place: Place) -> None:
    """A builder may log its whole tree at every step; the first logging stands."""
    place.log_tree(1, [{"id": "m1", "score": 0.5}])
    place.log_tree(2, [{"id": "m1", "score": 0.5}, {"id": "m2", "parent_ids": ["m1"]}])
    place.ship()
    assert {identity: each["step"] for identity, each in place.modifications().items()} == {"m1": 1, "m2": 2}


def test_other_content_of_an_id_is_a_document_with_the_number_of_its_record(place: Place) -> None:
    """Nothing is overwritten: what was known first stands under the plain name."""
    place.log_tree(1, [{"id": "m1"}, {"id": "m1", "accepted": True}])
    place.log_tree(2, [{"id": "m1", "accepted": False}])
    place.log_tree(2, [{"id": "m1", "accepted": False, "score": 1}], wid="rank1")
    place.ship()
    found = {identity: each["accepted"] for identity, each in place.modifications().items()}
    assert found == {"m1": None, "m1#1": True, "m1#2": False, "m1#rank1/1": False}


def test_an_id_that_looks_like_the_name_of_other_content_is_an_id(place: Place) -> None:
    """The signs # and % of an id are escaped in its document's name."""
    place.log_tree(1, [{"id": "a"}, {"id": "a#2", "score": 1}, {"id": "a%232", "score": 2}])
    place.log_tree(2, [{"id": "a", "accepted": True}])
    place.ship()
    found = {name: (each["id"], each["accepted"]) for name, each in place.modifications().items()}
    assert found == {
        "a": ("a", None), "a#2": ("a", True), "a%232": ("a#2", None), "a%25232": ("a%232", None),
    }  # fmt: skip
    assert place.audit()[0] == []


def test_an_earlier_record_that_comes_later_takes_the_plain_name(place: Place) -> None:
    """The journal of another writer may be shipped long after; then what stood there moves."""
    place.log_tree(1, [{"id": "m1", "score": 1}], wid="rank1")
    place.log_tree(2, [{"id": "m1", "score": 2}])
    # ``main`` is shipped first.
    assert place.shipper.ship_once() is Step.SHIPPED
    assert {identity: each["score"] for identity, each in place.modifications().items()} == {"m1": 2}
    place.ship()
    assert {identity: each["score"] for identity, each in place.modifications().items()} == {
        "m1": 1,
        "m1#1": 2,
    }


CONTENTS = st.builds(
    lambda order, content: {
        "_id": "run-1/m1", "run_id": "run-1", "id": "m1", "parent_ids": [], "type": None, "accepted": None,
        "score": content, "target": None, "params": None, "data": {}, "att": 1, "ts": order[0], "wid": order[1],
        "seq": order[2], "index": order[3],
    },
    st.tuples(st.integers(1, 3), st.sampled_from(["main", "rank1"]), st.integers(1, 3), st.integers(0, 2)),
    st.integers(1, 3),
)  # fmt: skip


@given(
    st.lists(CONTENTS, max_size=8, unique_by=lambda each: (each["wid"], each["seq"], each["index"])),
    st.data(),
)
def test_the_order_of_arrival_decides_nothing(logged: list[dict[str, Any]], data: st.DataObject) -> None:
    """Settled all at once or one after the other, twice or in any order: the documents are the same."""
    expected = settled(logged)
    assert len({each["score"] for each in expected.values()}) == len(expected)
    stored: dict[str, dict[str, Any]] = {}
    for each in data.draw(st.permutations([*logged, *logged[:2]])):
        stored = settled([*stored.values(), each])
    assert stored == expected


@pytest.mark.parametrize(
    "modification", ["no mapping", 7, None, [], {"id": None}, {"id": ""}, {"parent_ids": "m0"}, {"parent_ids": [None]}]
)  # fmt: skip
def test_whatever_another_program_wrote_is_kept(place: Place, modification: Any) -> None:
    """A modification without an id gets that of its place; one that is no mapping stands among the data."""
    place.log_tree(1, [modification, {"id": "good"}])
    place.ship()
    assert place.shipper.health.rejected == 0
    found = place.modifications()
    assert found.keys() == {"main.1.1", "good"}
    if not isinstance(modification, dict):
        assert found["main.1.1"]["data"] == {"value": modification}


def test_two_runs_with_the_same_ids_do_not_meet(place: Place, tmp_path: Any) -> None:
    """An id is unique in its experiment, and the run stands before it."""
    place.log_tree(1, [{"id": "m1", "score": 1}])
    place.ship()
    other = Place(place.uri, tmp_path, place.database.client, "run-2")
    other.log_tree(1, [{"id": "m1", "score": 2}])
    other.ship().close()
    found = {each["_id"]: each["score"] for each in place.database.modifications.find()}
    assert found == {"run-1/m1": 1, "run-2/m1": 2}


def test_operators_in_user_data_are_data(place: Place) -> None:
    """They are stored under escaped names and never interpreted."""
    place.log_tree(1, [{"id": "$where", "params": {"$where": "sleep(1000)", "$set": {"a.b": 1}}, "$gt": ""}])
    place.ship()
    [found] = place.modifications().values()
    assert found["id"] == "$where"
    assert found["params"] == {"%24where": "sleep(1000)", "%24set": {"a%2Eb": 1}}
    assert found["data"] == {"%24gt": ""}
