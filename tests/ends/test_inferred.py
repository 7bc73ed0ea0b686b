"""The end of an attempt that nobody told: one per attempt, with what is known of it, and a real one wins."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from lezea_mlops._clock import now_us
from lezea_mlops._files import LifeLock
from lezea_mlops.events import Envelope
from lezea_mlops.journal import COURIER_WRITER, MAIN_WRITER, JournalWriter, RunFolder, read_attempts, state_of
from lezea_mlops.tracker import ExperimentTracker
from tests.ends.programs import BEGIN, WITHOUT_A_WORD, RunPython, ends_of, infer, records_of, the_run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc")

MINUTE_US = 60 * 1_000_000
RESUME = """
import os, signal, sys
from lezea_mlops.tracker import ExperimentTracker
tracker = ExperimentTracker("Demo", resume=os.environ["RESUME"], auto_start=True)
tracker.log_training_step(2, {"loss": 0.25})
"""


@pytest.fixture
def killed(run_python: RunPython, tmp_path: Path) -> RunFolder:
    """A run whose process was killed, and which nobody has looked at since."""
    run_python(BEGIN + "os.kill(os.getpid(), signal.SIGKILL)", check=False, LEZEA_MODE="offline")
    return the_run(tmp_path)


def resumed(run: RunFolder, end: str | None = None) -> ExperimentTracker:
    """Return the next attempt of a run, ended with a status if one is given."""
    settings = {"mode": "offline", "runs_dir": run.path.parent}
    tracker = ExperimentTracker("Demo", resume=run.run_id, settings=settings)
    if end is not None:
        tracker.end(end)
    return tracker


def edit_lock(run: RunFolder, **changes: Any) -> None:
    """Change what the lock of ``main`` says of the process that died with it."""
    path = run.lock(MAIN_WRITER)
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


def told(run: RunFolder) -> list[tuple[int, str, str | None, bool]]:
    """Return attempt, status, reason and who told it of every end, by attempt."""
    ends = sorted(ends_of(run), key=lambda end: (end.att, end.seq))
    return [(end.att, end.event.status, end.event.reason, bool(end.event.inferred)) for end in ends]


def check_times(run: RunFolder, end: Envelope) -> None:
    """Check that an end lies between the last record of its attempt and the next attempt's first."""
    mine = [record.ts for record in records_of(run) if record.wid == MAIN_WRITER and record.att == end.att]
    after = [record.ts for record in records_of(run) if record.wid == MAIN_WRITER and record.att > end.att]
    assert max(mine) <= end.event.ended_at <= min([*after, end.ts])
    assert end.event.duration_ms == (end.event.ended_at - min(mine)) // 1_000


# ---------------------------------------------------------------------- one for each attempt


@pytest.mark.parametrize(
    ("name", "reason"), [("SIGTERM", "SIGTERM"), ("SIGKILL", WITHOUT_A_WORD)], ids=["SIGTERM", "SIGKILL"]
)
def test_a_job_that_is_preempted_and_resumed_offline_tells_each_end(
    name: str, reason: str, run_python: RunPython, tmp_path: Path
) -> None:
    """Three attempts, two of them ended by the scheduler: the next one writes down what its lock would hide."""
    code = f"os.kill(os.getpid(), signal.{name})"
    run_python(BEGIN + code, check=False, LEZEA_MODE="offline")
    run = the_run(tmp_path)
    run_python(RESUME + code, check=False, LEZEA_MODE="offline", RESUME=run.run_id)
    run_python(RESUME, LEZEA_MODE="offline", RESUME=run.run_id)
    assert infer(run) == 0
    assert told(run) == [
        (1, "killed", reason, True),
        (2, "killed", reason, True),
        (3, "completed", "interpreter exit", False),
    ]
    for end in ends_of(run):
        if end.event.inferred:
            check_times(run, end)


def test_a_run_that_goes_on_is_not_told_to_have_ended(killed: RunFolder) -> None:
    """The first attempt has its end, the second, which lives, has none."""
    tracker = resumed(killed)
    assert told(killed) == [(1, "killed", WITHOUT_A_WORD, True)]
    assert infer(killed) == 0
    assert state_of(killed) == "running"
    tracker.end()
    assert infer(killed) == 0
    assert [end[:2] for end in told(killed)] == [(1, "killed"), (2, "completed")]


