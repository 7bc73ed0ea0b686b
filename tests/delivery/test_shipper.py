"""The shipper: records move from the journal, past a cursor, to a sink; at least once, and none is skipped."""

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
from lezea_mlops.journal import JournalWriter, RunFolder
from lezea_mlops.sinks.base import Rejected, Run, destination_id
from lezea_mlops.testing import FakeClock, MemorySink

LONGER_THAN_ANY_PAUSE_S = 60.0


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Return a run folder with five records of ``main``."""
    folder = RunFolder(tmp_path / "run-1")
    folder.create()
    write(folder, 5)
    return folder


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that stands still."""
    return FakeClock()


@pytest.fixture
def sink() -> MemorySink:
    """Return the reference sink."""
    return MemorySink()


@pytest.fixture
def shipper(folder: RunFolder, sink: MemorySink, clock: FakeClock) -> Shipper:
    """Return a shipper of the five records."""
    return Shipper(folder, sink, clock)


def write(folder: RunFolder, count: int, wid: str = "main") -> None:
    """Append *count* records to one writer's journal."""
    writer = JournalWriter(folder, wid, attempt=1, durability="process")
    for number in range(count):
        writer.append("metric", {"metrics": {"loss": 1.0 / (number + 1)}, "step": writer.seq})
    writer.close()


def numbers(sink: MemorySink, wid: str = "main") -> list[int]:
    """Return which records of a writer the sink has, in the order in which they first came."""
    return [seq for _, of, seq in sink.records if of == wid]


def ship_all(shipper: Shipper, clock: FakeClock) -> list[Step]:
    """Let it ship until nothing waits, with all the time that its pauses ask for."""
    steps = []
    while (step := shipper.ship_once()) is not Step.IDLE:
        steps.append(step)
        assert len(steps) < 100
        clock.advance(LONGER_THAN_ANY_PAUSE_S)
    return steps


def stored_cursor(folder: RunFolder, sink: MemorySink) -> Any:
    """Return what the cursor file says; None if there is none."""
    path = folder.cursor(destination_id(sink))
    return json.loads(path.read_bytes()) if path.exists() else None


def set_aside(folder: RunFolder, sink: MemorySink) -> list[dict[str, Any]]:
    """Return the lines of the file of refused records."""
    path = folder.rejected(destination_id(sink))
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


# ---------------------------------------------------------------------- the cursor


def test_what_waits_is_delivered_and_then_nothing_waits(shipper: Shipper, sink: MemorySink) -> None:
    """One step moves the batch, the next finds nothing to do."""
    assert [shipper.ship_once(), shipper.ship_once()] == [Step.SHIPPED, Step.IDLE]
    assert numbers(sink) == [1, 2, 3, 4, 5]
    assert sink.batches == [5]


def test_the_cursor_moves_only_after_the_sink_took_the_batch(
    shipper: Shipper, sink: MemorySink, folder: RunFolder, clock: FakeClock
) -> None:
    """While the sink is down there is no cursor; when it took the records it stands at the file's end."""
    sink.down = "switched off"
    assert shipper.ship_once() is Step.FAILED
    assert stored_cursor(folder, sink) is None
    assert shipper.positions == {}
    sink.down = None
    clock.advance(LONGER_THAN_ANY_PAUSE_S)
    assert shipper.ship_once() is Step.SHIPPED
    size = folder.journal("main").stat().st_size
    assert stored_cursor(folder, sink)["positions"] == {"main": [size, 5]}


def test_what_comes_later_is_shipped_from_where_the_cursor_stands(
    shipper: Shipper, sink: MemorySink, folder: RunFolder
) -> None:
    """Delivered records do not come again."""
    shipper.ship_once()
    write(folder, 2)
    assert shipper.ship_once() is Step.SHIPPED
    assert sink.batches == [5, 2]
    assert numbers(sink) == [1, 2, 3, 4, 5, 6, 7]


def test_another_process_goes_on_where_the_first_one_stopped(
    shipper: Shipper, folder: RunFolder, sink: MemorySink, clock: FakeClock
) -> None:
    """The position is in the file, not in the process."""
    shipper.ship_once()
    write(folder, 1)
    assert ship_all(Shipper(folder, sink, clock), clock) == [Step.SHIPPED]
    assert sink.batches == [5, 1]


