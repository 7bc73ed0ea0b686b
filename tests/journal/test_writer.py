"""The writer: a call that returned is in the file, whole, and nobody else writes there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lezea_mlops._files import LifeLock, read_holder
from lezea_mlops.errors import JournalBusyError, JournalError, LineTooLongError
from lezea_mlops.events import MAX_LINE_BYTES
from lezea_mlops.journal import (
    Cursor,
    CursorState,
    JournalReader,
    JournalWriter,
    Position,
    RunFolder,
    is_writing,
)
from lezea_mlops.journal.writer import MAX_FIELDS_BYTES, MAX_TEMPLATES

ROOT = Path(__file__).resolve().parents[2]
RunPython = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def writer(folder: RunFolder) -> Iterator[JournalWriter]:
    writer = JournalWriter(folder, "main")
    yield writer
    writer.close()


def lines(folder: RunFolder, wid: str = "main") -> list[dict[str, Any]]:
    """Return what a strict reader of JSON finds in a journal file; an unfinished last line is an error here."""

    def no_such_word(word: str) -> NoReturn:
        raise AssertionError(f"{word} is not strict JSON")

    content = folder.journal(wid).read_bytes()
    assert content == b"" or content.endswith(b"\n")
    return [json.loads(line, parse_constant=no_such_word) for line in content.splitlines()]


def test_a_line_is_whole_when_the_call_returns(
    writer: JournalWriter, folder: RunFolder, run_python: RunPython
) -> None:
    """Another process reads every record while the writer still holds the file open."""
    program = f"import json; [print(json.loads(line)['p']['step']) for line in open({str(writer.path)!r})]"
    for step in range(3):
        writer.append("metric", {"step": step})
        assert run_python(program).stdout.split() == [str(i) for i in range(step + 1)]


def test_a_record_is_one_write_with_the_newline_last(
    writer: JournalWriter, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each record reaches the system in one piece, which nothing else can come between."""
    written: list[bytes] = []
    write = os.write

    def counting(descriptor: int, data: bytes) -> int:
        written.append(bytes(data))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", counting)
    writer.append("metric", {"step": 1, "text": "a\nb"}, (("builder", "4%2"),))
    writer.append("metric", {"step": 2, "text": "x" * 1_000_000})
    assert len(written) == 2
    assert b"".join(written) == folder.journal("main").read_bytes()
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in written)


def test_a_record_is_the_envelope_of_the_design(writer: JournalWriter, folder: RunFolder) -> None:
    """Version, type, numbers, scopes and fields stand where every reader looks for them."""
    before = writer.last_ts
    writer.append("training_step", {"step": 7, "metrics": {"loss": 0.5}}, (("builder", "42"), ("layer", "3")))
    writer.append("training_step", {"step": 8}, auto=True)
    writer.append("training_step", {"step": 9}, late=True)
    writer.append("training_step", {"step": 10})
    records = lines(folder)
    moments = [record["m"].pop("ts") for record in records]
    meta = {"wid": "main", "att": 1}
    assert records == [
        {"v": 1, "t": "training_step", "m": {"seq": 1} | meta, "p": {
            "run_id": "run-1", "scope": [["builder", "42"], ["layer", "3"]], "step": 7, "metrics": {"loss": 0.5},
        }},
        {"v": 1, "t": "training_step", "m": {"seq": 2} | meta | {"auto": True}, "p": {"run_id": "run-1", "step": 8}},
        {"v": 1, "t": "training_step", "m": {"seq": 3} | meta | {"late": True}, "p": {"run_id": "run-1", "step": 9}},
        {"v": 1, "t": "training_step", "m": {"seq": 4} | meta, "p": {"run_id": "run-1", "step": 10}},
    ]  # fmt: skip
    assert before <= moments[0] <= moments[-1] == writer.last_ts


def test_ten_thousand_scopes_do_not_mix(writer: JournalWriter, folder: RunFolder) -> None:
    """Lines are prepared per type and scope; each record keeps its own, also beyond what is remembered."""
    scopes = [(("tasker", str(i % (MAX_TEMPLATES + 7))),) for i in range(MAX_TEMPLATES + 50)]
    for i, scope in enumerate(scopes):
        writer.append("metric" if i % 2 else "reward", {"i": i}, scope)
    for i, (scope, record) in enumerate(zip(scopes, lines(folder), strict=True)):
        assert record["p"] == {"run_id": "run-1", "scope": [list(scope[0])], "i": i}
        assert record["t"] == ("metric" if i % 2 else "reward")


