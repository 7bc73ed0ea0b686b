"""Tables of bounded size: the least recently used key leaves first, and every leaving is counted."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops._bounded import (
    MAX_KEYS,
    BoundedTable,
    number_state,
    stored_count,
    stored_number,
    stored_step,
    stored_text,
)


@pytest.fixture
def table() -> BoundedTable[str, list[int]]:
    return BoundedTable(list, limit=3)


def test_a_missing_value_is_made_once(table: BoundedTable[str, list[int]]) -> None:
    """Asking for a key makes its value, and asking again gives the same one."""
    table["a"].append(1)
    table["a"].append(2)
    assert table["a"] == [1, 2]
    assert table["b"] == []
    assert len(table) == 2


def test_the_least_recently_used_key_leaves_and_is_counted(table: BoundedTable[str, list[int]]) -> None:
    """Reading counts as a use, and so does writing; the fourth key drives one out."""
    for key in "abc":
        table[key].append(1)
    _ = table["a"]
    table["b"] = [5]
    assert table["d"] == []
    assert [key for key, _value in table.items()] == ["a", "b", "d"]
    assert table.evicted == 1
    assert "c" not in table
    assert table["c"] == []
    assert table.evicted == 2


def test_looking_is_no_use_and_makes_nothing(table: BoundedTable[str, list[int]]) -> None:
    """``in`` and a walk leave the table and its order as they are."""
    for key in "abc":
        table[key].append(1)
    assert "a" in table
    assert "z" not in table
    assert list(table) == ["a", "b", "c"]
    assert dict(table.items()) == {"a": [1], "b": [1], "c": [1]}
    _ = table["d"]
    assert list(table) == ["b", "c", "d"]


def test_walking_ends_although_a_missing_value_would_be_made(table: BoundedTable[int, list[int]]) -> None:
    """A walk gives the keys that are there, also when the table changes meanwhile."""
    table[7].append(1)
    table[8].append(1)
    walked = []
    for key in table:
        walked.append(key)
        _ = table[key + 100]
    assert walked == [7, 8]


def test_popping_gives_the_oldest_value(table: BoundedTable[str, list[int]]) -> None:
    """It is counted as leaving; an empty table has nothing to give."""
    table["a"] = [1]
    table["b"] = [2]
    assert table.pop_oldest() == [1]
    assert (len(table), table.evicted) == (1, 1)
    table.pop_oldest()
    with pytest.raises(KeyError):
        table.pop_oldest()


def test_the_limit_is_ten_thousand_keys_unless_said() -> None:
    """A run of millions of individuals keeps the tables of the design's size."""
    table: BoundedTable[int, int] = BoundedTable(int)
    for key in range(MAX_KEYS + 5):
        table[key] += 1
    assert (len(table), table.evicted, MAX_KEYS) == (MAX_KEYS, 5, 10_000)
    assert next(iter(table)) == 5


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from(["get", "set", "look"]), st.integers(0, 6)), max_size=40),
)
def test_it_behaves_as_its_plainest_description(limit: int, uses: list[tuple[str, int]]) -> None:
    """Whatever is done, the table holds the last *limit* keys that were used, and counts the others' leavings."""
    table: BoundedTable[int, Any] = BoundedTable(object, limit)
    plain: OrderedDict[int, Any] = OrderedDict()
    left = 0
    for number, (use, key) in enumerate(uses):
        if use == "look":
            assert (key in table) == (key in plain)
            continue
        if use == "set":
            table[key] = number
            plain[key] = number
        else:
            value = table[key]
            assert plain.setdefault(key, value) is value
        plain.move_to_end(key)
        if len(plain) > limit:
            plain.popitem(last=False)
            left += 1
        assert list(table.items()) == list(plain.items())
        assert table.evicted == left


USES = st.lists(st.integers(0, 6), max_size=30)


@given(st.integers(1, 4), USES, USES)
def test_a_restored_table_goes_on_as_the_one_that_was_stored(
    limit: int, before: list[int], after: list[int]
) -> None:
    """The same keys leave next, and all leavings stay counted."""
    first: BoundedTable[int, list[int]] = BoundedTable(lambda: [0], limit)
    for key in before:
        first[key][0] += 1
    second: BoundedTable[int, list[int]] = BoundedTable(lambda: [0], limit)
    second["of an earlier life"] = [1]  # type: ignore[index]
    second.restore(json.loads(json.dumps(first.state(lambda value: value[0]))), int, lambda count: [count])
    for key in after:
        first[key][0] += 1
        second[key][0] += 1
    assert (list(second.items()), second.evicted) == (list(first.items()), first.evicted)


@given(st.floats() | st.integers(-(2**70), 2**70))
def test_every_number_comes_back_from_strict_json(number: float) -> None:
    """NaN and the infinities too, and integers as integers."""
    text = json.dumps(number_state(number), allow_nan=False)
    back = stored_number(json.loads(text))
    assert type(back) is type(number)
    assert repr(back) == repr(number) or (math.isnan(number) and math.isnan(back))


@pytest.mark.parametrize("read", [stored_number, stored_count, stored_step, stored_text])
@pytest.mark.parametrize("value", [None, True, [], {}, 10**400])
def test_what_was_not_stored_so_is_refused(read: Any, value: Any) -> None:
    """The message says what was expected, and shows no more than the beginning of what was found."""
    with pytest.raises(ValueError, match=r"^expected a .*, found ") as refusal:
        read(value)
    assert len(str(refusal.value)) < 130


@pytest.mark.parametrize(
    ("read", "value"),
    [(stored_number, "1"), (stored_count, -1), (stored_count, 1.0), (stored_step, 1.0), (stored_text, 1)],
)
def test_numbers_are_refused_where_others_belong(read: Any, value: Any) -> None:
    """A count is whole and not negative, a step is whole, a text is none of them."""
    with pytest.raises(ValueError, match=r"^expected a "):
        read(value)
