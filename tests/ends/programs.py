"""Programs that begin a run and end in every way there is, and what is read of them afterwards."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lezea_mlops._clock import Deadline
from lezea_mlops._files import LifeLock
from lezea_mlops.events import Envelope
from lezea_mlops.journal import COURIER_WRITER, RunFolder, read_run
from lezea_mlops.runtime.ends import write_missing_ends

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]

# Nothing listens there: a courier says so at once, and no MLflow is imported.
UNREACHABLE = "http://127.0.0.1:9"

BEGIN = """
import atexit, multiprocessing, os, resource, signal, sys, threading
from lezea_mlops._clock import Deadline
from lezea_mlops.tracker import ExperimentTracker

def command(pid):
    try:
        return open(f"/proc/{pid}/cmdline", "rb").read()
    except OSError:
        # Another child, such as git, that has ended since.
        return b""

def couriers():
    children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
    return [int(pid) for pid in children if b"lezea-courier" in command(pid)]

tracker = ExperimentTracker("Demo", auto_start=True, async_mode=os.environ.get("ASYNC") == "1")
tracker.log_training_step(1, {"loss": 0.5})
# Until its program has begun a process has its parent's name, or none.
within = Deadline.after(60)
while tracker._driver is not None and tracker._driver.kind == "process" and not couriers():
    assert not within.passed()
"""

OUT_OF_MEMORY = """
def too_much():
    used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, used + 2**26))
    blocks = []
    while True:
        blocks.append(bytearray(2**20))
too_much()
"""

GROUP = "os.setpgid(0, 0)\nos.killpg(0, signal.SIGKILL)"
WITHOUT_A_WORD = "the process ended without a word: by SIGKILL, for want of memory, by a crash or by os._exit"


@dataclass(frozen=True)
class Way:
    """One way to end.

    Attributes:
        code: what the program does after ``BEGIN``.
        status: of the run.
        reason: of the run.
        exit_code: of the program.
        traceback: what stands in the traceback; None if there is none.
        inferred: the end is written by somebody else.
    """

    code: str
    status: str
    reason: str | None
    exit_code: int = 0
    traceback: str | None = None
    inferred: bool = False


def _killed(code: str, signal_number: int, reason: str = WITHOUT_A_WORD) -> Way:
    return Way(code, "killed", reason, -signal_number, inferred=True)


def _kill_me(name: str) -> str:
    return f"os.kill(os.getpid(), signal.{name})"


WAYS = {
    "end": Way("tracker.end()", "completed", None),
    "failed": Way("tracker.end('failed', 'no data')", "failed", "no data"),
    "forgotten": Way("", "completed", "interpreter exit"),
    "exception": Way("def f(): raise ValueError('boom')\nf()", "failed", "ValueError: boom", 1, "in f"),
    "with": Way("with tracker: {}['x']", "failed", "KeyError: 'x'", 1, "KeyError: 'x'"),
    "sys.exit": Way("sys.exit(3)", "completed", "interpreter exit", 3),
    "with sys.exit": Way("with tracker: sys.exit(3)", "failed", "SystemExit(3)", 3, "SystemExit: 3"),
    "with sys.exit(0)": Way("with tracker: sys.exit(0)", "completed", "SystemExit(0)"),
    # Of a program that stands in ``-c`` the interpreter makes no end by SIGINT.
    "SIGINT": Way(_kill_me("SIGINT"), "killed", "KeyboardInterrupt", 1, "KeyboardInterrupt"),
    "no memory": Way(OUT_OF_MEMORY, "failed", "MemoryError", 1, "too_much"),
    "SIGTERM": _killed(_kill_me("SIGTERM"), signal.SIGTERM, "SIGTERM"),
    "SIGHUP": _killed(_kill_me("SIGHUP"), signal.SIGHUP, "SIGHUP"),
    "SIGKILL": _killed(_kill_me("SIGKILL"), signal.SIGKILL),
    "SIGKILL of the group": _killed(GROUP, signal.SIGKILL),
    "SIGSEGV": _killed(_kill_me("SIGSEGV"), signal.SIGSEGV),
    "os.abort": _killed("os.abort()", signal.SIGABRT),
    "os._exit": Way("os._exit(0)", "killed", WITHOUT_A_WORD, inferred=True),
    "SIGTERM with a scope open": _killed(
        f"with tracker.builder_scope('1'): {_kill_me('SIGTERM')}", signal.SIGTERM, "SIGTERM"
    ),
}


def the_run(folder: Path) -> RunFolder:
    """Return the one run below ``runs`` in *folder*."""
    (run_dir,) = (folder / "runs").iterdir()
    return RunFolder(run_dir)


def records_of(run: RunFolder) -> list[Envelope]:
    """Return the records of a run, after checking that each writer's numbers have no hole."""
    records = list(read_run(run.path))
    for wid in run.journals():
        numbers = [record.seq for record in records if record.wid == wid]
        assert numbers == list(range(1, len(numbers) + 1)), wid
    return records


def ends_of(run: RunFolder) -> list[Envelope]:
    """Return every end that is written down."""
    return [record for record in records_of(run) if record.type == "run_finished"]


def infer(run: RunFolder) -> int:
    """Write down the ends that are missing, as ``lezea sync`` does first of all; return how many there were."""
    deadline = Deadline.after(60)
    # A program that the process was just starting, such as git, holds its locks until it has begun.
    while (lock := LifeLock.take(run.lock(COURIER_WRITER))) is None:
        assert not deadline.passed(), "somebody delivers the run"
        select.select([], [], [], 0.01)
    try:
        return write_missing_ends(run, lock)
    finally:
        lock.release()


def wait_for_couriers(run: RunFolder) -> None:
    """Wait until no courier of the run is there any more."""
    for pid in couriers_of(run):
        wait_for_process(pid)


def couriers_of(run: RunFolder) -> list[int]:
    """Return the process ids of the run's couriers."""
    wanted = (b"lezea-courier", run.run_id.encode())
    return [
        pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if set(wanted) <= set(_words(pid))
    ]


def _words(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        # It has ended since it was listed.
        return []


def wait_for_process(pid: int) -> None:
    """Wait for the end of a process that need not be a child of this one."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll()
    finally:
        os.close(descriptor)


def start_python(code: str, folder: Path, **environment: str) -> subprocess.Popen[str]:
    """Start Python code in an interpreter of its own, with pipes to and from it."""
    root = str(Path(__file__).resolve().parent.parent.parent)
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, env=os.environ | {"PYTHONPATH": root} | environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
