"""Params cannot change in MLflow: the first value stays, later ones become revisions, and a replay finds the same."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lezea_mlops.events import Envelope
from lezea_mlops.sinks.mlflow.params import MAX_PARAM, ParamHistory, shortened
from lezea_mlops.sinks.mlflow.pieces import TextFile

Params = dict[str, str]


class Store:
    """What MLflow holds of params: the first value of each, tags, files."""

    def __init__(self) -> None:
        self.params: Params = {}
        self.tags: Params = {}
        self.files: Params = {}

    def history(self) -> ParamHistory:
        """Return the history as a sink reads it back."""
        return ParamHistory(self.params, self.tags)

    def take(self, history: ParamHistory, record: Envelope, params: Params) -> None:
        """Write what a record brings; a param that is there already may not come with another value."""
        change = history.apply(record, params)
        assert all(self.params.get(name, value) == value for name, value in change.new.items())
        self.params |= change.new
        self.tags |= change.tags
        self.files |= {text.path: text.content for text in change.texts}

    def seen(self) -> tuple[Params, Params, Params]:
        """Return all that a person sees."""
        return self.params, self.tags, self.files


def record(seq: int, *, att: int = 1, ts: int | None = None, wid: str = "main") -> Envelope:
    """Return the record that brings params."""
    return Envelope("param", {"seq": seq, "ts": ts if ts is not None else seq, "wid": wid, "att": att}, {})


def told(*changes: tuple[Envelope, Params]) -> Store:
    """Return a store after these records."""
    store = Store()
    history = store.history()
    for at, params in changes:
        store.take(history, at, params)
    return store


def test_the_first_value_is_the_param() -> None:
    """Nothing else is written."""
    assert told((record(1), {"lr": "0.1", "gamma": "0.9"})).seen() == ({"lr": "0.1", "gamma": "0.9"}, {}, {})


def test_the_same_value_again_is_nothing_new() -> None:
    """Logging a param a second time is no revision."""
    assert told((record(1), {"lr": "0.1"}), (record(2), {"lr": "0.1"})).tags == {}


def test_a_changed_value_is_a_revision() -> None:
    """A tag with the value, a tag with the place in the order, a file that says what was before."""
    store = told(
        (record(1), {"lr": "0.1", "gamma": "0.9"}), (record(5, ts=77), {"lr": "0.2", "gamma": "0.9"})
    )
    assert store.params == {"lr": "0.1", "gamma": "0.9"}
    assert store.tags == {"lezea.rev1": '[1, 77, "main", 5]', "lezea.rev1.lr": "0.2"}
    assert json.loads(store.files["config/revision-1.json"]) == {
        "revision": 1, "attempt": 1, "ts": 77, "changed": {"lr": {"from": "0.1", "to": "0.2"}},
    }  # fmt: skip


def test_going_back_to_the_first_value_is_a_revision_too() -> None:
    """Otherwise a person would take the second value for the one in force."""
    store = told((record(1), {"lr": "1"}), (record(2), {"lr": "2"}), (record(3), {"lr": "1"}))
    assert {name: value for name, value in store.tags.items() if name.endswith(".lr")} == {
        "lezea.rev1.lr": "2", "lezea.rev2.lr": "1",
    }  # fmt: skip


def test_a_param_that_comes_later_is_no_revision() -> None:
    """New names are params, also beside a changed one."""
    store = told((record(1), {"lr": "1"}), (record(2), {"lr": "2", "seed": "7"}))
    assert store.params == {"lr": "1", "seed": "7"}
    assert "lezea.rev1.seed" not in store.tags


def test_revisions_of_a_very_long_name_are_found_again() -> None:
    """The tag of a name with 250 characters is longer than a tag's name may be."""
    name = "n" * 250
    changes = [
        (record(1), {name: "1"}),
        (record(2), {name: "2"}),
        (record(3), {name: "2"}),
        (record(4), {name: "1"}),
    ]
    store = told(*changes[:2])
    for change in changes[2:]:
        store.take(store.history(), *change)
    assert store.seen() == told(*changes).seen()
    assert sorted(len(tag) for tag in store.tags) == [10, 10, 250, 250]


