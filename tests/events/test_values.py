"""Cleaning: whatever a user passes becomes what strict JSON can hold, and the user's object stays as it was."""

from __future__ import annotations

import base64
import copy
import json
import math
from argparse import Namespace
from array import array
from collections import OrderedDict, UserDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.events import Cleaner, encode_json
from lezea_mlops.events.values import CYCLE, MAX_ARRAY_ELEMENTS, MAX_DEPTH, MAX_TEXT_BYTES, TOO_DEEP

JSON_TYPES = {type(None), bool, int, float, str, list, dict}


class Color(Enum):
    RED = "red"
    BOTH = ("red", "blue")


class Kind(str, Enum):
    TASKER = "tasker"


class Level(IntEnum):
    HIGH = 3


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Real(float):
    pass


@dataclass
class Settings:
    rate: float
    path: Path
    names: set[str] = field(default_factory=set)


class Tensor:
    """What the cleaner knows of a tensor of torch: its methods, and nothing of its memory."""

    def __init__(self, values: Any, numpy_knows_its_type: bool = True) -> None:
        self._array = np.asarray(values, dtype=np.float32)
        self._numpy_knows_its_type = numpy_knows_its_type
        self.shape = self._array.shape

    def item(self) -> float:
        return self._array.item()

    def tolist(self) -> Any:
        return self._array.tolist()

    def detach(self) -> Tensor:
        return self

    def cpu(self) -> Tensor:
        return self

    def float(self) -> Tensor:
        return Tensor(self._array)

    def numpy(self) -> Any:
        if not self._numpy_knows_its_type:
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self._array


