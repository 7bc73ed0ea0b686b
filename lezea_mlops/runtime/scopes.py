"""Scopes: which builder, tasker, network or layer a call belongs to, kept in ``contextvars``."""

from __future__ import annotations

import hashlib
from contextvars import ContextVar
from types import TracebackType

from lezea_mlops.events import ScopePairs

# A scope stands in every line that is logged inside it.
MAX_NAME_CHARACTERS = 1_000

# One variable for all trackers, for a variable is never freed; each tracker finds its own scope by its key.
_SCOPES: ContextVar[dict[int, ScopePairs]] = ContextVar("lezea_scopes", default={})  # noqa: B039 (never mutated)

scopes_here = _SCOPES.get


class Scope:
    """One scope, entered by ``with``; it keeps no state, so that threads and tasks may share one.

    Leaving takes it out of the present scopes, also after an exception.
    """

    __slots__ = ("_key", "_pair")

    def __init__(self, key: int, level: str, identity: str) -> None:
        self._key = key
        self._pair = (bounded_name(level), bounded_name(identity))

    def __enter__(self) -> Scope:
        scopes = _SCOPES.get()
        _SCOPES.set(scopes | {self._key: (*scopes.get(self._key, ()), self._pair)})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A generator that is closed late leaves its scope when others were entered behind it: those stay.
        pairs = _SCOPES.get().get(self._key, ())
        for index in range(len(pairs) - 1, -1, -1):
            if pairs[index] == self._pair:
                _set(self._key, pairs[:index] + pairs[index + 1 :])
                return


class Inherited:
    """The scopes of one context, entered in another (a thread of a pool)."""

    __slots__ = ("_key", "_pairs")

    def __init__(self, key: int) -> None:
        self._key = key
        self._pairs = _SCOPES.get().get(key, ())

    def enter(self) -> ScopePairs:
        """Enter them and return what was before."""
        before = _SCOPES.get().get(self._key, ())
        _set(self._key, self._pairs)
        return before

    def leave(self, before: ScopePairs) -> None:
        """Restore what was before."""
        _set(self._key, before)


def bounded_name(name: str) -> str:
    """Return a name that fits a line beside others: beyond the limit its beginning and a hash of all of it."""
    if len(name) <= MAX_NAME_CHARACTERS:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{name[: MAX_NAME_CHARACTERS - 17]}…{digest}"


def _set(key: int, pairs: ScopePairs) -> None:
    scopes = dict(_SCOPES.get())
    if pairs:
        scopes[key] = pairs
    else:
        scopes.pop(key, None)
    _SCOPES.set(scopes)