class DyingSink(MemorySink):
    """Takes what it is given, and then the process dies before anything else happens."""

    dies = True

    def deliver(self, records: Sequence[Envelope]) -> None:
        """Take, and die."""
        super().deliver(records)
        if self.dies:
            raise SystemExit


def test_a_crash_between_delivery_and_cursor_repeats_and_skips_nothing(
    folder: RunFolder, clock: FakeClock
) -> None:
    """What the sink had already comes again; a sink that knows each record by its number has it once."""
    sink, clean = DyingSink(), MemorySink("memory://another")
    with pytest.raises(SystemExit):
        Shipper(folder, sink, clock).ship_once()
    assert stored_cursor(folder, sink) is None
    sink.dies = False
    ship_all(Shipper(folder, sink, clock), clock)
    ship_all(Shipper(folder, clean, clock), clock)
    assert sink.batches == [5, 5]
    assert sink.contents() == clean.contents()


def test_a_cursor_that_cannot_be_stored_is_a_failure_and_repeats(
    shipper: Shipper, sink: MemorySink, folder: RunFolder, clock: FakeClock
) -> None:
    """The sink took the batch, the disk did not take the position: the batch comes again."""
    obstacle = folder.path / "cursors"
    obstacle.write_text("a file where a folder should be")
    assert shipper.ship_once() is Step.FAILED
    assert shipper.health.failures == {"journal": 1}
    assert numbers(sink) == [1, 2, 3, 4, 5]
    obstacle.unlink()
    assert ship_all(shipper, clock)[-1] is Step.SHIPPED
    assert sink.batches == [5, 5]
    assert stored_cursor(folder, sink)["positions"]["main"][1] == 5


@pytest.mark.parametrize("damage", ["removed", "half of it", "not ours"])
def test_a_lost_cursor_replays_without_doubling(
    damage: str, shipper: Shipper, sink: MemorySink, folder: RunFolder, clock: FakeClock
) -> None:
    """A cursor that is gone or cannot be read is no cursor; the sink ends up with the same contents."""
    ship_all(shipper, clock)
    before, path = sink.contents(), folder.cursor(destination_id(sink))
    if damage == "removed":
        path.unlink()
    elif damage == "half of it":
        path.write_bytes(path.read_bytes()[:20])
    else:
        path.write_text('{"positions": [1, 2]}')
    assert ship_all(Shipper(folder, sink, clock), clock) == [Step.SHIPPED]
    assert sink.batches == [5, 5]
    assert sink.contents() == before


def test_a_position_can_be_taken_from_another_process(
    shipper: Shipper, folder: RunFolder, sink: MemorySink, clock: FakeClock
) -> None:
    """Where another process delivered meanwhile, reading the cursor again shows it."""
    ship_all(Shipper(folder, sink, clock), clock)
    assert shipper.positions == {}
    shipper.read_cursor()
    assert shipper.positions["main"].seq == 5
    assert shipper.ship_once() is Step.IDLE


# ---------------------------------------------------------------------- several writers, damage


def test_the_files_of_all_writers_are_delivered(
    shipper: Shipper, sink: MemorySink, folder: RunFolder, clock: FakeClock
) -> None:
    """Each writer has its own position."""
    write(folder, 3, wid="rank1")
    write(folder, 2, wid="main.1a2b3c4d")
    ship_all(shipper, clock)
    assert (numbers(sink), numbers(sink, "rank1"), numbers(sink, "main.1a2b3c4d")) == (
        [1, 2, 3, 4, 5], [1, 2, 3], [1, 2],
    )  # fmt: skip
    assert set(stored_cursor(folder, sink)["positions"]) == {"main", "rank1", "main.1a2b3c4d"}


def test_main_is_first(shipper: Shipper, sink: MemorySink, folder: RunFolder) -> None:
    """Nobody can belong to a run that its writer ``main`` has not begun."""
    write(folder, 1, wid="a-name-before-main")
    shipper.ship_once()
    assert numbers(sink) == [1, 2, 3, 4, 5]
    assert numbers(sink, "a-name-before-main") == []


def test_a_writer_that_never_rests_does_not_keep_the_others_waiting(
    shipper: Shipper, sink: MemorySink, folder: RunFolder
) -> None:
    """The writers take turns, though ``main`` has something new each time."""
    for wid in ("rank1", "rank2"):
        write(folder, 1, wid=wid)
    for _ in range(4):
        shipper.ship_once()
        write(folder, 1)
    assert numbers(sink, "rank1") == numbers(sink, "rank2") == [1]