class Store:
    """Blobs by hash, in memory."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}

    def put(self, content: bytes) -> dict[str, Any]:
        digest = sha256(content).hexdigest()
        self.content[digest] = content
        return {"$blob": digest, "size": len(content)}


@pytest.fixture
def cleaner() -> Cleaner:
    return Cleaner()


def no_such_word(word: str) -> NoReturn:
    raise AssertionError(f"{word} is not strict JSON")


def read_strictly(value: Any) -> Any:
    """Return *value* as another program reads it."""
    return json.loads(encode_json(value), parse_constant=no_such_word)


def types_in(value: Any) -> set[type]:
    """Return the types of *value* and of all that is inside, keys included."""
    inside: set[type] = set()
    if isinstance(value, dict):
        inside = set().union(*(types_in(key) | types_in(item) for key, item in value.items()))
    elif isinstance(value, list):
        inside = set().union(*map(types_in, value))
    return {type(value)} | inside


CLEANED = [
    (None, None), (True, True), (7, 7), (0.5, 0.5), ("text", "text"),
    (Text("text"), "text"), (Whole(7), 7), (Real(0.5), 0.5), (Real("nan"), {"$num": "NaN"}),
    # numpy, 0-d and with elements
    (np.float64(0.5), 0.5), (np.float32(0.5), 0.5), (np.float16(0.5), 0.5), (np.longdouble(0.5), 0.5),
    (np.int64(-7), -7), (np.uint8(7), 7), (np.bool_(True), True), (np.str_("text"), "text"),
    (np.bytes_(b"ab"), {"$b64": "YWI="}), (np.complex64(1 + 2j), {"$complex": [1.0, 2.0]}),
    (np.clongdouble(1 + 2j), {"$complex": [1.0, 2.0]}), (np.array(0.5), 0.5), (np.array([0.5]), [0.5]),
    (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]), (np.array([], dtype=float), []),
    (np.array([0.5, math.nan, -math.inf]), [0.5, {"$num": "NaN"}, {"$num": "-Infinity"}]),
    (np.array([0.5], dtype=np.longdouble), [0.5]), (np.array([None, "x", Path("p")], dtype=object), [None, "x", "p"]),
    (np.datetime64("2026-03-01T12:30:00.000000001", "ns"), "2026-03-01T12:30:00+00:00"),
    (np.array(["2026-03-01", "NaT"], dtype="M8[us]"), ["2026-03-01T00:00:00+00:00", None]),
    (np.datetime64("2026-03-01"), "2026-03-01"), (np.timedelta64(1500, "ms"), 1.5),
    (np.timedelta64(1_500_000_000, "ns"), 1.5), (np.array([1, 2], dtype="m8[s]"), [1.0, 2.0]),
    # duck-typed tensors
    (Tensor(0.5), 0.5), (Tensor([0.5]), [0.5]), (Tensor([[1, 2]]), [[1.0, 2.0]]),
    # the standard library's values
    (Path("a/b"), "a/b"), (PurePosixPath("/a"), "/a"), (Color.RED, "red"), (Color.BOTH, ["red", "blue"]),
    (Kind.TASKER, "tasker"), (Level.HIGH, 3),
    (datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=2))), "2026-03-01T10:00:00+00:00"),
    (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2))), "0001-01-01T00:00:00+02:00"),
    (date(2026, 3, 1), "2026-03-01"), (time(12, 30), "12:30:00"),
    (timedelta(seconds=1.5), 1.5), (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    (Decimal("0.5"), 0.5), (Decimal("0.1"), "0.1"), (Decimal("3.00"), 3), (Decimal(2**70), str(2**70)),
    (Decimal("NaN"), {"$num": "NaN"}), (Decimal("sNaN"), {"$num": "NaN"}), (Decimal("1e9999"), "1E+9999"),
    (Decimal("-Infinity"), {"$num": "-Infinity"}), (Fraction(1, 3), "1/3"), (Fraction(6, 2), "3"),
    (1 + 2j, {"$complex": [1.0, 2.0]}), (complex(np.float64("nan"), 0), {"$complex": ["NaN", 0.0]}),
    ({"b", "a"}, ["a", "b"]), (frozenset({2, 10}), [2, 10]), ({"a": 1}.keys(), ["a"]), ({"a": 1}.values(), [1]),
    ({1, "a", None, 0.5}, [None, 0.5, 1, "a"]), ({(2, "b"), (1, "a")}, [[1, "a"], [2, "b"]]),
    (Settings(0.1, Path("x"), {"b", "a"}), {"rate": 0.1, "path": "x", "names": ["a", "b"]}),
    (Namespace(rate=0.1), {"rate": 0.1}), ((1, [2]), [1, [2]]), (deque([1, 2]), [1, 2]), (range(3), [0, 1, 2]),
    (array("d", [0.5]), [0.5]), (UserDict(a=1), {"a": 1}), (OrderedDict(a=1), {"a": 1}),
    (b"ab", {"$b64": "YWI="}), (bytearray(range(256)), {"$b64": base64.b64encode(bytes(range(256))).decode()}),
    (memoryview(b"ab"), {"$b64": "YWI="}),
    (math.nan, {"$num": "NaN"}), (math.inf, {"$num": "Infinity"}), (-math.inf, {"$num": "-Infinity"}),
    # integers beyond 64 bits
    (2**64 - 1, 2**64 - 1), (2**64, str(2**64)), (-(2**63), -(2**63)), (-(2**63) - 1, str(-(2**63) - 1)),
    (Whole(2**64), str(2**64)), (10**5000, hex(10**5000)), (Fraction(1, 10**5000), "1/" + hex(10**5000)),
]  # fmt: skip


@pytest.mark.parametrize(("value", "cleaned"), CLEANED, ids=lambda value: type(value).__name__)
def test_every_kind_of_value_has_its_form(cleaner: Cleaner, value: Any, cleaned: Any) -> None:
    """A value becomes what the table of the journal format says, in the plain types that every encoder knows."""
    result = cleaner.clean(value)
    assert result == cleaned
    assert types_in(result) == types_in(cleaned) <= JSON_TYPES
    assert read_strictly(result) == cleaned


def test_a_naive_moment_is_local_time(cleaner: Cleaner) -> None:
    """A time without a zone is taken as this machine's time."""
    moment = datetime(2026, 3, 1, 12)  # noqa: DTZ001 - the zone is left out on purpose
    assert datetime.fromisoformat(cleaner.clean(moment)) == moment.astimezone(timezone.utc)


def test_a_foreign_object_becomes_a_short_description_and_is_counted(cleaner: Cleaner) -> None:
    """What has no form of its own is described in at most a thousand characters."""
    cleaned = cleaner.clean([object(), print, Color, "x".join, range(10**30), iter([1])])
    assert all(isinstance(text, str) and len(text) <= 1_000 for text in cleaned)
    assert cleaner.counts == {"unknown_type": 6}


def test_settings_objects_and_data_frames_tell_their_values(cleaner: Cleaner) -> None:
    """An object that offers its content as a dictionary is written so."""

    class Model:
        def model_dump(self) -> dict[str, Any]:
            return {"rate": np.float32(0.5)}

    class Frame:
        shape = (1, 1)

        def to_dict(self) -> dict[str, Any]:
            return {"column": {0: 1}}

    assert cleaner.clean([Model(), Frame()]) == [{"rate": 0.5}, {"column": {"0": 1}}]
    assert not cleaner.counts


