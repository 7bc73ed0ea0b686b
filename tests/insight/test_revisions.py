"""Revisions of the configuration: numbered states with a typed diff, and what is in force at a step."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.events import Envelope
from lezea_mlops.insight import ABSENT, RevisionHistory


class Journal:
    """Records of one writer, as they would stand in its journal."""

    def __init__(self) -> None:
        self.records: list[Envelope] = []

    def add(self, kind: str, att: int = 1, **payload: Any) -> Journal:
        """Append a record, and return itself."""
        seq = len(self.records) + 1
        meta = {"seq": seq, "ts": 1_000 * seq, "wid": "main", "att": att}
        self.records.append(Envelope(kind, meta, {"run_id": "r"} | payload))
        return self

    def params(self, att: int = 1, **params: Any) -> Journal:
        """Append params."""
        return self.add("param", att, params=params)

    def step(self, step: Any, att: int = 1) -> Journal:
        """Append a training step."""
        return self.add("training_step", att, step=step, metrics={"loss": 1.0})

    def changes(self, limit: int = 10_000) -> list[tuple[int, int, int | None, dict[str, Any]]]:
        """Return number, attempt, step and changes of every revision."""
        found = RevisionHistory(self.records, limit).revisions
        return [(r.number, r.attempt, r.step, dict(r.changed)) for r in found]

    def config(self, **at: int) -> dict[str, Any]:
        """Return the configuration in force."""
        return RevisionHistory(self.records).config(**at)


def test_what_is_set_before_the_first_step_is_one_revision() -> None:
    """Of whatever kind the records are; nested names are joined by dots, and types stay."""
    journal = (
        Journal()
        .params(lr=0.1, optimizer={"name": "adam", "betas": [0.9, 0.99]}, resume=None)
        .add("lezea_config", tasker_population_size=64, hyperparameters={"gamma": 1})
        .add("constraints", runtime_limit_seconds=60.0)
        .step(1)
    )
    [(number, attempt, step, changed)] = journal.changes()
    assert (number, attempt, step) == (1, 1, None)
    assert {name: before for name, (before, _) in changed.items()} == dict.fromkeys(changed, ABSENT)
    assert {name: repr(after) for name, (_, after) in changed.items()} == {
        "lr": "0.1", "optimizer.name": "'adam'", "optimizer.betas": "[0.9, 0.99]", "resume": "None",
        "tasker_population_size": "64", "hyperparameters.gamma": "1", "runtime_limit_seconds": "60.0",
    }  # fmt: skip


def test_after_training_began_each_changing_record_is_a_revision() -> None:
    """With the last step that was logged before it."""
    journal = Journal().params(lr=1).step(1).params(lr=2).params(lr=3, b=True).step(2).params(lr=3).step(3)
    assert journal.changes() == [
        (1, 1, None, {"lr": (ABSENT, 1)}),
        (2, 1, 1, {"lr": (1, 2)}),
        (3, 1, 1, {"lr": (2, 3), "b": (ABSENT, True)}),
    ]


def test_an_attempt_that_changes_nothing_makes_no_revision() -> None:
    """Programs log their whole configuration at each start; only what differs counts."""
    journal = Journal().params(lr=1, b=2).step(1)
    journal.params(att=2, b=2, lr=1).step(1, att=2)
    journal.params(att=3, lr=5, b=2).step(1, att=3)
    assert [(number, attempt, changed) for number, attempt, _, changed in journal.changes()[1:]] == [
        (2, 3, {"lr": (1, 5)})
    ]


def test_a_value_that_came_back_before_training_is_no_change() -> None:
    """A default that is replaced and restored while a program starts says nothing."""
    journal = Journal().params(lr=1).step(1).params(att=2, lr=2).params(att=2, lr=1).step(1, att=2)
    assert len(journal.changes()) == 1


@pytest.mark.parametrize(
    ("before", "after"), [(1, 1.0), (1, True), (0.0, -0.0), ([1], [1.0]), (None, "None"), ("1", 1), ([], {})]
)
def test_a_change_of_type_is_a_change(before: Any, after: Any) -> None:
    """At any depth."""
    journal = Journal().params(x=before).step(1).params(x=after).step(2)
    [_, (_, _, _, changed)] = journal.changes()
    assert repr(changed["x"]) == repr((before, after))


def test_numbers_that_are_not_finite_are_numbers_again() -> None:
    """And NaN is no change to NaN."""
    journal = (
        Journal()
        .params(x={"$num": "NaN"})
        .step(1)
        .params(x={"$num": "NaN"})
        .params(x=[{"$num": "-Infinity"}])
    )
    first, second = journal.changes()
    assert math.isnan(first[3]["x"][1])
    assert second[3]["x"][1] == [-math.inf]


def test_params_of_scopes_stand_apart() -> None:
    """Two builders with other rates do not change each other's."""
    journal = Journal()
    for builder, rate in (("1", 0.1), ("2", 0.2)):
        journal.add("param", params={"lr": rate}, scope=[["builder", builder]])
    assert journal.config() == {"builder:1/lr": 0.1, "builder:2/lr": 0.2}


