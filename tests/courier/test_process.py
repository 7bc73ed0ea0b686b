"""What the courier is: a modest process of its own. What it needs of the program's process: one end of a channel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lezea_mlops._files import read_holder
from lezea_mlops.journal import RunFolder
from lezea_mlops.runtime.courier import MAX_LOG_BYTES, NICENESS
from lezea_mlops.runtime.own_process import MLFLOW_DEFAULTS
from lezea_mlops.tracker import ExperimentTracker
from tests.conftest import ROOT
from tests.courier.conftest import Watch, courier_of, deadline

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system has no /proc")


def courier_log(tracker: ExperimentTracker) -> str:
    """Return what the courier wrote to its own log."""
    return (tracker.run_dir / "courier.log").read_text()


# ---------------------------------------------------------------------- the courier


def test_it_has_a_session_of_its_own_and_low_priority(tracker: ExperimentTracker) -> None:
    """Ctrl-C and a terminal that is closed are not meant for it, and it takes what others leave."""
    pid = courier_of(tracker.run_dir)
    assert os.getsid(pid) == pid != os.getsid(0)
    assert os.getpriority(os.PRIO_PROCESS, pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)


def test_it_holds_the_lock_that_names_it(tracker: ExperimentTracker) -> None:
    """Whoever looks learns which process delivers the run, and can ask whether that one exists."""
    holder = read_holder(RunFolder(tracker.run_dir).lock("courier"))
    assert holder is not None
    assert holder.process.pid == tracker._driver.pid
    assert holder.process.exists() is True
    tracker.end()
    assert read_holder(RunFolder(tracker.run_dir).lock("courier")) is None


def test_it_holds_none_of_the_programs_files(nowhere: str, tmp_path: Path) -> None:
    """Not even those that programs inherit: a pipe that it held would never end, a file never be freed."""
    with (tmp_path / "data.bin").open("wb") as file:
        reading, writing = os.pipe()
        for descriptor in (file.fileno(), reading, writing):
            os.set_inheritable(descriptor, True)
        tracker = ExperimentTracker("Demo", auto_start=True)
        held = {
            number: os.readlink(f"/proc/{courier_of(tracker.run_dir)}/fd/{number}")
            for number in os.listdir(f"/proc/{courier_of(tracker.run_dir)}/fd")
        }
        pipe = os.readlink(f"/proc/self/fd/{writing}")
        tracker.end()
    os.close(reading)
    os.close(writing)
    assert pipe not in held.values()
    assert str(tmp_path / "data.bin") not in held.values()
    assert held["1"] == os.devnull
    assert held["2"] == str(tracker.run_dir / "courier.log")
    assert len([name for name in held.values() if name.startswith("socket:")]) == 1


def test_it_can_be_told_from_others(tracker: ExperimentTracker) -> None:
    """Whoever looks at the process table sees what it is and for which run."""
    arguments = Path(f"/proc/{courier_of(tracker.run_dir)}/cmdline").read_bytes().split(b"\0")
    assert arguments[-3:-1] == [b"lezea-courier", tracker.experiment_id.encode()]


@pytest.mark.parametrize("listening", [False, True])
def test_a_password_is_shown_nowhere(
    listening: bool, shared_mlflow_server: object, nowhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the process table, not in the courier's log, in no file of the run, whether the server answers or not."""
    address = str(shared_mlflow_server.uri) if listening else nowhere  # type: ignore[attr-defined]
    uri = address.replace("://", "://anna:Hunter2!@")
    monkeypatch.setenv("LEZEA_MLFLOW_TRACKING_URI", uri)
    tracker = ExperimentTracker("Demo", auto_start=True)
    arguments = Path(f"/proc/{courier_of(tracker.run_dir)}/cmdline").read_text()
    tracker.log_metrics({"loss": 0.5}, step=1)
    assert tracker.flush(100 if listening else 0) is listening
    told = repr(tracker.health())
    tracker.end()
    found = {
        path.name: path.read_text(errors="replace") for path in tracker.run_dir.rglob("*") if path.is_file()
    }
    assert {"courier.log", "alive.json", "events.jsonl"} <= found.keys()
    texts = found | {"arguments": arguments, "health": told}
    assert [name for name, text in texts.items() if "Hunter2" in text] == []


