"""What the events of all files of this package are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from lezea_mlops.events.base import Event

# A metric's number, or one of the three texts for numbers that JSON has no word for.
Number: TypeAlias = "int | float | str"
JsonObject: TypeAlias = "Mapping[str, Any]"


class EventInScope(Event):
    """An event that says in which scopes it was logged, outermost first."""

    __slots__ = ()
    scope: Sequence[Sequence[str]] | None = None
