"""Whatever ends a program, the journal tells it: the status, the reason, and the traceback where there is one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lezea_mlops.journal import RunFolder, state_of
from tests.ends.programs import (
    BEGIN,
    UNREACHABLE,
    WAYS,
    WITHOUT_A_WORD,
    RunPython,
    Way,
    ends_of,
    infer,
    records_of,
    the_run,
    wait_for_couriers,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc")

each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
# Where the drivers differ: who is there to write the end, and how the process comes to it.
DIFFERENT = ["forgotten", "exception", "no memory", "SIGTERM", "SIGKILL of the group", "os._exit"]
each_different_way = pytest.mark.parametrize("way", [WAYS[name] for name in DIFFERENT], ids=DIFFERENT)


def check_end(run: RunFolder, way: Way) -> None:
    """Check the one end of a run, and that its moment and its length fit the records."""
    (end,) = ends_of(run)
    told = (end.event.status, end.event.reason, bool(end.event.inferred))
    assert told == (way.status, way.reason, way.inferred)
    assert end.wid == ("courier" if way.inferred else "main")
    assert end.att == 1
    text = (end.event.error or {}).get("traceback", "")
    assert (way.traceback or "") in text
    assert bool(text) is (way.traceback is not None)
    ours = [record.ts for record in records_of(run) if record.wid == "main"]
    ended_at = end.event.ended_at or end.ts
    assert ours[0] <= max(ours) <= ended_at <= end.ts
    assert 0 <= end.event.duration_ms * 1_000 <= end.ts - ours[0] + 1_000
    assert state_of(run) == way.status


def ended(way: Way, run_python: RunPython, **environment: str) -> None:
    """Run a program that ends so, with no MLflow to deliver to."""
    done = run_python(BEGIN + way.code, check=False, LEZEA_MLFLOW_TRACKING_URI=UNREACHABLE, **environment)
    assert done.returncode == way.exit_code, done.stderr


@each_way
def test_an_end_is_in_the_journal_without_any_driver(way: Way, run_python: RunPython, tmp_path: Path) -> None:
    """Offline, an end that nobody could tell is told by the next sync, once; until then the run counts as lost."""
    ended(way, run_python, LEZEA_MODE="offline")
    run = the_run(tmp_path)
    if way.inferred:
        assert (ends_of(run), state_of(run)) == ([], "lost")
    assert [infer(run), infer(run)] == [int(way.inferred), 0]
    check_end(run, way)


@each_different_way
@pytest.mark.parametrize("asynchronous", ["0", "1"])
def test_the_courier_tells_an_end_that_the_process_could_not(
    asynchronous: str, way: Way, run_python: RunPython, tmp_path: Path
) -> None:
    """It survives a signal to the whole group, writes the end although MLflow is away, and goes."""
    ended(way, run_python, LEZEA_COURIER="process", ASYNC=asynchronous)
    run = the_run(tmp_path)
    wait_for_couriers(run)
    check_end(run, way)
    assert infer(run) == 0


@each_different_way
@pytest.mark.parametrize("asynchronous", ["0", "1"])
def test_a_thread_leaves_an_end_that_the_process_could_not_tell_to_the_next_sync(
    asynchronous: str, way: Way, run_python: RunPython, tmp_path: Path
) -> None:
    """A thread dies with its process; what the process could tell itself stands in the journal."""
    ended(way, run_python, LEZEA_COURIER="thread", ASYNC=asynchronous)
    run = the_run(tmp_path)
    assert state_of(run) == ("lost" if way.inferred else way.status)
    assert infer(run) == int(way.inferred)
    check_end(run, way)


COURIER_FIRST = """
import select
[courier] = couriers()
watch = os.pidfd_open(courier)
os.kill(courier, signal.SIGKILL)
select.select([watch], [], [])
"""


def test_a_courier_that_was_killed_first_leaves_no_run_open_for_ever(
    run_python: RunPython, tmp_path: Path
) -> None:
    """A signal that reaches both: the run counts as lost at once, and the next sync tells its end."""
    done = run_python(
        BEGIN + COURIER_FIRST + WAYS["SIGKILL"].code, check=False,
        LEZEA_COURIER="process", LEZEA_MLFLOW_TRACKING_URI=UNREACHABLE,
    )  # fmt: skip
    assert done.returncode == WAYS["SIGKILL"].exit_code, done.stderr
    run = the_run(tmp_path)
    assert (ends_of(run), state_of(run)) == ([], "lost")
    assert infer(run) == 1
    check_end(run, WAYS["SIGKILL"])


def test_a_courier_that_was_killed_first_is_replaced_before_the_end(
    run_python: RunPython, tmp_path: Path
) -> None:
    """The process that outlives it starts another, which tells the end that comes then."""
    goes_on = """
import time
# A call looks after the courier once a second.
while couriers() in ([], [courier]):
    tracker.log_training_step(2, {"loss": 0.5})
os._exit(0)
"""
    run_python(
        BEGIN + COURIER_FIRST + goes_on, LEZEA_COURIER="process", LEZEA_MLFLOW_TRACKING_URI=UNREACHABLE
    )
    run = the_run(tmp_path)
    wait_for_couriers(run)
    (end,) = ends_of(run)
    assert (end.event.status, end.event.reason, end.wid) == ("killed", WITHOUT_A_WORD, "courier")