def test_lone_surrogates_become_replacement_characters_and_are_counted(cleaner: Cleaner) -> None:
    """Texts, names and paths that UTF-8 cannot hold keep all but what it cannot hold."""
    cleaned = cleaner.clean({"k\udc80": ["a\ud800b", "é😀", Path("p\udcff")]})
    assert cleaned == {"k\ufffd": ["a\ufffdb", "é😀", "p\ufffd"]}
    assert cleaner.counts == {"surrogate": 3}


def test_cycles_are_cut_where_they_close_and_counted(cleaner: Cleaner) -> None:
    """A dictionary, a list and a dataclass that hold themselves are written once."""
    inside: dict[str, Any] = {"a": 1}
    inside["self"] = inside
    items: list[Any] = [1]
    items.append(items)
    settings = Settings(0.1, Path("x"))
    settings.names = settings  # type: ignore[assignment]
    assert cleaner.clean(inside) == {"a": 1, "self": CYCLE}
    assert cleaner.clean(items) == [1, CYCLE]
    assert cleaner.clean([settings]) == [{"rate": 0.1, "path": "x", "names": CYCLE}]
    assert cleaner.counts == {"cycle": 3}


def test_an_object_that_is_met_twice_is_no_cycle(cleaner: Cleaner) -> None:
    """What is shared is written at each of its places."""
    shared = {"a": [1]}
    assert cleaner.clean([shared, {"again": shared}, shared]) == [shared, {"again": shared}, shared]
    assert not cleaner.counts


def test_what_is_nested_too_deep_is_cut_and_counted(cleaner: Cleaner) -> None:
    """A hundred levels are kept, a thousand do not exhaust the stack."""
    nested: Any = "core"
    for _ in range(1_000):
        nested = [nested]
    cleaned, depth = cleaner.clean(nested), 0
    while isinstance(cleaned, list):
        cleaned, depth = cleaned[0], depth + 1
    assert (cleaned, depth) == (TOO_DEEP, MAX_DEPTH)
    assert cleaner.counts == {"too_deep": 1}


def test_keys_become_text(cleaner: Cleaner) -> None:
    """Every key is written as the text that a person expects of it."""
    keys = [1, 2.5, None, True, (1, 2), Color.RED, Kind.TASKER, Level.HIGH, np.int64(9), Text("t"), 10**5000]
    cleaned = cleaner.clean(dict.fromkeys(keys, 0))
    assert list(cleaned) == [
        "1", "2.5", "None", "(1, 2)", "red", "tasker", "3", "9", "t", hex(10**5000),
    ]  # fmt: skip
    assert types_in(cleaned) == {dict, str, int}


def test_keys_that_collide_as_text_stay_apart_and_are_counted(cleaner: Cleaner) -> None:
    """No value is lost where two keys have the same text."""
    cleaned = cleaner.clean({1: "a", "1": "b", Text("1 (str)"): "c", np.int64(2): "d", "2": "e"})
    assert list(cleaned.values()) == ["a", "b", "c", "d", "e"]
    assert len(cleaned) == 5
    assert cleaner.counts == {"key_renamed": 3}


def test_a_large_array_becomes_a_blob_that_reads_back(cleaner: Cleaner) -> None:
    """Above 10,000 elements an array's bytes are stored, with type and shape beside the pointer."""
    store = Store()
    cleaner = Cleaner(store.put)
    values = np.arange(MAX_ARRAY_ELEMENTS + 2, dtype=np.float64).reshape(2, -1).T
    for array_like, dtype in ((values, "<f8"), (Tensor(values), "<f4"), (Tensor(values, False), "<f4")):
        pointer = cleaner.clean({"weights": array_like})["weights"]
        content = store.content[pointer["$blob"]]
        back = np.frombuffer(content, pointer["dtype"]).reshape(pointer["shape"])
        assert (pointer["format"], pointer["dtype"], pointer["size"]) == ("raw", dtype, len(content))
        assert np.array_equal(back, values)
    assert cleaner.counts == {"blob": 3}
    assert cleaner.clean(values[:5_000]) == values[:5_000].tolist()


def test_a_large_array_of_objects_is_stored_as_json_not_as_addresses() -> None:
    """The memory of such an array, and of a column of texts, says nothing to anybody else."""
    store = Store()
    texts = [f"sample-{i}" for i in range(MAX_ARRAY_ELEMENTS + 1)]

    class Column:
        shape = (len(texts),)

        def tolist(self) -> list[str]:
            return texts

    for value in (np.array(texts, dtype=object), Column()):
        pointer = Cleaner(store.put).clean(value)
        assert pointer["format"] == "json"
        assert json.loads(store.content[pointer["$blob"]]) == texts


