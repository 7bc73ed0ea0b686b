"""The delivery loop: a real thread, woken and held by events; nothing here sleeps or measures time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from lezea_mlops._clock import Deadline
from lezea_mlops.delivery import DeliveryLoop, Shipper
from lezea_mlops.events import Envelope
from lezea_mlops.journal import JournalWriter, RunFolder, read_run
from lezea_mlops.testing import MemorySink

# Nothing waits for so long unless something is broken.
PATIENCE_S = 60.0


class Clock:
    """A monotonic clock that remembers which threads looked at it: who does not look does not wait."""

    def __init__(self) -> None:
        self.looks: Counter[int] = Counter()

    def __call__(self) -> float:
        """Return the time."""
        self.looks[threading.get_ident()] += 1
        return time.monotonic()

    def looked(self, do: Callable[[], object]) -> bool:
        """Tell whether this thread looks at the clock while it does something."""
        before = self.looks[threading.get_ident()]
        do()
        return self.looks[threading.get_ident()] > before


class HangingSink(MemorySink):
    """Hangs in ``deliver`` while the gate is shut.

    Attributes:
        gate: open (set) at first.
        entered: set when a delivery has begun.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def deliver(self, records: Sequence[Envelope]) -> None:
        """Wait for the gate, then take."""
        self.entered.set()
        assert self.gate.wait(PATIENCE_S)
        super().deliver(records)


class Scene:
    """A journal, its sink and a loop that delivers it; ``ended`` is set by the loop's last act."""

    def __init__(self, place: Path) -> None:
        self.folder = RunFolder(place / "run")
        self.folder.create()
        self.writer = JournalWriter(self.folder, "main", durability="process")
        self.sink, self.clock, self.ended = HangingSink(), Clock(), threading.Event()
        self.loop = self.make_loop()

    def make_loop(self) -> DeliveryLoop:
        """Return a loop with a shipper of its own."""
        shipper = Shipper(self.folder, self.sink, time.monotonic)
        return DeliveryLoop(shipper, self.clock, when_ended=self.ended.set)

    def write(self, count: int = 1) -> int:
        """Append records and return the number of the last."""
        for _ in range(count):
            self.writer.append("metric", {"metrics": {"loss": 0.5}, "step": 1})
        return self.writer.seq

    def delivered(self) -> list[int]:
        """Return the numbers that the sink has."""
        return sorted(seq for _, _, seq in self.sink.records)

    def call(self) -> bool:
        """Record one more and wait for it as a call does; tell whether it waited at all."""
        seq = self.write()
        self.loop.wake()
        return self.clock.looked(lambda: self.loop.wait_for_call("main", seq))

    def begin(self) -> None:
        """Write, start, and wait until the first record is delivered."""
        self.write()
        assert self.loop.start()
        self.loop.wake()
        assert self.loop.wait_for({"main": 1}, Deadline.after(PATIENCE_S))
        # The record is there a moment before the loop has taken note of it.
        assert self.loop.wait_for_first_try(Deadline.after(PATIENCE_S))

    def hang(self) -> None:
        """Let the sink hang, with a call that waits in vain."""
        self.sink.gate.clear()
        self.sink.entered.clear()
        assert self.call()
        assert self.sink.entered.wait(PATIENCE_S)

    def close(self, within_s: float) -> Deadline:
        """End the loop and return the deadline that it had."""
        deadline = Deadline.after(within_s)
        self.loop.ask_to_end(deadline)
        self.loop.join(deadline)
        return deadline


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Return a scene; whatever hangs at the end is let go."""
    scene = Scene(tmp_path)
    yield scene
    scene.sink.gate.set()
    scene.sink.down = None
    if scene.loop.alive:
        scene.close(PATIENCE_S)
    assert not scene.loop.alive


# ---------------------------------------------------------------------- waiting calls


def test_a_waiting_call_returns_when_its_record_is_delivered(scene: Scene) -> None:
    """With a sink that works, a call waits and finds its record taken."""
    scene.begin()
    assert scene.call()
    assert scene.loop.wait_for({"main": 2}, Deadline.after(PATIENCE_S))
    assert scene.delivered() == [1, 2]


def test_no_call_waits_while_the_destination_is_starting(scene: Scene) -> None:
    """Before anything was ever delivered nobody waits, though the thread runs."""
    scene.sink.gate.clear()
    scene.write()
    scene.loop.start()
    assert scene.sink.entered.wait(PATIENCE_S)
    assert [scene.call() for _ in range(3)] == [False] * 3


def test_a_hanging_sink_lets_the_waiting_call_go_and_nobody_waits_after_it(scene: Scene) -> None:
    """The first call gives up although the sink never answers; those after it do not wait at all."""
    scene.begin()
    scene.hang()
    assert [scene.call() for _ in range(5)] == [False] * 5
    assert scene.delivered() == [1]


def test_calls_wait_again_when_the_sink_has_taken_something(scene: Scene) -> None:
    """When the sink answers, all that piled up is delivered, and the next call waits for its own record."""
    scene.begin()
    scene.hang()
    last = scene.write(3)
    scene.sink.gate.set()
    scene.loop.wake()
    assert scene.loop.wait_for({"main": last}, Deadline.after(PATIENCE_S))
    assert scene.call()
    assert scene.loop.wait_for({"main": last + 1}, Deadline.after(PATIENCE_S))
    assert scene.delivered() == list(range(1, last + 2))


def test_no_call_waits_while_the_breaker_is_open(scene: Scene) -> None:
    """A destination that is known to be down costs nothing."""
    scene.begin()
    scene.sink.down = "switched off"
    while not scene.loop.shipper.breaker.open:
        scene.write()
        scene.loop.wake()
        scene.loop.wait_for({"main": 10_000}, Deadline.after(0.01))
    assert [scene.call() for _ in range(3)] == [False] * 3


def test_no_call_waits_once_the_loop_is_closing(scene: Scene) -> None:
    """What is logged after the end is nobody's to wait for."""
    scene.begin()
    scene.close(PATIENCE_S)
    assert not scene.call()


