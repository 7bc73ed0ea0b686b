"""Scopes: they nest, they stay with their task and thread, and no record ever gets another's."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lezea_mlops.journal import read_run
from lezea_mlops.tracker import ExperimentTracker

Pairs = list[list[str]]


@pytest.fixture
def tracker() -> ExperimentTracker:
    """A tracker that only writes its journal."""
    return ExperimentTracker("Demo", settings={"mode": "offline"})


def scopes_of(tracker: ExperimentTracker) -> list[Pairs]:
    """Return the scopes of all comments, in their order."""
    return [record.scope for record in read_run(tracker.run_dir) if record.type == "comment"]


def test_scopes_nest_outermost_first(tracker: ExperimentTracker) -> None:
    """A record carries the scopes around it; behind the block there are none."""
    with tracker.builder_scope(42):
        with tracker.layer_scope("3"):
            tracker.log_comment("inside")
        tracker.log_comment("between")
    tracker.log_comment("outside")
    assert scopes_of(tracker) == [[["builder", "42"], ["layer", "3"]], [["builder", "42"]], []]


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(levels=st.lists(st.tuples(st.sampled_from(["builder", "layer", "own"]), st.integers(0, 2)), max_size=6),
       fails_at=st.integers(0, 6))  # fmt: skip
def test_an_exception_restores_what_was_before(levels: list[tuple[str, int]], fails_at: int) -> None:
    """Wherever an exception leaves from, each level sees its own scopes again, and in the end there are none."""
    tracker = ExperimentTracker("Demo", settings={"mode": "offline"})

    def enter(depth: int) -> None:
        if depth == fails_at:
            raise LookupError
        if depth == len(levels):
            return
        with contextlib.suppress(LookupError), tracker.scope(*levels[depth]):
            enter(depth + 1)
        tracker.log_comment(str(depth))

    with contextlib.suppress(LookupError):
        enter(0)
    comments = [record for record in read_run(tracker.run_dir) if record.type == "comment"]
    for record in comments:
        depth = int(record.event.text)
        assert record.scope == [[level, str(identity)] for level, identity in levels[:depth]]
    assert len(comments) == min(len(levels), fails_at)


def test_the_same_scope_twice_is_two(tracker: ExperimentTracker) -> None:
    """A scope may be entered again inside itself, also as the same object, and left one at a time."""
    again = tracker.layer_scope("a")
    with again, again:
        tracker.log_comment("two")
    with again:
        tracker.log_comment("one")
    tracker.log_comment("none")
    assert [len(scope) for scope in scopes_of(tracker)] == [2, 1, 0]


def test_a_generator_that_is_left_open_does_not_leak_its_scope(tracker: ExperimentTracker) -> None:
    """A generator leaves its scope when it is closed, however late, and those entered behind it stay."""

    def batches() -> Iterator[int]:
        with tracker.builder_scope("generator"):
            yield 1

    generator = batches()
    next(generator)
    with tracker.layer_scope("3"):
        generator.close()
        tracker.log_comment("inside")
    tracker.log_comment("outside")
    assert scopes_of(tracker) == [[["layer", "3"]], []]


def test_a_scope_belongs_to_its_tracker(tracker: ExperimentTracker) -> None:
    """Another tracker's records do not carry it."""
    other = ExperimentTracker("Other", settings={"mode": "offline"})
    with tracker.builder_scope("1"), other.tasker_scope("2"):
        tracker.log_comment("one")
        other.log_comment("two")
    assert (scopes_of(tracker), scopes_of(other)) == ([[["builder", "1"]]], [[["tasker", "2"]]])


