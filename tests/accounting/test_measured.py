"""Measured uses: CPU and wall time as they are, memory, IO, GPU and energy by their part of what the process used."""

from __future__ import annotations

import pytest

from lezea_mlops.accounting import Accounts
from lezea_mlops.accounting.integrals import MAX_KNOTS, Knots
from lezea_mlops.accounting.windows import MAX_ROWS
from tests.accounting.streams import APPROX, at, everything, gpu, logged, sample, told, use, window

HOUR = 3_600.0


def component(accounts: Accounts, name: str = "a") -> dict[str, float]:
    """Return what a component used."""
    return accounts.as_dict()["components"][name]


def test_two_tasks_that_share_a_second_share_what_the_process_held() -> None:
    """Of 8 GB one had 0.25 s and the other 0.75 s; their CPU time is their own."""
    accounts = told(
        sample(0, memory_gb=8), window(0, 1, use("a", 0.25, 0.2), use("b", 0.75, 0.1), cpu_s=0.3),
        sample(5, memory_gb=8),
    )  # fmt: skip
    a, b = component(accounts, "a"), component(accounts, "b")
    assert (a["gb_hours"] * HOUR, b["gb_hours"] * HOUR) == pytest.approx((2, 6), rel=APPROX)
    assert (a["core_hours"] * HOUR, b["core_hours"] * HOUR) == pytest.approx((0.2, 0.1), rel=APPROX)
    assert (a["wall_hours"] * HOUR, a["uses"]) == (pytest.approx(0.25, rel=APPROX), 1)
    known = accounts.as_dict()
    assert known["process"]["gb_hours"] * HOUR == pytest.approx(40, rel=APPROX)
    assert known["unattributed"]["gb_hours"] * HOUR == pytest.approx(32, rel=APPROX)
    assert known["unattributed"]["core_hours"] == pytest.approx(0, abs=1e-15)


def test_uses_that_overlap_in_threads_share_no_more_than_there_was() -> None:
    """Four threads for a whole second each: a quarter of the memory is each one's."""
    accounts = told(
        sample(0, memory_gb=4), sample(5, memory_gb=4), window(1, 2, *(use(n, 1.0) for n in "abcd"))
    )
    shares = [component(accounts, name)["gb_hours"] * HOUR for name in "abcd"]
    assert shares == pytest.approx([1, 1, 1, 1], rel=APPROX)


def test_a_nested_use_counts_for_the_scopes_around_it_too() -> None:
    """A builder's own half second and its tasker's: the builder's scope has both, the tasker's one."""
    builder, tasker = ("builder", "7"), ("tasker", "0")
    accounts = told(
        sample(0, memory_gb=2), sample(5, memory_gb=2),
        window(
            0, 1, use("builder#7", 0.5, 0.4, builder, component_type="builder"),
            use("tasker#0", 0.5, 0.3, builder, tasker, component_type="tasker"), cpu_s=0.7,
        ),
    )  # fmt: skip
    known = accounts.as_dict()
    scopes = {path: q["core_hours"] * HOUR for path, q in known["scopes"].items()}
    assert scopes == {"builder:7": pytest.approx(0.7), "builder:7/tasker:0": pytest.approx(0.3)}
    assert known["scopes"]["builder:7"]["gb_hours"] * HOUR == pytest.approx(2, rel=APPROX)
    assert {kind: q["core_hours"] * HOUR for kind, q in known["types"].items()} == pytest.approx(
        {"builder": 0.4, "tasker": 0.3}
    )


def test_each_second_between_two_samples_has_its_equal_part() -> None:
    """From 0 to 10 GB in 10 s: 50 GB-seconds, of which each second has five."""
    accounts = told(sample(0, memory_gb=0), sample(10, memory_gb=10), window(1, 2, use("a", 1.0)))
    assert component(accounts)["gb_hours"] * HOUR == pytest.approx(5, rel=APPROX)
    assert accounts.as_dict()["total"]["gb_hours"] * HOUR == pytest.approx(50, rel=APPROX)


def test_io_energy_and_gpu_follow_the_same_share() -> None:
    """Half of a window of 4 s within samples 10 s apart has a fifth of what was read, drawn, used and held."""
    accounts = told(
        sample(0, read_bytes=0, write_bytes=0, read_operations=0, write_operations=0, gpus=[gpu(50, power_w=300)]),
        sample(
            10, read_bytes=600, write_bytes=400, read_operations=60, write_operations=40,
            gpus=[gpu(50, power_w=500)],
        ),
        window(2, 6, use("a", 2.0)),
    )  # fmt: skip
    used = component(accounts)
    assert (used["io_bytes"], used["io_operations"]) == pytest.approx((200, 20), rel=APPROX)
    assert used["gpu_hours"] * HOUR == pytest.approx(1, rel=APPROX)
    assert used["gpu_held_hours"] * HOUR == pytest.approx(2, rel=APPROX)
    assert used["energy_kwh"] * 3.6e6 == pytest.approx(800, rel=APPROX)
    known = accounts.as_dict()
    assert known["gpus"] == {"NVIDIA H200": pytest.approx({"used_hours": 5 / HOUR, "held_hours": 10 / HOUR})}
    assert known["process"]["energy_kwh"] * 3.6e6 == pytest.approx(4_000, rel=APPROX)