# ---------------------------------------------------------------------- waiting for more than a call


def test_flushing_a_sink_that_hangs_ends_at_its_deadline(scene: Scene) -> None:
    """It says that the records are not there."""
    scene.begin()
    scene.hang()
    scene.loop.wake()
    assert scene.loop.wait_for({"main": scene.write()}, Deadline.after(0.01)) is False


def test_several_writers_are_waited_for(scene: Scene) -> None:
    """Every writer that was named has to be delivered up to its number."""
    other = JournalWriter(scene.folder, "rank1", durability="process")
    other.append("metric", {"metrics": {"loss": 1.0}, "step": 1})
    scene.begin()
    scene.loop.wake()
    assert scene.loop.wait_for({"main": 1, "rank1": 1}, Deadline.after(PATIENCE_S))
    assert scene.loop.wait_for({"main": 1, "rank2": 1}, Deadline.after(0.01)) is False


def test_the_first_try_is_reported(scene: Scene) -> None:
    """``start`` learns whether the destination took something, and does not wait on when it failed."""
    scene.write()
    scene.sink.down = "switched off"
    scene.loop.start()
    assert scene.loop.wait_for_first_try(Deadline.after(PATIENCE_S)) is False
    scene.sink.down = None
    scene.loop.wake()
    assert scene.loop.wait_for({"main": 1}, Deadline.after(PATIENCE_S))
    assert scene.loop.wait_for_first_try(Deadline.after(PATIENCE_S)) is True


# ---------------------------------------------------------------------- closing


def test_closing_drains_what_waits(scene: Scene) -> None:
    """All that was written before the end is delivered, then the thread ends and says so last."""
    scene.begin()
    scene.write(5_000)
    scene.close(PATIENCE_S)
    assert not scene.loop.alive
    assert scene.ended.is_set()
    assert scene.delivered() == list(range(1, 5_002))


