"""A signal that ends the process is noted at any moment; handlers of others are left alone; children note nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lezea_mlops._files import read_holder
from lezea_mlops.journal import MAIN_WRITER, RunFolder, state_of
from lezea_mlops.tracker import ExperimentTracker
from tests.ends.programs import BEGIN, WITHOUT_A_WORD, RunPython, ends_of, infer, records_of, the_run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc")

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers_as_they_were() -> Iterator[None]:
    """A test may install what it likes."""
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def offline(**arguments: Any) -> ExperimentTracker:
    """Return a started tracker that only writes its journal."""
    return ExperimentTracker("Demo", auto_start=True, settings={"mode": "offline"}, **arguments)


def own(number: int, frame: object) -> None:
    """Stand for a handler of the user's."""


# ---------------------------------------------------------------------- at any moment

AT_ANY_MOMENT = """
import os, random, signal
from pathlib import Path
from lezea_mlops.tracker import ExperimentTracker

moments = random.Random(7)
for index in range(20):
    pid = os.fork()
    if pid == 0:
        tracker = ExperimentTracker("Demo", experiment_id=f"run-{index}", auto_start=True)
        for step in range(10**9):
            with tracker.builder_scope(step % 7):
                tracker.log_training_step(step, {"loss": 1.0 / (step + 1), "bad": "text"})
            tracker.log_params({"names": ["x" * 50] * (step % 100)})
            tracker.log_modification_tree(step, [{"type": "widen"}])
    journal = Path(f"runs/run-{index}/events.jsonl")
    enough = moments.randrange(2_000, 200_000)
    while not journal.exists() or journal.stat().st_size < enough:
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    os.kill(pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
"""


def test_a_signal_in_the_middle_of_a_call_harms_nothing(run_python: RunPython, tmp_path: Path) -> None:
    """20 programs that do nothing but log are ended anywhere: no line is damaged or missing, and each end is noted."""
    run_python(AT_ANY_MOMENT, LEZEA_MODE="offline")
    runs = [RunFolder(path) for path in (tmp_path / "runs").iterdir()]
    assert len(runs) == 20
    for run in runs:
        assert run.journal(MAIN_WRITER).read_bytes().endswith(b"\n")
        assert {"training_step", "rejected_input"} <= {record.type for record in records_of(run)}
        assert state_of(run) == "lost"
        infer(run)
        assert [(end.event.status, end.event.reason) for end in ends_of(run)] == [("killed", "SIGTERM")]


# ---------------------------------------------------------------------- whose handler


@pytest.mark.parametrize("handler", [own, signal.SIG_IGN])
@pytest.mark.parametrize("number", ENDING)
def test_a_handler_that_is_there_stays(number: signal.Signals, handler: Any) -> None:
    """Also that which ignores the signal, as ``nohup`` sets it."""
    signal.signal(number, handler)
    tracker = offline()
    assert signal.getsignal(number) is handler
    tracker.end()
    assert signal.getsignal(number) is handler


@pytest.mark.parametrize("number", ENDING)
def test_a_handler_that_comes_later_stays(number: signal.Signals) -> None:
    """The end of the run does not put the default in its place."""
    tracker = offline()
    signal.signal(number, own)
    tracker.end()
    assert signal.getsignal(number) is own


def test_the_default_is_back_after_the_last_run() -> None:
    """With two runs at once, only when both have ended; what Python does at Ctrl-C is never touched."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    one, other = offline(), offline()
    one.end()
    assert callable(signal.getsignal(signal.SIGTERM))
    assert callable(signal.getsignal(signal.SIGHUP))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    other.end()
    assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_nothing_is_installed_from_another_thread_or_where_nothing_is_recorded() -> None:
    """Python allows it in the main thread alone; the mode ``off`` has nothing to note."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    made: list[ExperimentTracker] = []
    thread = threading.Thread(target=lambda: made.append(offline()))
    thread.start()
    thread.join()
    made.append(ExperimentTracker("Demo", auto_start=True, settings={"mode": "off"}))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    for tracker in made:
        tracker.end()


def run_and_infer(
    run_python: RunPython, tmp_path: Path, code: str, exit_code: int, mode: str = "offline"
) -> list[Any]:
    """Run a program to its end, write down what is missing, and return the reasons of all ends."""
    done = run_python(code, check=False, LEZEA_MODE=mode)
    assert done.returncode == exit_code, done.stderr
    runs = [RunFolder(path) for path in (tmp_path / "runs").iterdir()]
    for run in runs:
        infer(run)
    return [end.event.reason for run in runs for end in ends_of(run)]


IN_A_THREAD = """
import os, signal, threading
from lezea_mlops.tracker import ExperimentTracker
first = ExperimentTracker("First", auto_start=True)
thread = threading.Thread(target=lambda: ExperimentTracker("Second").start())
thread.start()
thread.join()
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_every_run_of_the_process_is_noted(run_python: RunPython, tmp_path: Path) -> None:
    """Where a handler is there already, also that of a run which was started in another thread."""
    assert run_and_infer(run_python, tmp_path, IN_A_THREAD, -signal.SIGTERM) == ["SIGTERM", "SIGTERM"]


CHAINED = """
def mine(number, frame):
    print("mine", flush=True)
    before(number, frame)