def test_a_dotted_and_a_nested_name_in_one_record_stay_two() -> None:
    """Otherwise one value would be lost; in two records they are one name."""
    journal = Journal().add("param", params={"a.b": 1, "a": {"b": 2}})
    assert journal.config() == {"a\\.b": 1, "a.b": 2}
    assert Journal().add("param", params={"a.b": 1}).add("param", params={"a": {"b": 2}}).config() == {
        "a.b": 2
    }


def test_params_of_the_protocol_are_read() -> None:
    """Other programs send one at a time."""
    journal = (
        Journal().add("param", key="opt", nested_key=["lr", 0], value=0.1).add("param", key="b", value=2)
    )
    assert journal.config() == {"opt.lr.0": 0.1, "b": 2}


def resumed() -> Journal:
    """Return a run that reached 150, went back to 100 and is at 120; its rate changed at 50 and at 110."""
    journal = Journal().params(lr=1, seed=7)
    for step in range(1, 151):
        journal.step(step)
        if step == 50:
            journal.params(lr=2)
    journal.params(att=2, lr=3)
    for step in range(100, 121):
        journal.step(step, att=2)
        if step == 110:
            journal.params(att=2, lr=4)
    return journal


@pytest.mark.parametrize(
    ("step", "lr"),
    [(0, 1), (1, 1), (50, 1), (51, 2), (99, 2), (100, 3), (110, 3), (111, 4), (120, 4), (121, 2), (150, 2), (999, 4)],
)  # fmt: skip
def test_the_configuration_at_a_step_is_that_of_the_newest_attempt_that_covers_it(step: int, lr: int) -> None:
    """What was set after a step was logged holds from the next one on; beyond all steps the newest attempt counts."""
    assert resumed().config(at_step=step) == {"lr": lr, "seed": 7}


def test_the_configuration_of_an_attempt_is_what_it_and_those_before_it_set() -> None:
    """At its end, or at one of its steps."""
    journal = resumed()
    assert journal.config() == journal.config(attempt=2) == {"lr": 4, "seed": 7}
    assert journal.config(attempt=1) == {"lr": 2, "seed": 7}
    assert journal.config(attempt=1, at_step=105) == {"lr": 2, "seed": 7}
    assert journal.config(attempt=2, at_step=105) == {"lr": 3, "seed": 7}


def test_an_attempt_that_is_not_there_is_said() -> None:
    """With those that are."""
    with pytest.raises(ValueError, match="attempt is 3, and the run has these attempts: 1, 2"):
        resumed().config(attempt=3)


def test_each_revision_knows_the_whole_configuration() -> None:
    """And survives being pickled and copied."""
    revisions = RevisionHistory(resumed().records).revisions
    expected = [{"lr": lr, "seed": 7} for lr in (1, 2, 3, 4)]
    assert [revision.config for revision in revisions] == expected
    for kept in (pickle.loads(pickle.dumps(revisions)), copy.deepcopy(revisions)):
        assert kept == revisions
        assert [revision.config for revision in kept] == expected
        assert kept[0].changed["lr"][0] is ABSENT


