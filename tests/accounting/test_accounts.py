"""Whatever the stream: order does not matter, parts never exceed the whole, nothing is negative, nothing raises."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lezea_mlops.accounting import Accounts, Budgets
from tests.accounting.streams import (
    START_US,
    Record,
    at,
    everything,
    gpu,
    logged,
    numbers,
    rates,
    sample,
    through_json,
    told,
    tree,
    use,
    window,
)

PRICES = rates(
    core_hour_eur=0.5, gb_hour_eur=0.1, gpu_hour_eur={"A": 2.0, "default": 1.0}, io_gb_eur=0.3, kwh_eur=0.4,
    core_watts=15, storage_gb_month_eur=0.1, co2_g_per_kwh=300, fixed_eur=1.0,
)  # fmt: skip
TINY = 1e-9
# What is summed over parts; wall times of threads may sum up to more than that of the process.
QUANTITIES = (
    "core_hours",
    "gb_hours",
    "gpu_hours",
    "gpu_held_hours",
    "io_bytes",
    "io_operations",
    "energy_kwh",
)

COMPONENTS = st.sampled_from(["t0", "t1", "t2", "m0"])
SCOPES = st.sampled_from([
    (), (("builder", "1"),), (("builder", "1"), ("layer", "2")), (("modification", "m1"),),
    (("builder", "2"), ("modification", "m2")),
])  # fmt: skip
AMOUNTS = st.integers(0, 50)
WRITERS = st.sampled_from([("main", 1), ("main", 2), ("rank1", 1), ("main.0a1b2c3d", 7)])


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return dictionaries in which each field may be missing."""
    return st.fixed_dictionaries({}, optional=fields)


GPUS = st.lists(
    st.builds(
        lambda device, name, util, held, more: gpu(util, held, uuid=device, name=name, **more),
        st.sampled_from(["GPU-1", "GPU-2"]), st.sampled_from(["A", "B"]), st.integers(0, 100),
        st.sampled_from([True, False, None]), some(power_w=st.integers(0, 700)),
    ),
    max_size=2,
)  # fmt: skip
ROWS = st.lists(
    st.builds(
        lambda component, wall, cpu, scope, more: use(component, wall, min(wall, cpu), *scope, **more),
        COMPONENTS, st.integers(0, 8), st.integers(0, 8), SCOPES,
        some(component_type=st.sampled_from(["tasker", "builder"]), memory_gb_s=AMOUNTS, io_bytes=AMOUNTS,
             gpu_s=AMOUNTS),
    ),
    max_size=4,
)  # fmt: skip
MODIFICATIONS = st.lists(
    some(
        id=st.sampled_from(["m0", "m1", "m2", "m3"]), type=st.sampled_from(["widen", "deepen"]),
        accepted=st.booleans(), component_id=st.sampled_from(["t0", "t1"]), target=st.sampled_from(["t1", "n1"]),
    ),
    max_size=3,
)  # fmt: skip


@st.composite
def samples(draw: st.DrawFn, jumps: bool = False) -> list[Record]:
    """Draw the samples of some processes, each in the order of its time."""
    records = []
    for writer, pid in draw(st.lists(WRITERS, min_size=1, max_size=2, unique=True)):
        now, told_of = 0, dict.fromkeys(("cpu_s", "children_cpu_s", "read_bytes", "write_operations"), 0)
        for _ in range(draw(st.integers(0, 6))):
            now += draw(st.sampled_from([1, 5, 20, 700, *([0, -30] if jumps else [])]))
            for name in told_of:
                told_of[name] += draw(AMOUNTS)
            memory = draw(some(memory_gb=st.integers(0, 9), children_gb=st.integers(0, 9)))
            records.append(sample(now, writer=writer, pid=pid, gpus=draw(GPUS), **memory, **told_of))
    return records


