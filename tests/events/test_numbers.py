"""Metrics: whatever is one number is kept, whatever is none is set aside with the reason."""

from __future__ import annotations

import json
import math
from collections import OrderedDict, UserDict
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.events import (
    Cleaner,
    NotANumber,
    as_number,
    clean_number,
    element_count,
    encode_json,
    number_text,
)
from lezea_mlops.events.values import MAX_NAMES_REMEMBERED


class Whole(int):
    pass


class Real(float):
    pass


class Name(str, Enum):
    loss = "loss"


class Scalar:
    """A 0-d tensor, as far as the cleaner knows it."""

    shape = ()

    def __init__(self, value: Any) -> None:
        self.value = value

    def item(self) -> Any:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


NUMBERS = [
    (0.5, 0.5), (-0.0, -0.0), (7, 7), (True, 1), (False, 0), (Whole(7), 7), (Real(0.5), 0.5),
    (np.float64(0.5), 0.5), (np.float32(0.5), 0.5), (np.float16(0.5), 0.5), (np.longdouble(0.5), 0.5),
    (np.int8(-7), -7), (np.uint64(2**64 - 1), 2**64 - 1), (np.bool_(True), 1),
    (np.array(0.5), 0.5), (np.array([0.5]), 0.5), (np.array([[7]]), 7), (np.array([0.5], dtype=object), 0.5),
    (np.array(0.5, dtype=np.longdouble), 0.5), (Scalar(0.5), 0.5), (Scalar(np.float32(7)), 7.0),
    (math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity"), (np.float32("nan"), "NaN"),
    (Real("-inf"), "-Infinity"), (np.array([math.inf]), "Infinity"), (Scalar(math.nan), "NaN"),
    (Decimal("0.1"), 0.1), (Decimal(7), 7.0), (Decimal("sNaN"), "NaN"), (Decimal("-Infinity"), "-Infinity"),
    (Fraction(1, 4), 0.25), (2**64 - 1, 2**64 - 1), (-(2**63), -(2**63)), (2**70, float(2**70)),
    (Whole(-(2**70)), -float(2**70)), (10**300, 1e300),
]  # fmt: skip

NO_NUMBERS = [
    (None, "is None"), ("0.5", "is text"), (np.str_("0.5"), "is text"), (b"1", "is of type bytes"),
    (bytearray(b"1"), "is of type bytearray"), (1 + 2j, "is of type complex"),
    (np.complex64(1), "is of type complex"), (np.array(1 + 2j), "is of type complex"), ([0.5], "is of type list"),
    ({"a": 1}, "is of type dict"), ({1}, "is of type set"), (object(), "is of type object"),
    (np.array([1.0, 2.0]), "has 2 elements"), (np.array([]), "has 0 elements"), (np.ones((2, 3)), "has 6 elements"),
    (np.array(["x"]), "is text"), (np.array([None], dtype=object), "is None"),
    (np.datetime64("2026-03-01", "ns"), "is of type datetime64"), (np.timedelta64(5, "s"), "is of type timedelta64"),
    (10**400, "is too large"), (-(10**400), "is too large"), (Decimal("1e400"), "is too large"),
    (Fraction(10**400), "is too large"),
    (Scalar(RuntimeError("no data on the device meta")), "no data on the device meta"),
    (Scalar("text"), "is text"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "number"), NUMBERS, ids=lambda value: type(value).__name__)
def test_what_is_one_number_is_kept(value: Any, number: Any) -> None:
    """A number comes out in a plain type; the three that JSON has no word for, as their texts."""
    good, bad = Cleaner().metrics({"name": value})
    assert bad == []
    assert good == {"name": number}
    assert type(good["name"]) is type(number)
    assert encode_json(good) == encode_json({"name": number})


@pytest.mark.parametrize(("value", "reason"), NO_NUMBERS, ids=lambda value: type(value).__name__)
def test_what_is_no_number_is_set_aside_with_the_reason(value: Any, reason: str) -> None:
    """The rest of the call is kept, and the value comes back as it was."""
    good, bad = Cleaner().metrics({"before": 1.5, "name": value, "after": 2.5})
    assert good == {"before": 1.5, "after": 2.5}
    [(name, given_back, said)] = bad
    assert name == "name"
    assert given_back is value
    assert reason in said
    with pytest.raises(NotANumber, match=reason):
        clean_number(value)


@given(st.one_of(st.floats(), st.integers(), st.decimals(), st.fractions(), st.booleans()))
def test_a_number_is_never_changed_beyond_what_a_float_holds(value: Any) -> None:
    """What is written reads back as the float, or the integer, that Python makes of the value."""
    try:
        cleaned = clean_number(value)
    except NotANumber:
        with pytest.raises(OverflowError):
            int(float(value))
        return
    back = as_number(json.loads(encode_json(cleaned)))
    expected = value if isinstance(value, int) and -(2**63) <= value < 2**64 else _as_float(value)
    assert back is not None
    assert back == expected or (math.isnan(back) and math.isnan(expected))


def _as_float(value: Any) -> float:
    return math.nan if isinstance(value, Decimal) and value.is_nan() else float(value)


def test_names_that_are_equal_as_text_keep_the_first_and_tell_the_second() -> None:
    """A metric never overwrites another one of the same call in silence."""
    good, bad = Cleaner().metrics({1: 0.1, "1": 0.2} | {"a\ud800": 0.3} | {"a\udfff": 0.4})
    assert good == {"1": 0.1, "a\ufffd": 0.3}
    assert [(name, value) for name, value, _reason in bad] == [("1", 0.2), ("a\ufffd", 0.4)]
    assert {reason for *_name_and_value, reason in bad} == {
        "has the same name as another metric of this call"
    }


@pytest.mark.parametrize(
    "name",
    ["a/b", "val/AR@100", "tasker#0", 'quo"te', "line\nbreak", "😀", "max_tokens", "token", "x" * 1_000, ""],
)
def test_a_name_is_kept_as_it_is(name: str) -> None:
    """Names are never redacted, shortened or escaped here."""
    good, bad = Cleaner().metrics({name: 5.0})
    assert (good, bad) == ({name: 5.0}, [])


@pytest.mark.parametrize(
    "metrics",
    [
        {"loss": 1}, {"loss": True}, {"loss": np.float64(0.5)}, {"loss": Real(0.5)}, {"loss": math.nan},
        {"loss": math.inf}, {"loss": -math.inf}, {"loss": None}, {"loss": "0.5"}, {"loss": 0.5, "acc": 1},
        [("loss", 0.5)], None, UserDict(loss=0.5), OrderedDict(loss=0.5),
    ],
    ids=repr,
)  # fmt: skip
def test_what_needs_cleaning_is_not_taken_as_it_is(metrics: Any) -> None:
    """The short way is for plain dictionaries of finite floats alone."""
    cleaner = Cleaner()
    cleaner.metrics({"loss": 0.5, "acc": 0.5})
    assert cleaner.plain_metrics(metrics) is None


def test_a_name_takes_the_short_way_only_after_it_was_cleaned() -> None:
    """A name that was never seen may hold what UTF-8 cannot; it goes the long way first."""
    cleaner = Cleaner()
    assert cleaner.plain_metrics({"loss": 0.5}) is None
    cleaner.metrics({"loss": 0.5, "bad\ud800": 0.5, 7: 0.5})
    assert cleaner.plain_metrics({"loss": 0.5}) == {"loss": 0.5}
    assert cleaner.plain_metrics({"loss": 0.5, "new": 0.5}) is None
    assert cleaner.plain_metrics({"bad\ud800": 0.5}) is None
    assert cleaner.plain_metrics({7: 0.5}) is None
    assert cleaner.plain_metrics({}) == {}


def test_what_is_taken_as_it_is_is_a_copy() -> None:
    """What the caller does to the dictionary later changes nothing that was recorded."""
    cleaner = Cleaner()
    metrics = {"loss": 0.5, "acc": 1.0}
    cleaner.metrics(metrics)
    taken = cleaner.plain_metrics(metrics)
    metrics["loss"] = "changed"  # type: ignore[assignment]
    metrics["later"] = 1.0
    assert taken == {"loss": 0.5, "acc": 1.0}


def test_an_enumeration_as_a_name_is_written_as_its_text_on_both_ways() -> None:
    """A key that equals a known name gives the same line on the short way as on the long one."""
    cleaner = Cleaner()
    long_way, _bad = cleaner.metrics({"loss": 0.5})
    assert encode_json(cleaner.metrics({Name.loss: 0.5})[0]) == encode_json(long_way)
    assert encode_json(cleaner.plain_metrics({Name.loss: 0.5})) == encode_json(long_way)


def test_the_names_that_are_remembered_are_bounded() -> None:
    """A run that invents names for ever does not grow the tracker for ever; new names go the long way."""
    cleaner = Cleaner()
    for i in range(MAX_NAMES_REMEMBERED + 1):
        cleaner.metrics({f"name-{i}": 0.5})
    assert cleaner.plain_metrics({f"name-{MAX_NAMES_REMEMBERED - 1}": 0.5}) is not None
    assert cleaner.plain_metrics({f"name-{MAX_NAMES_REMEMBERED}": 0.5}) is None


@given(st.dictionaries(st.text(), st.floats(), max_size=5))
def test_both_ways_agree(metrics: dict[str, float]) -> None:
    """Where the short way takes a call at all, it takes what the long way takes."""
    cleaner = Cleaner()
    good, bad = cleaner.metrics(metrics)
    assert bad == []
    short = cleaner.plain_metrics(metrics)
    assert short == (good if all(map(math.isfinite, metrics.values())) else None)


@pytest.mark.parametrize("value", [0.5, -0.0, 1e308, 5e-324])
def test_a_finite_number_is_its_own_text(value: float) -> None:
    """Only the three numbers without a word in JSON become texts."""
    assert number_text(value) is value


@pytest.mark.parametrize(
    ("text", "number"), [("Infinity", math.inf), ("-Infinity", -math.inf), (3, 3), (0.5, 0.5)]
)
def test_numbers_of_a_payload_read_back(text: Any, number: float) -> None:
    """What was written for a number gives that number."""
    assert as_number(text) == number
    assert math.isnan(as_number("NaN") or 0.0)


@pytest.mark.parametrize("value", ["nan", "inf", "0.5", "", None, [], {"$num": "NaN"}])
def test_other_texts_of_a_payload_are_no_numbers(value: Any) -> None:
    """Only the three exact words are numbers."""
    assert as_number(value) is None


def test_elements_are_counted_by_the_shape() -> None:
    """Arrays tell how many elements they have; what has no shape tells nothing."""
    assert [element_count(np.ones(shape)) for shape in [(), (0,), (2, 3)]] == [1, 0, 6]
    assert element_count([1, 2]) is None