def test_a_component_that_never_ends_gets_its_hours_when_its_window_comes() -> None:
    """One use of five hours, told at its end: all that the process used meanwhile is its own."""
    accounts = told(*(sample(t, memory_gb=3, gpus=[gpu(25)]) for t in range(0, 18_001, 5)))
    told(window(0, 18_000, use("a", 18_000.0, 9_000.0), cpu_s=9_000.0), accounts=accounts)
    used = component(accounts)
    assert (used["wall_hours"], used["core_hours"]) == pytest.approx((5, 2.5), rel=APPROX)
    assert (used["gb_hours"], used["gpu_hours"], used["gpu_held_hours"]) == pytest.approx(
        (15, 1.25, 5), rel=APPROX
    )


def test_a_window_waits_for_the_samples_that_cover_it() -> None:
    """Before them only its own times are known; as they come, so does the rest."""
    accounts = told(sample(0, memory_gb=1), window(0, 8, use("a", 8.0, 1.0), cpu_s=1.0))
    assert (component(accounts)["gb_hours"], component(accounts)["core_hours"] * HOUR) == (
        0,
        pytest.approx(1),
    )
    told(sample(5, memory_gb=1), accounts=accounts)
    assert component(accounts)["gb_hours"] * HOUR == pytest.approx(5, rel=APPROX)
    told(sample(10, memory_gb=1), accounts=accounts)
    assert component(accounts)["gb_hours"] * HOUR == pytest.approx(8, rel=APPROX)


def test_what_a_use_read_by_itself_is_its_own_and_the_others_share_the_rest() -> None:
    """Of 100 GB-seconds one read 80 in 4 s; the other two, with 3 s each, have 10 each."""
    rows = use("own", 4.0, memory_gb_s=80.0, io_bytes=30, gpu_s=2.5), use("a", 3.0), use("b", 3.0)
    accounts = told(
        sample(0, memory_gb=10, read_bytes=0, gpus=[gpu(50)]), sample(10, memory_gb=10, read_bytes=50, gpus=[gpu(50)]),
        window(0, 10, *rows),
    )  # fmt: skip
    memory = {name: component(accounts, name)["gb_hours"] * HOUR for name in ("own", "a", "b")}
    assert memory == pytest.approx({"own": 80, "a": 10, "b": 10}, rel=APPROX)
    io_bytes = {name: component(accounts, name)["io_bytes"] for name in ("own", "a", "b")}
    assert io_bytes == pytest.approx({"own": 30, "a": 10, "b": 10}, rel=APPROX)
    gpu_s = {name: component(accounts, name)["gpu_hours"] * HOUR for name in ("own", "a", "b")}
    assert gpu_s == pytest.approx({"own": 2.5, "a": 1.25, "b": 1.25}, rel=APPROX)
    assert accounts.as_dict()["unattributed"]["gb_hours"] == pytest.approx(0, abs=1e-12)


def test_own_readings_above_what_the_samples_tell_leave_nothing_and_take_nothing() -> None:
    """The other use has none of it, and the total is as high as its parts."""
    accounts = told(
        sample(0, memory_gb=1),
        sample(10, memory_gb=1),
        window(0, 10, use("own", 5.0, memory_gb_s=70.0), use("a", 5.0)),
    )
    assert component(accounts, "a")["gb_hours"] == 0
    assert accounts.as_dict()["total"]["gb_hours"] * HOUR == pytest.approx(70, rel=APPROX)
    assert accounts.as_dict()["unattributed"]["gb_hours"] == 0


def test_a_window_in_parts_is_one_window() -> None:
    """What the first part read by itself is not shared by those of the second, whichever comes first."""
    first = window(0, 10, use("own", 5.0, memory_gb_s=60.0), part=1, parts=2)
    second = window(0, 10, use("a", 5.0), part=2, parts=2)
    for record in (first, second):
        record[1]["wall_s"] = 10.0
    samples = sample(0, memory_gb=10), sample(10, memory_gb=10)
    for stream in ((*samples, first, second), (second, *samples, first), (first, second, *samples)):
        accounts = told(*stream)
        assert component(accounts)["gb_hours"] * HOUR == pytest.approx(40, rel=APPROX)
        assert accounts.as_dict()["total"]["gb_hours"] * HOUR == pytest.approx(100, rel=APPROX)
        assert accounts.as_dict()["process"]["wall_hours"] * HOUR == pytest.approx(10, rel=APPROX)