def test_numbers_and_attempts_go_on_after_opening_again(folder: RunFolder) -> None:
    """``seq`` grows by one for ever; each opening is a further attempt unless it is said which."""
    for opening in range(3):
        writer = JournalWriter(folder, "main")
        assert (writer.seq, writer.attempt, writer.torn_bytes) == (2 * opening, opening + 1, 0)
        writer.append("metric", {"i": 1})
        writer.append("metric", {"i": 2})
        writer.close()
    same = JournalWriter(folder, "main", attempt=3)
    same.append("metric", {"i": 3})
    same.close()
    numbers = [(record["m"]["seq"], record["m"]["att"]) for record in lines(folder)]
    assert numbers == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (6, 3), (7, 3)]


def test_further_writers_have_files_and_numbers_of_their_own(folder: RunFolder) -> None:
    """Nobody shares a file."""
    writers = [JournalWriter(folder, wid) for wid in ("main", "rank1", "main.0a1b2c3d")]
    for writer in writers:
        writer.append("metric", {"i": 1})
        assert writer.seq == 1
        writer.close()
    assert list(folder.journals()) == ["main", "main.0a1b2c3d", "rank1"]
    assert [lines(folder, wid)[0]["m"]["wid"] for wid in folder.journals()] == list(folder.journals())


def test_files_are_private(writer: JournalWriter, folder: RunFolder) -> None:
    """Journal and lock are readable by their owner alone, and so is the folder."""
    assert writer.path.stat().st_mode & 0o777 == 0o600
    assert folder.lock("main").stat().st_mode & 0o777 == 0o600
    assert folder.path.stat().st_mode & 0o777 == 0o700


def test_what_does_not_fit_a_line_changes_nothing(writer: JournalWriter, folder: RunFolder) -> None:
    """Fields or scopes that are too long are refused before anything is written or numbered."""
    writer.append("metric", {"i": 1})
    before = writer.path.read_bytes()
    with pytest.raises(LineTooLongError, match=r"\d+ bytes of metric do not fit a line"):
        writer.append("metric", {"text": "x" * MAX_FIELDS_BYTES})
    with pytest.raises(LineTooLongError, match=r"\d+ bytes of scopes around metric do not fit a line"):
        writer.append("metric", {"i": 1}, (("builder", "x" * 70_000),))
    assert (writer.path.read_bytes(), writer.seq, writer.lost) == (before, 1, 0)
    writer.append("metric", {"i": 2})
    assert [record["m"]["seq"] for record in lines(folder)] == [1, 2]


def test_the_longest_record_that_is_taken_is_read_back(writer: JournalWriter, folder: RunFolder) -> None:
    """Whatever was acknowledged is within the limit of every reader."""
    text = "x" * (MAX_FIELDS_BYTES - len('{"text":""}'))
    writer.append("metric", {"text": text}, (("builder", "y" * 64_000),))
    assert 8_300_000 < len(writer.path.read_bytes()) <= MAX_LINE_BYTES
    [record] = JournalReader(folder)
    assert record.payload["text"] == text


def test_a_record_without_fields_is_refused(writer: JournalWriter, folder: RunFolder) -> None:
    """It would not be JSON; nothing is written."""
    with pytest.raises(ValueError, match="a record of type 'metric' needs one field at least"):
        writer.append("metric", {})
    assert lines(folder) == []


def test_a_writer_that_was_closed_says_so_and_stays_closed(folder: RunFolder) -> None:
    """An append after ``close`` is a loss that is told, not one in silence; closing again does nothing."""
    writer = JournalWriter(folder, "main")
    writer.close()
    writer.close()
    writer.abandon()
    with pytest.raises(JournalError, match="cannot write to the journal"):
        writer.append("metric", {"i": 1})
    assert (writer.lost, lines(folder)) == (1, [])


@pytest.mark.parametrize("wid", ["main", "rank1"])
def test_a_folder_that_takes_no_journal_is_an_error_that_names_it(folder: RunFolder, wid: str) -> None:
    """The journal cannot be opened; the lock is free for the next try."""
    folder.journal(wid).mkdir()
    for _ in range(2):
        with pytest.raises(JournalError, match=r"cannot open the journal .*events.*: ") as caught:
            JournalWriter(folder, wid)
        assert not isinstance(caught.value, JournalBusyError)
    folder.journal(wid).rmdir()
    JournalWriter(folder, wid).close()


RECORDS: list[dict[str, Any]] = [
    {"i": 1},
    {"i": 2, "text": "ä😀\n{}"},
    {"i": 3, "deep": {"a": [[], {}]}},
    {"i": 4},
]


