"""Modification trees as events: ids given, statistics computed, large trees in parts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from lezea_mlops._bounded import BoundedTable
from lezea_mlops.events import MAX_LINE_BYTES, ModificationTreeLogged, ScopePairs, encode_json
from lezea_mlops.evolution import tree_statistics, with_ids
from lezea_mlops.runtime.call import Call

# Half a line: statistics and scopes need room too.
MAX_PART_BYTES = MAX_LINE_BYTES // 2


class TreeLog:
    """Numbers the trees of a run: which step comes next, and whether a step was logged before."""

    def __init__(self) -> None:
        # With attempt and writer it makes ids unique; the journal's numbers stand still where there is no journal.
        self._numbers = itertools.count(1)
        self._last_step: BoundedTable[ScopePairs, list[int]] = BoundedTable(lambda: [0])
        self._times: BoundedTable[tuple[ScopePairs, int], list[int]] = BoundedTable(lambda: [0])

    def record(
        self,
        call: Call,
        step: int | None,
        modifications: Sequence[Mapping[str, Any]],
        own: Mapping[str, Any] | None,
    ) -> list[str]:
        """Record one tree and return the ids of its modifications."""
        with call.recorder.lock:
            last = self._last_step[call.scope]
            at = last[0] + 1 if step is None else step
            last[0] = at
            times = self._times[call.scope, at]
            times[0] += 1
            complete = with_ids(
                modifications, f"m{call.recorder.attempt}.{call.recorder.wid}.{next(self._numbers)}"
            )
            statistics = {"computed": tree_statistics(complete)} | dict(own or {})
            parts = split_by_size(complete, MAX_PART_BYTES)
            for number, part in enumerate(parts, start=1):
                fields: dict[str, Any] = {"step": at, "modifications": part, "statistics": statistics}
                if len(parts) > 1:
                    fields |= {"part": number, "parts": len(parts)}
                if times[0] > 1:
                    fields["repeat"] = times[0]
                call.record(ModificationTreeLogged(**fields), auto=step is None)
        return [modification["id"] for modification in complete]


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
