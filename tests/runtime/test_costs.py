"""What a run cost, added up from its journals: the order of records, and which modifications led to what lives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.errors import JournalError
from lezea_mlops.events import Envelope, encode_envelope
from lezea_mlops.evolution import Evolution
from lezea_mlops.journal import RunFolder
from lezea_mlops.runtime.costs import Bill, living_line, read_costs, records_in_order
from lezea_mlops.runtime.evolution import read_evolution

SECOND = 1_000_000


def record(kind: str, ts: int, wid: str = "main", *, seq: int = 1, att: int = 1, **payload: Any) -> Envelope:
    """Return a record of a time in microseconds."""
    return Envelope(kind, {"seq": seq, "ts": ts, "wid": wid, "att": att}, {"run_id": "run"} | payload)


def journal(folder: Path, *records: Envelope) -> RunFolder:
    """Write the journals of a run, each record into that of its writer."""
    run = RunFolder(folder)
    for each in records:
        with run.journal(each.wid).open("ab") as file:
            file.write(encode_envelope(each) + b"\n")
    return run


def bill_of(folder: Path, *records: Envelope, rates: Mapping[str, Any] | None = None) -> Bill:
    """Return what a run of these records cost; a core-hour is 1 EUR where nothing else is said."""
    run = journal(folder, *records)
    return read_costs(run, read_evolution(run.path), {"core_hour_eur": 1.0} if rates is None else rates)


def evolution_of(*records: Envelope) -> Evolution:
    """Return the evolution that these records tell."""
    return Evolution().read(records)


def proposed(identity: str, ts: int = 1, **modification: Any) -> Envelope:
    """Return the record of one modification."""
    return record("modification_tree", ts, seq=ts, modifications=[{"id": identity} | modification])


def population(ts: int, **fitness: float) -> Envelope:
    """Return the record of a generation."""
    return record("population", ts, seq=ts, generation=ts, fitness_scores=fitness)


# ---------------------------------------------------------------------- the order of records

JOURNALS = st.dictionaries(
    st.sampled_from(["main", "rank1", "rank2", "courier"]),
    st.lists(st.tuples(st.integers(1, 3), st.integers(0, 50)), max_size=20),
)


@given(JOURNALS)
def test_every_record_comes_once_and_behind_those_its_writer_wrote_before(
    written: dict[str, list[tuple[int, int]]],
) -> None:
    """Whatever the clocks of the writers did."""
    with TemporaryDirectory() as folder:
        records = [
            record("metric", ts, wid, seq=seq, att=att)
            for wid, times in written.items()
            for seq, (att, ts) in enumerate(times, start=1)
        ]
        found = defaultdict(list)
        for each in records_in_order(journal(Path(folder), *records)):
            found[each.wid].append(each.seq)
    assert found == {wid: list(range(1, len(times) + 1)) for wid, times in written.items() if times}


@given(JOURNALS)
def test_with_good_clocks_records_come_attempt_by_attempt_and_by_their_time(
    written: dict[str, list[tuple[int, int]]],
) -> None:
    """As if one writer had written them all."""
    with TemporaryDirectory() as folder:
        records = [
            record("metric", ts, wid, seq=seq, att=att)
            for wid, times in written.items()
            for seq, (att, ts) in enumerate(sorted(times), start=1)
        ]
        found = [each.order_key for each in records_in_order(journal(Path(folder), *records))]
    assert found == sorted(each.order_key for each in records)


def test_long_journals_are_read_piece_by_piece(tmp_path: Path) -> None:
    """Nothing is left out where one piece ends and the next begins."""
    records = [
        record("metric", number, f"rank{number % 2}", seq=number, note="x" * 997) for number in range(500)
    ]
    run = journal(tmp_path, *records)
    assert [each.seq for each in records_in_order(run)] == list(range(500))


def used(ts: int, cpu_s: float, att: int = 1) -> Envelope:
    """Return the record of a use that ended at a second; the process has used so much CPU time since its start."""
    return record(
        "resource_use", ts * SECOND, "worker", seq=ts, att=att, from_us=(ts - 1) * SECOND, to_us=ts * SECOND,
        wall_s=1.0, process={"writer": "worker", "pid": 1, "cpu_s": cpu_s},
        uses=[{"component_id": "trial", "count": 1, "wall_s": 1.0, "cpu_s": cpu_s}],
    )  # fmt: skip


def test_a_use_belongs_to_the_modification_of_its_time_whoever_wrote_it(tmp_path: Path) -> None:
    """A worker tries one modification after the other under one name; who logs them is another process."""
    found = bill_of(
        tmp_path,
        used(2, 360.0),
        proposed("first", 3 * SECOND, component_id="trial", type="widen", accepted=True),
        used(5, 720.0),
        proposed("second", 6 * SECOND, component_id="trial", type="prune", accepted=False),
    ).modifications
    assert found["by_type"]["widen"]["accepted"]["core_hours"] == pytest.approx(0.1)
    assert found["by_type"]["prune"]["rejected"]["core_hours"] == pytest.approx(0.2)


def test_the_processes_of_each_attempt_count_though_they_have_one_number(tmp_path: Path) -> None:
    """In containers the next attempt often has the process id of the last one."""
    bill = bill_of(tmp_path, used(1, 360.0), used(2, 720.0, att=2))
    assert bill.resources["process"]["core_hours"] == pytest.approx(0.3)
    assert bill.attempts == 2


def test_a_journal_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """Costs of a part would look like costs of the whole."""
    run = journal(tmp_path, record("metric", 1))
    run.journal("rank1").mkdir()
    with pytest.raises(JournalError, match=r"events\.rank1\.jsonl"):
        list(records_in_order(run))


# ---------------------------------------------------------------------- what lives


def test_what_lives_stands_on_all_that_it_came_from() -> None:
    """Both parents of a crossover, by the networks as by the modifications."""
    networks = [
        record("network", 1, seq=number, network_id=network, parent_ids=parents)
        for number, (network, parents) in enumerate(
            {"n0": [], "na": ["n0"], "nb": ["n0"], "nc": ["na", "nb"], "nd": ["n0"]}.items()
        )
    ]
    made = [proposed(f"m{network[1]}", target=network, accepted=True) for network in ("na", "nb", "nc", "nd")]
    on_a = proposed("under", 2, accepted=True)
    child = proposed("mc", 3, parent_ids=["under"], target="nc", accepted=True)
    found = living_line(evolution_of(*networks, *made, on_a, child, population(4, nc=0.5)))
    assert found == {"ma", "mb", "mc", "under"}


def test_the_best_modification_counts_though_its_network_is_gone() -> None:
    """The champion of the run is not a dead branch."""
    tree = [
        proposed("root", 1, accepted=True, score=0.1),
        proposed("best", 2, parent_ids=["root"], target="gone", accepted=True, score=0.9),
        proposed("other", 3, parent_ids=["root"], target="gone", accepted=True, score=0.2),
    ]
    assert living_line(evolution_of(*tree, population(4, alive=0.5))) == {"root", "best"}
    assert living_line(evolution_of(*tree)) == {"root", "best"}


def test_a_rejected_modification_brings_nothing_to_life() -> None:
    """It was tried on a living network, and is none of what that came from."""
    tree = [
        proposed("dead", 1, accepted=True),
        proposed("tried", 2, parent_ids=["dead"], target="alive", accepted=False),
    ]
    assert living_line(evolution_of(*tree, population(3, alive=0.5))) == set()


def test_where_nothing_says_what_lives_nothing_is_called_dead(tmp_path: Path) -> None:
    """Without populations and scores, and without modifications."""
    assert living_line(evolution_of(population(1, alive=0.5))) is None
    assert living_line(evolution_of(proposed("m", accepted=True))) is None
    assert bill_of(tmp_path, proposed("m", accepted=True)).branches is None


@given(
    st.lists(
        st.tuples(st.integers(0, 8), st.sampled_from([True, False, None]), st.floats(0, 10)),
        min_size=1,
        max_size=9,
    ),
    st.sampled_from([{}, {"core_hour_eur": 0.25, "fixed_eur": 3.0}]),
)
def test_what_lives_and_what_is_dead_is_all_that_was_accepted(
    tree: list[tuple[int, bool | None, float]], rates: dict[str, float]
) -> None:
    """In number, in hours and, where there are prices, in EUR."""
    records = [population(1, n0=0.5)]
    for number, (parent, accepted, cpu_hours) in enumerate(tree):
        ts, scope = 2 + 2 * number, [["modification", f"m{number}"]]
        records.append(record("resource_cost", ts, seq=ts, scope=scope, cpu_hours=cpu_hours))
        described = {"parent_ids": [f"m{parent}"], "target": f"n{number}", "type": f"t{number % 2}"}
        records.append(proposed(f"m{number}", ts + 1, accepted=accepted, **described))
    with TemporaryDirectory() as folder:
        bill = bill_of(Path(folder), *records, rates=rates)
    accepted_hours = sum(hours for _, accepted, hours in tree if accepted)
    assert bill.modifications["accepted"]["core_hours"] == pytest.approx(accepted_hours)
    assert bill.branches is not None
    for unit in ("count", "core_hours", "gpu_hours", *(["eur"] if rates else [])):
        whole = sum(branch[unit] for branch in bill.branches.values())
        assert whole == pytest.approx(bill.modifications["accepted"][unit])
    if not rates:
        assert [branch["eur"] for branch in bill.branches.values()] == [None, None]