def test_its_time_outs_are_not_the_programs(
    nowhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow waits for minutes by default; the courier does not, and the program's own environment stays as it was."""
    for name in MLFLOW_DEFAULTS:
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    tracker = ExperimentTracker("Demo", auto_start=True)
    tracker.end()
    assert dict(os.environ) == before
    code = (
        "import os\n"
        "from lezea_mlops.runtime.courier import _be_modest\n"
        "os.environ['MLFLOW_HTTP_REQUEST_TIMEOUT'] = '7'\n"
        "_be_modest()\n"
        "print(os.environ['MLFLOW_HTTP_REQUEST_TIMEOUT'], os.environ['MLFLOW_HTTP_REQUEST_MAX_RETRIES'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"7 {MLFLOW_DEFAULTS['MLFLOW_HTTP_REQUEST_MAX_RETRIES']}\n"


def test_its_log_does_not_grow_for_ever(nowhere: str) -> None:
    """What is too long is cut, and that stands in it; the next lines come after."""
    tracker = ExperimentTracker("Demo", async_mode=True)
    log = tracker.run_dir / "courier.log"
    log.write_bytes(b"old\n" * (MAX_LOG_BYTES // 4 + 1))
    tracker.start(prometheus_port=None)
    # It is cut first and written to then.
    while not 0 < log.stat().st_size <= MAX_LOG_BYTES:
        # It looks once a second; an answer to this question takes a while.
        assert tracker.flush(0.2) is False
    assert log.read_text().startswith("(what stood here was too long and was cut)\n")
    tracker.end()


def test_it_says_on_its_own_log_what_it_says_to_the_program(
    nowhere: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each change of state once, here and there, however often it fails meanwhile."""
    tracker = ExperimentTracker("Demo", auto_start=True)
    tracker.end()
    lines = [line for line in courier_log(tracker).splitlines() if "is down" in line]
    told = [record.getMessage() for record in caplog.records if "is down" in record.getMessage()]
    assert len(lines) == len(told) == 1
    assert told[0] in lines[0]
    assert tracker.health()["sinks"]["mlflow"]["failures"]["unreachable"] > 1


# ---------------------------------------------------------------------- the program's process

PROGRAM = """
import json, os, socket, sys, threading
from pathlib import Path
from lezea_mlops.tracker import ExperimentTracker

BACKENDS = ("mlflow", "pymongo", "numpy", "pandas", "sqlalchemy", "requests")

def inet_sockets():
    own = Path("/proc/self/fd")
    held = {os.readlink(path) for path in own.iterdir() if path.exists()}
    tables = (Path("/proc/net", name).read_text().splitlines() for name in ("tcp", "tcp6", "udp", "udp6"))
    known = [line.split() for table in tables for line in table]
    return [fields for fields in known if f"socket:[{fields[9]}]" in held]

tracker = ExperimentTracker("Demo", async_mode=bool(int(sys.argv[1])))
tracker.start(prometheus_port=None)
tracker.log_training_step(1, {"loss": 0.5})
tracker.log_text("hello", "note.txt")
tracker._capturing.join()
tracker.flush(float(sys.argv[2]))
probe = socket.create_server(("127.0.0.1", 0))
assert len(inet_sockets()) == 1  # what is looked for would be found
probe.close()
print(json.dumps({
    "driver": tracker.health()["driver"],
    "waiting": tracker.health()["sinks"]["mlflow"]["waiting"],
    "sockets": inet_sockets(),
    "threads": [thread.name for thread in threading.enumerate()],
    "imported": [name for name in BACKENDS if name in sys.modules],
}))
tracker.end()
"""


def run_program(tmp_path: Path, async_mode: bool, flush_s: float) -> dict[str, object]:
    """Run the program and return what it found in its own process."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(int(async_mode)), str(flush_s)], cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return dict(json.loads(done.stdout))


CLEAN = {"driver": "process", "sockets": [], "threads": ["MainThread"], "imported": []}


@pytest.mark.parametrize("async_mode", [False, True])
def test_nothing_of_the_delivery_happens_in_the_program(
    tmp_path: Path, nowhere: str, async_mode: bool
) -> None:
    """No backend is imported, no connection opened, no thread kept, whether calls wait or not."""
    assert run_program(tmp_path, async_mode, 0.0) == CLEAN | {"waiting": 5}


def test_nothing_of_a_delivery_that_works_happens_in_the_program(
    tmp_path: Path, shared_mlflow_server: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is on a server, and this process has never met it."""
    monkeypatch.setenv("LEZEA_MLFLOW_TRACKING_URI", shared_mlflow_server.uri)  # type: ignore[attr-defined]
    assert run_program(tmp_path, False, 100.0) == CLEAN | {"waiting": 0}


@pytest.mark.parametrize("closing", ["pipe", "subprocess"])
def test_who_reads_the_programs_output_waits_for_no_courier(
    closing: str, tmp_path: Path, watch: Watch
) -> None:
    """``| tee`` and ``capture_output`` return when the program ends, though its courier goes on."""
    run = (
        "import os\n"
        "from lezea_mlops.tracker import ExperimentTracker\n"
        "from tests.courier.conftest import courier_of\n"
        "tracker = ExperimentTracker('Demo', auto_start=True, settings={'start_timeout_s': 100})\n"
        "print('courier', courier_of(tracker.run_dir), flush=True)\n"
        "os.kill(courier_of(tracker.run_dir), 19)\n"
        "os._exit(0)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LEZEA_MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}
    command = [sys.executable, "-c", run]
    if closing == "pipe":
        command = ["sh", "-c", '"$0" "$@" 2>&1 | tee tee.log', *command]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    [pid] = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("courier ")]
    # It was stopped before it could end, so that it outlives the program for certain.
    assert watch(int(pid)).ended(0) is False


def test_the_courier_that_was_left_behind_does_not_stay_in_the_process_table(
    nowhere: str, run_python: RunPython
) -> None:
    """A program with many runs, one after the other, has no zombies; and Python is not told of a forgotten process."""
    done = run_python(
        "import os, signal\n"
        "from lezea_mlops.tracker import ExperimentTracker\n"
        "from tests.courier.conftest import courier_of\n"
        "def run(stop):\n"
        "    tracker = ExperimentTracker('Demo', auto_start=True, settings={'close_timeout_s': 0.2})\n"
        "    pid = courier_of(tracker.run_dir)\n"
        "    if stop:\n"
        "        os.kill(pid, signal.SIGSTOP)\n"
        "    tracker.end()\n"
        "    del tracker\n"
        "    return pid\n"
        "first = run(stop=True)\n"
        "os.kill(first, signal.SIGKILL)\n"
        "os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)\n"
        "run(stop=False)\n"
        "print(os.path.exists(f'/proc/{first}'))\n",
        PYTHONDEVMODE="1",
        PYTHONWARNINGS="error",
    )
    assert done.stdout == "False\n"
    assert "ResourceWarning" not in done.stderr


def test_starting_is_left_to_the_couriers_own_time(tracker: ExperimentTracker) -> None:
    """While it starts, ``health`` says so; later it says what the courier says."""
    other = ExperimentTracker("Demo", async_mode=True)
    other.start(prometheus_port=None)
    assert other.health()["sinks"]["mlflow"]["state"] in ("starting", "down")
    assert other._driver is not None
    other._driver.wait_until_reached(deadline())
    assert other.health()["sinks"]["mlflow"]["state"] == "down"
    other.end()
