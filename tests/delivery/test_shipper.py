"""The shipper: records move from the journal, past a cursor, to a sink; at least once, and none is skipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from lezea_mlops.delivery import Shipper, Step
from lezea_mlops.events import Envelope
from lezea_mlops.journal import RunFolder
from lezea_mlops.sinks.base import Run, destination_id
from lezea_mlops.testing import FakeClock, MemorySink
from tests.delivery.shipping import LONGER_THAN_ANY_PAUSE_S, numbers, ship_all, stored_cursor, write

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


class Connected(MemorySink):
    """Holds a connection from the first attempt to open until it is closed."""

    held = 0

    def open(self, run: Run, state: Mapping[str, Any]) -> None:
        """Connect; what is asked of the destination then may fail."""
        self.held = 1
        super().open(run, state)

    def close(self) -> None:
        """Give it back; none is given back twice."""
        self.held -= 1


def test_a_sink_that_could_not_be_opened_is_closed(folder: RunFolder, clock: FakeClock) -> None:
    """It may hold connections all the same; one that nobody asked for anything holds none."""
    sink = Connected()
    shipper = Shipper(folder, sink, clock)
    shipper.close()
    assert sink.held == 0
    sink.down = "switched off"
    assert shipper.ship_once() is Step.FAILED
    shipper.close()
    shipper.close()
    assert sink.held == 0


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
