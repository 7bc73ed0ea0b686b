"""The memory sink is the reference of the contract."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lezea_mlops.journal import RunFolder
from lezea_mlops.sinks.base import Rejected, Run, Sink, Unavailable, destination_id, without_credentials
from lezea_mlops.testing import MemorySink
from tests.sinks.contract import Piece, SinkContract, a_run_like, clean, destination, records_of, rich_run

__all__ = ["clean", "destination", "rich_run"]


class TestMemorySink(SinkContract):
    """A dictionary by (run, writer, number) keeps every promise."""

    @classmethod
    def place(cls, request: pytest.FixtureRequest) -> dict[str, MemorySink]:
        """Return a shelf of sinks, one for each run: the memory is in the sink."""
        return {}

    def make(self, destination: dict[str, MemorySink]) -> Sink:
        """Return a sink whose records are found by the run it was opened for."""
        return ShelvedSink(destination)

    def seen(self, destination: dict[str, MemorySink], sink: Sink, run: Run) -> Any:
        """Return the records of the run and its status."""
        return destination[run.run_id].contents()


class ShelvedSink:
    """A new connection to the memory that belongs to a run."""

    name = "memory"
    destination = "memory://"

    def __init__(self, shelf: dict[str, MemorySink]) -> None:
        self._shelf = shelf

    def open(self, run: Run, state: Any) -> None:
        """Find the run's memory, or make it."""
        self._memory = self._shelf.setdefault(run.run_id, MemorySink())
        self._memory.open(run, state)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)


PIECES = st.lists(st.tuples(st.integers(0, 10), st.integers(1, 10)), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=PIECES, sinks=st.lists(st.sampled_from(["same", "new", "forgetful"]), min_size=13, max_size=13))
def test_any_plan_that_skips_nothing_leaves_the_same(
    pieces: list[tuple[int, int]], sinks: list[str], rich_run: RunFolder
) -> None:
    """Random pieces, back and forth, with new sinks in between."""
    plan, reached = [], 0
    for (start, length), sink in zip([*pieces, (0, 10)], sinks, strict=False):
        start = min(start, reached)
        plan.append(Piece(start, min(start + length, 10), sink))
        reached = max(reached, plan[-1].end)
    contract, records, run = TestMemorySink(), records_of(rich_run), a_run_like(rich_run, "again")
    clean = contract.deliver({}, run, records, [Piece(0, 10)])
    assert contract.deliver({}, run, records, plan) == clean
    assert len(clean) == len(records) + 1


def test_the_status_is_that_of_the_newest_attempt(rich_run: RunFolder) -> None:
    """An older end that comes again changes nothing."""
    sink, records = MemorySink(), records_of(rich_run)
    sink.deliver(records)
    assert sink.status == "failed"
    sink.deliver([record for record in records if record.att == 1])
    assert sink.status == "failed"


def test_what_it_refuses_leaves_the_batch_untaken(rich_run: RunFolder) -> None:
    """A batch with a bad record is refused as a whole, so that the shipper can find the record."""
    sink, records = MemorySink(), records_of(rich_run)
    sink.refuses = {("main", 2)}
    with pytest.raises(Rejected, match="2 of main"):
        sink.deliver(records[:3])
    assert sink.records == {}


def test_a_switched_off_sink_says_why(rich_run: RunFolder) -> None:
    """Opening and delivering are both unavailable, with the text that was given."""
    sink = MemorySink()
    sink.down = "the cable is cut"
    for call in (
        lambda: sink.open(Run("r", rich_run.path), {}),
        lambda: sink.deliver(records_of(rich_run)[:1]),
    ):
        with pytest.raises(Unavailable, match="cable") as caught:
            call()
        assert caught.value.reason == "unreachable"


def test_its_contents_are_a_copy(rich_run: RunFolder) -> None:
    """What a test compares does not change afterwards."""
    sink, records = MemorySink(), records_of(rich_run)
    sink.deliver(records[:3])
    before = sink.contents()
    kept = copy.deepcopy(before)
    sink.deliver(records)
    assert before == kept


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://user:secret@Host:5000/x/?token=y", "http://host:5000/x"),
        ("HTTP://host:5000", "http://host:5000"),
        ("mongodb://u:p@h1,h2/db?replicaSet=rs", "mongodb://h1,h2/db"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
        ("memory://", "memory://"),
    ],
)
def test_a_destination_is_named_without_its_secrets(uri: str, shown: str) -> None:
    """Credentials, query and spelling change neither what is shown nor which cursor it is."""
    assert without_credentials(uri) == shown
    assert destination_id(MemorySink(uri)) == destination_id(MemorySink(shown))