before = signal.signal(signal.SIGTERM, mine)
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_handler_may_call_the_one_before_it(run_python: RunPython, tmp_path: Path) -> None:
    """The user's own comes first, and the process ends by the signal, noted."""
    assert run_and_infer(run_python, tmp_path, BEGIN + CHAINED, -signal.SIGTERM) == ["SIGTERM"]


HANDLER_IN_C = """
import faulthandler, os, signal
faulthandler.register(signal.SIGTERM)
from lezea_mlops.tracker import ExperimentTracker
tracker = ExperimentTracker("Demo", auto_start=True)
os.kill(os.getpid(), signal.SIGTERM)
tracker.end()
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_handler_of_a_library_in_c_stays(run_python: RunPython, tmp_path: Path) -> None:
    """Python does not know of it and the system does: it is called before and after the end, and nobody dies."""
    done = run_python(HANDLER_IN_C, LEZEA_MODE="offline")
    assert done.stderr.count("Current thread") == 2
    assert [end.event.status for end in ends_of(the_run(tmp_path))] == ["completed"]


USERS_OWN = """
def leave(number, frame):
    sys.exit(4)

signal.signal(signal.SIGTERM, leave)
with tracker:
    os.kill(os.getpid(), signal.SIGTERM)
"""


def test_what_a_users_handler_makes_of_a_signal_is_the_end(run_python: RunPython, tmp_path: Path) -> None:
    """A handler that leaves by ``sys.exit`` is judged by the with-block, as any other way out."""
    assert run_and_infer(run_python, tmp_path, BEGIN + USERS_OWN, 4) == ["SystemExit(4)"]


LATE = """
import socket
silent = socket.create_server(("127.0.0.1", 0))
uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
settings = {"mlflow_tracking_uri": uri, "courier": "thread"}
tracker = ExperimentTracker("Demo", async_mode=True, auto_start=True, settings=settings)

def press():
    while tracker.status == "running" or "run_finished" not in journal.read_text():
        continue
    tracker.log_comment("late: its lock is taken, and given back at once")
    files.extend(open(f"checkpoint {number}", "wb") for number in range(8))
    os.kill(os.getpid(), signal.SIGTERM)

files = []
journal = tracker.run_dir / "events.jsonl"
threading.Thread(target=press).start()
tracker.end("failed", "no data")
"""


def test_a_signal_while_the_rest_is_delivered_writes_into_no_other_file(
    run_python: RunPython, tmp_path: Path
) -> None:
    """The end is told by then: nothing is noted, least of all where the lock's descriptor is a checkpoint's by now."""
    begin = BEGIN.partition("tracker = ")[0]
    assert run_and_infer(run_python, tmp_path, begin + LATE, -signal.SIGTERM, "online") == ["no data"]
    assert [path.stat().st_size for path in tmp_path.glob("checkpoint *")] == [0] * 8


# ---------------------------------------------------------------------- children

CHILDREN = """
for _ in range(100):
    pid = os.fork()
    if pid == 0:
        signal.pause()
    # Some of these come before the child has run a line of Python, which forgets signals that came so early.
    os.kill(pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM

def wait():
    tracker.log_training_step(2, {"loss": 0.25})
    ready.set()
    signal.pause()

context = multiprocessing.get_context("fork")
ready = context.Event()
process = context.Process(target=wait)
process.start()
ready.wait()
process.terminate()
process.join()
assert process.exitcode == -signal.SIGTERM

pid = os.fork()
if pid == 0:
    # One of these may get the descriptor that its parent's lock had.
    files = [open(f"of the child {number}", "wb") for number in range(8)]
    ExperimentTracker("Demo", experiment_id="child", auto_start=True)
    os.kill(os.getpid(), signal.SIGTERM)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
print(pid)
sys.stdout.flush()
os._exit(0)
"""


def test_the_signal_of_a_child_says_nothing_of_its_parent(run_python: RunPython, tmp_path: Path) -> None:
    """102 children are told to end and do, some of them at their birth; none of them notes it as its parent's end."""
    code = BEGIN.replace('"Demo"', '"Demo", experiment_id="parent"') + CHILDREN
    done = run_python(code, check=False, LEZEA_MODE="offline")
    assert (done.returncode, done.stderr) == (0, "")
    parent, child = (RunFolder(tmp_path / "runs" / name) for name in ("parent", "child"))
    assert [path.stat().st_size for path in tmp_path.glob("of the child *")] == [0] * 8
    holders = [read_holder(run.lock(MAIN_WRITER)) for run in (parent, child)]
    assert [holder and holder.note for holder in holders] == [{}, {"signal": "SIGTERM"}]
    assert holders[1] is not None
    assert holders[1].process.pid == int(done.stdout)
    for run, reason in ((parent, WITHOUT_A_WORD), (child, "SIGTERM")):
        infer(run)
        assert [end.event.reason for end in ends_of(run)] == [reason]


def test_a_terminal_that_is_closed_ends_as_told(tmp_path: Path, run_python: RunPython) -> None:
    """What a session that is hung up kills is noted as such."""
    code = BEGIN + "print('ready', flush=True)\nsignal.pause()"
    program = f"""
import os, pty, signal, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.executable, [sys.executable, "-c", {code!r}])
while b"ready" not in os.read(terminal, 1024):
    continue
os.close(terminal)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGHUP
"""
    done: subprocess.CompletedProcess[str] = run_python(program, LEZEA_MODE="offline")
    assert done.returncode == 0
    run = the_run(tmp_path)
    infer(run)
    assert [end.event.reason for end in ends_of(run)] == ["SIGHUP"]
