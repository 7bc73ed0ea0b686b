"""One modification as free-form JSON, and what is understood of it: said once, for those who record, keep and ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from lezea_mlops.events.numeric import as_number

# Other names of the same fields; the first name stands before the others where several are given.
_TYPE_NAMES = ("type", "op")
_TARGET_NAMES = ("target", "network_id")


class Modification(NamedTuple):
    """One modification of a network, as a builder proposed it.

    Attributes:
        id: unique in the experiment.
        parent_ids: the modifications it builds on, each once; several for a crossover, none for a first one.
        type: what kind of change it is, such as ``widen``; also given as ``op``.
        accepted: whether it was kept; None while that is not decided, or not told.
        score: how good the network was with it, higher is better; NaN and the infinities are possible.
        target: the network that carries it; also given as ``network_id``.
        params: its parameters, as they were logged.
        data: all else of it by name: ``component_id``, ``reason``, ``tags``, ``scope`` and whatever was logged; also
            what bears a known name and is not what that name means, such as a score that is text.
    """

    id: str
    parent_ids: tuple[str, ...]
    type: str | None
    accepted: bool | None
    score: float | None
    target: str | None
    params: Any
    data: Mapping[str, Any]


def read_modification(logged: Any, default_id: str) -> Modification:
    """Return what is understood of a modification as it stands in a journal; nothing of it is left out.

    Args:
        logged: a JSON object; anything else is kept as ``value`` among the data.
        default_id: its id where it has none.
    """
    rest = dict(logged) if isinstance(logged, Mapping) else {"value": logged}
    identity = as_id(rest.pop("id", None))
    parents = _parents(rest)
    return Modification(
        id=default_id if identity is None else identity,
        parent_ids=parents,
        type=_first_text(rest, _TYPE_NAMES),
        accepted=rest.pop("accepted") if isinstance(rest.get("accepted"), bool) else None,
        score=_score(rest),
        target=_first_text(rest, _TARGET_NAMES),
        params=rest.pop("params", None),
        data=rest,
    )


def as_id(value: Any) -> str | None:
    """Return the text of an id or of a parent's id; None if there is none."""
    if isinstance(value, str):
        return value or None
    return None if value is None else str(value)


def _parents(rest: dict[str, Any]) -> tuple[str, ...]:
    """Take the parents out of *rest*, given as one or as several, each once and in their order."""
    several, one = rest.pop("parent_ids", None), rest.pop("parent_id", None)
    if (
        one is None
        and isinstance(several, list)
        and all(type(parent) is str and parent for parent in several)
    ):
        return tuple(several) if len(several) < 2 else tuple(dict.fromkeys(several))
    given = [*(several if isinstance(several, list) else [several])]
    given += one if isinstance(one, list) else [one]
    return tuple(dict.fromkeys(parent for parent in map(as_id, given) if parent is not None))


def _first_text(rest: dict[str, Any], names: tuple[str, ...]) -> str | None:
    """Take the first of the fields that is text or a number out of *rest*."""
    for name in names:
        value = rest.get(name)
        if isinstance(value, str) or (isinstance(value, (int, float)) and not isinstance(value, bool)):
            del rest[name]
            return value if isinstance(value, str) else str(value)
    return None


def _score(rest: dict[str, Any]) -> float | None:
    score = rest.get("score")
    if isinstance(score, Mapping) and len(score) == 1:
        score = score.get("$num")
        number = as_number(score) if isinstance(score, str) else None
    else:
        number = score if isinstance(score, (int, float)) and not isinstance(score, bool) else None
    if number is not None:
        del rest["score"]
    return number
