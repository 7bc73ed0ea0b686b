"""``measure`` charges every moment of a thread to one component, the innermost, and records the sums each second."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.events import Event
from lezea_mlops.runtime import meter as module
from lezea_mlops.runtime.meter import MAX_ROWS, Measure, Meter
from lezea_mlops.runtime.scopes import Scope

KEY = 77
SECOND_NS = 1_000_000_000


class Clocks:
    """Clocks that stand still until they are told to go on: wall time, and the CPU time of threads and process."""

    def __init__(self) -> None:
        self.wall_ns = self.cpu_ns = 0

    def passes(self, wall_s: float, cpu_s: float = 0.0) -> None:
        """Let time pass."""
        self.wall_ns += round(wall_s * SECOND_NS)
        self.cpu_ns += round(cpu_s * SECOND_NS)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    """Replace the clocks of the meter."""
    return replaced_clocks(monkeypatch)


def replaced_clocks(patch: pytest.MonkeyPatch) -> Clocks:
    """Replace the clocks of the meter until the patch is undone."""
    told = Clocks()
    patch.setattr(module, "perf_counter_ns", lambda: told.wall_ns)
    patch.setattr(module, "thread_time_ns", lambda: told.cpu_ns)
    patch.setattr(module, "process_time_ns", lambda: told.cpu_ns)
    return told


class Measured:
    """A meter with what it recorded.

    Attributes:
        wid: the writer's name.
        lock: held while counts change.
        counts: what went wrong, by kind.
    """

    wid = "main"

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.counts: Counter[str] = Counter()
        self.records: list[dict[str, Any]] = []
        self.meter = Meter(KEY, self)  # type: ignore[arg-type]

    def record(self, event: Event) -> None:
        """Take a record."""
        self.records.append(dict(event.fields))

    def component(self, name: str, kind: str | None = None, detail: bool = False) -> Measure:
        """Return the measure of a component."""
        known = self.meter.measures.get((name, kind, detail))
        return known or self.meter.make((name, kind, detail), name, kind, detail)

    def rows(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Record what is left, and return all rows together by component and scope."""
        self.meter.flush()
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for record in self.records:
            for use in record["uses"]:
                place = "/".join(":".join(pair) for pair in use.get("scope", ()))
                row = found.setdefault(
                    (use["component_id"], place), {"count": 0, "wall_s": 0.0, "cpu_s": 0.0}
                )
                for name in row:
                    row[name] += use[name]
        return found