def test_closing_with_a_dead_sink_ends_before_the_deadline(scene: Scene) -> None:
    """It is tried until the breaker opens, and then left: the journal holds what waits."""
    scene.begin()
    scene.sink.down = "switched off"
    scene.write(10)
    deadline = scene.close(PATIENCE_S)
    assert not scene.loop.alive
    assert not deadline.passed()
    assert scene.delivered() == [1]
    assert [record.seq for record in read_run(scene.folder.path)] == list(range(1, 12))


def test_a_sink_that_is_back_gets_its_chance_at_closing(scene: Scene) -> None:
    """The pause of an open breaker is cut short once, so that what can be delivered is."""
    scene.begin()
    scene.sink.down = "switched off"
    while not scene.loop.shipper.breaker.open:
        scene.write()
        scene.loop.wake()
        scene.loop.wait_for({"main": 10_000}, Deadline.after(0.01))
    scene.sink.down = None
    scene.close(PATIENCE_S)
    assert scene.delivered() == list(range(1, scene.writer.seq + 1))


def test_closing_with_a_hanging_sink_returns_at_the_deadline(scene: Scene) -> None:
    """The thread is left behind; when its sink answers at last, it ends by itself and closes the sink."""
    scene.begin()
    scene.hang()
    deadline = scene.close(0.2)
    assert deadline.passed()
    assert scene.loop.alive
    assert not scene.ended.is_set()
    scene.sink.gate.set()
    assert scene.ended.wait(PATIENCE_S)


def test_the_deadline_holds_although_the_sink_takes_all_the_time(scene: Scene) -> None:
    """With a deadline that has passed already, no further batch is begun; what waits is left to others."""
    scene.begin()
    scene.hang()
    scene.write(3)
    scene.close(0.0)
    scene.sink.gate.set()
    assert scene.ended.wait(PATIENCE_S)
    assert scene.delivered() == [1, 2]
    scene.loop = scene.make_loop()
    scene.loop.start()
    scene.close(PATIENCE_S)
    assert scene.delivered() == [1, 2, 3, 4, 5]


class WritingSink(HangingSink):
    """While it takes records, the program writes another one."""

    def __init__(self, scene: Scene, times: int) -> None:
        super().__init__()
        self._scene, self._times = scene, times

    def deliver(self, records: Sequence[Envelope]) -> None:
        """Take, and let one more be written meanwhile."""
        if self._times:
            self._times -= 1
            self._scene.write()
        super().deliver(records)


@pytest.mark.parametrize("times", [1, 5])
def test_a_record_that_is_written_while_closing_is_in_the_journal_and_delivered_or_left(
    times: int, scene: Scene
) -> None:
    """Nothing between journal and sink can lose it: what this loop leaves, the next one ships."""
    scene.sink = WritingSink(scene, times)
    scene.loop = scene.make_loop()
    scene.write(10)
    scene.loop.start()
    scene.close(PATIENCE_S)
    journaled = [record.seq for record in read_run(scene.folder.path)]
    assert journaled == list(range(1, 11 + times))
    assert scene.delivered() == journaled[: len(scene.delivered())]
    scene.loop = scene.make_loop()
    scene.loop.start()
    scene.close(PATIENCE_S)
    assert scene.delivered() == journaled


def test_closing_twice_does_nothing_more(scene: Scene) -> None:
    """A loop that has ended stays so."""
    scene.begin()
    scene.close(PATIENCE_S)
    scene.close(PATIENCE_S)
    assert scene.delivered() == [1]


def test_waiting_for_a_loop_that_has_ended_does_not_wait(scene: Scene) -> None:
    """Nobody will deliver any more; the answer comes before the deadline."""
    scene.begin()
    scene.close(PATIENCE_S)
    deadline = Deadline.after(PATIENCE_S)
    assert scene.loop.wait_for({"main": scene.write()}, deadline) is False
    assert not deadline.passed()