def test_a_clock_that_jumped_back_changes_nothing() -> None:
    """A writer's records stand in the order of their numbers, whatever the wall clock said."""
    changes = [
        (record(1, ts=100), {"lr": "1"}),
        (record(2, ts=50), {"lr": "2"}),
        (record(3, ts=60), {"lr": "1"}),
    ]
    store = told(*changes)
    for change in changes:
        store.take(store.history(), *change)
    assert store.seen() == told(*changes).seen()


def test_what_a_person_wrote_into_our_tags_does_not_stop_us() -> None:
    """A tag can be edited in the UI; then it counts as none."""
    for nonsense in ("", "no", "[]", '{"a": 1}', '[1, "x", "main", 2]', "null", "[1, 2, 3, 4, 5]"):
        history = ParamHistory({"lr": "1"}, {"lezea.rev1": nonsense, "lezea.rev1.lr": "2", "lezea.revx": "?"})
        assert history.apply(record(9), {"lr": "3"}).tags["lezea.rev1.lr"] == "3"


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["main", "rank1"]),
        st.integers(0, 50),
        st.dictionaries(st.sampled_from(["lr", "gamma", "n" * 250]), st.sampled_from(["1", "2", "3"]), min_size=1),
    ),
    min_size=1, max_size=8,
)  # fmt: skip


@settings(max_examples=300)
@given(changes=CHANGES, cuts=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=3))
def test_a_replay_finds_what_it_wrote_before(
    changes: list[tuple[str, int, Params]], cuts: list[tuple[int, int]]
) -> None:
    """Any parts again, by a sink that reads all back, with two writers and clocks that jump: no further revision."""
    numbered = [
        (record(seq, ts=ts, wid=wid), params) for seq, (wid, ts, params) in enumerate(changes, start=1)
    ]
    clean = told(*numbered)
    store, reached = Store(), 0
    for start, length in [*cuts, (0, len(numbered))]:
        start = min(start, reached)
        history = store.history()
        for change in numbered[start : start + length]:
            store.take(history, *change)
        reached = max(reached, min(start + length, len(numbered)))
    assert store.seen() == clean.seen()


# ---------------------------------------------------------------------- long values


@pytest.mark.parametrize("length", [0, 1, 5_999, 6_000])
def test_a_value_that_fits_is_kept(length: int) -> None:
    """Up to the limit nothing is cut."""
    texts: list[TextFile] = []
    assert shortened("x" * length, "values/x", MAX_PARAM, texts) == "x" * length
    assert texts == []


@pytest.mark.parametrize("length", [6_001, 10_000, 1_000_000])
def test_a_longer_value_becomes_head_digest_and_pointer(length: int) -> None:
    """The whole of it stands in the file that the text names; head and digest let a person compare."""
    value = "".join(chr(97 + number % 26) for number in range(length))
    store = told((record(1), {"config/long": value}))
    shown = store.params["config/long"]
    assert len(shown) == MAX_PARAM
    assert shown.startswith(value[:1_000])
    assert f"{length} characters" in shown
    assert hashlib.sha256(value.encode()).hexdigest() in shown
    assert store.tags == {"lezea.truncated": "true"}
    [path] = store.files
    assert path in shown
    assert store.files[path] == value


def test_long_values_of_one_param_do_not_replace_each_other() -> None:
    """The first value's pointer goes on to point at the first value."""
    first, second = "a" * 10_000, "b" * 10_000
    store = told((record(1), {"x": first}), (record(2), {"x": second}))
    assert {first, second} <= set(store.files.values())


def test_a_long_value_again_is_nothing_new() -> None:
    """The comparison is of what MLflow holds."""
    store = told((record(1), {"x": "a" * 10_000}))
    before = store.seen()
    store.take(store.history(), record(2), {"x": "a" * 10_000})
    assert store.seen() == before


def test_a_nul_is_shown_by_its_picture() -> None:
    """Some databases below MLflow hold none, and would refuse the record for ever."""
    assert shortened("a\0b", "values/x", MAX_PARAM, []) == "a␀b"


def test_files_of_long_values_have_names_that_any_file_system_takes() -> None:
    """The param's name may be anything."""
    name = "a/../b" + "n" * 240
    [path] = told((record(1), {name: "x" * 10_000})).files
    with tempfile.TemporaryDirectory() as place:
        target = Path(place, path)
        target.parent.mkdir(parents=True)
        target.write_text("x")
        assert target.resolve().is_relative_to(Path(place).resolve())
