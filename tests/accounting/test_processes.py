"""What processes used: counters that begin anew, several writers, attempts, GPUs that many see, clocks that jump."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.accounting import Accounts
from lezea_mlops.accounting.processes import MAX_PROCESSES
from tests.accounting.streams import APPROX, Record, gpu, sample, through_json, told, use, window

HOUR = 3_600.0


def process(*records: Record) -> dict[str, Any]:
    """Return what the processes of a stream used."""
    used: dict[str, Any] = told(*records).as_dict()["process"]
    return used


def test_the_exact_counter_and_that_of_the_samples_tell_of_the_same_time() -> None:
    """The larger one counts, and the children beside it."""
    records = window(0, 4, use("a", 1.0, 1.0), cpu_s=7.0), sample(5, cpu_s=6.5, children_cpu_s=2.0)
    for stream in (records, records[::-1]):
        assert process(*stream)["core_hours"] * HOUR == pytest.approx(9, rel=APPROX)
    assert process(*records, sample(10, cpu_s=7.5, children_cpu_s=2.0))["core_hours"] * HOUR == pytest.approx(
        9.5
    )


def test_counters_begin_anew_with_each_process() -> None:
    """Two pids of one writer: both counted, each from its own zero."""
    records = [sample(t, pid=pid, cpu_s=10.0 * (t % 100), read_bytes=t % 100) for pid in (1, 2) for t in
               (100 * pid, 100 * pid + 10)]  # fmt: skip
    used = process(*records)
    assert (used["core_hours"] * HOUR, used["io_bytes"]) == pytest.approx((200, 20), rel=APPROX)
    assert used["wall_hours"] * HOUR == pytest.approx(20, rel=APPROX)


def test_counters_begin_anew_with_each_attempt_although_the_pid_is_the_same() -> None:
    """In a container every attempt may be process 1, and the second may soon have used more than the first."""
    first, second = window(0, 1, cpu_s=3.0, pid=1), window(100, 110, cpu_s=8.0, pid=1)
    accounts = told(first)
    accounts.restart()
    told(second, accounts=accounts)
    assert accounts.as_dict()["process"]["core_hours"] * HOUR == pytest.approx(11, rel=APPROX)


def test_an_attempt_that_is_told_with_its_records_needs_no_order() -> None:
    """Journals of several writers are read one after the other; a start of one does not end the other's counter."""
    accounts = Accounts()
    for attempt, (type_name, fields, scope, ts) in [
        (1, window(0, 1, cpu_s=3.0)), (2, window(100, 101, cpu_s=2.0)), (1, window(1, 2, cpu_s=4.0)),
        (2, window(101, 102, cpu_s=5.0)),
    ]:  # fmt: skip
        accounts.observe(type_name, fields, scope, ts, attempt=attempt)
    assert accounts.as_dict()["process"]["core_hours"] * HOUR == pytest.approx(9, rel=APPROX)


def test_a_counter_that_falls_was_begun_anew() -> None:
    """A sampler that was started again counts from zero; what was counted before stays."""
    used = process(
        *(sample(t, cpu_s=c, read_bytes=c) for t, c in [(0, 0), (5, 4), (10, 9), (15, 1), (20, 3)])
    )
    assert (used["core_hours"] * HOUR, used["io_bytes"]) == pytest.approx((12, 12), rel=APPROX)


def test_a_window_that_comes_late_does_not_start_the_counter_anew() -> None:
    """Its counter is lower because it is older."""
    windows = [window(t, t + 1, use("a", 1.0), cpu_s=t + 1.0) for t in range(4)]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        assert process(*(windows[n] for n in order))["core_hours"] * HOUR == pytest.approx(4, rel=APPROX)


def test_two_ranks_are_two_processes() -> None:
    """Each has its own counters, memory and components; the total is both."""
    records = []
    for writer, pid, memory_gb in (("main", 1, 2), ("rank1", 1, 6)):
        records += [sample(t, writer=writer, pid=pid, memory_gb=memory_gb, cpu_s=t) for t in (0, 10)]
        records.append(window(0, 5, use(f"of {writer}", 5.0, 1.0), writer=writer, pid=pid, cpu_s=1.0))
    known = told(*records).as_dict()
    assert known["process"]["core_hours"] * HOUR == pytest.approx(20, rel=APPROX)
    assert known["process"]["gb_hours"] * HOUR == pytest.approx(80, rel=APPROX)
    memory = {name: used["gb_hours"] * HOUR for name, used in known["components"].items()}
    assert memory == pytest.approx({"of main": 10, "of rank1": 30}, rel=APPROX)