@st.composite
def uses(draw: st.DrawFn) -> list[Record]:
    """Draw what the training process journals: windows one after the other, readings, verdicts, reports."""
    records: list[Record] = [PRICES]
    (writer, pid), now, cpu_s = draw(WRITERS), 0, 0.0
    for kind in draw(st.lists(st.sampled_from("wwwrtcf"), max_size=10)):
        before, now = now, now + draw(st.integers(0, 12))
        if kind == "w":
            rows = draw(ROWS)
            cpu_s += sum(row["cpu_s"] for row in rows) + draw(st.integers(0, 3))
            records.append(window(before, now, *rows, cpu_s=cpu_s, writer=writer, pid=pid))
        elif kind == "r":
            fields = draw(
                some(cpu_percent=AMOUNTS, memory_mb=AMOUNTS, gpu_util_percent=AMOUNTS, io_operations=AMOUNTS)
            )
            records.append(logged(now, draw(COMPONENTS), draw(SCOPES), **fields))
        elif kind == "t":
            records.append(tree(now, *draw(MODIFICATIONS)))
        elif kind == "c":
            records.append(
                ("resource_cost", draw(some(cpu_hours=AMOUNTS, mem_gb=AMOUNTS)), draw(SCOPES), at(now))
            )
        else:
            records.append(("checkpoint", {"path": "c", "size": draw(AMOUNTS)}, draw(SCOPES), at(now)))
    return records


def merged(one: list[Record], other: list[Record], order: list[bool]) -> list[Record]:
    """Return both streams as one, each in its own order; *order* tells whose turn it is."""
    streams = [list(one), list(other)]
    taken = [streams[turn].pop(0) for turn in order if streams[turn]]
    return taken + streams[0] + streams[1]


def assert_alike(found: Any, expected: Any) -> None:
    """Assert that two accounts tell the same but for rounding."""
    assert dict(numbers(found)) == pytest.approx(dict(numbers(expected)), rel=1e-7, abs=1e-9)


@given(samples(), uses(), st.lists(st.booleans(), max_size=24))
def test_the_order_in_which_samples_and_uses_arrive_does_not_matter(
    sampled: list[Record], used: list[Record], order: list[bool]
) -> None:
    """Windows before their samples, behind them, or in between: the same sums."""
    assert_alike(everything(told(*merged(sampled, used, order))), everything(told(*used, *sampled)))


@given(samples(jumps=True), uses(), st.lists(st.booleans(), max_size=24))
def test_parts_never_exceed_the_whole(sampled: list[Record], used: list[Record], order: list[bool]) -> None:
    """Of no quantity and of no euro, by component, type or scope; what is left is unattributed."""
    known = everything(told(*merged(sampled, used, order)))
    resources, costs = known["resources"], known["costs"]
    for name in QUANTITIES:
        whole = resources["total"][name]
        for table in ("components", "types"):
            parts = math.fsum(row[name] for row in resources[table].values())
            assert parts + resources["unattributed"][name] <= whole * (1 + TINY) + TINY
        for scope in resources["scopes"].values():
            assert scope[name] <= whole * (1 + TINY) + TINY
        assert resources["process"][name] <= whole
    for table in ("components", "types"):
        assert math.fsum(costs[table].values()) <= costs["eur"] * (1 + TINY) + TINY
    assert max(costs["scopes"].values(), default=0) <= costs["eur"] * (1 + TINY) + TINY
    modifications = [
        costs["modifications"][verdict]["eur"] for verdict in ("accepted", "rejected", "undecided")
    ]
    assert math.fsum(modifications) <= costs["eur"] * (1 + TINY) + TINY


@given(samples(jumps=True), uses(), st.lists(st.booleans(), max_size=24))
def test_nothing_is_ever_negative_and_no_total_ever_falls(
    sampled: list[Record], used: list[Record], order: list[bool]
) -> None:
    """After each record of a stream; what a modification cost may fall, for a better way to find its use may come."""
    accounts, before = Accounts(), {}
    for record in merged(sampled, used, order):
        told(record, accounts=accounts)
        known = everything(accounts)
        assert all(number >= 0 and math.isfinite(number) for _path, number in numbers(known))
        now = dict(
            numbers({"total": known["resources"]["total"], "components": known["resources"]["components"]})
        )
        assert all(now[path] >= number * (1 - TINY) - TINY for path, number in before.items())
        before = now