def in_thread(work: Callable[[], object]) -> None:
    """Do *work* in a thread of its own, to its end."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_wall_and_cpu_time_are_those_of_the_block(clocks: Clocks) -> None:
    """What passes outside counts for nobody."""
    measured = Measured()
    clocks.passes(5, 5)
    for _ in range(3):
        with measured.component("tasker#0", "tasker"):
            clocks.passes(0.2, 0.125)
        clocks.passes(0.05, 0.05)
    assert measured.rows() == {("tasker#0", ""): {"count": 3, "wall_s": pytest.approx(0.6), "cpu_s": 0.375}}


def test_an_inner_use_is_not_the_outer_ones(clocks: Clocks) -> None:
    """The builder has what it does itself, before, between and after the taskers that it measures."""
    measured = Measured()
    with measured.component("builder#1", "builder"):
        clocks.passes(0.1, 0.0625)
        for _ in range(2):
            with measured.component("tasker#0", "tasker"):
                clocks.passes(0.25, 0.25)
            clocks.passes(0.05)
    rows = measured.rows()
    assert rows["builder#1", ""] == {"count": 1, "wall_s": pytest.approx(0.2), "cpu_s": 0.0625}
    assert rows["tasker#0", ""] == {"count": 2, "wall_s": 0.5, "cpu_s": 0.5}


def test_a_use_belongs_to_the_scope_that_it_was_entered_in(clocks: Clocks) -> None:
    """One component in two scopes has two rows, and scopes of other trackers do not matter."""
    measured = Measured()
    with Scope(KEY, "builder", "1"), Scope(KEY + 1, "builder", "9"), measured.component("tasker#0"):
        clocks.passes(0.1)
    with Scope(KEY, "builder", "2"), Scope(KEY, "layer", "3"), measured.component("tasker#0"):
        clocks.passes(0.2)
    assert {place: row["wall_s"] for (_, place), row in measured.rows().items()} == {
        "builder:1": 0.1,
        "builder:2/layer:3": 0.2,
    }


def test_a_record_is_made_once_a_second(clocks: Clocks) -> None:
    """A thousand uses in three seconds are three records, whose windows follow each other."""
    measured = Measured()
    for _ in range(1_000):
        with measured.component("tasker#0"):
            clocks.passes(0.003)
    assert len(measured.records) == 2
    assert measured.rows()["tasker#0", ""]["count"] == 1_000
    windows = [(record["from_us"], record["to_us"]) for record in measured.records]
    assert all(before[1] == after[0] for before, after in pairwise(windows))


def test_nothing_is_recorded_where_nothing_was_used(clocks: Clocks) -> None:
    """Except at the end of a run, for which the CPU time of the process is said."""
    measured = Measured()
    clocks.passes(10, 4.5)
    measured.meter.flush()
    assert measured.records == []
    measured.meter.flush(last=True)
    [record] = measured.records
    assert record["uses"] == []
    assert record["process"] == {"writer": "main", "pid": os.getpid(), "cpu_s": 4.5}


def test_a_use_that_never_ends_is_charged_while_it_goes_on(clocks: Clocks) -> None:
    """Each record has what passed since the one before, also of a use in another thread."""
    measured = Measured()
    entered, leave = threading.Event(), threading.Event()

    def endless() -> None:
        with measured.component("endless"):
            entered.set()
            leave.wait()

    thread = threading.Thread(target=endless)
    thread.start()
    entered.wait()
    clocks.passes(60)
    measured.meter.flush()
    clocks.passes(30)
    measured.meter.flush()
    assert [record["wall_s"] for record in measured.records] == [60, 30]
    leave.set()
    thread.join()


def test_a_thread_that_ends_inside_a_use_is_counted_and_forgotten(clocks: Clocks) -> None:
    """Nothing is charged for it any more, and ``health()`` counts it."""
    measured = Measured()
    in_thread(measured.component("left open").__enter__)
    clocks.passes(60)
    measured.meter.flush()
    clocks.passes(60)
    measured.meter.flush()
    assert measured.counts["measure_left_open"] == 1
    assert sum(record["wall_s"] for record in measured.records) == 0


def test_a_hundred_thousand_components_leave_memory_and_records_bounded(clocks: Clocks) -> None:
    """Many are recorded early; nobody is forgotten."""
    measured = Measured()
    count = 100_000
    for number in range(count):
        with measured.component(f"tasker#{number}"):
            clocks.passes(1e-6)
        assert len(measured.meter.rows) <= MAX_ROWS + 1
    measured.meter.flush()
    assert sum(len(record["uses"]) for record in measured.records) == count
    assert max(len(record["uses"]) for record in measured.records) <= MAX_ROWS + 1


def test_tasks_of_one_thread_end_in_any_order(clocks: Clocks) -> None:
    """What passes counts once, for the use that was entered last, and every use ends."""
    measured = Measured()

    async def use(name: str, enter: asyncio.Event, entered: asyncio.Event, leave: asyncio.Event) -> None:
        await enter.wait()
        with measured.component(name):
            entered.set()
            await leave.wait()

    async def program() -> None:
        events = {name: [asyncio.Event() for _ in range(3)] for name in "ab"}
        tasks = {name: asyncio.create_task(use(name, *events[name])) for name in "ab"}
        for name in "ab":
            events[name][0].set()
            await events[name][1].wait()
            clocks.passes(1)
        for name in "ab":
            events[name][2].set()
            await tasks[name]
            clocks.passes(0.5)

    asyncio.run(program())
    rows = measured.rows()
    assert (rows["a", ""]["wall_s"], rows["b", ""]["wall_s"]) == (1, 1.5)
    clocks.passes(9)
    measured.meter.flush()
    assert sum(record["wall_s"] for record in measured.records) == 2.5


def test_parts_of_a_microsecond_are_not_lost_while_a_use_goes_on(clocks: Clocks) -> None:
    """They are in the next record; each record has whole microseconds."""
    measured = Measured()
    with measured.component("a"):
        for _ in range(1_000):
            clocks.wall_ns += 700
            measured.meter.flush()
    assert measured.rows()["a", ""]["wall_s"] == pytest.approx(0.0007)


def test_leaving_what_was_entered_elsewhere_changes_nothing(clocks: Clocks) -> None:
    """A generator may be closed by another thread."""
    measured = Measured()
    component = measured.component("a")
    component.__enter__()
    in_thread(lambda: component.__exit__(None, None, None))
    clocks.passes(2)
    component.__exit__(None, None, None)
    assert measured.rows()["a", ""]["wall_s"] == 2


@given(st.lists(st.sampled_from(["enter a", "enter b", "leave", "flush"]), max_size=60))
def test_every_moment_inside_a_use_is_charged_once(steps: list[str]) -> None:
    """However uses are nested and recorded: all rows are the time inside, and never more than the process's."""
    with pytest.MonkeyPatch.context() as patch:
        clocks = replaced_clocks(patch)
        measured, stack, inside = Measured(), [], 0
        for number, step in enumerate(steps, 1):
            if step == "flush":
                measured.meter.flush()
            elif step == "leave":
                if stack:
                    stack.pop().__exit__(None, None, None)
            else:
                stack.append(measured.component(step[-1]).__enter__())
            clocks.wall_ns += number * 1_000_000
            clocks.cpu_ns += number * 500_000
            inside += number if stack else 0
        while stack:
            stack.pop().__exit__(None, None, None)
        rows = measured.rows().values()
        assert sum(row["wall_s"] for row in rows) == pytest.approx(inside / 1_000)
        cpu_s = sum(row["cpu_s"] for row in rows)
        assert cpu_s == pytest.approx(inside / 2_000)
        assert cpu_s <= clocks.cpu_ns / SECOND_NS + 1e-9