def test_a_forked_child_with_samples_of_its_own_counts_once() -> None:
    """The parent's samples tell of its children too: what is in both is in the total once."""
    parent = [
        sample(t, cpu_s=t, children_cpu_s=2.0 * t, memory_gb=1, children_gb=3, read_bytes=30 * t)
        for t in (0, 10)
    ]
    child = [
        sample(t, writer="main.0a1b2c3d", pid=9, cpu_s=1.5 * t, memory_gb=2, read_bytes=10 * t)
        for t in (0, 10)
    ]
    used = process(*parent, *child)
    assert used["core_hours"] * HOUR == pytest.approx(10 + 20, rel=APPROX)
    assert used["gb_hours"] * HOUR == pytest.approx(10 * (1 + 3), rel=APPROX)
    assert used["io_bytes"] == pytest.approx(300, rel=APPROX)
    # The same child on another host is no child of this process, and counts beside it.
    alone = [sample(t, cpu_s=t, memory_gb=1, children_cpu_s=0, children_gb=0) for t in (0, 10)]
    assert process(*alone, *child)["core_hours"] * HOUR == pytest.approx(10 + 15, rel=APPROX)
    assert process(*alone, *child)["gb_hours"] * HOUR == pytest.approx(10 + 20, rel=APPROX)


def test_a_gpu_that_two_ranks_see_is_one_gpu() -> None:
    """Neither driver can tell who holds it: its hours count once, in whatever order the samples come."""
    ranks = [
        [sample(t + shift, writer=writer, gpus=[gpu(50, held=None, power_w=100)]) for t in range(0, 101, 5)]
        for writer, shift in (("main", 0), ("rank1", 2))
    ]
    together = sorted(ranks[0] + ranks[1], key=lambda record: record[-1])
    for stream in (together, ranks[0] + ranks[1], ranks[1] + ranks[0]):
        used = process(*stream)
        assert used["gpu_hours"] * HOUR == pytest.approx(51, rel=APPROX)
        assert used["energy_kwh"] * 3.6e6 == pytest.approx(10_200, rel=APPROX)


def test_each_rank_pays_for_the_gpu_it_holds() -> None:
    """Of the one that others hold, neither hours nor energy are ours."""
    records = []
    for number, writer in enumerate(("main", "rank1")):
        gpus = [gpu(100, held=index == number, uuid=f"GPU-{index}", power_w=300) for index in range(3)]
        records += [sample(t, writer=writer, gpus=gpus) for t in (0, 36)]
    known = told(*records).as_dict()
    assert known["gpus"] == {"NVIDIA H200": pytest.approx({"used_hours": 0.02, "held_hours": 0.02})}
    assert known["process"]["energy_kwh"] * 3.6e6 == pytest.approx(2 * 36 * 300, rel=APPROX)


def test_a_gpu_is_held_from_the_middle_between_the_samples_that_differ() -> None:
    """Nobody knows when between them the context was made; before it, what others used is theirs."""
    used = process(*(sample(t, gpus=[gpu(100, held=t >= 10)]) for t in (0, 10, 20)))
    assert used["gpu_held_hours"] * HOUR == pytest.approx(15, rel=APPROX)
    assert used["gpu_hours"] * HOUR == pytest.approx(15, rel=APPROX)


def test_no_gpu_is_busier_than_the_whole_of_it() -> None:
    """A driver that tells 250 % is believed as far as 100."""
    assert process(*(sample(t, gpus=[gpu(250)]) for t in (0, 36)))["gpu_hours"] == pytest.approx(
        0.01, rel=APPROX
    )