def test_names_beyond_the_limit_make_revisions_partial() -> None:
    """A name that had to leave counts as new when it comes again, and the revision says that this may be so."""
    journal = Journal().params(a=1).params(b=1).step(1).params(c=1).params(a=1)
    found = RevisionHistory(journal.records, limit=2).revisions
    assert [(dict(r.changed), r.partial) for r in found] == [
        ({"a": (ABSENT, 1), "b": (ABSENT, 1)}, False),
        ({"c": (ABSENT, 1)}, True),
        ({"a": (ABSENT, 1)}, True),
    ]


def test_an_empty_run_has_no_revisions() -> None:
    """And an empty configuration at any step."""
    assert RevisionHistory([]).revisions == []
    assert RevisionHistory([]).config(at_step=5) == {}


VALUES = st.sampled_from([1, 2, 1.0, True, None, "a", [1]])
CALLS = st.one_of(
    st.tuples(st.just("set"), st.dictionaries(st.sampled_from("abc"), VALUES, min_size=1)),
    st.tuples(st.just("step"), st.integers(0, 9) | st.none()),
    st.tuples(st.just("resume"), st.none()),
)


@given(calls=st.lists(CALLS, max_size=40))
def test_the_configuration_is_that_of_a_plain_replay(calls: list[tuple[str, Any]]) -> None:
    """At the end, at the end of each attempt, and at each revision; each before is what was in force."""
    journal, att = Journal(), 1
    now: dict[str, Any] = {}
    at_end: dict[int, dict[str, Any]] = {}
    journal.add("run_started")
    for call, argument in calls:
        if call == "set":
            journal.params(att, **argument)
            now |= argument
        elif call == "step":
            journal.step(argument, att)
        else:
            att += 1
            journal.add("run_started", att)
        at_end[att] = dict(now)
    history = RevisionHistory(journal.records)
    assert repr_of(history.config()) == repr_of(now)
    for attempt, config in at_end.items():
        assert repr_of(history.config(attempt=attempt)) == repr_of(config)
    before: dict[str, Any] = {}
    for number, revision in enumerate(history.revisions, 1):
        assert revision.number == number
        assert repr_of({n: b for n, (b, _) in revision.changed.items()}) == repr_of(
            {name: before.get(name, ABSENT) for name in revision.changed}
        )
        assert revision.changed
        assert all(repr(b) != repr(a) for b, a in revision.changed.values())
        before = revision.config


def repr_of(config: dict[str, Any]) -> dict[str, str]:
    """Return values so that 1, 1.0 and True differ."""
    return {name: repr(value) for name, value in config.items()}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b.c", "$num", "$blob", ""]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    records=st.lists(
        st.tuples(
            st.sampled_from(["param", "lezea_config", "constraints", "training_step", "metric", "other"]),
            st.integers(-1, 3),
            st.dictionaries(
                st.sampled_from(["params", "key", "value", "nested_key", "scope", "step", "epoch", "x"]), JSON
            ),
        ),
        max_size=10,
    )
)
def test_no_payload_stops_the_reading(records: list[tuple[str, int, dict[str, Any]]]) -> None:
    """What any program may have written has a configuration, whatever it says."""
    journal = Journal()
    for kind, att, payload in records:
        journal.add(kind, att, **payload)
    history = RevisionHistory(journal.records)
    if history.revisions:
        assert repr_of(history.config()) == repr_of(history.revisions[-1].config)
    assert history.config(at_step=1) is not None


def test_values_nested_too_deeply_are_left_to_the_journal() -> None:
    """They cannot end the reader's stack."""
    deep: Any = 1
    for _ in range(500):
        deep = [deep]
    config = Journal().params(deep=deep, flat=1).config()
    assert config["flat"] == 1
    assert "nested too deeply" in repr(config["deep"])
