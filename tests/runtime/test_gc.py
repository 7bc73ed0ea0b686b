"""What a run needs no more is removed; a run that is alive or not delivered everywhere is not touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lezea_mlops._files import LifeLock
from lezea_mlops.delivery import Shipper, Step
from lezea_mlops.journal import BlobStore, JournalWriter, RunFolder
from lezea_mlops.runtime.gc import Collected, collect
from lezea_mlops.sinks.base import destination_id
from lezea_mlops.sinks.memory import MemorySink
from lezea_mlops.testing import FakeClock

DESTINATION = destination_id(MemorySink())
CONTENTS = (b"one", b"three" * 100)
BYTES = sum(map(len, CONTENTS))


def record(folder: RunFolder, *types: str, wid: str = "main") -> None:
    """Let a writer record events and leave."""
    writer = JournalWriter(folder, wid, durability="process")
    for type_name in types:
        writer.append(type_name, {"experiment_name": "x", "status": "completed"})
    writer.close()


def ship(folder: RunFolder, sink: MemorySink | None = None) -> None:
    """Deliver all that waits."""
    shipper = Shipper(folder, sink or MemorySink(), FakeClock())
    while shipper.ship_once() is Step.SHIPPED:
        pass


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run that captured two files, ended, and was delivered."""
    folder = RunFolder(tmp_path / "run-1")
    folder.create()
    record(folder, "run_started", "comment", "run_finished")
    for content in CONTENTS:
        BlobStore(folder.blobs).put_bytes(content)
    ship(folder)
    return folder


def blobs(folder: RunFolder) -> list[bytes]:
    """Return the captured contents that are there."""
    return sorted(path.read_bytes() for path in folder.blobs.rglob("*") if path.is_file())


def gc(folder: RunFolder, *, dry_run: bool = False) -> Collected:
    """Collect, with the one destination configured."""
    return collect(folder, {"memory": DESTINATION}, dry_run=dry_run)