def test_gpus_without_a_uuid_are_told_apart_by_writer_and_number() -> None:
    """Two devices, each counted."""
    gpus = [gpu(100, index=index, uuid=None) for index in (0, 1)]
    assert process(*(sample(t, gpus=gpus) for t in (0, 36)))["gpu_hours"] == pytest.approx(0.02, rel=APPROX)


@pytest.mark.parametrize("gap_s", [600.001, 86_400, -3_600, -50, 0])
def test_nothing_is_integrated_over_a_jump_of_the_clock_and_counters_go_on(gap_s: float) -> None:
    """Forward beyond ten minutes, backward, or not at all."""
    late = 100 + gap_s
    used = process(
        *(sample(t, memory_gb=1, cpu_s=t, gpus=[gpu(100)]) for t in (0, 100)),
        *(sample(late + t, memory_gb=1, cpu_s=150 + t, gpus=[gpu(100)]) for t in (0, 10)),
    )
    assert used["gb_hours"] * HOUR == pytest.approx(110, rel=APPROX)
    assert used["core_hours"] * HOUR == pytest.approx(160, rel=APPROX)
    assert used["gpu_hours"] * HOUR == pytest.approx(110, rel=APPROX)


def test_after_a_clock_went_back_components_get_their_part_again() -> None:
    """Windows and samples live in the same new time."""
    accounts = told(*(sample(t, memory_gb=1) for t in (7_200, 7_205)))
    told(sample(0, memory_gb=1), window(0, 4, use("a", 4.0)), sample(5, memory_gb=1), accounts=accounts)
    assert accounts.as_dict()["components"]["a"]["gb_hours"] * HOUR == pytest.approx(4, rel=APPROX)


def test_a_clock_that_goes_back_gives_nobody_the_same_time_twice() -> None:
    """A window of which ten seconds were told waits until the new clock is past them."""
    accounts = told(sample(100, memory_gb=1), window(100, 200, use("a", 100.0)), sample(110, memory_gb=1))
    told(*(sample(t, memory_gb=1) for t in (50, 105, 120)), accounts=accounts)
    assert accounts.as_dict()["components"]["a"]["gb_hours"] * HOUR == pytest.approx(20, rel=APPROX)


def test_more_processes_than_are_told_apart_stay_in_the_total() -> None:
    """A run that forks for every task: all CPU time is there, and the accounts say that they are partial."""
    records = [window(n, n + 1, use("a", 1.0, 0.5), pid=n, cpu_s=1.0) for n in range(MAX_PROCESSES + 10)]
    known = told(*records).as_dict()
    assert known["process"]["core_hours"] * HOUR == pytest.approx(MAX_PROCESSES + 10, rel=APPROX)
    assert known["partial"] is True


def test_the_highest_memory_of_a_process_is_known() -> None:
    """With that of its children at the same moment."""
    records = (
        sample(0, memory_gb=1, children_gb=1),
        sample(5, memory_gb=3, children_gb=2),
        sample(10, memory_gb=1),
    )
    assert process(*records)["peak_memory_mb"] == 5 * 1024


def core_seconds(*records: Record) -> float:
    """Return the CPU seconds of the processes of a stream."""
    return float(process(*records)["core_hours"]) * HOUR


def test_a_copy_in_the_same_process_counts_no_use_again() -> None:
    """A copied tracker measures its process once more, and has samples of it too; GPUs are handed out among both."""
    records = [window(0, 10, use("a", 1.0, 1.0), cpu_s=3.6)]
    records.append(window(2, 10, use("b", 1.0, 1.0), cpu_s=2.4, writer="main.0a1b2c3d"))
    assert core_seconds(*records) == core_seconds(*records[::-1]) == pytest.approx(3.6, rel=APPROX)
    for writer, since in (("main", 0), ("main.0a1b2c3d", 2)):
        for t in (since, 10):
            own = {"read_bytes": 10 * (t - since), "write_operations": t - since}
            told_of = {"cpu_s": 0.3 * (t - since), "children_cpu_s": 2.0 * (t - since), **own}
            records.append(
                sample(t, writer=writer, memory_gb=1, children_gb=3, gpus=[gpu(power_w=100)], **told_of)
            )
    for stream in (records, records[::-1]):
        used = process(*stream)
        assert used["core_hours"] * HOUR == pytest.approx(3.6 + 20, rel=APPROX)
    used = process(*records)
    assert used["gb_hours"] * HOUR == pytest.approx(40, rel=APPROX)
    assert used["wall_hours"] * HOUR == pytest.approx(10, rel=APPROX)
    assert (used["io_bytes"], used["io_operations"]) == pytest.approx((100, 10), rel=APPROX)
    assert used["gpu_held_hours"] * HOUR == pytest.approx(10, rel=APPROX)
    assert used["energy_kwh"] * 3.6e6 == pytest.approx(1_000, rel=APPROX)


