"""What a sink refuses is set aside alone, and what it does not declare costs a pause and no record."""

from __future__ import annotations

import json
import logging
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lezea_mlops.delivery import Shipper, Step
from lezea_mlops.events import Envelope
from lezea_mlops.journal import RunFolder
from lezea_mlops.sinks.base import Rejected, Run, destination_id
from lezea_mlops.testing import FakeClock, MemorySink
from tests.delivery.shipping import LONGER_THAN_ANY_PAUSE_S, numbers, set_aside, ship_all, write

# ---------------------------------------------------------------------- Rejected


def test_a_bad_record_is_set_aside_whole_and_with_the_reason(
    shipper: Shipper, sink: MemorySink, folder: RunFolder
) -> None:
    """The batch is halved until it stands alone; the rest is delivered and the cursor goes on."""
    sink.refuses = {("main", 3)}
    assert [shipper.ship_once(), shipper.ship_once()] == [Step.SHIPPED, Step.IDLE]
    assert numbers(sink) == [1, 2, 4, 5]
    [line] = set_aside(folder, sink)
    assert (line["wid"], line["seq"], type(line["at"])) == ("main", 3, int)
    assert "list of refused records" in line["reason"]
    assert line["record"] == json.loads(folder.journal("main").read_text().splitlines()[2])
    assert (shipper.health.rejected, shipper.health.delivered) == (1, 4)
    assert shipper.positions["main"].seq == 5


def test_the_file_of_refused_records_is_private_and_named_after_the_destination(
    shipper: Shipper, sink: MemorySink, folder: RunFolder
) -> None:
    """``rejected/<sink>-<8 hex>.jsonl``, readable by its owner alone."""
    sink.refuses = {("main", 3)}
    shipper.ship_once()
    [path] = (folder.path / "rejected").iterdir()
    assert path.name == f"{destination_id(sink)}.jsonl"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_record_that_comes_alone_is_set_aside_alone(
    shipper: Shipper, sink: MemorySink, folder: RunFolder
) -> None:
    """A batch of one bad record does not stop the journal."""
    shipper.ship_once()
    write(folder, 1)
    sink.refuses = {("main", 6)}
    assert shipper.ship_once() is Step.SHIPPED
    assert [line["seq"] for line in set_aside(folder, sink)] == [6]


@settings(max_examples=60, deadline=None)
@given(refused=st.sets(st.integers(1, 40), max_size=39))
def test_exactly_the_bad_records_are_set_aside(refused: set[int]) -> None:
    """Whichever records of a batch are bad: those are set aside in order, each once, and all others delivered."""
    with tempfile.TemporaryDirectory() as place:
        folder, sink, clock = RunFolder(Path(place) / "run"), MemorySink(), FakeClock()
        folder.create()
        write(folder, 40)
        sink.refuses = {("main", seq) for seq in refused}
        shipper = Shipper(folder, sink, clock)
        assert shipper.ship_once() is Step.SHIPPED
        assert numbers(sink) == [seq for seq in range(1, 41) if seq not in refused]
        assert [line["seq"] for line in set_aside(folder, sink)] == sorted(refused)
        assert shipper.health.rejected == len(refused)


def test_a_sink_that_refuses_everything_moves_nothing(
    shipper: Shipper, sink: MemorySink, folder: RunFolder, clock: FakeClock
) -> None:
    """That says something of the destination: state ``refusing``, nothing set aside; later all of it is delivered."""
    sink.refuses = {("main", seq) for seq in range(1, 6)}
    assert shipper.ship_once() is Step.FAILED
    assert shipper.health.state == "refusing"
    assert set_aside(folder, sink) == []
    assert shipper.positions == {}
    sink.refuses = set()
    ship_all(shipper, clock)
    assert (numbers(sink), shipper.health.state) == ([1, 2, 3, 4, 5], "ok")


# ---------------------------------------------------------------------- surprises


class SurprisingSink(MemorySink):
    """Fails in ways that no sink declares."""

    surprise: dict[str, Exception]

    def __init__(self, **surprise: Exception) -> None:
        super().__init__()
        self.surprise = surprise

    def _perhaps(self, where: str) -> None:
        if where in self.surprise:
            raise self.surprise[where]

    def open(self, run: Run, state: Any) -> None:
        """Open, or surprise."""
        self._perhaps("open")
        super().open(run, state)

    def deliver(self, records: Sequence[Envelope]) -> None:
        """Take, or surprise."""
        self._perhaps("deliver")
        super().deliver(records)

    def state(self) -> dict[str, Any]:
        """Remember, or surprise."""
        self._perhaps("state")
        return {}

    def close(self) -> None:
        """Close, or surprise."""
        self._perhaps("close")


@pytest.mark.parametrize("where", ["open", "deliver", "state"])
@pytest.mark.parametrize("surprise", [ZeroDivisionError("by zero"), KeyError("x"), RecursionError("deep")])
def test_what_a_sink_does_not_declare_is_logged_with_its_traceback_and_counts_as_unavailable(
    where: str, surprise: Exception, folder: RunFolder, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in a sink costs a pause and no record; its traceback is told once and not at every try."""
    sink = SurprisingSink(**{where: surprise})
    shipper = Shipper(folder, sink, clock)
    for _ in range(5):
        assert shipper.ship_once() is Step.FAILED
        clock.advance(LONGER_THAN_ANY_PAUSE_S)
    tracebacks = [record for record in caplog.records if record.exc_info]
    assert len(tracebacks) == 1
    assert tracebacks[0].levelno == logging.ERROR
    assert type(surprise).__name__ in caplog.text
    assert (shipper.health.state, shipper.health.failures["error"]) == ("down", 5)
    sink.surprise = {}
    ship_all(shipper, clock)
    assert numbers(sink) == [1, 2, 3, 4, 5]


def test_a_sink_may_not_reject_while_it_is_opened(folder: RunFolder, clock: FakeClock) -> None:
    """There is no record yet that it could mean; it counts as unavailable."""
    shipper = Shipper(folder, SurprisingSink(open=Rejected("what?")), clock)
    assert shipper.ship_once() is Step.FAILED
    assert shipper.health.state == "down"


def test_closing_a_sink_cannot_fail(folder: RunFolder, clock: FakeClock) -> None:
    """Whatever its ``close`` raises ends there."""
    shipper = Shipper(folder, SurprisingSink(close=OSError("gone")), clock)
    shipper.ship_once()
    shipper.close()
    shipper.close()
    assert shipper.health.delivered == 5
