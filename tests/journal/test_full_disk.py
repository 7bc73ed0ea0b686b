"""A disk that is full: half a line is taken back, the loss is told at once, and written down when space returns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lezea_mlops.errors import JournalError
from lezea_mlops.journal import JournalReader, JournalWriter, RunFolder

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="limits of file sizes and tmpfs as Linux has them"
)

# A limit of the file's size is a full disk to the byte: the write that crosses it is short, the next one fails.
PRELUDE = """
import os, resource, signal
from pathlib import Path
from lezea_mlops.errors import JournalError
from lezea_mlops.journal import JournalWriter, RunFolder

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
HARD = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
folder = RunFolder(Path("run"))
folder.create()
writer = JournalWriter(folder, "main", durability="process")

def room(size=None):
    "Leave room for so many bytes more; without a size, enough."
    end = HARD if size is None else writer.path.stat().st_size + size
    resource.setrlimit(resource.RLIMIT_FSIZE, (end, HARD))

def append(i, text=""):
    "Append a record; print whether it was taken, and how long the file is."
    try:
        writer.append("metric", {"i": i, "text": text})
    except JournalError as error:
        assert "cannot write to the journal" in str(error), error
        print("lost", i, writer.path.stat().st_size)
    else:
        print("taken", i, writer.path.stat().st_size)
"""


def journal_after(
    run_python: RunPython, program: str, tmp_path: Path
) -> tuple[list[list[str]], list[dict[str, Any]]]:
    """Run *program*; return the lines that it printed, and the records that it left."""
    printed = run_python(PRELUDE + program).stdout
    content = (tmp_path / "run" / "events.jsonl").read_bytes()
    assert content.endswith(b"\n")
    return [line.split() for line in printed.splitlines()], [
        json.loads(line) for line in content.splitlines() if line
    ]


def numbers(records: list[dict[str, Any]]) -> list[int]:
    """Return the numbers of the records."""
    return [record["m"]["seq"] for record in records]


def test_a_short_write_is_taken_back_and_a_gap_tells_what_is_missing(
    run_python: RunPython, tmp_path: Path
) -> None:
    """Records 3 to 5 are lost; when there is room again, record 6 says so and 7 is the next one taken."""
    program = "append(1); append(2); room(10); append(3); append(4); append(5); room(); append(7); append(8)"
    printed, records = journal_after(run_python, program, tmp_path)
    assert [word for word, *_ in printed] == ["taken"] * 2 + ["lost"] * 3 + ["taken"] * 2
    assert len({size for _word, i, size in printed if i in "2345"}) == 1
    assert numbers(records) == [1, 2, 6, 7, 8]
    gap = records[2]
    assert gap["t"] == "gap"
    assert {name: gap["p"][name] for name in ("first_seq", "last_seq", "count")} == {
        "first_seq": 3, "last_seq": 5, "count": 3,
    }  # fmt: skip
    assert "only 10 of" in gap["p"]["reason"]
    assert [record["p"].get("i") for record in records] == [1, 2, None, 7, 8]


@pytest.mark.parametrize("left", [0, 1, 50, 120, 150, 200, 260])
def test_whatever_room_is_left_numbers_stay_true(run_python: RunPython, tmp_path: Path, left: int) -> None:
    """A record that would fit where its gap does not is lost too: no number stands for two things, or for nothing."""
    program = (
        f"append(1); room({left}); append(2, 'x' * 1_000); append(3); append(4); room(); append(5); append(6)"
    )
    printed, records = journal_after(run_python, program, tmp_path)
    taken = [int(i) for word, i, _size in printed if word == "taken"]
    lost = [int(i) for word, i, _size in printed if word == "lost"]
    assert [record["p"]["i"] for record in records if record["t"] == "metric"] == taken
    missing = [
        number
        for record in records if record["t"] == "gap"
        for number in range(record["p"]["first_seq"], record["p"]["last_seq"] + 1)
    ]  # fmt: skip
    assert sorted(numbers(records) + missing) == list(range(1, max(numbers(records)) + 1))
    assert len(missing) == len(lost)
    assert 2 in lost
    assert taken[-2:] == [5, 6]


def test_two_outages_make_two_gaps(run_python: RunPython, tmp_path: Path) -> None:
    """Each time that space returns is told by itself."""
    program = (
        "append(1); room(0); append(2); room(); append(3); room(5); append(4); append(5); room(); append(6)"
    )
    _printed, records = journal_after(run_python, program, tmp_path)
    gaps = [record["p"] for record in records if record["t"] == "gap"]
    assert [(gap["first_seq"], gap["last_seq"], gap["count"]) for gap in gaps] == [(2, 2, 1), (5, 6, 2)]
    assert numbers(records) == [1, 3, 4, 7, 8]


def test_closing_writes_the_gap_that_is_still_owed(run_python: RunPython, tmp_path: Path) -> None:
    """A run that ends after space returned tells of its loss, though no further record came."""
    program = "append(1); room(10); append(2); room(); writer.close()"
    _printed, records = journal_after(run_python, program, tmp_path)
    assert [(record["t"], record["m"]["seq"]) for record in records] == [("metric", 1), ("gap", 3)]


def test_closing_on_a_full_disk_does_not_fail(run_python: RunPython, tmp_path: Path) -> None:
    """What was lost was told at each call; the file stays whole."""
    program = "append(1); room(10); append(2); writer.close(); print('closed', 0, 0)"
    printed, records = journal_after(run_python, program, tmp_path)
    assert printed[-1][0] == "closed"
    assert numbers(records) == [1]


def test_half_a_line_that_cannot_be_taken_back_damages_nothing_else(
    run_python: RunPython, tmp_path: Path
) -> None:
    """Where the system refuses to shorten the file, the half line is closed, and every other record is readable."""
    program = """
