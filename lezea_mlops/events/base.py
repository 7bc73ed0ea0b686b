"""What an event is: a frozen, typed view of the payload that travels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_options: Any) -> Any:
        """Do nothing: only type checkers read the fields as constructor arguments."""
        return lambda cls: cls


_DECLARED: dict[type, frozenset[str]] = {}


def _declared(cls: type) -> frozenset[str]:
    """Return the field names that *cls* and its bases declare."""
    names = _DECLARED.get(cls)
    if names is None:
        found = {name for base in cls.__mro__ for name in getattr(base, "__annotations__", {})}
        names = _DECLARED[cls] = frozenset(found - {"type", "fields"})
    return names


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Event:
    """One thing that happened, as the fields of its payload.

    A subclass names its fields by annotations. An event keeps every field it was built with, declared or not,
    so that a field of a later version survives being read and written here. A declared field that was not
    given reads as None and is not written.

    Building one is on the path of every log call; that is why the fields arrive as one dict and no
    per-field assignment takes place.
    """

    __slots__ = ("fields",)

    type: ClassVar[str] = ""
    fields: Mapping[str, Any]

    if not TYPE_CHECKING:

        def __init_subclass__(cls) -> None:
            # A default is a class attribute, and would be found before ``__getattr__`` is asked.
            for name in _declared(cls) & cls.__dict__.keys():
                delattr(cls, name)

        def __init__(self, /, **fields: Any) -> None:
            _put_fields(self, fields)

        def __getattr__(self, name: str) -> Any:
            if name in _declared(type(self)):
                return self.fields.get(name)
            raise AttributeError(f"{type(self).__name__} has no field {name!r}")

        def __setattr__(self, name: str, value: Any) -> None:
            raise AttributeError(f"{type(self).__name__} is frozen; {name!r} was not set")

        def __delattr__(self, name: str) -> None:
            raise AttributeError(f"{type(self).__name__} is frozen; {name!r} was not deleted")

    @classmethod
    def of(cls, payload: Mapping[str, Any]) -> Event:
        """Build the event from a payload; names that this version does not know are kept."""
        return cls(**payload)

    def __reduce__(self) -> Any:
        return _restore, (type(self), dict(self.fields))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Event)
            and type(self) is type(other)
            and self.type == other.type
            and self.fields == other.fields
        )

    __hash__ = None  # type: ignore[assignment]  # payloads hold dicts and lists

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in self.fields.items())
        return f"{type(self).__name__}({inside})"


# The slot's own setter: the shortest way past ``__setattr__``.
_put_fields = Event.__dict__["fields"].__set__


class UnknownEvent(Event):
    """An event of a type that this version does not know; it is carried on unchanged."""

    __slots__ = ("type",)

    if not TYPE_CHECKING:

        def __reduce__(self) -> Any:
            return UnknownEvent.named, (self.type, dict(self.fields))

    @classmethod
    def named(cls, type_name: str, fields: Mapping[str, Any]) -> UnknownEvent:
        """Build the event of a type that has no class."""
        event = cls(**fields)
        object.__setattr__(event, "type", type_name)
        return event


def _restore(cls: type[Event], fields: Mapping[str, Any]) -> Event:
    return cls.of(fields)