def test_a_worker_that_gets_a_copy_with_each_task_counts_each_task() -> None:
    """Copies that were used one after the other tell of different times, those used together of the same."""
    one_by_one = [window(5 * n, 5 * n + 5, cpu_s=2.0, pid=9, writer=f"main.{n}") for n in range(4)]
    together = [window(n, 20, cpu_s=(20 - n) / 4, pid=9, writer=f"main.a{n}") for n in range(4)]
    assert core_seconds(*one_by_one) == pytest.approx(8, rel=APPROX)
    assert core_seconds(*together) == pytest.approx(5, rel=APPROX)
    assert core_seconds(*together, window(0, 20, cpu_s=7.0)) == pytest.approx(12, rel=APPROX)


def test_what_a_copy_started_is_below_the_process_that_it_was_in() -> None:
    """The worker's samples tell of its children, whichever of its copies gave them their tracker."""
    worker = [sample(t, writer="main.a", pid=9, cpu_s=t, children_cpu_s=3.0 * t) for t in (0, 10)]
    copy = [window(1, 9, cpu_s=8.0, pid=9, writer="main.b")]
    child = [sample(t, writer="main.b.c", pid=10, cpu_s=2.0 * t) for t in (0, 10)]
    assert core_seconds(*worker, *copy, *child) == pytest.approx(40, rel=APPROX)


@pytest.mark.parametrize(
    ("writer", "pid"), [("main.a", 4712), ("rank1", 4711), ("rank1.a", 4711), ("main.a", None)]
)
def test_other_processes_are_added(writer: str, pid: Any) -> None:
    """Another id, another rank in a container of its own, or an id that nobody knows."""
    assert core_seconds(
        window(0, 10, cpu_s=3.0, pid=pid and 4711), window(0, 10, cpu_s=2.0, writer=writer, pid=pid)
    ) == pytest.approx(5, rel=APPROX)


def test_a_copy_of_another_attempt_is_another_process() -> None:
    """In a container both attempts may be process 1."""
    accounts = told(window(0, 10, cpu_s=3.0, pid=1))
    accounts.restart()
    told(window(5, 15, cpu_s=2.0, pid=1, writer="main.a"), accounts=accounts)
    assert accounts.as_dict()["process"]["core_hours"] * HOUR == pytest.approx(5, rel=APPROX)


counted_spans = st.lists(st.tuples(st.integers(0, 19), st.integers(1, 20)), min_size=1, max_size=8)


@given(st.lists(st.integers(0, 5), min_size=40, max_size=40), counted_spans, st.booleans())
def test_copies_never_count_more_than_was_used(
    used_s: list[int], spans: list[tuple[int, int]], main_is_there: bool
) -> None:
    """Each tells what the process used while it was there; nothing is lost where one was there all the time."""
    windows = [
        window(
            start, start + length, cpu_s=float(sum(used_s[start : start + length])), writer=f"main.{number}"
        )
        for number, (start, length) in enumerate(spans)
    ]
    if main_is_there:
        windows.append(window(0, 40, cpu_s=float(sum(used_s))))
    seen = {second for start, length in spans for second in range(start, start + length)}
    truth = sum(used_s) if main_is_there else sum(used_s[second] for second in seen)
    least = max(fields["process"]["cpu_s"] for _, fields, _, _ in windows)
    known = told(*windows)
    counted = known.as_dict()["process"]["core_hours"] * HOUR
    assert least - 1e-6 <= counted <= truth + 1e-6
    assert through_json(known).as_dict()["process"] == known.as_dict()["process"]