@pytest.mark.parametrize("long", ["x" * 1_001, "🙂" * 2_000_000])
def test_a_long_id_becomes_its_beginning_and_a_hash(tracker: ExperimentTracker, long: str) -> None:
    """Ids of 1,000 characters are whole; longer ones stay apart and do not make a line too long."""
    with tracker.scope("own", "y" * 1_000), tracker.scope("own", long), tracker.scope("own", long + "."):
        tracker.log_comment("inside")
    ((_, whole), (_, first), (_, second)) = scopes_of(tracker)[0]
    assert whole == "y" * 1_000
    assert len(first) == len(second) == 1_000
    assert first[:900] == second[:900] == long[:900]
    assert first != second


def test_a_thread_starts_without_a_scope_and_bind_carries_it(tracker: ExperimentTracker) -> None:
    """A new thread has no scope; a bound function has those of the place where it was bound, each time it is called."""
    with ThreadPoolExecutor(1) as pool, tracker.builder_scope("1"):
        bound = tracker.bind(tracker.log_comment)
        pool.submit(tracker.log_comment, "plain").result()
        with tracker.layer_scope("later"):
            pool.submit(bound, "bound").result()
        pool.submit(bound, "again").result()
        pool.submit(tracker.log_comment, "plain").result()
        tracker.log_comment("here")
    one = [["builder", "1"]]
    assert scopes_of(tracker) == [[], one, one, [], one]


def test_bind_keeps_the_function_and_its_errors(tracker: ExperimentTracker) -> None:
    """Name, arguments, result and exception are the function's; the scope is restored after it raised."""

    def divide(a: float, *, by: float) -> float:
        """Divide."""
        tracker.log_comment("called")
        return a / by

    with tracker.builder_scope("1"):
        bound = tracker.bind(divide)
    assert (bound.__name__, bound.__doc__) == ("divide", "Divide.")
    assert bound(6, by=3) == 2
    with pytest.raises(ZeroDivisionError):
        bound(1, by=0)
    tracker.log_comment("outside")
    assert scopes_of(tracker) == [[["builder", "1"]], [["builder", "1"]], []]


def test_bind_carries_the_scope_into_a_coroutine(tracker: ExperimentTracker) -> None:
    """A bound coroutine function has the scope from its first line to its last, over every ``await``."""

    async def work() -> str:
        tracker.log_comment("before")
        await asyncio.sleep(0)
        tracker.log_comment("after")
        return "done"

    with tracker.builder_scope("1"):
        bound = tracker.bind(work)
    assert asyncio.run(bound()) == "done"
    assert scopes_of(tracker) == [[["builder", "1"]], [["builder", "1"]]]


def test_tasks_inherit_and_then_go_their_own_ways(tracker: ExperimentTracker) -> None:
    """A task begins with the scopes of its maker; what it enters stays with it, though they take turns."""

    async def work(name: str) -> None:
        with tracker.tasker_scope(name):
            for _ in range(5):
                await asyncio.sleep(0)
                tracker.log_comment(name)

    async def all_of_them() -> None:
        with tracker.builder_scope("1"):
            tasks = [asyncio.create_task(work(name)) for name in "abc"]
        await asyncio.gather(*tasks)
        tracker.log_comment("outside")

    asyncio.run(all_of_them())
    *inside, outside = [record for record in read_run(tracker.run_dir) if record.type == "comment"]
    assert len(inside) == 15
    for record in inside:
        assert record.scope == [["builder", "1"], ["tasker", record.event.text]]
    assert outside.scope == []


def test_an_async_generator_closed_elsewhere_does_no_harm(tracker: ExperimentTracker) -> None:
    """Closed by another task than the one that began it, its scope is left without touching the other's."""

    async def stream() -> AsyncIterator[int]:
        with tracker.builder_scope("stream"):
            yield 1

    async def close(items: AsyncIterator[int]) -> None:
        with tracker.layer_scope("closer"):
            await items.aclose()  # type: ignore[attr-defined]
            tracker.log_comment("closer")

    async def begin() -> None:
        items = stream()
        await asyncio.create_task(anext(items))  # type: ignore[arg-type]
        await asyncio.create_task(close(items))
        tracker.log_comment("outside")

    asyncio.run(begin())
    assert scopes_of(tracker) == [[["layer", "closer"]], []]


