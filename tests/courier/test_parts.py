"""The parts of a courier by themselves: the right to deliver, the keeper beside it, fsyncs, and what is told."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lezea_mlops._clock import Deadline
from lezea_mlops._files import LifeLock, read_holder
from lezea_mlops.events import Envelope, MetricsLogged
from lezea_mlops.journal import RunFolder
from lezea_mlops.runtime import delivering, syncing
from lezea_mlops.runtime.channel import MAX_MESSAGE_BYTES, Channel
from lezea_mlops.runtime.courier import MAX_LOG_BYTES, MAX_TEXT, MAX_UNSENT, Notices, _cap, _shortened
from lezea_mlops.runtime.delivering import Keeper, RunDelivery, last_of_all, take_delivery_lock
from lezea_mlops.runtime.recorder import Recorder
from lezea_mlops.runtime.syncing import JournalSyncer
from lezea_mlops.testing import MemorySink

PATIENCE_S = 60.0


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Return an empty run folder."""
    folder = RunFolder(tmp_path / "run-1")
    folder.create()
    return folder


@pytest.fixture
def recorder(folder: RunFolder) -> Iterator[Recorder]:
    """Return the recorder of ``main``."""
    recorder = Recorder(folder, "main", "process", lambda content: {})
    yield recorder
    recorder.close()


def log(recorder: Recorder, count: int = 1) -> None:
    """Record so many metrics."""
    for step in range(count):
        recorder.record(MetricsLogged(metrics={"loss": 0.5}, step=step))


class GatedSink(MemorySink):
    """Takes a batch when the gate is open, and tells when it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.asked = threading.Event(), threading.Event()

    def deliver(self, records: Sequence[Envelope]) -> None:
        """Wait for the gate, then take."""
        self.asked.set()
        assert self.gate.wait(PATIENCE_S)
        super().deliver(records)


# ---------------------------------------------------------------------- the right to deliver


def test_a_delivery_that_was_ended_does_not_begin_again(folder: RunFolder, recorder: Recorder) -> None:
    """The keeper asks each second; after the end the right is free for others."""
    delivery = RunDelivery(folder, [MemorySink()])
    delivery.take_over()
    log(recorder)
    delivery.end(Deadline.after(PATIENCE_S))
    delivery.join(Deadline.after(PATIENCE_S))
    delivery.take_over()
    assert delivery.ended
    lock = take_delivery_lock(folder)
    assert lock is not None
    lock.release()


def test_an_end_in_the_middle_of_the_beginning_leaves_the_right_free(
    folder: RunFolder, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handler of a signal ends the run when the right was just taken; what waits is delivered."""
    sink = MemorySink()
    delivery = RunDelivery(folder, [sink])
    log(recorder)

    def interrupted(of: RunFolder) -> LifeLock | None:
        lock = take_delivery_lock(of)
        if lock is not None:
            delivery.end(Deadline.after(PATIENCE_S))
        return lock

    monkeypatch.setattr(delivering, "take_delivery_lock", interrupted)
    delivery.take_over()
    delivery.join(Deadline.after(PATIENCE_S))
    assert len(sink.records) == 1
    lock = take_delivery_lock(folder)
    assert lock is not None
    lock.release()


def test_all_destinations_end_before_the_right_is_given_back(folder: RunFolder, recorder: Recorder) -> None:
    """One that is ready does not free it while another still delivers."""
    quick, slow = MemorySink(), GatedSink()
    slow.name = "slow"
    delivery = RunDelivery(folder, [quick, slow])
    log(recorder)
    delivery.take_over()
    assert slow.asked.wait(PATIENCE_S)
    assert delivery.loops[0].wait_for({"main": 1}, Deadline.after(PATIENCE_S))
    assert (delivery.ready, delivery.ended) == (False, False)
    delivery.end(Deadline.after(PATIENCE_S))
    delivery.loops[0].join(Deadline.after(PATIENCE_S))
    assert take_delivery_lock(folder) is None
    assert delivery.left({"main": 1}) == {"memory": 0, "slow": 1}
    slow.gate.set()
    delivery.join(Deadline.after(PATIENCE_S))
    assert delivery.ended
    lock = take_delivery_lock(folder)
    assert lock is not None
    lock.release()


