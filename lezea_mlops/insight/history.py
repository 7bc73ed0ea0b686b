"""The history of a run's metrics, as a reader sees it after the run was resumed.

An attempt covers, for one metric of one writer, the steps from the smallest to the largest that it logged of that
metric. The default view shows at each step the points of the newest attempt that covers it, and of several points of
one attempt at one step the last. So:

- An attempt that went back to step 100 and logs every tenth step hides the older points between its own first and last
  step, those at the steps between its own too: the curve is that of one attempt, never of two in turn.
- An attempt that is still behind hides nothing of what an older one logged ahead of it.
- A metric that is new in an attempt has no older points to hide, and hides none of other metrics.
- Writers have histories of their own: what rank 1 logs hides nothing of ``main``.
- Points without a step stand before all others. Nothing says which of them takes whose place, so that all those of
  the newest attempt that has any are shown.

Memory is bounded, however long the run and however many its metrics are: points are sorted in parts of
``POINTS_IN_MEMORY``, and further parts wait in a temporary file that ends with the reading.
"""

from __future__ import annotations

import heapq
import marshal
import tempfile
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from operator import itemgetter
from typing import BinaryIO, TypeAlias

from lezea_mlops._files import read_at
from lezea_mlops.insight.points import Point

POINTS_IN_MEMORY = 50_000
# So many points of each part are in memory while parts are merged.
POINTS_IN_BLOCK = 128
_LENGTH_BYTES = 8

# (name, writer is not main, writer, has a step, step, attempt, seq, place among all points, value, ts)
Row: TypeAlias = "tuple[str, bool, str, bool, int, int, int, int, int | float, int]"
_SERIES = itemgetter(0, 1, 2)
_STEP = itemgetter(3, 4)
_ATTEMPT = itemgetter(5)

# The attempts of one metric with their least and greatest step, the newest first.
Spans: TypeAlias = "list[tuple[int, int, int]]"


def history_of(
    points: Iterable[Point], *, all_attempts: bool = False, in_memory: int = POINTS_IN_MEMORY
) -> Iterator[Point]:
    """Yield the points of the default view by name, writer (``main`` first) and step.

    Args:
        points: in the order of the journal.
        all_attempts: yield every point; those of one step by attempt, then as they were logged.
        in_memory: how many points are held at once; the others wait in a temporary file.
    """
    with SortedRows(map(_row, points, _places()), in_memory) as rows:
        shown = iter(rows) if all_attempts else _default_view(rows)
        for name, _, wid, has_step, step, att, seq, _, value, ts in shown:
            yield Point(name, step if has_step else None, value, ts, wid, att, seq)


def _places() -> Iterator[int]:
    place = 0
    while True:
        yield place
        place += 1


def _row(point: Point, place: int) -> Row:
    name, step, value, ts, wid, att, seq = point
    return (name, wid != "main", wid, step is not None, step or 0, att, seq, place, value, ts)


def _default_view(rows: Iterable[Row]) -> Iterator[Row]:
    # Twice through the same order, metric by metric: first to know what each attempt covers, then to show it.
    for (_, looked_at), (_, shown) in zip(groupby(rows, _SERIES), groupby(rows, _SERIES), strict=True):
        newest_without_step, spans = _spans(looked_at)
        for (has_step, step), at_step in groupby(shown, _STEP):
            if not has_step:
                yield from (row for row in at_step if row[5] == newest_without_step)
                continue
            newest = next(att for att, first, last in spans if first <= step <= last)
            last_row = None
            for row in at_step:
                if row[5] == newest:
                    last_row = row
            if last_row is not None:
                yield last_row


def _spans(rows: Iterable[Row]) -> tuple[int | None, Spans]:
    """Return the newest attempt that has points without a step, if any has, and what the attempts cover."""
    without_step: int | None = None
    spans: dict[int, tuple[int, int]] = {}
    for row in rows:
        step, att = row[4], row[5]
        if not row[3]:
            without_step = att if without_step is None else max(without_step, att)
        else:
            # The rows come by step: the first is the least.
            first, _ = spans.get(att, (step, step))
            spans[att] = (first, step)
    return without_step, [(att, *spans[att]) for att in sorted(spans, reverse=True)]


class SortedRows:
    """Rows in order, which can be gone through several times, also at once.

    Args:
        rows: in any order.
        in_memory: how many are sorted at once; each further part waits in a temporary file, where ``TMPDIR`` says.
    """

    def __init__(self, rows: Iterable[Row], in_memory: int = POINTS_IN_MEMORY) -> None:
        self._file: BinaryIO | None = None
        self._parts: list[tuple[int, int]] = []
        left = iter(rows)
        self._last = sorted(islice(left, in_memory))
        try:
            while part := sorted(islice(left, in_memory)):
                self._put_away(self._last)
                self._last = part
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Row]:
        """Yield all rows in order."""
        if not self._parts:
            return iter(self._last)
        return heapq.merge(*(self._read(*part) for part in self._parts), self._last)

    def __enter__(self) -> SortedRows:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the temporary file, if there is one."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _put_away(self, rows: list[Row]) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="lezea-history-")  # noqa: SIM115 (closed by ``close``)
        start = self._file.tell()
        for first in range(0, len(rows), POINTS_IN_BLOCK):
            block = marshal.dumps(rows[first : first + POINTS_IN_BLOCK])
            self._file.write(len(block).to_bytes(_LENGTH_BYTES, "big") + block)
        self._file.flush()
        self._parts.append((start, self._file.tell()))

    def _read(self, position: int, end: int) -> Iterator[Row]:
        assert self._file is not None
        descriptor = self._file.fileno()
        while position < end:
            length = int.from_bytes(read_at(descriptor, _LENGTH_BYTES, position), "big")
            position += _LENGTH_BYTES
            yield from marshal.loads(read_at(descriptor, length, position))
            position += length