append(1)
def refuse(descriptor, size):
    raise PermissionError(1, "append only")
shorten, os.ftruncate = os.ftruncate, refuse
room(10); append(2); room(60); append(3); room(5); append(4); room(); append(5); append(6)
"""
    run_python(PRELUDE + program)
    reader = JournalReader(RunFolder(tmp_path / "run"))
    records = list(reader)
    assert [record.payload.get("i") for record in records] == [1, None, 5, 6]
    assert records[1].payload["count"] == 3
    assert reader.damaged >= 1
    half_lines = (tmp_path / "run" / "events.jsonl").read_bytes().splitlines()[1:-3]
    assert all(len(line) <= 60 for line in half_lines)


def test_an_interrupted_call_does_not_cost_a_later_one(run_python: RunPython, tmp_path: Path) -> None:
    """Ctrl-C between the write and its count, then a full disk: what was acknowledged in between is kept whole."""
    program = """
append(1)
write = os.write
def interrupted(descriptor, data):
    write(descriptor, data)
    raise KeyboardInterrupt
os.write = interrupted
try:
    append(2)
except KeyboardInterrupt:
    os.write = write
append(3); room(10); append(4); room(); append(5)
"""
    _printed, records = journal_after(run_python, program, tmp_path)
    assert [record["p"].get("i") for record in records] == [1, 2, 3, None, 5]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mount.returncode:
        pytest.skip(f"this user may not mount a file system: {mount.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_file_system_that_fills_up_loses_what_it_says(small_disk: Path) -> None:
    """On a real full disk every record is in the file, or was refused and is named by the gap that follows."""
    folder = RunFolder(small_disk / "run")
    folder.create()
    writer = JournalWriter(folder, "main")
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 30_000)
    taken: list[int] = []
    for i in range(700):
        if i == 600:
            ballast.unlink()
        try:
            writer.append("metric", {"i": i, "text": "y" * (i % 97)})
        except JournalError:
            continue
        taken.append(i)
    writer.close()
    reader = JournalReader(folder)
    records = list(reader)
    [gap] = [record.payload for record in records if record.type == "gap"]
    assert [record.payload["i"] for record in records if record.type == "metric"] == taken
    assert reader.damaged == 0
    assert "No space left on device" in gap["reason"] or "bytes were written" in gap["reason"]
    # Numbers count from 1, and all records before the gap were taken, so the lost ones are these.
    lost = sorted(set(range(700)) - set(taken))
    assert (gap["first_seq"], gap["last_seq"], gap["count"]) == (lost[0] + 1, 600, len(lost))
    assert taken[-100:] == list(range(600, 700))


def test_a_lock_that_cannot_be_written_is_given_back(tmp_path: Path) -> None:
    """The journal is not opened, and the same process may try again: it does not meet a lock of its own."""
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.lock("main").parent.mkdir()
    # A pipe can be locked, but not be emptied for the holder's name.
    os.mkfifo(folder.lock("main"))
    for _ in range(2):
        with pytest.raises(JournalError, match="cannot lock the journal in"):
            JournalWriter(folder, "main")
    folder.lock("main").unlink()
    JournalWriter(folder, "main").close()
