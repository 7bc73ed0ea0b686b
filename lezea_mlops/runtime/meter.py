"""What ``measure`` measures: wall and CPU time of components, exactly, summed and recorded once a second.

Each thread knows which use it is in, and since when; entering and leaving charge what passed to the innermost use. So
times are exclusive: what an inner use takes is not the outer one's too, and all rows together never exceed what the
process used.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from time import perf_counter_ns, process_time_ns, thread_time_ns
from types import TracebackType
from typing import Any

from lezea_mlops._clock import now_us
from lezea_mlops.capture.own_usage import OwnUsage
from lezea_mlops.events import ResourcesUsed, ScopePairs
from lezea_mlops.runtime.recorder import Recorder
from lezea_mlops.runtime.scopes import scopes_here

FLUSH_EVERY_NS = 1_000_000_000
# Beyond so many rows a second is cut short, so that neither memory nor a record grows with the number of components.
MAX_ROWS = 2_000
MAX_KNOWN = 10_000
NS_PER_US = 1_000


class Row:
    """What one component used in one scope since the last record."""

    __slots__ = ("count", "cpu_ns", "io_bytes", "measure", "memory_gb_s", "scope", "wall_ns")

    def __init__(self, measure: Measure, scope: ScopePairs) -> None:
        self.measure = measure
        self.scope = scope
        self.count = self.wall_ns = self.cpu_ns = 0
        self.memory_gb_s = 0.0
        self.io_bytes = 0

    def take(self) -> dict[str, Any]:
        """Return the row as JSON and begin anew; parts of a microsecond stay for the next time."""
        fields: dict[str, Any] = {"component_id": self.measure.component_id}
        if self.measure.component_type is not None:
            fields["component_type"] = self.measure.component_type
        if self.scope:
            fields["scope"] = [list(pair) for pair in self.scope]
        wall_us, self.wall_ns = divmod(self.wall_ns, NS_PER_US)
        cpu_us, self.cpu_ns = divmod(self.cpu_ns, NS_PER_US)
        fields |= {"count": self.count, "wall_s": wall_us / 1e6, "cpu_s": cpu_us / 1e6}
        if self.measure.detail:
            fields |= {"memory_gb_s": self.memory_gb_s, "io_bytes": self.io_bytes}
        self.count = self.io_bytes = 0
        self.memory_gb_s = 0.0
        return fields


class _Thread:
    """The uses that a thread is in, and up to when they were charged."""

    __slots__ = ("cpu_ns", "detailed", "stack", "thread", "usage", "wall_ns")

    def __init__(self) -> None:
        self.thread = threading.current_thread()
        self.stack: list[Row] = []
        self.wall_ns = self.cpu_ns = 0
        # How many uses of the stack want memory and IO read, and what was read last.
        self.detailed = 0
        self.usage: OwnUsage | None = None

    def read_details(self, wall_ns: int) -> None:
        """Read memory and IO of the process, and charge what passed to the innermost use if it wants that."""
        before, now = self.usage, OwnUsage.read()
        if before and now and self.detailed and self.stack and self.stack[-1].measure.detail:
            row, passed_s = self.stack[-1], (wall_ns - self.wall_ns) / 1e9
            row.memory_gb_s += (before.memory_bytes + now.memory_bytes) / 2 / 2**30 * passed_s
            row.io_bytes += max(0, now.io_bytes - before.io_bytes)
        self.usage = now


class Measure:
    """One component, measured for as long as a with-block lasts; any number of threads may be in it."""

    __slots__ = ("_meter", "component_id", "component_type", "detail", "row")

    def __init__(self, meter: Meter, component_id: str, component_type: str | None, detail: bool) -> None:
        self._meter = meter
        # The row it was entered with last: mostly the next one's too.
        self.row: Row | None = None
        self.component_id = component_id
        self.component_type = component_type
        self.detail = detail

    # Called at every use: as few calls and look-ups as can be, and the lock not entered by ``with``.

    def __enter__(self) -> Measure:
        meter = self._meter
        scope = scopes_here().get(meter.key, ())
        try:
            thread: _Thread = meter.local.thread
        except AttributeError:
            thread = meter.new_thread()
        lock = meter.lock
        lock.acquire()
        try:
            wall_ns, cpu_ns = perf_counter_ns(), thread_time_ns()
            stack = thread.stack
            if stack:
                top = stack[-1]
                top.wall_ns += wall_ns - thread.wall_ns
                top.cpu_ns += cpu_ns - thread.cpu_ns
            if self.detail or thread.detailed:
                thread.read_details(wall_ns)
                thread.detailed += self.detail
            thread.wall_ns, thread.cpu_ns = wall_ns, cpu_ns
            row = self.row
            if row is None or row.scope is not scope:
                row = self.row = meter.row_of(self, scope)
            row.count += 1
            stack.append(row)
        finally:
            lock.release()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        meter = self._meter
        try:
            thread: _Thread = meter.local.thread
        except AttributeError:
            # Entered in another thread, or before a fork: the use goes on there.
            return
        stack = thread.stack
        if not stack:
            return
        lock = meter.lock
        lock.acquire()
        try:
            # The other way round than above, so that no use has more CPU time than wall time.
            cpu_ns, wall_ns = thread_time_ns(), perf_counter_ns()
            top = stack[-1]
            top.wall_ns += wall_ns - thread.wall_ns
            top.cpu_ns += cpu_ns - thread.cpu_ns
            if thread.detailed:
                thread.read_details(wall_ns)
            thread.wall_ns, thread.cpu_ns = wall_ns, cpu_ns
            if top.measure is self:
                stack.pop()
            else:
                _remove_last(stack, self)
            if self.detail:
                thread.detailed = sum(row.measure.detail for row in stack)
        finally:
            lock.release()
        if wall_ns > meter.due_ns:
            meter.flush()


class Meter:
    """The uses of one tracker in one process.

    Args:
        key: the tracker's key among the scopes.
        recorder: records what was measured, about once a second.

    Attributes:
        used: anything was measured.
        lock: held while rows change.
        rows: what was used since the last record.
        measures: what was made for the arguments of a call, exactly as they were given.
        local: holds what is remembered of the present thread.
        due_ns: when the next record is due, by the clock of wall time.
    """

    def __init__(self, key: int, recorder: Recorder) -> None:
        self.used = False
        self.key = key
        self._recorder = recorder
        self.measures: dict[tuple[Any, ...], Measure] = {}
        self._begin()

    def _begin(self) -> None:
        # A signal's handler may come to measure something in the middle of this.
        self.lock = threading.RLock()
        self.local = threading.local()
        self._threads: list[_Thread] = []
        # Uses whose thread ended inside them, since the last flush.
        self._left_open = 0
        self.rows: dict[tuple[Measure, ScopePairs], Row] = {}
        self._began_cpu_ns = process_time_ns()
        self._window_us, self.due_ns = now_us(), perf_counter_ns() + FLUSH_EVERY_NS

    def forget(self) -> None:
        """Begin anew in a forked child: what runs in the parent is measured there."""
        for row in self.rows.values():
            row.measure.row = None
        self._begin()

    def make(
        self, given: tuple[Any, ...], component_id: str, component_type: str | None, detail: bool
    ) -> Measure:
        """Return the measure of a component, and remember it for the arguments that were *given*."""
        measure = Measure(self, component_id, component_type, detail)
        if all(isinstance(argument, (str, bool, type(None))) for argument in given):
            if len(self.measures) >= MAX_KNOWN:
                self.measures.clear()
            measure = self.measures.setdefault(given, measure)
        return measure

    def row_of(self, measure: Measure, scope: ScopePairs) -> Row:
        """Return the row of a component in a scope; the caller holds the lock."""
        row = self.rows.get((measure, scope))
        if row is None:
            row = self.rows[measure, scope] = Row(measure, scope)
            if len(self.rows) > MAX_ROWS:
                self.due_ns = 0
        return row

    # ------------------------------------------------------------------ records

    def flush_if_due(self) -> None:
        """Record what was measured, if a second has passed since the last record."""
        if self.rows and perf_counter_ns() > self.due_ns:
            self.flush()

    def flush(self, *, last: bool = False) -> None:
        """Record what was measured since the last time.

        Args:
            last: the run ends: what the process used is recorded though nothing was measured.
        """
        with self.lock:
            uses = self._take_rows()
            left_open, self._left_open = self._left_open, 0
            cpu_s = (process_time_ns() - self._began_cpu_ns) // NS_PER_US / 1e6
            from_us, self._window_us = self._window_us, now_us()
            to_us = self._window_us
        if left_open:
            with self._recorder.lock:
                self._recorder.counts["measure_left_open"] += left_open
        if not uses and not last:
            return
        self.used = self.used or bool(uses)
        window: dict[str, Any] = {
            "from_us": from_us,
            # The wall clock may have been put back meanwhile; no window ends before it begins.
            "to_us": max(from_us, to_us),
            "process": {"writer": self._recorder.wid, "pid": os.getpid(), "cpu_s": cpu_s},
            "wall_s": round(sum(use["wall_s"] for use in uses), 6),
        }
        parts = [uses[start : start + MAX_ROWS] for start in range(0, len(uses), MAX_ROWS)] or [[]]
        for number, part in enumerate(parts, 1):
            numbered = {"part": number, "parts": len(parts)} if len(parts) > 1 else {}
            self._recorder.record(ResourcesUsed.of(window | {"uses": part} | numbered))

    def _take_rows(self) -> list[dict[str, Any]]:
        """Return the rows that have something, charged up to now, and forget those that nobody is in."""
        now_ns = perf_counter_ns()
        self.due_ns = now_ns + FLUSH_EVERY_NS
        running = {id(row) for row in self._charge_running(now_ns)}
        taken = [row for row in self.rows.values() if row.count or row.wall_ns >= NS_PER_US]
        uses = [row.take() for row in taken]
        for key, row in list(self.rows.items()):
            if id(row) not in running:
                del self.rows[key]
                row.measure.row = None
        return uses

    def _charge_running(self, now_ns: int) -> Iterator[Row]:
        """Charge what is going on, and yield all rows that a thread is in.

        The CPU time of another thread only that thread can read without danger; it brings it when it leaves.
        """
        mine = getattr(self.local, "thread", None)
        for thread in list(self._threads):
            if thread is not mine and not thread.thread.is_alive():
                self._threads.remove(thread)
                self._left_open += len(thread.stack)
            elif thread.stack:
                top = thread.stack[-1]
                top.wall_ns += max(0, now_ns - thread.wall_ns)
                thread.wall_ns = now_ns
                if thread is mine:
                    cpu_ns = thread_time_ns()
                    top.cpu_ns += cpu_ns - thread.cpu_ns
                    thread.cpu_ns = cpu_ns
                yield from thread.stack

    def new_thread(self) -> _Thread:
        """Make what is remembered of this thread."""
        thread = _Thread()
        self.local.thread = thread
        with self.lock:
            self._threads.append(thread)
        return thread


def _remove_last(stack: list[Row], measure: Measure) -> None:
    """Take a use out that is not the innermost: tasks of asyncio end in any order."""
    for index in range(len(stack) - 1, -1, -1):
        if stack[index].measure is measure:
            del stack[index]
            return