@pytest.mark.parametrize("ended_first", [False, True])
def test_an_earlier_end_is_told_also_where_it_could_not_be_at_first(
    ended_first: bool, killed: RunFolder
) -> None:
    """Who resumed the run while another process delivered it leaves that to the next delivery."""
    delivery = LifeLock.take(killed.lock(COURIER_WRITER))
    assert delivery is not None
    tracker = resumed(killed)
    delivery.release()
    if ended_first:
        tracker.end()
    assert [infer(killed), infer(killed)] == [1, 0]
    reason = "the process ended without a word, and the run was resumed before anybody wrote that down"
    assert told(killed)[0] == (1, "killed", reason, True)
    assert len(told(killed)) == 1 + ended_first
    if not ended_first:
        tracker.end()


def test_an_attempt_that_was_ended_is_not_ended_again(tmp_path: Path) -> None:
    """Neither by who resumes nor by who delivers."""
    tracker = ExperimentTracker("Demo", settings={"mode": "offline"})
    run = RunFolder(tracker.run_dir)
    tracker.end("failed", "no data")
    tracker.log_comment("late")
    resumed(run, "completed")
    assert infer(run) == 0
    assert told(run) == [(1, "failed", "no data", False), (2, "completed", None, False)]


def test_a_real_end_wins_wherever_it_stands(killed: RunFolder) -> None:
    """It may have been on its way to the disk while somebody else believed the process dead."""
    assert infer(killed) == 1
    assert read_attempts(killed)[1].status == "killed"
    writer = JournalWriter(killed, MAIN_WRITER, attempt=1)
    writer.append("run_finished", {"status": "completed"})
    writer.close()
    assert (read_attempts(killed)[1].status, read_attempts(killed)[1].inferred) == ("completed", False)
    assert infer(killed) == 0
    assert state_of(killed) == "completed"


def test_ends_that_cannot_be_written_keep_nobody_from_resuming(
    killed: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """Where something stands in the courier's place, a warning says what is missing, and the run goes on."""
    killed.journal(COURIER_WRITER).mkdir()
    resumed(killed, "completed")
    assert f"the end of the run in {killed.path} cannot be written down" in caplog.text
    killed.journal(COURIER_WRITER).rmdir()
    assert read_attempts(killed)[2].status == "completed"


# ---------------------------------------------------------------------- what is known of it


def test_a_machine_that_was_restarted_is_the_reason(killed: RunFolder) -> None:
    """The lock names a process of another boot, whatever has its number now."""
    edit_lock(killed, boot_id="another", pid=1)
    assert state_of(killed) == "lost"
    assert infer(killed) == 1
    assert told(killed) == [(1, "killed", "the machine was restarted", True)]
    check_times(killed, ends_of(killed)[0])


@pytest.mark.parametrize(
    "elsewhere", [{"host": "node-7"}, {"pid_namespace": "pid:[7]"}], ids=["host", "container"]
)
def test_a_process_that_cannot_be_asked_is_gone_after_five_minutes_of_silence(
    elsewhere: dict[str, str], killed: RunFolder
) -> None:
    """Another host's, or another container's of this host: until then nobody says that it has ended."""
    edit_lock(killed, **elsewhere)
    for minutes, state, written in ((0, "running", 0), (4, "stalled", 0), (6, "lost", 1)):
        seen = now_us() - minutes * MINUTE_US
        killed.alive.write_text(json.dumps({"ts": seen, "pid": 1}))
        assert state_of(killed) == state
        assert infer(killed) == written
    (end,) = ends_of(killed)
    assert end.event.status == "killed"
    assert str(end.event.reason).startswith("no sign of life from process ")
    assert end.event.ended_at == max(seen, max(r.ts for r in records_of(killed) if r.wid == MAIN_WRITER))


def test_the_last_sign_of_life_is_the_end(killed: RunFolder) -> None:
    """A process that trained for an hour without a record lived until its driver was last seen."""
    last = now_us()
    killed.alive.write_text(json.dumps({"ts": last, "pid": 1}))
    assert infer(killed) == 1
    (end,) = ends_of(killed)
    assert end.event.ended_at == last
