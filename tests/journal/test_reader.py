"""The reader: every record from any position, nothing of an unfinished line, and damage told with its place."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lezea_mlops.errors import JournalError
from lezea_mlops.events import MAX_LINE_BYTES
from lezea_mlops.journal import (
    JournalReader,
    JournalWriter,
    RunFolder,
    read_chunk,
    read_run,
    recorded_run_id,
)
from lezea_mlops.journal.reader import CHUNK_BYTES, MAX_DAMAGE_NOTES, STREAM_BYTES
from tests.journal.lines import line

ROOT = Path(__file__).resolve().parents[2]
MIB = 1024 * 1024


def seqs(records: Any) -> list[int]:
    """Return the numbers of records."""
    return [record.seq for record in records]


def test_reading_goes_on_from_every_offset_that_was_reported(path: Path) -> None:
    """From behind any record the rest comes, each once."""
    path.write_bytes(b"".join(line(seq, text="x" * seq) for seq in range(1, 21)))
    chunk = read_chunk(path, 0)
    assert seqs(chunk.records) == list(range(1, 21))
    assert chunk.after == chunk.ends[-1] == path.stat().st_size
    for seq, end in zip(seqs(chunk.records), chunk.ends, strict=True):
        assert seqs(read_chunk(path, end).records) == list(range(seq + 1, 21))
        assert seqs(JournalReader(RunFolder(path.parent), {"main": end})) == list(range(seq + 1, 21))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(0, 300), min_size=1, max_size=15), st.integers(1, 500), st.binary(max_size=9),
    st.integers(0, 15),
)  # fmt: skip
def test_however_much_is_read_at_a_time_the_same_comes(
    path: Path, sizes: list[int], max_bytes: int, garbage: bytes, place: int
) -> None:
    """Chunks of any size give all records, all damage and all positions of one reading, and at least a line each."""
    content = [line(seq, text="x" * size) for seq, size in enumerate(sizes, 1)]
    content.insert(min(place, len(content)), garbage.replace(b"\n", b"") + b"\n")
    path.write_bytes(b"".join(content) + b'{"unfinished":')
    whole = read_chunk(path, 0)
    assert seqs(whole.records) == list(range(1, len(sizes) + 1))
    at, records, ends, damage = 0, [], [], []
    while (chunk := read_chunk(path, at, max_bytes)).after != at:
        assert chunk.after - at <= max(max_bytes, max(map(len, content)))
        records += chunk.records
        ends += chunk.ends
        damage += chunk.damage
        at = chunk.after
    assert (records, ends, damage, at) == (whole.records, whole.ends, whole.damage, whole.after)


def test_a_growing_file_is_followed_byte_by_byte(folder: RunFolder, path: Path) -> None:
    """A record comes when its newline is there, neither earlier nor twice."""
    content = b"".join(line(seq, text="é😀") for seq in range(1, 5))
    reader = JournalReader(folder)
    path.touch()
    with path.open("ab", buffering=0) as file:
        for count in range(1, len(content) + 1):
            file.write(content[count - 1 : count])
            done = content[:count].count(b"\n")
            assert seqs(reader) == ([done] if content[:count].endswith(b"\n") else [])
            assert reader.positions.get("main", 0) == content[:count].rfind(b"\n") + 1
    assert reader.damaged == 0


def test_reading_beside_a_writer_sees_every_record_once_and_no_damage(folder: RunFolder) -> None:
    """Lines of all lengths, written while they are read, come whole and in order."""
    writer = JournalWriter(folder, "main", durability="process")

    def write() -> None:
        for i in range(2_000):
            writer.append("metric", {"text": "x" * (i * 37 % 5_000)})

    thread = threading.Thread(target=write)
    reader, seen = JournalReader(folder), []
    thread.start()
    while thread.is_alive():
        seen += seqs(reader)
    seen += seqs(reader)
    thread.join()
    writer.close()
    assert seen == list(range(1, 2_001))
    assert reader.damaged == 0


DAMAGE = [
    (b"garbage", "not JSON"), (b"\x00" * 4_096, "not JSON"), (b"\xff\xfe", "not JSON"), (b"{}", "not an envelope"),
    (line(7)[:-20], "not JSON"), (line(7)[:-1] + line(8)[:-1], "not JSON"), (b"[1, NaN]", "not JSON"),
    (b'{"v":1,"t":"x","m":{"seq":"7","ts":1},"p":{}}', "wrong type"),
]  # fmt: skip


@pytest.mark.parametrize(("damaged", "reason"), DAMAGE, ids=lambda part: repr(part[:20]))
def test_damage_is_told_with_its_place_and_stepped_over(
    folder: RunFolder, path: Path, damaged: bytes, reason: str
) -> None:
    """A whole line that is no record costs itself alone; file, offset and reason are told."""
    before, after = line(1) + line(2), line(3)
    path.write_bytes(before + damaged + b"\n" + after + damaged + b"\n")
    chunk = read_chunk(path, 0)
    assert seqs(chunk.records) == [1, 2, 3]
    assert [(note.path, note.offset) for note in chunk.damage] == [
        (path, len(before)), (path, len(before + damaged + b"\n" + after)),
    ]  # fmt: skip
    assert reason in chunk.damage[0].reason
    assert str(chunk.damage[0]).startswith(f"{path}: at byte {len(before)}: ")
    reader = JournalReader(folder)
    assert seqs(reader) == [1, 2, 3]
    assert (reader.damaged, reader.damage) == (2, chunk.damage)
    assert reader.positions["main"] == path.stat().st_size


def test_blank_lines_are_no_damage(folder: RunFolder, path: Path) -> None:
    """A newline that closed half a line, or an editor's, loses nothing and is not told."""
    path.write_bytes(b"\n" + line(1) + b"\n \r\n" + line(2) + b"\n")
    reader = JournalReader(folder)
    assert seqs(reader) == [1, 2]
    assert reader.damaged == 0


