"""A process is told from every other one, also from a later one with its number; its state is the system's word."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from lezea_mlops._process import (
    ProcessIdentity,
    boot_id,
    pid_exists,
    process_is_stopped,
    process_start_ticks,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

Process = subprocess.Popen[bytes]
NOBODY = 2**22 + 1  # above the largest pid that Linux gives


@pytest.fixture
def other() -> Iterator[Process]:
    """A process that lives until its standard input is closed."""
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def identity_of(process: Process) -> ProcessIdentity:
    """Return what identifies another process."""
    me = ProcessIdentity.of_this_process()
    return dataclasses.replace(me, pid=process.pid, start_ticks=process_start_ticks(process.pid))


def stop(process: Process) -> None:
    """Stop a process, and return when it stands."""
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)


def test_this_process_exists() -> None:
    """Whoever asks is alive."""
    me = ProcessIdentity.of_this_process()
    assert me.exists() is True
    assert not process_is_stopped(me.pid)


def test_a_process_exists_until_it_has_ended(other: Process) -> None:
    """It exits; from then on it does not exist."""
    identity = identity_of(other)
    assert identity.exists() is True
    other.communicate()
    assert identity.exists() is False


def test_a_killed_process_does_not_exist_even_before_its_parent_took_note(other: Process) -> None:
    """A zombie keeps its number and its start time, and is no process that does anything."""
    identity = identity_of(other)
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert process_start_ticks(other.pid) == identity.start_ticks
    assert pid_exists(other.pid)
    assert identity.exists() is False
    other.wait()
    assert identity.exists() is False
    assert not pid_exists(other.pid)


def test_a_stopped_process_exists_and_is_seen_to_be_stopped(other: Process) -> None:
    """After SIGCONT it is not stopped any more."""
    stop(other)
    assert process_is_stopped(other.pid)
    assert identity_of(other).exists() is True
    other.send_signal(signal.SIGCONT)
    os.waitid(os.P_PID, other.pid, os.WCONTINUED)
    assert not process_is_stopped(other.pid)


def test_a_later_process_with_the_same_number_is_another_one(other: Process) -> None:
    """Its start time differs."""
    identity = identity_of(other)
    assert identity.start_ticks is not None
    assert dataclasses.replace(identity, start_ticks=identity.start_ticks - 1).exists() is False


def test_nothing_outlives_a_boot(other: Process) -> None:
    """The number and the start time of another boot say nothing of this one."""
    assert boot_id()
    assert dataclasses.replace(identity_of(other), boot_id="another").exists() is False


def test_another_host_cannot_be_asked(other: Process) -> None:
    """Neither yes nor no."""
    assert dataclasses.replace(identity_of(other), host="elsewhere.invalid").exists() is None


def test_another_container_of_this_host_cannot_be_asked(other: Process) -> None:
    """Its processes have numbers of their own; what an older version stored says nothing of that."""
    identity = identity_of(other)
    assert dataclasses.replace(identity, pid_namespace="pid:[7]").exists() is None
    stored = identity.stored()
    assert stored.pop("pid_namespace")
    older = ProcessIdentity.read(stored)
    assert older is not None
    assert older.exists() is True


def test_where_no_start_time_was_stored_the_number_decides(other: Process) -> None:
    """As on systems that do not tell it."""
    identity = dataclasses.replace(identity_of(other), start_ticks=None)
    assert identity.exists() is True
    other.communicate()
    assert identity.exists() is False


@pytest.mark.parametrize("pid", [NOBODY, 2**70])
def test_a_number_that_no_process_has(pid: int) -> None:
    """It does not exist, has no start time, and is not stopped."""
    assert not pid_exists(pid)
    assert process_start_ticks(pid) is None
    assert not process_is_stopped(pid)


def test_a_process_of_another_user_exists() -> None:
    """The system's first process may not be signalled by everybody, and lives."""
    assert pid_exists(1)


GOOD: dict[str, Any] = {"pid": 7, "start_ticks": 1, "host": "h", "boot_id": "b"}


@pytest.mark.parametrize(
    "stored",
    [
        None, [], "text", 3, {}, GOOD | {"pid": None}, GOOD | {"pid": "x"}, GOOD | {"pid": float("inf")},
        GOOD | {"pid": 0}, GOOD | {"pid": -1}, GOOD | {"start_ticks": []},
        {name: value for name, value in GOOD.items() if name != "host"},
    ],
)  # fmt: skip
def test_what_names_no_process_is_none(stored: object) -> None:
    """Whatever stands in a file, reading it does not raise; zero and below would mean groups of processes."""
    assert ProcessIdentity.read(stored) is None


def test_an_identity_is_stored_and_read_back() -> None:
    """Also where the system told neither start time nor boot."""
    for identity in (ProcessIdentity(7, 1, "h", "b", "n"), ProcessIdentity(7, None, "h", None)):
        assert ProcessIdentity.read(identity.stored()) == identity