def test_damaged_lines_are_counted_told_once_and_stepped_over(
    folder: RunFolder, sink: MemorySink, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """What stands before and behind them is delivered, also when the sink failed at first."""
    with folder.journal("main").open("ab") as file:
        file.write(b"not a record\n" + b'{"v": 1, "t": "metric"}\n' + b"\xff\xfe\n")
    write(folder, 1)
    shipper = Shipper(folder, sink, clock)
    sink.down = "switched off"
    shipper.ship_once()
    clock.advance(LONGER_THAN_ANY_PAUSE_S)
    shipper.ship_once()
    assert shipper.health.damaged == 0
    sink.down = None
    clock.advance(LONGER_THAN_ANY_PAUSE_S)
    assert shipper.ship_once() is Step.SHIPPED
    assert numbers(sink) == [1, 2, 3, 4, 5, 6]
    assert shipper.health.damaged == 3
    told = [message for message in caplog.messages if "stepped over" in message]
    assert len(told) == 1
    assert "not JSON" in told[0]


def test_a_file_of_damage_alone_is_passed(folder: RunFolder, sink: MemorySink, clock: FakeClock) -> None:
    """The cursor goes past it, and the next record is delivered."""
    folder.journal("rank1").write_bytes(b"rubbish\n" * 10)
    shipper = Shipper(folder, sink, clock)
    ship_all(shipper, clock)
    assert shipper.health.damaged == 10
    write(folder, 1, wid="rank1")
    ship_all(shipper, clock)
    assert numbers(sink, "rank1") == [1]


def test_an_unfinished_last_line_waits(shipper: Shipper, sink: MemorySink, folder: RunFolder) -> None:
    """Half a line is not looked at; when it is whole it is delivered."""
    line = folder.journal("main").read_bytes().splitlines(keepends=True)[-1].replace(b'"seq":5', b'"seq":6')
    with folder.journal("main").open("ab") as file:
        file.write(line[:30])
    shipper.ship_once()
    assert (numbers(sink), shipper.ship_once()) == ([1, 2, 3, 4, 5], Step.IDLE)
    with folder.journal("main").open("ab") as file:
        file.write(line[30:])
    shipper.ship_once()
    assert numbers(sink)[-1] == 6


# ---------------------------------------------------------------------- Unavailable


def test_an_outage_pauses_and_the_same_batch_comes_later(
    shipper: Shipper, sink: MemorySink, clock: FakeClock
) -> None:
    """Three failures open the breaker, a pause is a pause, and after it the same records are sent."""
    sink.down = "switched off"
    assert [shipper.ship_once(), shipper.ship_once()] == [Step.FAILED, Step.PAUSED]
    for _ in range(2):
        clock.advance(0.3)
        assert shipper.ship_once() is Step.FAILED
    assert shipper.breaker.open
    sink.down = None
    clock.advance(0.3)
    assert shipper.ship_once() is Step.PAUSED
    clock.advance(shipper.breaker.pause_s(clock()))
    assert shipper.ship_once() is Step.SHIPPED
    assert (sink.batches, numbers(sink)) == ([5], [1, 2, 3, 4, 5])
    assert not shipper.breaker.open


def test_a_sink_is_opened_again_after_it_was_unavailable(
    shipper: Shipper, sink: MemorySink, folder: RunFolder, clock: FakeClock
) -> None:
    """Half a batch may have been taken; the sink looks anew at what is there."""
    shipper.ship_once()
    write(folder, 1)
    assert (shipper.ship_once(), sink.opened) == (Step.SHIPPED, 1)
    write(folder, 1)
    sink.down = "switched off"
    shipper.ship_once()
    sink.down = None
    clock.advance(LONGER_THAN_ANY_PAUSE_S)
    assert (shipper.ship_once(), sink.opened) == (Step.SHIPPED, 2)


def test_one_line_is_logged_per_change_of_state(
    shipper: Shipper, sink: MemorySink, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """However often it fails: one line when it goes down, one when it is back."""
    sink.down = "switched off"
    for _ in range(20):
        shipper.ship_once()
        clock.advance(LONGER_THAN_ANY_PAUSE_S)
    sink.down = None
    ship_all(shipper, clock)
    assert len(caplog.messages) == 2
    assert "switched off" in caplog.messages[0]
    assert "again" in caplog.messages[1]


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