@settings(deadline=None)
@given(
    samples(jumps=True),
    uses(),
    st.lists(st.booleans(), max_size=24),
    st.integers(0, 24),
    st.sampled_from([1, 2, 100]),
)
def test_a_pause_changes_nothing(
    sampled: list[Record], used: list[Record], order: list[bool], cut: int, limit: int
) -> None:
    """Stored as JSON and restored at any point, full tables included, all is as if there had been no pause."""
    stream = merged(sampled, used, order)
    whole = told(*stream, accounts=Accounts(limit))
    paused = told(*stream[cut:], accounts=through_json(told(*stream[:cut], accounts=Accounts(limit)), limit))
    assert everything(paused) == everything(whole)
    assert json.dumps(paused.state()) == json.dumps(whole.state())


@given(samples(), uses())
def test_a_state_is_a_picture_of_its_moment_and_asking_changes_nothing(
    sampled: list[Record], used: list[Record]
) -> None:
    """What is observed afterwards does not change it; two who observe the same tell the same."""
    accounts = told(*used)
    state = accounts.state()
    before = json.dumps(state)
    accounts.totals(), accounts.totals_only(), accounts.live(), everything(accounts)
    assert json.dumps(accounts.state()) == before
    told(*sampled, accounts=accounts)
    assert json.dumps(state) == before
    assert everything(accounts) == everything(told(*used, *sampled))