def dead_pid() -> int:
    """Return the number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_delivered_files_are_removed_with_their_folders(folder: RunFolder) -> None:
    """Two files and their bytes; a second call finds nothing; the journal and the cursor stay."""
    before = {path.name for path in folder.path.iterdir()}
    assert gc(folder) == Collected("run-1", 2, 0, BYTES)
    assert list(folder.blobs.iterdir()) == []
    assert gc(folder) == Collected("run-1", 0, 0, 0)
    assert {path.name for path in folder.path.iterdir()} == before
    record(folder, "comment")
    ship(folder)


def test_a_dry_run_tells_the_same_and_removes_nothing(folder: RunFolder) -> None:
    """What it says is what would happen."""
    assert gc(folder, dry_run=True) == Collected("run-1", 2, 0, BYTES)
    assert blobs(folder) == sorted(CONTENTS)
    assert gc(folder) == Collected("run-1", 2, 0, BYTES)


def more_waits(folder: RunFolder) -> None:
    """Record something late."""
    record(folder, "comment")


def another_destination(folder: RunFolder) -> None:
    """Let a destination of former days lack the end."""
    folder.cursor("old-1").write_text('{"v": 1, "positions": {"main": [0, 0]}, "sink": {"a": 1}}')


def spoil_cursor(folder: RunFolder) -> None:
    """Let it be unknown how far the destination is."""
    folder.cursor(DESTINATION).write_text("?")


def resume(folder: RunFolder) -> None:
    """Begin a second attempt that does not end, delivered."""
    record(folder, "run_started")
    ship(folder)


def hold(wid: str) -> Callable[[RunFolder], object]:
    """Return what lets this process be a writer of the run."""
    return lambda folder: LifeLock.take(folder.lock(wid))


def retry(folder: RunFolder) -> None:
    """Leave a retry that was cut short."""
    folder.rejected(DESTINATION).parent.mkdir()
    folder.rejected(DESTINATION).with_suffix(".0a.retried").write_text("{}")


def write_elsewhere(folder: RunFolder) -> None:
    """Let a writer on another host have spoken just now."""
    stored = {"pid": 1, "start_ticks": 1, "host": "elsewhere.invalid", "boot_id": "x"}
    folder.lock("rank7").write_text(json.dumps(stored))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (more_waits, f"1 record waits for {DESTINATION}"), (another_destination, "3 records wait for old-1"),
        (spoil_cursor, f"3 records wait for {DESTINATION}"), (resume, "it is lost"),
        (hold("main"), "its process lives (locks/main.lock"), (hold("rank1"), "its process lives (locks/rank1.lock"),
        (hold("courier"), "another process delivers it now"), (retry, "second try"),
        (write_elsewhere, "locks/rank7.lock"),
    ],
)  # fmt: skip
def test_a_run_that_is_used_or_waits_is_left_and_the_reason_told(
    folder: RunFolder, make: Callable[[RunFolder], object], words: str
) -> None:
    """Not one file of it is removed, not even what a dead process left."""
    leftover = folder.path / f".alive.json.{dead_pid()}.0a0a0a0a"
    leftover.write_text("x")
    kept = make(folder)
    report = gc(folder)
    assert words in str(report.left_because)
    assert (report.blobs, report.leftovers, report.bytes) == (0, 0, 0)
    assert blobs(folder) == sorted(CONTENTS)
    assert leftover.exists()
    del kept


def test_a_destination_that_never_got_anything_keeps_all(folder: RunFolder) -> None:
    """It is configured, and has no cursor."""
    report = collect(folder, {"memory": DESTINATION, "mlflow": "mlflow-1"})
    assert report.left_because == f"3 records wait for mlflow-1; lezea sync {folder.path}"
    assert blobs(folder) == sorted(CONTENTS)


def test_the_file_of_a_refused_record_stays(folder: RunFolder) -> None:
    """It may be offered again."""
    refused = BlobStore(folder.blobs).put_bytes(b"refused")
    folder.rejected(DESTINATION).parent.mkdir()
    folder.rejected(DESTINATION).write_text(
        json.dumps({"wid": "main", "seq": 2, "record": {"p": {"sha256": refused.sha256}}}) + "\n"
    )
    assert gc(folder) == Collected("run-1", 2, 0, BYTES)
    assert blobs(folder) == [b"refused"]


def test_what_dead_processes_left_is_removed_and_nothing_else(folder: RunFolder) -> None:
    """Unfinished files of processes that are gone, and uploads; those of a process that exists stay."""
    gone, here = dead_pid(), os.getpid()
    upload = folder.path / ".upload-ab12"
    upload.mkdir()
    (upload / "model.bin").write_bytes(b"12345")
    stale = [
        folder.path / f".alive.json.{gone}.0a0a0a0a", folder.cursors / f".{DESTINATION}.json.{gone}.0a0a0a0a",
        folder.blobs / f".{gone}.0a0a0a0a0a0a0a0a",
    ]  # fmt: skip
    kept = [
        folder.path / f".alive.json.{here}.0a0a0a0a", folder.path / f"alive.json.{gone}.0a0a0a0a",
        folder.path / ".notes", folder.path / f".notes.{gone}.txt",
    ]  # fmt: skip
    for path in stale + kept:
        path.write_bytes(b"x")
    assert gc(folder) == Collected("run-1", 2, 4, BYTES + 5 + 3)
    assert not upload.exists()
    assert [path.exists() for path in stale] == [False] * 3
    assert [path.exists() for path in kept] == [True] * 4


def test_a_run_that_died_keeps_what_its_lock_says_until_its_end_is_written(folder: RunFolder) -> None:
    """The note of who died, and of which signal, is not erased by looking."""
    record(folder, "run_started")
    ship(folder)
    content = json.dumps({"pid": dead_pid(), "start_ticks": 1, "host": os.uname().nodename, "boot_id": "x"})
    folder.lock("main").write_text(content)
    assert "it is lost" in str(gc(folder).left_because)
    assert folder.lock("main").read_text() == content