def test_damage_is_counted_in_full_noted_in_part_and_logged_once(
    folder: RunFolder, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file of rubbish neither fills the memory nor the log; a second reading that finds none says nothing."""
    path.write_bytes(b"rubbish\n" * (MAX_DAMAGE_NOTES + 900) + line(1))
    reader = JournalReader(folder)
    with caplog.at_level(logging.WARNING, "lezea_mlops"):
        assert seqs(reader) == [1]
        assert seqs(reader) == []
    assert (reader.damaged, len(reader.damage)) == (MAX_DAMAGE_NOTES + 900, MAX_DAMAGE_NOTES)
    [said] = [record.getMessage() for record in caplog.records]
    assert said.startswith("1000 places in the journals of")
    assert f"{path}: at byte 0" in said


def peak_of_reading(folder: RunFolder) -> tuple[JournalReader, list[int], int]:
    """Read a run; return the reader, the numbers, and the most memory in bytes that it held at once."""
    reader = JournalReader(folder)
    tracemalloc.start()
    try:
        numbers = seqs(reader)
        return reader, numbers, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("end", [b"\n", b""], ids=["finished", "unfinished"])
def test_a_line_without_an_end_is_not_held(folder: RunFolder, path: Path, end: bytes) -> None:
    """Twenty MiB without a newline are stepped over, or left alone at the end of the file, in little memory."""
    with path.open("wb") as file:
        file.write(line(1))
        for _ in range(20):
            file.write(b"x" * MIB)
        file.write(end + (line(2) if end else b""))
    reader, numbers, peak = peak_of_reading(folder)
    assert peak < 2 * MIB
    assert numbers == ([1, 2] if end else [1])
    assert reader.positions["main"] == (path.stat().st_size if end else len(line(1)))
    told = [(note.offset, note.reason) for note in reader.damage]
    assert told == (
        [(len(line(1)), f"a line of {20 * MIB + 1} bytes is too long for a record")] if end else []
    )


def test_the_limit_of_a_line_is_the_writers(path: Path) -> None:
    """A line of 8 MiB is a record, one byte more is damage, however much is read at a time."""
    empty = len(line(1, text=""))
    for extra, count in ((0, 1), (1, 0)):
        path.write_bytes(line(1, text="x" * (MAX_LINE_BYTES - empty + extra)) + line(2))
        for max_bytes in (STREAM_BYTES, CHUNK_BYTES, 3 * MAX_LINE_BYTES):
            chunk = read_chunk(path, 0, max_bytes)
            assert (seqs(chunk.records)[:1] == [1], len(chunk.damage)) == (count == 1, 1 - count)
            assert chunk.after >= MAX_LINE_BYTES


def test_reading_a_run_needs_little_memory(folder: RunFolder, path: Path) -> None:
    """Thirty MiB of records pass through less than two."""
    with path.open("wb") as file:
        for seq in range(1, 30_001):
            file.write(line(seq, text="x" * 900))
    _reader, numbers, peak = peak_of_reading(folder)
    assert len(numbers) == 30_000
    assert peak < 2 * MIB


def test_a_position_beyond_the_end_is_an_error(folder: RunFolder, path: Path) -> None:
    """A file that was cut or replaced is said to be so, with both numbers, and not read as if it were the old one."""
    path.write_bytes(line(1))
    with pytest.raises(
        JournalError, match=r"events\.jsonl has \d+ bytes, and the reader's position is 5000: .*cut"
    ):
        read_chunk(path, 5_000)
    with pytest.raises(JournalError, match="cut or replaced"):
        list(JournalReader(folder, {"main": 5_000}))


def test_a_journal_that_cannot_be_read_is_an_error_that_names_it(folder: RunFolder, path: Path) -> None:
    """A missing file, or a folder in its place, is told with its path."""
    with pytest.raises(JournalError, match=r"cannot read the journal .*events\.jsonl: "):
        read_chunk(path, 0)
    path.mkdir()
    with pytest.raises(JournalError, match=r"cannot read the journal .*events\.jsonl: "):
        list(read_run(folder.path))


def test_all_writers_are_read_main_first(folder: RunFolder) -> None:
    """Each file is read from its own position; one that appears later is read too."""
    for wid in ("rank2", "main", "main.0a1b2c3d"):
        folder.journal(wid).write_bytes(line(1, wid) + line(2, wid))
    reader = JournalReader(folder)
    read = [(record.wid, record.seq) for record in reader]
    assert read == [(wid, seq) for wid in ("main", "main.0a1b2c3d", "rank2") for seq in (1, 2)]
    folder.journal("courier").write_bytes(line(1, "courier"))
    with folder.journal("rank2").open("ab") as file:
        file.write(line(3, "rank2"))
    assert [(record.wid, record.seq) for record in reader] == [("courier", 1), ("rank2", 3)]
    assert sorted(reader.positions) == ["courier", "main", "main.0a1b2c3d", "rank2"]


def test_who_stops_in_the_middle_goes_on_there(folder: RunFolder, path: Path) -> None:
    """Positions move with each record, also past damage, so that leaving a loop early skips and repeats nothing."""
    path.write_bytes(line(1) + b"damage\n" + line(2) + line(3) + b"damage\n" + line(4))
    reader = JournalReader(folder)
    for count in range(1, 5):
        assert next(iter(reader)).seq == count
        assert reader.damaged == (0 if count == 1 else 1 if count < 4 else 2)
    assert seqs(reader) == []


@pytest.mark.parametrize("make", [True, False])
def test_a_folder_without_a_journal_is_an_error(tmp_path: Path, make: bool) -> None:
    """Reading nothing is not mistaken for an empty run; the error comes at the call, not later."""
    if make:
        (tmp_path / "empty" / "events.d.jsonl.old").mkdir(parents=True)
    with pytest.raises(JournalError, match=r"empty holds no journal \(events\.jsonl\)"):
        read_run(tmp_path / "empty")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "events.jsonl").touch()
    assert list(read_run(str(tmp_path / "begun"))) == []


PLAIN = """
import sys
from pathlib import Path
from lezea_mlops.events import encode_envelope
from lezea_mlops.journal import JournalReader, JournalWriter, RunFolder
assert not {"msgspec", "site"} & set(sys.modules)
folder = RunFolder(Path(sys.argv[1]))
writer = JournalWriter(folder, "plain")
writer.append("metric", {"small": 1e-7, "large": 1e16, "text": "é\\x7f\\n"})
writer.close()
reader = JournalReader(folder)
for record in reader:
    sys.stdout.buffer.write(encode_envelope(record) + b"\\n")
print(reader.damaged)
"""


def test_it_works_with_the_standard_library_alone(folder: RunFolder, path: Path) -> None:
    """An interpreter without site-packages reads and writes the same lines, and finds the same damage."""
    writer = JournalWriter(folder, "main")
    writer.append("metric", {"loss": 1e-7, "big": 1e300, "neg": -0.0, "text": "é😀\x00\x7f", "n": 2**63})
    writer.close()
    with path.open("ab") as file:
        file.write(b'{"v":1,"t":"x","m":{"seq":2,"ts":1},"p":{"n":NaN}}\n')
    result = subprocess.run(
        [sys.executable, "-S", "-c", PLAIN, str(folder.path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, check=True,
    )  # fmt: skip
    *lines, damaged = result.stdout.splitlines()
    assert damaged == b"1"
    assert lines == [path.read_bytes().splitlines()[0], *folder.journal("plain").read_bytes().splitlines()]
    assert [record.payload.get("text") for record in read_run(folder.path)] == ["é😀\x00\x7f", "é\x7f\n"]


# ---------------------------------------------------------------------- whose records they are


def test_a_copied_folder_still_tells_whose_run_it_is(folder: RunFolder, path: Path) -> None:
    """The records say so, not the folder's name."""
    assert recorded_run_id(folder) is None
    path.write_bytes(line(1, run_id="0b0f8c8e-6e0c"))
    assert recorded_run_id(folder) == "0b0f8c8e-6e0c"


@pytest.mark.parametrize(
    "before", [b"", b"garbage\n\n", b"\x00" * 3 * STREAM_BYTES + b"\n", b"x\n" * STREAM_BYTES]
)
def test_damage_before_the_first_record_does_not_hide_it(
    folder: RunFolder, path: Path, before: bytes
) -> None:
    """However much of it there is: else a copied folder would be delivered as another run."""
    path.write_bytes(before + line(1, run_id="true"))
    assert recorded_run_id(folder) == "true"


@pytest.mark.parametrize("run_id", [7, None, "", "a b", "../x", "x" * 200, ["a"]])
def test_what_can_be_no_id_is_none(folder: RunFolder, path: Path, run_id: Any) -> None:
    """Whatever else stands in its place, the folder's name is used then."""
    path.write_bytes(line(1, run_id=run_id) + line(2))
    assert recorded_run_id(folder) is None


@pytest.mark.parametrize("harm", ["empty", "damaged", "unfinished", "a folder", "gone"])
def test_another_writers_records_tell_it_where_main_cannot(folder: RunFolder, path: Path, harm: str) -> None:
    """A file that vanished, holds no record or cannot be read does not keep the others from saying it."""
    folder.journal("rank1").write_bytes(line(1, "rank1", run_id="true"))
    if harm == "a folder":
        path.mkdir()
    elif harm != "gone":
        path.write_bytes({"empty": b"", "damaged": b"\x00\n" * 9, "unfinished": line(1)[:-1]}[harm])
    assert recorded_run_id(folder) == "true"