def test_a_large_array_with_named_fields_keeps_the_names() -> None:
    """The type of a structured array is written field by field."""
    store = Store()
    rows = np.zeros(MAX_ARRAY_ELEMENTS + 1, dtype=[("id", "<i4"), ("loss", "<f8")])
    pointer = Cleaner(store.put).clean(rows)
    assert pointer["dtype"] == [["id", "<i4"], ["loss", "<f8"]]


def test_large_texts_and_bytes_become_blobs() -> None:
    """Above 1 MiB of UTF-8 a text is stored, and bytes are; below they stay."""
    store = Store()
    cleaner = Cleaner(store.put)
    long_text, raw = "é" * (MAX_TEXT_BYTES // 2) + "!", b"\xff" * (MAX_TEXT_BYTES + 1)
    text_pointer, bytes_pointer = cleaner.clean([long_text, raw])
    assert text_pointer.pop("format") == "text"
    assert bytes_pointer.pop("format") == "bytes"
    assert text_pointer == store.put(long_text.encode())
    assert bytes_pointer == store.put(raw)
    assert cleaner.clean(long_text[:-1]) == long_text[:-1]
    assert cleaner.counts == {"blob": 2}


def test_without_a_store_everything_stays_inline(cleaner: Cleaner) -> None:
    """A cleaner without a place for blobs keeps values where they are."""
    assert cleaner.clean(np.zeros(MAX_ARRAY_ELEMENTS + 1)) == [0.0] * (MAX_ARRAY_ELEMENTS + 1)
    assert cleaner.clean("x" * (MAX_TEXT_BYTES + 1)) == "x" * (MAX_TEXT_BYTES + 1)


@pytest.mark.parametrize("value", [5, None, "text", [1], np.zeros(3)], ids=repr)
def test_what_is_no_mapping_is_refused_where_one_is_needed(cleaner: Cleaner, value: Any) -> None:
    """The error says what came instead."""
    with pytest.raises(TypeError, match="a mapping of names to values was expected"):
        cleaner.clean_mapping(value)


scalars: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.builds(pow, st.just(-3), st.integers(0, 4_000)), st.floats(), st.text(),
    st.text(st.characters(categories=("Cs", "L"))), st.binary(max_size=20), st.complex_numbers(),
    st.decimals().filter(lambda number: not number.is_snan()), st.fractions(), st.dates(),
    st.datetimes(), st.timedeltas(), st.times(), st.uuids(),
    st.sampled_from([*Color, *Kind, *Level]), st.builds(Path, st.text("ab/\udc80", max_size=5)),
    st.floats().map(np.float64), st.floats(width=32).map(np.float32), st.floats().map(np.longdouble),
    st.integers(-(2**63), 2**63 - 1).map(np.int64), st.text().map(np.str_), st.floats().map(Real),
    st.integers().map(Whole), st.text().map(Text),
)  # fmt: skip
hashables = st.one_of(scalars, st.tuples(scalars, scalars))
values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(scalars, st.sets(hashables, max_size=3), st.lists(st.floats()).map(np.array)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(hashables, inner, max_size=4), st.builds(Namespace, a=inner),
        st.builds(Settings, inner, inner),
    ),
    max_leaves=15,
)  # fmt: skip


@given(values)
def test_whatever_comes_leaves_as_strict_json(value: Any) -> None:
    """Cleaning never raises for values of known kinds, and every strict reader takes what it gives."""
    cleaned = Cleaner().clean(value)
    assert types_in(cleaned) <= JSON_TYPES
    assert read_strictly(cleaned) == cleaned


CHANGEABLE: list[Callable[[], Any]] = [
    lambda: {"a": [1, {2: {3, 4}}], "b": (5, bytearray(b"x")), "s": "a\ud800"},
    lambda: [Settings(0.1, Path("x"), {"b"}), deque([{"c": math.nan}]), Namespace(d=[1])],
    lambda: {"weights": list(np.arange(3.0)), 1: "a", "1": "b", "password": "hidden"},
]


@pytest.mark.parametrize("make", CHANGEABLE)
def test_the_callers_object_is_left_as_it_was(make: Callable[[], Any]) -> None:
    """Neither cleaning nor changing what came out of it reaches the object that went in."""
    value, twin = make(), make()
    cleaned = Cleaner(Store().put).clean(value)
    before = copy.deepcopy(cleaned)
    assert repr(value) == repr(twin)
    _change_all(value)
    assert cleaned == before


def _change_all(value: Any) -> None:
    """Change every container inside *value*."""
    if isinstance(value, (Settings, Namespace)):
        _change_all(vars(value))
    elif isinstance(value, dict):
        for item in value.values():
            _change_all(item)
        value["changed"] = True
    elif isinstance(value, (list, deque, bytearray)):
        for item in list(value):
            _change_all(item)
        value.append(0)