def test_a_sum_that_is_less_than_its_rows_gives_nobody_more_than_there_was() -> None:
    """What a foreign program says of its window is not believed beyond its rows."""
    record = window(1, 2, *(use(name, 1.0) for name in "abcd"))
    record[1]["wall_s"] = 0
    accounts = told(sample(0, memory_gb=4), sample(5, memory_gb=4), record)
    assert [component(accounts, name)["gb_hours"] * HOUR for name in "abcd"] == pytest.approx(
        [1] * 4, rel=APPROX
    )


def test_two_samples_of_one_moment_add_up() -> None:
    """Their counters go on, and what waits for later samples loses nothing."""
    accounts = told(
        window(0, 10, use("a", 10.0)), *(sample(t, read_bytes=b) for t, b in [(0, 0), (5, 40), (5, 50)])
    )
    told(sample(10, read_bytes=100), sample(15, read_bytes=100), accounts=accounts)
    assert component(accounts)["io_bytes"] == pytest.approx(100, rel=APPROX)


def test_without_samples_the_exact_times_are_all_there_is() -> None:
    """CPU time of the process beyond its uses is unattributed; of memory nothing is known."""
    known = told(window(0, 10, use("a", 4.0, 3.0), cpu_s=8.0)).as_dict()
    assert known["total"]["core_hours"] * HOUR == pytest.approx(8, rel=APPROX)
    assert known["unattributed"]["core_hours"] * HOUR == pytest.approx(5, rel=APPROX)
    assert known["unattributed"]["wall_hours"] * HOUR == pytest.approx(6, rel=APPROX)
    assert (known["total"]["gb_hours"], known["partial"]) == (0, False)


def test_measured_and_logged_feed_the_same_account() -> None:
    """A component may be measured and log what it knows better."""
    accounts = told(
        window(0, 36, use("a", 36.0, 18.0), cpu_s=18.0), logged(0, "a", gpu_util_percent=100.0),
        logged(36, "a", gpu_util_percent=100.0),
    )  # fmt: skip
    used = component(accounts)
    assert (used["core_hours"], used["gpu_hours"]) == pytest.approx((0.005, 0.01), rel=APPROX)
    assert (used["uses"], used["samples"]) == (1, 2)


def test_windows_beyond_what_is_bearable_are_told_as_partial() -> None:
    """More rows than may wait: the exact times are whole, their part of the samples is unattributed."""
    accounts = told(sample(0, memory_gb=1))
    told(window(0, 5, *(use(str(n), 5 / (MAX_ROWS + 1)) for n in range(MAX_ROWS + 1))), accounts=accounts)
    told(sample(5, memory_gb=1), accounts=accounts)
    known = accounts.as_dict()
    assert known["partial"] is True
    assert known["unattributed"]["gb_hours"] * HOUR == pytest.approx(5, rel=APPROX)


def test_many_windows_that_wait_become_fewer_and_lose_nothing() -> None:
    """A thousand windows before the first sample: each component still gets its part."""
    accounts = told(
        *(window(t, t + 1, use("a", 0.5, 0.1), use("b", 0.5), cpu_s=0.1 * (t + 1)) for t in range(1_000))
    )
    told(*(sample(t, memory_gb=2) for t in range(0, 1_001, 100)), accounts=accounts)
    shares = [component(accounts, name)["gb_hours"] * HOUR for name in "ab"]
    assert shares == pytest.approx([1_000, 1_000], rel=1e-6)
    assert accounts.as_dict()["partial"] is False


def test_old_moments_are_forgotten_and_sums_are_not() -> None:
    """Beyond the limit the line has fewer moments, its ends are where they were."""
    knots = Knots()
    for second in range(10 * MAX_KNOTS):
        knots.grow(at(second), [1.0, 2.0])
        assert len(knots.state()[0]) <= MAX_KNOTS
    whole = knots.between(at(0), at(10 * MAX_KNOTS))
    assert whole == [10 * MAX_KNOTS - 1, 2 * (10 * MAX_KNOTS - 1)]
    assert knots.between(at(5_000), at(15_000)) == pytest.approx([10_000, 20_000], rel=1e-9)


def test_hours_that_were_told_again_say_nothing_new() -> None:
    """Asking changes nothing."""
    accounts = told(sample(0, memory_gb=1), window(0, 1, use("a", 1.0)), sample(5, memory_gb=1))
    first = everything(accounts)
    assert everything(accounts) == first
