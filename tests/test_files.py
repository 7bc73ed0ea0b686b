"""Files that others may read at any moment: replaced whole, private, and locked for the life of a process."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lezea_mlops._files import (
    LifeLock,
    locked,
    make_private_folder,
    open_private,
    read_holder,
    replace_atomically,
)
from lezea_mlops._process import ProcessIdentity, process_start_ticks

ROOT = Path(__file__).resolve().parent.parent
RunPython = Callable[..., "subprocess.CompletedProcess[str]"]
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_only_the_folder_itself_becomes_private(tmp_path: Path) -> None:
    """Its parents have the rights that the user's umask gives, and one that exists keeps its own."""
    make_private_folder(tmp_path / "runs" / "run")
    (tmp_path / "plain").mkdir()
    assert stat.S_IMODE((tmp_path / "runs" / "run").stat().st_mode) == 0o700
    assert (tmp_path / "runs").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "runs").chmod(0o755)
    make_private_folder(tmp_path / "runs")
    assert stat.S_IMODE((tmp_path / "runs").stat().st_mode) == 0o755


def test_a_private_file_is_not_passed_on_to_programs(tmp_path: Path) -> None:
    """Only the owner may read it, and a program that the user's code starts does not inherit it."""
    descriptor = open_private(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    assert stat.S_IMODE(os.fstat(descriptor).st_mode) == 0o600
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


@pytest.mark.parametrize("durable", [False, True])
def test_a_replaced_file_has_the_new_content_alone(
    tmp_path: Path, durable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old and new are never mixed, nothing lies about; durable means file and folder are fsynced."""
    synced: list[bool] = []
    fsync = os.fsync

    def counting(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))

    monkeypatch.setattr(os, "fsync", counting)
    path = tmp_path / "alive.json"
    for content in (b"long " * 1_000, b"", b"short"):
        replace_atomically(path, content, durable=durable)
        assert path.read_bytes() == content
        assert os.listdir(tmp_path) == [path.name]
    assert synced == ([False, True] * 3 if durable else [])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_reader_of_a_replaced_file_sees_one_of_its_contents(tmp_path: Path) -> None:
    """While it is replaced again and again, every reading is whole."""
    path = tmp_path / "file"
    contents = [b"a" * 300_000, b"b" * 100]
    replace_atomically(path, contents[0])
    seen: set[int] = set()

    def read() -> None:
        reads = 0
        while reads < 500 or len(seen) < 2:
            seen.add(contents.index(path.read_bytes()))
            reads += 1

    reader = threading.Thread(target=read)
    reader.start()
    turn = 0
    while reader.is_alive():
        turn += 1
        replace_atomically(path, contents[turn % 2])
    reader.join()
    assert seen == {0, 1}


def test_a_replacement_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """What cannot be put in place is removed, and the error comes out."""
    path = tmp_path / "file"
    replace_atomically(path, b"old")
    with pytest.raises(TypeError):
        replace_atomically(path, "text")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match=r"directory|Directory"):
        replace_atomically(tmp_path / "folder", b"new")
    with pytest.raises(FileNotFoundError):
        replace_atomically(tmp_path / "missing" / "file", b"new")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@linux
def test_a_process_is_known_by_more_than_its_number(tmp_path: Path) -> None:
    """Pid, start time, host and boot name one process for ever, even if its name holds blanks and parentheses."""
    me = ProcessIdentity.of_this_process()
    assert me.pid == os.getpid()
    assert me.start_ticks is not None
    assert me.start_ticks == process_start_ticks(os.getpid()) > 0
    assert me.boot_id
    assert me.host
    assert ProcessIdentity.read(json.loads(json.dumps(me.stored()))) == me
    odd = tmp_path / "a) S (b 1"
    odd.symlink_to("/bin/cat")
    with subprocess.Popen([odd], stdin=subprocess.PIPE) as other:
        ticks = process_start_ticks(other.pid)
        assert ticks is not None
        assert ticks >= me.start_ticks
        other.communicate()
    assert process_start_ticks(other.pid) is None


def test_a_lock_names_its_holder_and_is_held_until_released(tmp_path: Path) -> None:
    """Nobody else gets it, not even this process; afterwards anybody does."""
    path = tmp_path / "locks" / "main.lock"
    lock = LifeLock.take(path)
    assert lock is not None
    assert json.loads(path.read_bytes()) == ProcessIdentity.of_this_process().stored()
    holder = read_holder(path)
    assert holder is not None
    assert holder.process.exists() is True
    assert LifeLock.take(path) is None
    assert json.loads(path.read_bytes())["pid"] == os.getpid()
    lock.release()
    lock.release()
    assert read_holder(path) is None
    again = LifeLock.take(path)
    assert again is not None
    again.release()


def test_a_lock_replaces_what_a_longer_name_left(tmp_path: Path) -> None:
    """What the last holder wrote is gone, however long it was."""
    path = tmp_path / "main.lock"
    path.write_bytes(b"x" * 10_000)
    lock = LifeLock.take(path)
    assert lock is not None
    assert json.loads(path.read_bytes())["pid"] == os.getpid()
    lock.release()


TAKE = "from pathlib import Path; from lezea_mlops._files import LifeLock; print(LifeLock.take(Path('main.lock')))"


def test_forgetting_in_a_forked_child_leaves_the_parents_lock(tmp_path: Path, run_python: RunPython) -> None:
    """The child closes its copy; the parent still holds the lock."""
    lock = LifeLock.take(tmp_path / "main.lock")
    assert lock is not None
    child = os.fork()
    if child == 0:
        lock.forget()
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    assert run_python(TAKE).stdout == "None\n"
    lock.release()
    assert "LifeLock object" in run_python(TAKE).stdout


def test_releasing_does_not_wait_for_forked_children(tmp_path: Path, run_python: RunPython) -> None:
    """A child that still holds a copy of the descriptor does not keep the lock for its own life."""
    lock = LifeLock.take(tmp_path / "main.lock")
    assert lock is not None
    ends_with, parent_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(parent_end)
        os.read(ends_with, 1)
        os._exit(0)
    assert run_python(TAKE).stdout == "None\n"
    lock.release()
    assert "LifeLock object" in run_python(TAKE).stdout
    os.close(parent_end)
    os.close(ends_with)
    os.waitpid(child, 0)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_there_is_no_flock_the_lock_is_given(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a mount that cannot lock the run goes on; the data decides there."""
    import fcntl

    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock = LifeLock.take(tmp_path / "main.lock")
    assert lock is not None
    lock.release()


HOLDER = """
import sys
from pathlib import Path
from lezea_mlops._files import locked
with locked(Path("shared.lock")):
    print("held", flush=True)
    sys.stdin.read()
    Path("released").touch()
"""


def test_waiting_for_a_lock_ends_when_the_other_process_is_through(tmp_path: Path) -> None:
    """Two processes are never inside together: the second enters after the first has left."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        inside: list[bool] = []

        def enter() -> None:
            with locked(tmp_path / "shared.lock"):
                inside.append((tmp_path / "released").exists())

        waiting = threading.Thread(target=enter)
        waiting.start()
        holder.stdin.close()
        waiting.join()
    assert inside == [True]


def test_a_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    """An exception inside does not lock the others out."""
    with pytest.raises(RuntimeError, match="inside"), locked(tmp_path / "shared.lock"):
        raise RuntimeError("inside")
    with locked(tmp_path / "shared.lock"):
        assert (tmp_path / "shared.lock").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_a_child_that_was_forked_meanwhile_does_not_keep_a_lock(tmp_path: Path) -> None:
    """It has a copy of the descriptor for as long as it lives, as a loader of data does."""
    with locked(tmp_path / "shared.lock"):
        child = os.fork()
        if child == 0:
            signal.pause()
    try:
        taken = LifeLock.take(tmp_path / "shared.lock")
        assert taken is not None
        taken.release()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
