"""Who writes a run, and how it ended: told from locks, ``alive.json`` and the journal, with real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lezea_mlops._clock import now_us
from lezea_mlops._files import LifeLock
from lezea_mlops.errors import JournalError
from lezea_mlops.events import line_template
from lezea_mlops.journal import (
    Attempt,
    RunFolder,
    SignOfLife,
    is_writing,
    liveness,
    read_attempts,
    read_sign_of_life,
    state_of,
)
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MINUTE_US = 60 * 1_000_000
WRITES_AND_WAITS = """
import sys
from pathlib import Path
from lezea_mlops.journal import JournalWriter, RunFolder
writer = JournalWriter(RunFolder(Path(sys.argv[1])), "main")
writer.append("run_started", {"experiment_name": "x"})
print("writes", flush=True)
sys.stdin.read()
writer.close()
"""


@pytest.fixture
def writer(folder: RunFolder) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has begun the run, and ends in good order when its standard input is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITES_AND_WAITS, str(folder.path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"writes\n"
        yield process
        process.kill()


def line(type_name: str, fields: dict[str, Any], *, att: int = 1, ts: int = 1_000, **flags: bool) -> bytes:
    """Return one line of a journal."""
    tail = json.dumps(fields | {"_": 0}).encode()[1:]
    return line_template(type_name, run_id="run-1", wid="main", att=att, **flags) % (1, ts, tail)


def started(att: int = 1, ts: int = 1_000) -> bytes:
    """Return the line that begins an attempt."""
    return line("run_started", {"experiment_name": "x"}, att=att, ts=ts)


def finished(status: str = "completed", att: int = 1, *, inferred: bool = False, **flags: bool) -> bytes:
    """Return the line that ends an attempt."""
    return line(
        "run_finished", {"status": status} | ({"inferred": True} if inferred else {}), att=att, **flags
    )


def edit_lock(folder: RunFolder, **changes: Any) -> None:
    """Change what the lock of ``main`` says of its holder."""
    content = json.loads(folder.lock("main").read_bytes())
    folder.lock("main").write_text(json.dumps(content | changes))


def say_alive(folder: RunFolder, ago_us: int = 0, **more: Any) -> None:
    """Write ``alive.json`` as a driver does."""
    folder.alive.write_text(json.dumps({"ts": now_us() - ago_us, "pid": 1} | more))


# ---------------------------------------------------------------------- who writes


def test_a_run_without_a_lock_is_written_by_nobody(folder: RunFolder) -> None:
    """Neither by ``main`` nor by any other writer."""
    assert is_writing(folder) is False
    assert is_writing(folder, "rank1") is False


def test_a_writer_is_alive_until_it_gives_its_lock_back(
    folder: RunFolder, writer: subprocess.Popen[bytes]
) -> None:
    """While it lives the run is running; when it left without an end, lost."""
    assert (is_writing(folder), state_of(folder)) == (True, "running")
    writer.communicate()
    assert (is_writing(folder), state_of(folder)) == (False, "lost")


def test_a_killed_writer_is_not_alive(folder: RunFolder, writer: subprocess.Popen[bytes]) -> None:
    """Its lock still names it; it does not exist, also while its parent has not taken note."""
    writer.kill()
    os.waitid(os.P_PID, writer.pid, os.WEXITED | os.WNOWAIT)
    assert (is_writing(folder), state_of(folder)) == (False, "lost")
    writer.wait()
    assert (is_writing(folder), state_of(folder)) == (False, "lost")


def test_a_stopped_writer_is_stalled_and_goes_on(folder: RunFolder, writer: subprocess.Popen[bytes]) -> None:
    """It is alive all the time."""
    writer.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, writer.pid, os.WSTOPPED | os.WNOWAIT)
    assert (is_writing(folder), state_of(folder)) == (True, "stalled")
    writer.send_signal(signal.SIGCONT)
    os.waitid(os.P_PID, writer.pid, os.WCONTINUED)
    assert (is_writing(folder), state_of(folder)) == (True, "running")


def test_a_long_step_on_this_host_is_running(folder: RunFolder, writer: subprocess.Popen[bytes]) -> None:
    """Where the process can be asked, silence says nothing."""
    say_alive(folder, 60 * MINUTE_US)
    assert state_of(folder) == "running"


@pytest.mark.parametrize(
    ("silent_us", "alive", "state"),
    [(0, None, "running"), (2 * MINUTE_US, None, "stalled"), (6 * MINUTE_US, False, "lost")],
)
def test_another_host_is_judged_by_its_silence(
    folder: RunFolder, writer: subprocess.Popen[bytes], silent_us: int, alive: bool | None, state: str
) -> None:
    """It cannot be asked: after a minute it is stalled, after five it is gone."""
    edit_lock(folder, host="elsewhere.invalid")
    say_alive(folder, silent_us)
    assert (is_writing(folder), state_of(folder)) == (alive, state)


def test_without_a_driver_the_journal_is_the_sign_of_life(
    folder: RunFolder, writer: subprocess.Popen[bytes]
) -> None:
    """An offline run on another host lives as long as its file is written."""
    edit_lock(folder, host="elsewhere.invalid")
    assert state_of(folder) == "running"
    old_s = now_us() / 1e6 - 6 * 60
    os.utime(folder.journal("main"), (old_s, old_s))
    assert (is_writing(folder), state_of(folder)) == (False, "lost")


@pytest.mark.parametrize("change", [{"boot_id": "another"}, {"start_ticks": 1}], ids=["boot", "start"])
def test_another_process_with_its_number_does_not_make_it_alive(
    folder: RunFolder, writer: subprocess.Popen[bytes], change: dict[str, Any]
) -> None:
    """After a reboot, or when numbers come again."""
    edit_lock(folder, **change)
    assert (is_writing(folder), state_of(folder)) == (False, "lost")


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{", b"\x00" * 64, b'{"pid":1}'])
def test_a_lock_that_names_nobody_is_held_by_nobody(folder: RunFolder, content: bytes) -> None:
    """Whatever stands in it."""
    folder.lock("main").parent.mkdir()
    folder.lock("main").write_bytes(content)
    assert is_writing(folder) is False


def test_a_run_that_ends_while_it_is_looked_at_is_not_lost(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who lives is asked before the journal is read, so that no end falls between the two."""
    lock = LifeLock.take(folder.lock("main"))
    assert lock is not None
    folder.journal("main").write_bytes(started())

    read_attempts = liveness._read_attempts

    def read_then_end(folder: RunFolder, near_bytes: int | None) -> dict[int, Attempt]:
        found = read_attempts(folder, near_bytes)
        folder.journal("main").write_bytes(started() + finished())
        lock.release()
        return found

    monkeypatch.setattr(liveness, "_read_attempts", read_then_end)
    assert state_of(folder) == "running"
    monkeypatch.undo()
    assert state_of(folder) == "completed"


