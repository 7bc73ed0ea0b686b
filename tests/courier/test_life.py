"""The courier's life: killed, stopped, left behind, orphaned. Its destination refuses all; no record may be lost."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lezea_mlops._files import read_holder
from lezea_mlops._process import ProcessIdentity, process_start_ticks
from lezea_mlops.journal import RunFolder, read_run
from lezea_mlops.runtime import courier_driver
from lezea_mlops.runtime.courier import Parent
from lezea_mlops.runtime.courier_driver import MAX_RESTARTS
from lezea_mlops.tracker import ExperimentTracker
from tests.conftest import ROOT
from tests.courier.conftest import (
    HEALTH_WAIT_S,
    Watch,
    Watched,
    courier_of,
    deadline,
    ends_of,
    next_call_looks_after_the_courier,
    wait_for_capture,
    warnings_in,
)

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]


def answers(tracker: ExperimentTracker) -> bool:
    """Wait for the courier; tell whether it has tried its destination."""
    assert tracker._driver is not None
    [wrong] = tracker._driver.wait_until_reached(deadline())
    return "cannot be reached" in wrong


# ---------------------------------------------------------------------- killed


def test_one_that_was_killed_is_started_again_three_times(
    tracker: ExperimentTracker, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning each; after the fourth death the journal keeps all, and a warning names what delivers it."""
    for number in range(MAX_RESTARTS):
        killed = watch(tracker._driver.pid)
        killed.signal(signal.SIGKILL)
        assert killed.ended()
        tracker.log_metrics({"loss": 0.5}, step=number)
        assert answers(tracker)
        assert tracker._driver.pid != killed.pid
        assert courier_of(tracker.run_dir) == tracker._driver.pid
        assert len(warnings_in(caplog, "signal 9; it said nothing); another was started")) == number + 1
    last = watch(tracker)
    last.signal(signal.SIGKILL)
    assert last.ended()
    tracker.log_metrics({"loss": 0.5}, step=MAX_RESTARTS)
    assert tracker.flush(60) is False
    health = tracker.health()["sinks"]["mlflow"]
    assert (health["state"], health["waiting"]) == ("no courier", tracker.health()["journal"]["records"])
    for step in range(100):
        tracker.log_metrics({"loss": 0.5}, step=step)
    tracker.end()
    [warning] = warnings_in(caplog, "deliver with: ")
    assert f"lezea sync {tracker.experiment_id}" in warning
    assert len(warnings_in(caplog, "the courier of")) == MAX_RESTARTS + 1
    records = list(read_run(tracker.run_dir))
    assert len(records) == tracker.health()["journal"]["records"]
    assert records[-1].event.status == "completed"


def test_a_call_that_is_due_looks_after_the_courier(tracker: ExperimentTracker, watch: Watch) -> None:
    """At most once a second: no question is needed for it."""
    killed = watch(tracker)
    killed.signal(signal.SIGKILL)
    assert killed.ended()
    next_call_looks_after_the_courier(tracker)
    tracker.log_metrics({"loss": 0.5}, step=1)
    assert tracker._driver.pid != killed.pid
    assert tracker._driver.due_us > 0
    assert answers(tracker)


