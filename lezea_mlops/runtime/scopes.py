"""Scopes: which builder, tasker, network or layer a call belongs to, kept in ``contextvars``."""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType

from lezea_mlops.runtime.figures import ScopePairs

# One variable for all trackers, for a variable is never freed; each tracker finds its own scope by its key.
_SCOPES: ContextVar[dict[int, ScopePairs]] = ContextVar("lezea_scopes", default={})  # noqa: B039 (never mutated)

scopes_here = _SCOPES.get


class Scope:
    """One scope, entered by ``with``; leaving restores what was before, also after an exception."""

    __slots__ = ("_before", "_key", "_pair")

    def __init__(self, key: int, level: str, identity: str) -> None:
        self._key = key
        self._pair = (level, identity)
        self._before: list[ScopePairs] = []

    def __enter__(self) -> Scope:
        scopes = _SCOPES.get()
        before = scopes.get(self._key, ())
        self._before.append(before)
        _SCOPES.set(scopes | {self._key: (*before, self._pair)})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _set(self._key, self._before.pop())


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


def _set(key: int, pairs: ScopePairs) -> None:
    scopes = dict(_SCOPES.get())
    if pairs:
        scopes[key] = pairs
    else:
        scopes.pop(key, None)
    _SCOPES.set(scopes)