def test_the_last_numbers_are_read_without_reading_the_journals(
    folder: RunFolder, recorder: Recorder
) -> None:
    """By writer; a folder that is gone has none."""
    log(recorder, 3)
    other = Recorder(folder, "rank1", "process", lambda content: {})
    log(other, 2)
    assert last_of_all(folder) == {"main": 3, "rank1": 2}
    other.close()
    assert last_of_all(RunFolder(folder.path / "nowhere")) == {}


# ---------------------------------------------------------------------- the keeper


class Period:
    """Counts how often the keeper has come by."""

    def __init__(self) -> None:
        self.came = threading.Semaphore(0)

    def __call__(self) -> None:
        """Take note."""
        self.came.release()


def test_the_keeper_takes_over_when_the_right_is_free(folder: RunFolder, recorder: Recorder) -> None:
    """It fsyncs each second, whoever delivers, and says that it is alive only once it does."""
    log(recorder)
    other = take_delivery_lock(folder)
    assert other is not None
    sink, period = MemorySink(), Period()
    delivery = RunDelivery(folder, [sink])
    delivery.take_over()
    keeper = Keeper(delivery, "main", period)
    keeper.start()
    assert period.came.acquire(timeout=PATIENCE_S)
    assert not delivery.delivers
    assert not folder.alive.exists()
    other.release()
    assert period.came.acquire(timeout=PATIENCE_S)
    assert period.came.acquire(timeout=PATIENCE_S)
    assert delivery.flush({"main": 1}, Deadline.after(PATIENCE_S))
    assert len(sink.records) == 1
    holder = read_holder(folder.lock("courier"))
    assert holder is not None
    assert holder.process.pid == os.getpid()
    keeper.stop()
    keeper.join(Deadline.after(PATIENCE_S))
    delivery.end(Deadline.after(PATIENCE_S))
    delivery.join(Deadline.after(PATIENCE_S))


def test_a_sign_of_life_tells_how_the_destinations_stand(folder: RunFolder, recorder: Recorder) -> None:
    """Those who only look at the folder learn it from there."""
    sink = GatedSink()
    delivery = RunDelivery(folder, [sink])
    log(recorder, 2)
    delivery.take_over()
    delivery.tell_alive("main's courier")
    told = json.loads(folder.alive.read_text())
    [health] = told["sinks"].values()
    assert (told["wid"], told["pid"], health["waiting"]) == ("main's courier", os.getpid(), 2)
    sink.gate.set()
    delivery.end(Deadline.after(PATIENCE_S))
    delivery.join(Deadline.after(PATIENCE_S))


# ---------------------------------------------------------------------- fsyncs


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that are fsynced from now on."""
    names: list[str] = []

    def sync(path: Path) -> None:
        names.append(path.name)

    monkeypatch.setattr(syncing, "_fsync", sync)
    return names


def test_every_journal_that_has_grown_is_fsynced_and_no_other(
    folder: RunFolder, recorder: Recorder, synced: list[str]
) -> None:
    """Those of all writers of the run, each once."""
    other = Recorder(folder, "rank1", "process", lambda content: {})
    syncer = JournalSyncer(folder, "interval")
    log(recorder)
    log(other)
    syncer.sync()
    assert synced == ["events.jsonl", "events.rank1.jsonl"]
    syncer.sync()
    log(other)
    syncer.sync()
    assert synced[2:] == ["events.rank1.jsonl"]
    other.close()


def test_nothing_is_fsynced_where_nobody_wants_it(
    folder: RunFolder, recorder: Recorder, synced: list[str]
) -> None:
    """``durability=process`` means the death of the process alone."""
    log(recorder)
    JournalSyncer(folder, "process").sync()
    assert synced == []


def test_a_file_system_that_refuses_is_told_once_until_it_takes_again(
    folder: RunFolder, recorder: Recorder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file counts as not fsynced, and is tried again."""
    broken = iter((True, True, False, False, True))

    def sync(path: Path) -> None:
        if next(broken):
            raise OSError("the disk is on fire")

    monkeypatch.setattr(syncing, "_fsync", sync)
    syncer = JournalSyncer(folder, "interval")
    for _ in range(5):
        log(recorder)
        syncer.sync()
    assert caplog.text.count("the disk is on fire") == 2