def test_one_scope_object_serves_many_threads(tracker: ExperimentTracker) -> None:
    """Threads that enter and leave the same object in any order do not disturb each other."""
    shared, barrier = tracker.builder_scope("shared"), threading.Barrier(2)

    def outer_first() -> None:
        with tracker.layer_scope("a"), shared:
            barrier.wait()
            barrier.wait()
        tracker.log_comment("after")

    def inner_last() -> None:
        barrier.wait()
        with shared:
            barrier.wait()
        tracker.log_comment("after")

    run_together([outer_first, inner_last])
    assert scopes_of(tracker) == [[], []]


def run_together(functions: list[Callable[[], None]]) -> None:
    """Run each function in a thread of its own, and raise what one of them raised."""
    with ThreadPoolExecutor(len(functions)) as pool:
        for future in [pool.submit(function) for function in functions]:
            future.result()


TRACKERS, THREADS, TASKS, RECORDS = 8, 8, 8, 8


def test_nothing_is_misattributed_where_everything_logs_at_once() -> None:
    """8 trackers × 8 threads × 8 tasks × 8 records: each record is in its journal, under the scopes it names."""
    trackers = [ExperimentTracker(f"T{number}", settings={"mode": "offline"}) for number in range(TRACKERS)]

    async def task(number: int, thread: str, name: str, order: random.Random) -> None:
        tracker = trackers[number]
        with tracker.tasker_scope(name):
            for count in range(RECORDS):
                with tracker.layer_scope(count):
                    await asyncio.sleep(0)
                    tracker.log_training_step(
                        count, {"loss": 1.0 / (count + 1)}, sample_ids=[number, thread, name, count]
                    )
                if order.random() < 0.5:
                    await asyncio.sleep(0)

    async def thread(number: int, name: str) -> None:
        order = random.Random(f"{number} {name}")
        with trackers[number].builder_scope(name), trackers[number - 1].builder_scope("of another"):
            await asyncio.gather(*(task(number, name, f"t{index}", order) for index in range(TASKS)))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        run_together([
            lambda number=number, name=f"b{index}": asyncio.run(thread(number, name))  # type: ignore[misc]
            for number in range(TRACKERS) for index in range(THREADS)
        ])  # fmt: skip
    finally:
        sys.setswitchinterval(interval)
    for number, tracker in enumerate(trackers):
        records = list(read_run(tracker.run_dir))
        assert [record.seq for record in records] == list(range(1, len(records) + 1))
        steps = [record for record in records if record.type == "training_step"]
        for record in steps:
            owner, builder, tasker, count = record.event.sample_ids
            assert owner == number
            assert record.scope == [["builder", builder], ["tasker", tasker], ["layer", str(count)]]
        logged = Counter(tuple(record.event.sample_ids) for record in steps)
        assert len(logged) == THREADS * TASKS * RECORDS
        assert set(logged.values()) == {1}


def test_running_counts_are_never_given_twice(tracker: ExperimentTracker) -> None:
    """Threads that log without a step share one count without holes or repeats, and the deltas follow the file."""

    def work() -> None:
        for number in range(100):
            tracker.log_metrics({"a": number})
            tracker.log_training_step(None, {"loss": number})  # type: ignore[arg-type]
            tracker.log_reward("t0", 1)
            tracker.log_modification_stats({"widen": 1})

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        run_together([work] * 8)
    finally:
        sys.setswitchinterval(interval)
    records = list(read_run(tracker.run_dir))
    for kind in ("metric", "training_step", "reward", "modification_stats"):
        assert [r.event.step for r in records if r.type == kind] == list(range(1, 801)), kind
    losses = [r.event for r in records if r.type == "training_step"]
    for before, after in pairwise(losses):
        assert after.delta_loss == before.metrics["loss"] - after.metrics["loss"]
