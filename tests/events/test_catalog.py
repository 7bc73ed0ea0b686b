"""The closed set of events: every type of the design has its class, and every class behaves as a frozen value."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest

from lezea_mlops import events
from lezea_mlops.events import ALIASES, CLASS_OF_TYPE, Event, MetricsLogged, TrainingStepLogged, UnknownEvent

# The types that calls, scopes, the journal and the protocol give rise to.
TYPES = set(
    """run_started run_finished param metric delta_loss lezea_config constraints training_step modification_tree
    modification_tree_stats modification_stats data_splits data_usage data_score resource checkpoint artifact
    dataset_version result reward population network fold resource_use
    resource_totals rates budget budget_reached resource_cost business comment conclusion environment
    status log rejected_input gap""".split()
)

every_class = pytest.mark.parametrize("cls", CLASS_OF_TYPE.values(), ids=lambda cls: cls.__name__)


def declared(cls: type[Event]) -> list[str]:
    """Return the names of the fields that *cls* declares, those of its bases included."""
    names = {name for base in cls.__mro__ for name in inspect.get_annotations(base)}
    return sorted(names - {"type", "fields"})


def filled(cls: type[Event]) -> Event:
    """Return an event whose every declared field has a value of its own."""
    return cls(**{name: [name, {"of": cls.__name__}] for name in declared(cls)})


def test_every_type_has_a_class_under_its_own_name() -> None:
    """The table's names are those of the design, and those of the classes."""
    assert set(CLASS_OF_TYPE) == TYPES
    assert all(cls.type == name for name, cls in CLASS_OF_TYPE.items())
    assert set(ALIASES.values()) <= TYPES
    assert not set(ALIASES) & TYPES


def test_every_class_is_public() -> None:
    """A user finds each event in the package, under the class's name."""
    for cls in CLASS_OF_TYPE.values():
        assert cls.__name__ in events.__all__
        assert getattr(events, cls.__name__) is cls


def test_the_list_of_public_names_is_complete_and_true() -> None:
    """Every name of ``__all__`` exists, once."""
    assert len(set(events.__all__)) == len(events.__all__)
    assert all(hasattr(events, name) for name in events.__all__)


@every_class
def test_declared_fields_read_as_given_or_as_none(cls: type[Event]) -> None:
    """A declared field has its value; one that was not given is None and is not written."""
    event, empty = filled(cls), cls()
    for name in declared(cls):
        assert getattr(event, name) == [name, {"of": cls.__name__}]
        assert getattr(empty, name) is None
    assert empty.fields == {}
    assert "scope" in declared(cls)


@every_class
def test_an_unknown_attribute_is_an_error_that_names_it(cls: type[Event]) -> None:
    """A misspelt field is no silent None, even if the payload has a field of that name."""
    event = cls(colour="red")
    with pytest.raises(AttributeError, match=f"{cls.__name__} has no field 'colour'"):
        _ = event.colour  # type: ignore[attr-defined]
    assert event.fields["colour"] == "red"
    assert not hasattr(event, "_private")


@every_class
def test_an_event_is_frozen(cls: type[Event]) -> None:
    """No attribute can be set, added or deleted."""
    event = filled(cls)
    for name in [*declared(cls), "fields", "type", "new"]:
        with pytest.raises(AttributeError, match="is frozen"):
            setattr(event, name, 1)
        with pytest.raises(AttributeError, match="is frozen"):
            delattr(event, name)
    assert event == filled(cls)


@every_class
def test_an_event_equals_its_like_and_nothing_else(cls: type[Event]) -> None:
    """Type and fields decide; events are no keys, for their fields can be changed."""
    assert filled(cls) == filled(cls)
    assert filled(cls) != cls()
    assert cls(a=1) != UnknownEvent.named(cls.type, {"a": 1})
    assert cls() != {}
    with pytest.raises(TypeError, match="unhashable"):
        hash(filled(cls))


@every_class
def test_an_event_survives_pickling_and_copying(cls: type[Event]) -> None:
    """It can be sent to another process with all its fields, declared or not."""
    event = cls.of({**filled(cls).fields, "of_a_later_version": [1], "self": 2, "cls": 3})
    for twin in (pickle.loads(pickle.dumps(event)), copy.copy(event), copy.deepcopy(event)):
        assert twin == event
        assert type(twin) is cls
        assert twin.fields == event.fields


def test_an_event_of_an_unknown_type_keeps_type_and_fields() -> None:
    """What this version does not know is carried, compared and pickled like the rest."""
    event = UnknownEvent.named("thought", {"type": "deep", "fields": 2, "self": 3})
    assert (event.type, event.fields) == ("thought", {"type": "deep", "fields": 2, "self": 3})
    assert pickle.loads(pickle.dumps(event)) == copy.deepcopy(event) == event
    assert event != UnknownEvent.named("feeling", event.fields)
    with pytest.raises(AttributeError, match="is frozen"):
        event.type = "other"  # type: ignore[misc]


def test_events_of_two_types_with_equal_fields_differ() -> None:
    """The type is part of what an event says."""
    fields: dict[str, Any] = {"metrics": {"loss": 0.5}, "step": 1}
    assert MetricsLogged(**fields) != TrainingStepLogged(**fields)


def test_an_event_shows_its_type_and_fields() -> None:
    """The text of an event names its class and each field that was given."""
    assert (
        repr(MetricsLogged(metrics={"loss": 0.5}, step=1)) == "MetricsLogged(metrics={'loss': 0.5}, step=1)"
    )


def test_building_an_event_takes_its_own_dictionary() -> None:
    """A field added to the caller's dictionary afterwards is not part of the event."""
    fields: dict[str, Any] = {"step": 1}
    event = MetricsLogged.of(fields)
    fields["later"] = True
    assert event.fields == {"step": 1}
