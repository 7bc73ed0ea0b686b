"""Values arrive in MongoDB readable, and come back as they were."""

from __future__ import annotations

import math
from typing import Any

import bson
import pytest
from bson.decimal128 import Decimal128
from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.events import Cleaner, escape_name, from_document, unescape_name
from lezea_mlops.sinks.mongodb.values import MAX_DEPTH, to_bson, to_number

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAMES = TEXT | st.sampled_from(
    ["", "$where", "a.b", "%", "%24", "%json", "%large", "$num", "$b64", "\0", "$"]
)
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
MARKED = (
    st.sampled_from([{"$num": "NaN"}, {"$num": "Infinity"}, {"$num": "-Infinity"}, {"$b64": "AAEC"}, {"$b64": ""}])
    | st.builds(lambda size: {"$blob": "ab" * 32, "size": size}, st.integers(0, 10))
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT | MARKED,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)


def stored(value: Any) -> Any:
    """Return what pymongo reads of a value that was written."""
    return bson.decode(bson.encode({"value": to_bson(value)}))["value"]


@given(VALUES)
def test_every_json_value_comes_back_as_it_was(value: Any) -> None:
    """Through real BSON, whatever the names and numbers are."""
    assert from_document(stored(value)) == value


@given(VALUES)
def test_nothing_stored_can_be_taken_for_an_operator_or_a_path(value: Any) -> None:
    """No field of a document begins with a dollar sign or holds a dot, a NUL, or nothing."""

    def names(of: Any) -> list[str]:
        if isinstance(of, dict):
            return [*of, *(name for item in of.values() for name in names(item))]
        return [name for item in of for name in names(item)] if isinstance(of, list) else []

    for name in names(stored(value)):
        assert name
        assert not name.startswith("$")
        assert not {".", "\0"} & set(name)


@given(NAMES, NAMES)
def test_names_come_back_and_stay_apart(one: str, other: str) -> None:
    """An escape is reversible, so no two names meet."""
    assert unescape_name(escape_name(one)) == one
    assert (escape_name(one) == escape_name(other)) == (one == other)


def test_numbers_are_numbers_in_the_database() -> None:
    """They can be compared and sorted there: non-finite ones, and those beyond 64 bits with a sign."""
    value = stored({"nan": {"$num": "NaN"}, "low": {"$num": "-Infinity"}, "large": 2**63, "int64": -(2**63)})
    assert math.isnan(value["nan"])
    assert value["low"] == -math.inf
    assert value["large"] == Decimal128("9223372036854775808")
    assert value["int64"] == -(2**63)


def test_only_where_a_number_is_expected_is_nan_a_number() -> None:
    """A text that says NaN stays text elsewhere."""
    assert to_bson({"note": "NaN"}) == {"note": "NaN"}
    metrics = to_number({"loss": "NaN", "high": "Infinity", "a.b": 1.5, "count": 2**63})
    assert math.isnan(metrics["loss"])
    assert metrics["high"] == math.inf
    assert metrics["a%2Eb"] == 1.5
    assert metrics["count"] == Decimal128(str(2**63))


@pytest.mark.parametrize("depth", [MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 99])
def test_what_nests_deeper_than_bson_can_comes_back_too(depth: int) -> None:
    """Below the depth that a server takes stands its JSON text."""
    value: Any = "bottom"
    for level in range(depth):
        value = {f"level {level}": value} if level % 2 else [value]
    assert from_document(stored(value)) == value


def test_a_value_as_the_facade_cleans_it_comes_back() -> None:
    """Bytes, moments, sets and odd keys, through cleaning, BSON and back."""
    cleaned = Cleaner().clean({"b": b"\x00\xff", 1: {3, 2}, "$set": {"a.b": math.nan}, "": float("-inf")})
    assert from_document(stored(cleaned)) == cleaned


@pytest.mark.parametrize(
    "mark", [{"$b64": "no base64"}, {"$b64": "AAE"}, {"$num": "seven"}, {"$num": 7}, {"$b64": 7}]
)
def test_what_only_looks_like_a_mark_is_kept_as_data(mark: Any) -> None:
    """Another program may have written anything."""
    assert from_document(stored(mark)) == mark
