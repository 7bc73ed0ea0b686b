"""Modification trees as events: ids given, statistics computed, large trees in parts."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lezea_mlops._bounded import BoundedTable
from lezea_mlops.events import MAX_LINE_BYTES, ModificationTreeLogged, ScopePairs, encode_json
from lezea_mlops.evolution import tree_statistics, with_ids
from lezea_mlops.runtime.call import BadInput, Call
from lezea_mlops.runtime.describing import shorten

# Half a line: statistics and scopes need room too.
MAX_PART_BYTES = MAX_LINE_BYTES // 2
# Statistics stand in every part.
MAX_STATISTICS_BYTES = MAX_LINE_BYTES // 8
# So many of a modification's values are moved out of its line; where that is not enough, all of its part is.
MAX_VALUES_MOVED = 10
# By these a modification is found; they stay in its line.
_IDENTITY = frozenset({"id", "parent_ids"})
# Stands among the ids that are returned for what is no modification; as a parent's id it says that there is none.
NO_ID = ""

Modifications = Sequence[Mapping[str, Any]]


class TreeLog:
    """Numbers the trees of a run: which step comes next, and whether a step was logged before."""

    def __init__(self) -> None:
        # With attempt and writer it makes ids unique; the journal's numbers stand still where there is no journal.
        self._numbers = itertools.count(1)
        self._last_step: BoundedTable[ScopePairs, list[int]] = BoundedTable(lambda: [0])
        self._times: BoundedTable[tuple[ScopePairs, int], list[int]] = BoundedTable(lambda: [0])

    def record(self, call: Call, step: int | None, given: Any, own: Mapping[str, Any] | None) -> list[str]:
        """Record one tree.

        Args:
            call: the call that logs it.
            step: None for the next one.
            given: the modifications as the caller gave them.
            own: the caller's figures of the tree, cleaned.

        Returns:
            An id for each of the modifications; ``NO_ID`` for what is none.

        Raises:
            BadInput: *given* is no list of modifications.
        """
        cleaned = _cleaned(call, given)
        # Other threads log meanwhile: they wait while a tree is numbered and written, not while it is worked on.
        with call.recorder.lock:
            at, times = self._numbered(call.scope, step)
            prefix = f"m{call.recorder.attempt}.{call.recorder.wid}.{next(self._numbers)}"
        whole = with_ids([item for item in cleaned if item is not None], prefix)
        statistics = _statistics(call, whole, own or {})
        parts = _parts(call, whole)
        for number, part in enumerate(parts, start=1):
            fields: dict[str, Any] = {"step": at, "modifications": part, "statistics": statistics}
            if len(parts) > 1:
                fields |= {"part": number, "parts": len(parts)}
            if times > 1:
                fields["repeat"] = times
            call.record(ModificationTreeLogged(**fields), auto=step is None)
        ids = (modification["id"] for modification in whole)
        return [NO_ID if item is None else next(ids) for item in cleaned]

    def _numbered(self, scope: ScopePairs, step: int | None) -> tuple[int, int]:
        """Return the step, and how many trees it has with this one."""
        last = self._last_step[scope]
        last[0] = at = last[0] + 1 if step is None else step
        times = self._times[scope, at]
        times[0] += 1
        return at, times[0]


def _cleaned(call: Call, given: Any) -> list[dict[str, Any] | None]:
    """Return the modifications, cleaned, and None in the place of what is none."""
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise BadInput("modifications", given, "is no list of mappings", TypeError)
    if not isinstance(given, (list, tuple)):
        drawn: list[Any] = []
        # A generator that raises gave modifications before that, and they are kept.
        call.converted("modifications", given, drawn.extend)
        given = drawn
    if set(map(type, given)) <= {dict}:
        # Each comes out as a dict, whatever is inside; together they take less time.
        return call.value("modifications", given) or []
    cleaned = []
    for index, item in enumerate(given):
        modification = call.mapping(f"modifications[{index}]", item)
        if item is None:
            call.reject(f"modifications[{index}]", item, "is no mapping", TypeError)
        cleaned.append(modification)
    return cleaned


def _statistics(call: Call, modifications: Modifications, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is computed beside the caller's own figures, in the same small form for all parts."""
    name = "computed"
    while name in own:
        name = f"own_{name}"
    figures = {name if key == "computed" else key: value for key, value in own.items()}
    if len(encode_json(figures)) > MAX_STATISTICS_BYTES:
        figures = {"own": call.converted("statistics", figures, call.cleaner.stored)}
    return {"computed": tree_statistics(modifications)} | figures


def _parts(call: Call, modifications: Modifications) -> Sequence[Modifications]:
    """Cut *modifications* into parts whose JSON fits a line each."""
    if len(encode_json(modifications)) <= MAX_PART_BYTES:
        return [modifications]
    slim = [item if len(encode_json(item)) <= MAX_PART_BYTES else _slim(call, item) for item in modifications]
    return split_by_size(slim, MAX_PART_BYTES)


def _slim(call: Call, modification: Mapping[str, Any]) -> Mapping[str, Any]:
    """Move the largest values of a modification to blobs, if so it fits a line; else return it as it is."""
    sizes = {name: len(encode_json(value)) for name, value in modification.items() if name not in _IDENTITY}
    largest = sorted(sizes, key=lambda name: sizes[name], reverse=True)[:MAX_VALUES_MOVED]
    size = len(encode_json(modification))
    slim = dict(modification)
    while largest and size > MAX_PART_BYTES:
        name = largest.pop(0)
        size -= sizes[name]
        slim[name] = None
    if size > MAX_PART_BYTES:
        return modification
    for name in [name for name in slim if slim[name] is None and modification[name] is not None]:
        place = f"modifications[{shorten(modification['id'])}][{shorten(name)}]"
        slim[name] = call.converted(place, modification[name], call.cleaner.stored)
    return slim


def split_by_size(items: Sequence[Any], max_bytes: int) -> list[list[Any]]:
    """Cut *items* into lists whose JSON has at most *max_bytes* each (one item alone may have more)."""
    parts: list[list[Any]] = [[]]
    size = 0
    for item in items:
        length = len(encode_json(item)) + 1
        if parts[-1] and size + length > max_bytes:
            parts.append([])
            size = 0
        parts[-1].append(item)
        size += length
    return parts