def test_a_torn_tail_is_cut_at_every_offset(folder: RunFolder) -> None:
    """Wherever a file was cut, opening keeps exactly the whole lines, and the next record follows them."""
    writer = JournalWriter(folder, "main", durability="process")
    for fields in RECORDS:
        writer.append("metric", fields)
    writer.close()
    whole = writer.path.read_bytes()
    for cut in range(len(whole) + 1):
        writer.path.write_bytes(whole[:cut])
        kept = whole[:cut].count(b"\n")
        tail = cut - (whole[:cut].rfind(b"\n") + 1)
        again = JournalWriter(folder, "main", attempt=1, durability="process")
        assert (again.seq, again.torn_bytes, again.path.stat().st_size) == (kept, tail, cut - tail)
        again.append("metric", {"i": "new"})
        again.close()
        records = lines(folder)
        assert [record["m"]["seq"] for record in records] == list(range(1, kept + 2))
        assert [record["p"] for record in records] == [
            {"run_id": "run-1"} | fields for fields in [*RECORDS[:kept], {"i": "new"}]
        ]


@pytest.mark.parametrize("tail", [b"\x00" * 5_000, b"x" * 300_000, b'{"v":1', b"\xff\xfe"])
def test_a_tail_of_anything_is_cut(folder: RunFolder, tail: bytes) -> None:
    """What a power loss leaves behind the last newline goes, however long it is."""
    writer = JournalWriter(folder, "main")
    writer.append("metric", {"i": 1})
    writer.close()
    with writer.path.open("ab") as file:
        file.write(tail)
    again = JournalWriter(folder, "main")
    again.append("metric", {"i": 2})
    again.close()
    assert again.torn_bytes == len(tail)
    assert [record["m"]["seq"] for record in lines(folder)] == [1, 2]


def test_numbers_go_on_behind_damage(folder: RunFolder) -> None:
    """Whole lines that are no records do not hide the last number."""
    writer = JournalWriter(folder, "main")
    for i in range(3):
        writer.append("metric", {"i": i})
    writer.close()
    with writer.path.open("ab") as file:
        file.write(b"garbage\n\n\x00\x00\n{}\n" + b"y" * 200_000 + b"\n")
    again = JournalWriter(folder, "main")
    assert (again.seq, again.attempt, again.torn_bytes) == (3, 2, 0)
    again.close()


def test_a_file_of_damage_alone_begins_at_one(folder: RunFolder) -> None:
    """Without a record to go on from, the first number is 1."""
    folder.journal("main").write_bytes(b"garbage\n\n")
    writer = JournalWriter(folder, "main")
    writer.append("metric", {"i": 1})
    assert (writer.seq, writer.attempt) == (1, 1)
    writer.close()