def test_a_real_file_is_fsynced(
    folder: RunFolder, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever that does, it says no warning; and a folder that is gone has nothing to fsync."""
    log(recorder)
    JournalSyncer(folder, "interval").sync()
    JournalSyncer(RunFolder(folder.path / "nowhere"), "interval").sync()
    assert caplog.text == ""


# ---------------------------------------------------------------------- what the parent is told


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    """Return the courier's end of a channel and the parent's."""
    its, mine = Channel.pair()
    yield its, mine
    its.close()
    mine.close()


def received(channel: Channel) -> list[dict[str, object]]:
    """Return all that is there."""
    return list(iter(channel.receive, None))


def test_many_threads_tell_each_notice_once(ends: tuple[Channel, Channel]) -> None:
    """Loops, requests and the log speak at the same time."""
    its, mine = ends
    notices = Notices(its)
    begin = threading.Barrier(8)

    def tell(thread: int) -> None:
        begin.wait(PATIENCE_S)
        for number in range(10):
            notices.send({"thread": thread, "number": number})
            notices.send_again()

    threads = [threading.Thread(target=tell, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    told = received(mine)
    assert sorted((n["thread"], n["number"]) for n in told) == [(t, n) for t in range(8) for n in range(10)]


def test_a_parent_that_does_not_listen_costs_the_oldest_notices(ends: tuple[Channel, Channel]) -> None:
    """They are kept until there is room; of more than a hundred, the newest."""
    its, mine = ends
    while its.send({"filling": "x" * 1_000}):
        continue
    notices = Notices(its)
    for number in range(MAX_UNSENT + 10):
        notices.send({"number": number})
    received(mine)
    notices.send_again()
    assert [notice["number"] for notice in received(mine)] == list(range(10, MAX_UNSENT + 10))


def test_a_parent_that_is_gone_is_told_nothing(ends: tuple[Channel, Channel]) -> None:
    """And nothing is kept for it."""
    its, mine = ends
    mine.close()
    notices = Notices(its)
    notices.send({"number": 1})
    notices.send_again()


def test_long_texts_are_shortened(ends: tuple[Channel, Channel]) -> None:
    """An error may be a whole page: a message holds it nevertheless."""
    its, mine = ends
    notices = Notices(its)
    notices.emit(
        logging.LogRecord("lezea_mlops", logging.WARNING, "", 0, "%s", ("x" * 2 * MAX_MESSAGE_BYTES,), None)
    )
    [told] = received(mine)
    assert told == {"log": logging.WARNING, "text": "x" * MAX_TEXT}
    answer = {"sinks": {"mlflow": {"last_error": "x" * 2 * MAX_TEXT, "delivered": 7, "failures": {}}}}
    assert _shortened(answer) == {
        "sinks": {"mlflow": {"last_error": "x" * MAX_TEXT, "delivered": 7, "failures": {}}}
    }


@pytest.mark.parametrize("size", [MAX_LOG_BYTES, MAX_LOG_BYTES + 1])
def test_a_log_is_cut_when_it_is_too_long(tmp_path: Path, size: int) -> None:
    """What is written next comes after the line that says so."""
    path = tmp_path / "courier.log"
    path.write_bytes(b"x" * size)
    with path.open("ab", buffering=0) as file:
        _cap(file.fileno())
        file.write(b"next\n")
    if size <= MAX_LOG_BYTES:
        assert path.stat().st_size == size + 5
    else:
        assert path.read_text() == "(what stood here was too long and was cut)\nnext\n"