def test_threads_together_have_no_more_cpu_time_than_the_process() -> None:
    """With the system's own clocks, after each record."""
    measured = Measured()

    def work(name: str) -> None:
        for _ in range(300):
            with measured.component(name):
                sum(range(2_000))

    threads = [threading.Thread(target=work, args=(f"t{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = measured.rows()
    assert {row["count"] for row in rows.values()} == {300}
    assert 0 < sum(row["cpu_s"] for row in rows.values()) <= measured.records[-1]["process"]["cpu_s"]


def test_details_are_those_of_the_use_alone(tmp_path: Any) -> None:
    """Memory counts for as long as the use lasts; an inner use without details takes its time away."""
    measured = Measured()
    with measured.component("careful", detail=True):
        held = bytearray(64 * 2**20)
        with measured.component("inner"):
            sum(range(200_000))
    measured.meter.flush()
    [record] = measured.records
    uses = {use["component_id"]: use for use in record["uses"]}
    assert len(held) == 64 * 2**20
    assert uses["careful"]["memory_gb_s"] >= uses["careful"]["wall_s"] * 0.01
    assert "memory_gb_s" not in uses["inner"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_measures_for_itself() -> None:
    """What the parent was in is not the child's, whose clocks begin anew."""
    measured = Measured()
    reading, writing = os.pipe()
    with measured.component("parent's"):
        pid = os.fork()
        if pid == 0:
            measured.meter.forget()
            with measured.component("child's"), measured.component("parent's"):
                sum(range(1_000))
            measured.meter.flush()
            os.write(writing, repr([use["component_id"] for use in measured.records[-1]["uses"]]).encode())
            os._exit(0)
        os.waitpid(pid, 0)
    os.close(writing)
    assert os.read(reading, 1_000) == b'["child\'s", "parent\'s"]'
    os.close(reading)
    assert measured.rows().keys() == {("parent's", "")}