HOLD = """
import sys
from pathlib import Path
from lezea_mlops.journal import JournalWriter, RunFolder
writer = JournalWriter(RunFolder(Path(sys.argv[1])), "main")
writer.append("metric", {"i": 1})
print("open", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_is_dead(folder: RunFolder) -> None:
    """One live process writes a file; what a killed one leaves is opened at once."""
    command = [sys.executable, "-c", HOLD, str(folder.path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(JournalBusyError, match="give this one its own experiment_id") as caught:
            JournalWriter(folder, "main")
        assert str(folder.lock("main")) in str(caught.value)
        assert json.loads(folder.lock("main").read_bytes())["pid"] == holder.pid
        JournalWriter(folder, "rank1").close()
        holder.kill()
        holder.wait()
        writer = JournalWriter(folder, "main")
        writer.append("metric", {"i": 2})
        writer.close()
    assert [record["m"]["seq"] for record in lines(folder)] == [1, 2]


def test_closing_gives_the_lock_back_though_a_forked_child_lives(folder: RunFolder) -> None:
    """A worker that was forked in between does not keep the run from being opened again."""
    writer = JournalWriter(folder, "main")
    ends_with, parent_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(parent_end)
        os.read(ends_with, 1)
        os._exit(0)
    writer.close()
    JournalWriter(folder, "main").close()
    os.close(parent_end)
    os.close(ends_with)
    os.waitpid(child, 0)


def test_a_forked_child_leaves_its_parents_journal_alone(folder: RunFolder, run_python: RunPython) -> None:
    """The child forgets the file; the parent still holds the lock and goes on."""
    writer = JournalWriter(folder, "main")
    writer.append("metric", {"i": 1})
    child = os.fork()
    if child == 0:
        writer.abandon()
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    other = run_python(HOLD.replace("sys.argv[1]", repr(str(folder.path))), check=False)
    assert "JournalBusyError" in other.stderr
    writer.append("metric", {"i": 2})
    writer.close()
    assert [record["m"]["seq"] for record in lines(folder)] == [1, 2]


# ---------------------------------------------------------------------- a power loss


def delivered(folder: RunFolder, seq: int, offset: int) -> None:
    """Store that a destination has taken the records of ``main`` up to this one."""
    Cursor(folder.cursor("memory-0a1b2c3d")).save(CursorState({"main": Position(offset, seq)}))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 6), st.integers(0, 2_000), st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_numbers_never_repeat_wherever_a_power_loss_cut_the_journal(
    tmp_path: Path, taken: int, cut: int, more: list[int]
) -> None:
    """Every number that was delivered is in the file, or named by one gap record; each new record has a new one."""
    folder = RunFolder(tmp_path / os.urandom(4).hex())
    folder.create()
    ends = [0]
    writer = JournalWriter(folder, "main", durability="process")
    for i in range(6):
        writer.append("metric", {"i": i})
        ends.append(writer.size_bytes)
    writer.close()
    delivered(folder, taken, ends[taken])
    os.truncate(folder.journal("main"), min(cut, ends[-1]))
    kept = sum(end <= cut for end in ends[1:])
    for count in more:
        writer = JournalWriter(folder, "main", durability="process")
        for i in range(count):
            writer.append("metric", {"new": i})
        writer.close()
    records = lines(folder)
    new = [record["m"]["seq"] for record in records if "new" in record["p"]]
    assert [record["m"]["seq"] for record in records if "i" in record["p"]] == list(range(1, kept + 1))
    assert min(new) > max(taken, kept)
    assert new == list(range(new[0], new[0] + sum(more)))
    gaps = [record["p"] for record in records if record["t"] == "gap"]
    missing = {"run_id": folder.run_id, "count": taken - kept, "first_seq": kept + 1, "last_seq": taken}
    reason = {"reason": "these records were delivered, and a power loss took them from the journal"}
    assert gaps == ([missing | reason] if taken > kept else [])


def test_a_writer_that_says_nothing_still_leaves_the_gap(folder: RunFolder) -> None:
    """Opened and closed, the file says what it lost; opened once more, it says nothing new."""
    delivered(folder, 3, 500)
    for _ in range(2):
        JournalWriter(folder, "main").close()
        assert [(record["t"], record["m"]["seq"]) for record in lines(folder)] == [("gap", 4)]


def test_a_delivery_in_between_does_not_let_numbers_repeat(folder: RunFolder) -> None:
    """What was left of the journal was delivered anew, so that the cursor stands at its end: still they are used."""
    delivered(folder, 9, 900)
    writer = JournalWriter(folder, "main")
    writer.append("metric", {"i": 1})
    writer.close()
    os.truncate(folder.journal("main"), 0)
    delivered(folder, 0, 0)
    again = JournalWriter(folder, "main")
    assert again.seq == 9
    again.close()


# ---------------------------------------------------------------------- the lock


def test_a_lock_that_the_caller_holds_is_used_and_left_to_it(folder: RunFolder) -> None:
    """Whoever delivers a run may write as ``courier`` and keeps the lock afterwards, also where opening fails."""
    lock = LifeLock.take(folder.lock("courier"))
    assert lock is not None
    with pytest.raises(JournalBusyError):
        JournalWriter(folder, "courier")
    for attempt in (1, 2):
        writer = JournalWriter(folder, "courier", attempt=attempt, lock=lock)
        writer.append("run_finished", {"status": "killed"})
        writer.close()
        assert LifeLock.take(folder.lock("courier")) is None
        assert is_writing(folder, "courier")
    folder.journal("courier").unlink()
    folder.journal("courier").mkdir()
    with pytest.raises(JournalError, match="cannot open the journal"):
        JournalWriter(folder, "courier", lock=lock)
    assert LifeLock.take(folder.lock("courier")) is None
    lock.release()
    assert is_writing(folder, "courier") is False


def test_a_journal_that_cannot_be_opened_is_written_by_nobody(folder: RunFolder) -> None:
    """The process that tried lives on; those who look at the lock must not take it for the writer."""
    folder.journal("main").mkdir()
    with pytest.raises(JournalError, match="cannot open the journal"):
        JournalWriter(folder, "main")
    assert read_holder(folder.lock("main")) is None
    assert is_writing(folder) is False