def test_an_end_that_much_came_late_after_is_found(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run that is gone the whole journal is searched; of one that lives only what is near its end."""
    monkeypatch.setattr(liveness, "_NEAR_BYTES", 200)
    lock = LifeLock.take(folder.lock("main"))
    assert lock is not None
    folder.journal("main").write_bytes(
        started() + finished() + started().replace(b"run_started", b"comment") * 20
    )
    assert state_of(folder) == "running"
    lock.release()
    assert state_of(folder) == "completed"


# ---------------------------------------------------------------------- alive.json


def test_the_sign_of_life_is_read_with_what_it_says_of_the_sinks(folder: RunFolder) -> None:
    """Time, process, and the health of each destination; what is no health is left out."""
    folder.alive.write_text(json.dumps({"ts": 5, "pid": 7, "sinks": {"a": {"state": "ok"}, "b": 3}}))
    assert read_sign_of_life(folder) == SignOfLife(5, 7, {"a": {"state": "ok"}})
    folder.alive.write_text(json.dumps({"ts": 5, "pid": 7, "sinks": ["a"]}))
    assert read_sign_of_life(folder) == SignOfLife(5, 7, {})


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"{}", b'{"ts":1e999,"pid":1}', b'{"ts":"x","pid":1}', b"[" * 100_000]
)
def test_a_sign_of_life_that_cannot_be_read_is_none(folder: RunFolder, content: bytes) -> None:
    """Nothing that stands there raises."""
    assert read_sign_of_life(folder) is None
    folder.alive.write_bytes(content)
    assert read_sign_of_life(folder) is None


# ---------------------------------------------------------------------- attempts


def attempts_of(folder: RunFolder, main: bytes, courier: bytes = b"") -> dict[int, Attempt]:
    """Return the attempts of a run with these lines."""
    folder.journal("main").write_bytes(main)
    folder.journal("courier").write_bytes(courier)
    return read_attempts(folder)


def test_a_run_without_records_has_no_attempts(folder: RunFolder) -> None:
    """No file, an empty one, one of zeros."""
    assert read_attempts(folder) == {}
    assert attempts_of(folder, b"") == {}
    assert attempts_of(folder, b"\x00" * 10_000) == {}
    assert state_of(folder) == "lost"


def test_each_attempt_has_its_start_and_its_end(folder: RunFolder) -> None:
    """The newest one says how the run is."""
    found = attempts_of(folder, started(ts=5) + finished("failed") + started(2, ts=9) + finished(att=2))
    assert found == {1: Attempt(1, 5, "failed"), 2: Attempt(2, 9, "completed")}
    assert state_of(folder) == "completed"


def test_an_attempt_that_was_resumed_and_not_ended_is_lost(folder: RunFolder) -> None:
    """The end of the attempt before does not count for it."""
    attempts_of(folder, started() + finished() + started(2))
    assert state_of(folder) == "lost"


def test_the_protocols_other_names_begin_and_end_too(folder: RunFolder) -> None:
    """``run_start`` and ``run_end`` are read as what they mean."""
    main = line("run_start", {"a": 1}, ts=5) + line("run_end", {"status": "killed"})
    assert attempts_of(folder, main) == {1: Attempt(1, 5, "killed")}


REAL, INFERRED = finished("completed"), finished("killed", inferred=True)


@pytest.mark.parametrize(
    ("main", "courier"), [(REAL, INFERRED), (REAL + INFERRED, b""), (INFERRED + REAL, b""), (INFERRED, REAL)]
)
def test_a_real_end_beats_an_inferred_one_in_any_order(
    folder: RunFolder, main: bytes, courier: bytes
) -> None:
    """Whoever wrote them, wherever they stand."""
    assert attempts_of(folder, started() + main, courier) == {1: Attempt(1, 1_000, "completed")}


def test_an_inferred_end_is_an_end(folder: RunFolder) -> None:
    """The courier, or a later delivery, writes it into its own file; the first of several counts."""
    courier = INFERRED + finished("failed", inferred=True)
    assert attempts_of(folder, started(), courier) == {1: Attempt(1, 1_000, "killed", inferred=True)}
    assert state_of(folder) == "killed"


def test_what_comes_late_does_not_change_the_end(folder: RunFolder) -> None:
    """Nor does a late record end a run by itself."""
    late = finished("failed", late=True)
    assert attempts_of(folder, started() + late)[1].status is None
    assert attempts_of(folder, started() + REAL + late)[1].status == "completed"


def test_words_within_other_records_and_damaged_lines_do_not_begin_or_end_anything(folder: RunFolder) -> None:
    """Texts of a user may say ``run_finished``."""
    main = (
        started() + line("comment", {"text": 'run_finished "run_finished"', "t": "run_finished"})
        + REAL[:-20] + b"\n" + b'"run_finished"\n' + b"\x00" * 50 + b'"run_started"\n' + started()[:-1]
    )  # fmt: skip
    assert attempts_of(folder, main) == {1: Attempt(1, 1_000)}


@pytest.mark.parametrize("block", [1, 7, 64, 333, 4_096])
def test_lines_are_found_wherever_a_block_ends(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    """Of a file that is read in pieces none of them is missed, read twice or put together wrongly."""
    filler = line("metric", {"text": "x" * 100})
    main = b"".join(started(att) + filler * att + finished(att=att) for att in range(1, 9))
    monkeypatch.setattr(liveness, "_BLOCK", block)
    # A line must still fit what is kept.
    monkeypatch.setattr(liveness, "_KEPT_BYTES", 4_096)
    assert attempts_of(folder, main) == {att: Attempt(att, 1_000, "completed") for att in range(1, 9)}


def test_a_line_that_is_longer_than_any_record_is_let_go(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It neither fills the memory nor hides what comes behind it."""
    monkeypatch.setattr(liveness, "_BLOCK", 64)
    monkeypatch.setattr(liveness, "_KEPT_BYTES", 512)
    assert attempts_of(folder, started() + b"x" * 5_000 + b"\n" + finished())[1].status == "completed"


def test_a_journal_that_cannot_be_read_is_an_error_with_its_path(folder: RunFolder) -> None:
    """Here a folder stands where the file should be."""
    folder.journal("main").mkdir()
    look: Callable[[RunFolder], object]
    for look in (read_attempts, state_of):
        with pytest.raises(JournalError, match=str(folder.journal("main"))):
            look(folder)