# ---------------------------------------------------------------------- what is not as it should be

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
    | st.sampled_from(["NaN", "Infinity", -1, 10**400, 1e300, "\ud800", "x" * 5_000, {"$blob": "ab", "size": 5}]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
GOOD: list[Record] = [
    PRICES,
    *(
        sample(t, memory_gb=1, children_gb=1, cpu_s=t, children_cpu_s=t, read_bytes=t, gpus=[gpu(power_w=1)])
        for t in (0, 5)
    ),
    window(
        0,
        5,
        use("a", 1.0, 1.0, ("builder", "1"), memory_gb_s=1.0, component_type="t"),
        cpu_s=2.0,
        part=1,
        parts=2,
    ),
    logged(5, "a", component_type="t", cpu_percent=1.0, memory_mb=1.0, gpu_util_percent=1.0, io_operations=1),
    tree(
        5, {"id": "m", "type": "w", "accepted": True, "component_id": "a", "target": "n", "parent_ids": ["p"]}
    ),
    ("resource_cost", {"cpu_hours": 1.0, "mem_gb": 1.0, "io_bytes": 1}, (), at(5)),
    ("business", {"metrics": {"resource_cost_eur": 1.0}}, (), at(5)),
    ("checkpoint", {"path": "c", "size": 5}, (("builder", "1"),), at(5)),
    ("artifact", {"path": "c", "name": "c", "size": 5}, (), at(5)),
    ("budget", {"branch": "builder:1", "budget_eur": 1.0}, (), at(5)),
    ("budget_reached", {"branch": "run", "budget_eur": 1.0, "share": 0.8}, (), at(5)),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value inside *value*."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [p for name, item in inside for p in ((*path, name), *places(item, (*path, name)))]


def damaged(fields: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """Return a copy of *fields* with another value in one place."""
    copy: dict[str, Any] = json.loads(json.dumps(fields))
    holder: Any = copy
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = value
    return copy


def without_business(known: dict[str, Any]) -> dict[str, Any]:
    """Return what is told but for the business metrics, which are kept as they were logged."""
    return {**known, "costs": {name: value for name, value in known["costs"].items() if name != "business"}}


@given(st.sampled_from(GOOD), st.data())
def test_no_json_makes_observing_raise(record: Record, data: st.DataObject) -> None:
    """Any value in any place: left out, and sums stay numbers from zero on, before and after a pause."""
    type_name, fields, scope, ts = record
    worse = damaged(fields, data.draw(st.sampled_from(places(fields))), data.draw(VALUES))
    accounts, budgets = told(*GOOD[:3]), Budgets()
    for told_fields in (worse, fields, worse):
        accounts.observe(type_name, told_fields, scope, ts)
        budgets.observe(type_name, told_fields)
    told(*GOOD, accounts=accounts)
    if type_name != "business":
        accounts = through_json(accounts)
    budgets.reached(accounts.costs_only())
    for known in (without_business(everything(accounts)), budgets.as_dict()):
        assert all(number >= 0 and math.isfinite(number) for _path, number in numbers(known))


@given(
    st.sampled_from([record[0] for record in GOOD]), st.dictionaries(st.text(max_size=5), VALUES, max_size=3)
)
def test_a_record_that_holds_something_else_altogether_is_ignored(
    type_name: str, fields: dict[str, Any]
) -> None:
    """No field of it is known."""
    accounts = told((type_name, fields, (), START_US))
    assert accounts.as_dict()["total"]["core_hours"] == 0


@pytest.mark.parametrize(
    "absurd", [-1.0, float("nan"), "NaN", 1e19, 10**400, True, "12", None, [1]], ids=repr
)
@pytest.mark.parametrize(
    "path", [p for p in places(GOOD[2][1]) if p[-1] in ("cpu_s", "memory_bytes", "read_bytes")]
)
def test_an_absurd_value_of_a_sample_is_as_if_it_were_missing(absurd: Any, path: tuple[Any, ...]) -> None:
    """The other values of the sample count, and the next sample goes on."""
    _type, fields, scope, ts = GOOD[2]
    name = path[-1]
    without = json.loads(json.dumps(fields))
    del without["sample"]["process"][name]
    first, last = GOOD[1], sample(10, memory_gb=1, cpu_s=10, read_bytes=10)
    found = told(first, ("resource", damaged(fields, path, absurd), scope, ts), last).as_dict()
    assert found == told(first, ("resource", without, scope, ts), last).as_dict()


def test_types_without_an_account_are_ignored() -> None:
    """Most records of a run say nothing about what it used."""
    untouched = json.dumps(Accounts().state())
    accounts = told(*((name, {"loss": 1.0}, (), 0) for name in ("training_step", "run_started", "later")))
    assert json.dumps(accounts.state()) == untouched


def test_a_hundred_thousand_components_leave_memory_bounded() -> None:
    """The state at 20,000 and at 100,000 ids is of the same size; the sums hold all of them."""
    accounts, sizes = Accounts(limit=1_000), []
    for number in range(100_000):
        name = f"component-{number:06}"
        row = use(name, 0.001, 0.001, ("builder", name), component_type=name)
        told(window(number, number + 1, row, cpu_s=0.001 * (number + 1)), accounts=accounts)
        if number in (19_999, 99_999):
            sizes.append(len(json.dumps(accounts.state())))
    assert sizes[1] < sizes[0] * 1.02
    known = accounts.as_dict()
    assert known["total"]["core_hours"] * 3_600 == pytest.approx(100, rel=1e-6)
    assert known["unattributed"]["core_hours"] == pytest.approx(0, abs=1e-9)
    assert [len(known[table]) for table in ("components", "types", "scopes")] == [1_000] * 3
    assert known["partial"] is True


def test_what_is_kept_of_a_long_id_is_bounded() -> None:
    """A text of a megabyte as an id is a name of 200 signs, wherever it comes from; so is a scope of many levels."""
    long = "x" * 1_000_000
    accounts = told(
        window(0, 1, use(long, 1.0, 1.0, ("builder", long), component_type=long), writer=long, cpu_s=1.0),
        sample(0, gpus=[gpu(uuid=long, name=long)]), tree(0, {"id": long, "type": long, "target": long}),
        logged(0, long, ((long, long),), cpu_percent=1.0), ("budget", {"branch": long, "budget_eur": 1.0}, (), 0),
    )  # fmt: skip
    assert len(json.dumps(accounts.state())) < 20_000
    deep = tuple(("level", str(number)) for number in range(10_000))
    told(window(1, 2, use("a", 1.0, 1.0, *deep)), accounts=accounts)
    assert len(json.dumps(accounts.state())) < 40_000
