"""Durability: what survives the death of the machine is a policy, and each policy keeps its word."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from lezea_mlops.errors import JournalError
from lezea_mlops.journal import DURABILITY, JournalWriter, RunFolder
from lezea_mlops.journal import writer as writer_module

SECOND_NS = 1_000_000_000


class Clock:
    """The wall clock of the writer."""

    def __init__(self) -> None:
        self.now_ns = 1_763_690_000 * SECOND_NS

    def time_ns(self) -> int:
        return self.now_ns

    def now_us(self) -> int:
        return self.now_ns // 1_000


class Syncs:
    """Counts real fsyncs of plain files, and remembers how large each file was."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self._fsync = os.fsync

    def fsync(self, descriptor: int) -> None:
        self._fsync(descriptor)
        status = os.fstat(descriptor)
        assert stat.S_ISREG(status.st_mode)
        self.sizes.append(status.st_size)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(writer_module, "time_ns", clock.time_ns)
    monkeypatch.setattr(writer_module, "now_us", clock.now_us)
    return clock


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Syncs:
    syncs = Syncs()
    monkeypatch.setattr(os, "fsync", syncs.fsync)
    return syncs


def open_writer(tmp_path: Path, durability: str) -> JournalWriter:
    """Open the journal of a new run."""
    folder = RunFolder(tmp_path / "run")
    folder.create()
    return JournalWriter(folder, "main", durability=durability)


def test_the_policies_have_three_names() -> None:
    """Settings and documents know these."""
    assert DURABILITY == ("process", "interval", "record")


def test_process_never_waits_for_the_disk(tmp_path: Path, clock: Clock, syncs: Syncs) -> None:
    """No append, no jump of the clock, no driver and no closing makes this policy sync."""
    writer = open_writer(tmp_path, "process")
    for jump_s in (0, 1, 5_000_000, -10_000_000, 3_600):
        clock.now_ns += jump_s * SECOND_NS
        writer.append("metric", {"i": 1})
        writer.sync()
    writer.sync_after_us = 5_000_000
    clock.now_ns += 100 * SECOND_NS
    writer.append("metric", {"i": 1})
    writer.close()
    assert syncs.sizes == []


def test_record_syncs_each_record_before_the_call_returns(tmp_path: Path, clock: Clock, syncs: Syncs) -> None:
    """Every record is on the disk when its call returns, even if a driver syncs too."""
    writer = open_writer(tmp_path, "record")
    writer.sync_after_us = 5_000_000
    for count in range(1, 6):
        writer.append("metric", {"i": count})
        assert len(syncs.sizes) == count
        assert syncs.sizes[-1] == writer.path.stat().st_size
    writer.close()
    assert len(syncs.sizes) == 5


def test_interval_syncs_at_most_once_a_second(tmp_path: Path, clock: Clock, syncs: Syncs) -> None:
    """A second after the last sync the next append syncs, with all that was written since."""
    writer = open_writer(tmp_path, "interval")
    counts = []
    for _ in range(25):
        writer.append("metric", {"i": 1})
        counts.append(len(syncs.sizes))
        clock.now_ns += SECOND_NS // 10
    assert counts == [0] * 10 + [1] * 10 + [2] * 5
    before = writer.path.stat().st_size
    writer.close()
    assert syncs.sizes[2:] == [before]


def test_a_driver_that_syncs_spares_the_append(tmp_path: Path, clock: Clock, syncs: Syncs) -> None:
    """While a driver syncs each second no append does; if the driver is late, an append steps in."""
    writer = open_writer(tmp_path, "interval")
    writer.sync_after_us = 5_000_000
    for second in range(1, 8):
        clock.now_ns += SECOND_NS
        writer.append("metric", {"i": second})
        assert len(syncs.sizes) == second - 1
        writer.sync()
        assert len(syncs.sizes) == second
    clock.now_ns += 5 * SECOND_NS
    writer.append("metric", {"i": 8})
    assert len(syncs.sizes) == 8
    writer.close()


def test_a_clock_that_jumps_back_causes_one_sync_and_no_hours_without(
    tmp_path: Path, clock: Clock, syncs: Syncs
) -> None:
    """After the jump the interval goes on from the new time."""
    writer = open_writer(tmp_path, "interval")
    clock.now_ns -= 3_600 * SECOND_NS
    writer.append("metric", {"i": 1})
    assert len(syncs.sizes) == 1
    writer.append("metric", {"i": 2})
    clock.now_ns += SECOND_NS - 1_000
    writer.append("metric", {"i": 3})
    assert len(syncs.sizes) == 1
    clock.now_ns += 1_000
    writer.append("metric", {"i": 4})
    assert len(syncs.sizes) == 2
    writer.close()


def test_nothing_new_is_not_synced(tmp_path: Path, clock: Clock, syncs: Syncs) -> None:
    """Syncing twice, or a journal without a new record, asks nothing of the disk."""
    writer = open_writer(tmp_path, "interval")
    writer.sync()
    assert syncs.sizes == []
    writer.append("metric", {"i": 1})
    writer.sync()
    writer.sync()
    writer.close()
    assert len(syncs.sizes) == 1


def test_a_disk_that_cannot_sync_is_said_and_the_record_stays(tmp_path: Path) -> None:
    """The record is with the system, only the promise beyond it is not kept; file and lock are closed nevertheless."""
    folder = RunFolder(tmp_path / "run")
    folder.create()
    # A pipe takes what is written and refuses to be fsynced.
    os.mkfifo(folder.journal("main"))
    writer = JournalWriter(folder, "main", durability="record")
    reading = os.open(folder.journal("main"), os.O_RDONLY)
    with pytest.raises(JournalError, match=r"what is in .*events\.jsonl could not be fsynced"):
        writer.append("metric", {"i": 1})
    assert os.read(reading, 10_000).count(b"\n") == 1
    assert (writer.lost, writer.seq) == (0, 1)
    with pytest.raises(JournalError, match="could not be fsynced"):
        writer.close()
    os.close(reading)
    JournalWriter(folder, "main", durability="process").close()