def test_one_that_is_started_again_is_starting(
    tracker: ExperimentTracker, watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the one before was up does not make it one that gives no answer."""
    monkeypatch.setattr(courier_driver, "HEALTH_WAIT_S", HEALTH_WAIT_S)
    slow = tmp_path / "python3"
    slow.write_text("#!/bin/sh\nexec sleep 1000\n")
    slow.chmod(0o700)
    killed = watch(tracker)
    killed.signal(signal.SIGKILL)
    assert killed.ended()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(slow))
        assert tracker.health()["sinks"]["mlflow"]["state"] == "starting"
    sleeping = watch(tracker._driver.pid)
    sleeping.signal(signal.SIGKILL)
    assert sleeping.ended()


def test_where_no_other_can_be_started_it_is_tried_again(
    tracker: ExperimentTracker,
    watch: Watch,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What killed the courier, such as a lack of memory, may keep the next one from starting for a while."""
    killed = watch(tracker)
    killed.signal(signal.SIGKILL)
    assert killed.ended()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nowhere/python3")
        assert tracker.flush(60) is False
        assert tracker._driver.pid == killed.pid
        assert warnings_in(caplog, "the courier of") == []
    assert answers(tracker)
    assert tracker._driver.pid != killed.pid
    assert len(warnings_in(caplog, "another was started")) == 1


def test_one_that_dies_while_it_is_asked_is_followed_by_another(
    tracker: ExperimentTracker, watch: Watch
) -> None:
    """A flush goes on with the next, and does not end before its time."""
    stopped = watch(tracker)
    stopped.signal(signal.SIGSTOP)
    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(answers, tracker)
        stopped.signal(signal.SIGKILL)
        assert asking.result(60) is True
    assert tracker._driver.pid != stopped.pid


def test_it_outlives_a_signal_that_is_meant_for_the_job(tracker: ExperimentTracker) -> None:
    """A scheduler tells every process of a job; the end of this one's parent is still to be delivered."""
    pid = courier_of(tracker.run_dir)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(pid, number)
    assert answers(tracker)
    assert tracker._driver.pid == pid


def test_a_run_may_be_ended_while_its_courier_is_looked_after(
    tracker: ExperimentTracker, watch: Watch
) -> None:
    """As the handler of a signal does that comes just then."""
    courier = watch(tracker)
    with tracker._driver._turn:
        tracker.end()
    assert courier.ended()


# ---------------------------------------------------------------------- stopped


def test_a_courier_that_does_not_answer_blocks_no_call(
    tracker: ExperimentTracker,
    watch: Watch,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The channel is filled to its brim meanwhile; when the courier goes on, all is as before."""
    monkeypatch.setattr(courier_driver, "HEALTH_WAIT_S", HEALTH_WAIT_S)
    courier = watch(tracker)
    courier.signal(signal.SIGSTOP)
    within = deadline()
    for step in range(2_000):
        tracker.log_metrics({"loss": 0.5}, step=step)
        assert tracker.flush(0) is False
    assert tracker.health()["sinks"]["mlflow"]["state"] == "no answer"
    assert not within.passed()
    courier.signal(signal.SIGCONT)
    while tracker.health()["sinks"]["mlflow"]["state"] != "down":
        assert not within.passed()
    assert answers(tracker)
    assert tracker._driver.pid == courier.pid
    assert warnings_in(caplog, "the courier of") == []


def test_ending_beside_a_courier_that_does_not_answer(
    nowhere: str, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    """The end comes at its deadline; what was recorded is told, and the courier goes when it can."""
    tracker = ExperimentTracker("Demo", auto_start=True, settings={"close_timeout_s": 2.0})
    courier = watch(tracker)
    courier.signal(signal.SIGSTOP)
    within = deadline()
    tracker.end()
    assert within.left_s() > 60 - 5 * 2.0
    [warning] = warnings_in(caplog, "records wait in /")
    assert f"lezea sync {tracker.experiment_id}" in warning
    courier.signal(signal.SIGCONT)
    assert courier.ended()


# ---------------------------------------------------------------------- after the end


def test_after_the_end_no_courier_is_started_again(
    tracker: ExperimentTracker, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is logged late stays in the journal; ``health`` says what the courier said last."""
    courier = watch(tracker)
    tracker.end()
    assert courier.ended()
    tracker.log_metrics({"loss": 0.5}, step=1)
    assert tracker.flush(0) is False
    health = tracker.health()["sinks"]["mlflow"]
    assert (health["state"], health["waiting"]) == ("down", tracker.health()["journal"]["records"])
    assert tracker._driver.pid is None
    assert warnings_in(caplog, "the courier of") == []


# ---------------------------------------------------------------------- the program dies

KILLED = """
import os, sys
from lezea_mlops.tracker import ExperimentTracker
from tests.courier.conftest import courier_of

tracker = ExperimentTracker("Demo", auto_start=True)
tracker.log_metrics({"loss": 0.5}, step=1)
child = os.fork() if "fork" in sys.argv else None
if child != 0:
    print(courier_of(tracker.run_dir), tracker.run_dir, child, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def program(nowhere: str, tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], list[str]]]]:
    """Return a function that starts the program above and returns it with what it printed."""
    started = []

    def start(*arguments: str) -> tuple[subprocess.Popen[str], list[str]]:
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, *arguments], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().split()

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("arguments", [[], ["fork"]])
def test_the_courier_of_a_killed_program_leaves_when_only_paused_destinations_remain(
    program: Callable[..., tuple[subprocess.Popen[str], list[str]]], watch: Watch, arguments: list[str]
) -> None:
    """It writes the end down, once, before it goes; a forked child that holds all pipes keeps nobody waiting."""
    process, (pid, run_dir, child) = program(*arguments)
    courier = watch(int(pid))
    left_behind = watch(int(child)) if arguments else None
    process.kill()
    assert courier.ended()
    [end] = ends_of(Path(run_dir))
    assert (end["status"], end["inferred"]) == ("killed", True)
    assert "SIGKILL" in str(end["reason"])
    assert left_behind is None or not left_behind.ended(0)


def test_a_program_that_ends_by_a_signal_has_its_end_told(
    program: Callable[..., tuple[subprocess.Popen[str], list[str]]], watch: Watch
) -> None:
    """The courier knows which signal it was."""
    process, (pid, run_dir, _) = program()
    courier = watch(int(pid))
    process.terminate()
    assert courier.ended()
    [end] = ends_of(Path(run_dir))
    assert (end["status"], end["reason"]) == ("killed", "SIGTERM")


# ---------------------------------------------------------------------- forks, folders, interrupts


def test_a_forked_child_uses_nothing_of_the_couriers(nowhere: str, run_python: RunPython) -> None:
    """It has no end of the channel and no driver; the parent's goes on."""
    done = run_python(
        "import os\n"
        "from lezea_mlops.runtime import courier_driver\n"
        "from lezea_mlops.tracker import ExperimentTracker\n"
        "courier_driver.HEALTH_WAIT_S = 60.0\n"
        "tracker = ExperimentTracker('Demo', auto_start=True)\n"
        "driver = tracker._driver\n"
        "def sockets():\n"
        "    names = [f'/proc/self/fd/{number}' for number in os.listdir('/proc/self/fd')]\n"
        "    return [name for name in names if os.path.exists(name) and 'socket' in os.readlink(name)]\n"
        "before = len(sockets())\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    tracker.log_metrics({'loss': 0.25}, step=2)\n"
        "    answers = [tracker.flush(0), driver.pid, driver.health()['mlflow']['state']]\n"
        "    print(len(sockets()), *answers, flush=True)\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "print(len(sockets()) == before == 1, tracker.health()['sinks']['mlflow']['state'])\n"
        "tracker.end()\n"
    )
    assert done.stdout.splitlines() == ["0 False None no answer", "True down"]
    assert "the courier of" not in done.stderr


def test_a_run_folder_that_is_deleted_meanwhile(tracker: ExperimentTracker, watch: Watch) -> None:
    """Nothing can be kept there any more; program and courier come to their ends nevertheless."""
    courier = watch(tracker)
    shutil.rmtree(tracker.run_dir)
    tracker.log_metrics({"loss": 0.5}, step=1)
    assert tracker.flush(1.5) is False
    tracker.end()
    assert courier.ended()


def test_ctrl_c_in_a_call_that_waits(monkeypatch: pytest.MonkeyPatch, watch: Watch) -> None:
    """It comes through at once; run and courier go on as before."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("LEZEA_MLFLOW_TRACKING_URI", uri)
        tracker = ExperimentTracker("Demo")
        connections = []

        def interrupt() -> None:
            # The courier has connected, and gets no answer; the program waits for both.
            connections.append(silent.accept())
            os.kill(os.getpid(), signal.SIGINT)

        interrupting = threading.Thread(target=interrupt)
        interrupting.start()
        with pytest.raises(KeyboardInterrupt):
            tracker.start(prometheus_port=None)
        interrupting.join()
        courier = watch(tracker)
        wait_for_capture(tracker)
        tracker.log_metrics({"loss": 0.5}, step=1)
        assert tracker.health()["sinks"]["mlflow"]["waiting"] == tracker.health()["journal"]["records"]
        assert tracker._driver.pid == courier.pid
        connections[0][0].close()
    tracker.end()
    assert courier.ended()


def test_only_one_of_two_processes_delivers_and_the_other_takes_over(
    tracker: ExperimentTracker, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a courier; the second waits for the first one's end."""
    monkeypatch.setenv("RANK", "1")
    other = ExperimentTracker("Demo", experiment_id=tracker.experiment_id, auto_start=True)
    assert [path.name for path in RunFolder(tracker.run_dir).journals().values()] == [
        "events.jsonl", "events.rank1.jsonl",
    ]  # fmt: skip
    assert courier_of(tracker.run_dir) == tracker._driver.pid != other._driver.pid
    assert other.health()["sinks"]["mlflow"]["state"] == "elsewhere"
    tracker.end()
    within = deadline()
    lock = RunFolder(tracker.run_dir).lock("courier")
    while (holder := read_holder(lock)) is None or holder.process.pid != other._driver.pid:
        # It looks once a second.
        assert not within.passed()
        assert other.flush(0.2) is False
    assert answers(other)
    assert other.health()["sinks"]["mlflow"]["state"] == "down"
    courier: Watched = watch(other)
    other.end()
    assert courier.ended()


# ---------------------------------------------------------------------- watching the parent


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """Return a process that waits."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def identity(pid: int, **other: object) -> ProcessIdentity:
    """Return the identity of a process of this machine, or what a wrong one would be."""
    of_this = ProcessIdentity.of_this_process().stored()
    found = ProcessIdentity.read(of_this | {"pid": pid, "start_ticks": process_start_ticks(pid)} | other)
    assert found is not None
    return found


def test_the_parents_end_is_known_before_anybody_has_waited_for_it(process: subprocess.Popen[bytes]) -> None:
    """And nothing that stays readable is left, for which a loop would never rest."""
    parent = Parent(identity(process.pid))
    assert parent.has_ended() is False
    descriptor = parent.descriptor
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert parent.has_ended() is True
    assert (descriptor is None) == (not hasattr(os, "pidfd_open"))
    assert parent.descriptor is None
    assert parent.has_ended() is True


def test_another_process_with_the_parents_pid_is_not_the_parent(process: subprocess.Popen[bytes]) -> None:
    """Pids come back, also between the start and the first look."""
    parent = Parent(identity(process.pid, start_ticks=1))
    assert parent.has_ended() is True
    assert parent.descriptor is None


def test_a_machine_that_changes_its_name_does_not_hide_the_parents_end(
    process: subprocess.Popen[bytes],
) -> None:
    """A laptop in another network: the identity cannot be asked any more, the descriptor can."""
    parent = Parent(identity(process.pid, host="before"))
    assert parent.has_ended() is False
    process.kill()
    process.wait()
    assert parent.has_ended() is hasattr(os, "pidfd_open")
