"""The ranks of one job share a run: a file for each, no matter which launcher says who they are and who dies."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from lezea_mlops.config import load_settings
from lezea_mlops.journal import COURIER_WRITER, MAIN_WRITER, RunFolder, state_of
from lezea_mlops.runtime.replay import deliver_run
from lezea_mlops.tracker import ExperimentTracker
from tests.ends.programs import UNREACHABLE, WITHOUT_A_WORD, ends_of, infer, wait_for_couriers
from tests.processes.jobs import by_writer, run_script, steps_of, the_run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc")

VARIABLES = ["RANK", "LOCAL_RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"]

# The rank is known only after the import, as where a launcher forks its workers.
JOB = """
import os, signal, sys
from lezea_mlops.tracker import ExperimentTracker

def fork(rank, work):
    pid = os.fork()
    if pid == 0:
        os.environ[sys.argv[1]] = str(rank)
        work(rank)
        os._exit(0)
    return pid

def wait(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""

FOUR = """
def work(rank):
    with ExperimentTracker("Demo", **options) as tracker:
        for step in range(5):
            tracker.log_training_step(step, {"loss": 1.0 / (rank + 1)})

options = {sys.argv[2]: "job"}
for pid in [fork(rank, work) for rank in range(4)]:
    assert wait(pid) == 0
"""


@pytest.mark.parametrize("variable", VARIABLES)
def test_four_ranks_make_one_run(variable: str, tmp_path: Path) -> None:
    """Each has a file of its own and all its records; ``main`` is rank 0."""
    run_script(JOB + FOUR, tmp_path, variable, "experiment_id")
    run = the_run(tmp_path)
    writers = by_writer(run)
    assert writers.keys() == {MAIN_WRITER, "rank1", "rank2", "rank3"}
    assert [steps_of(records) for records in writers.values()] == [list(range(5))] * 4
    assert (run.run_id, state_of(run)) == ("job", "completed")


def test_four_ranks_resume_one_run(tmp_path: Path) -> None:
    """The id of the run to resume is one that they share, too; each goes on in its own file."""
    run_script(JOB + FOUR, tmp_path, "RANK", "experiment_id")
    run_script(JOB + FOUR, tmp_path, "RANK", "resume")
    run = the_run(tmp_path)
    assert run.journals().keys() == {MAIN_WRITER, "rank1", "rank2", "rank3"}
    ends = [(end.wid, end.att) for end in ends_of(run)]
    assert sorted(ends) == [(wid, att) for wid in ("main", "rank1", "rank2", "rank3") for att in (1, 2)]


@pytest.mark.parametrize(
    ("environment", "writer"),
    [
        ({"RANK": "5", "LOCAL_RANK": "1"}, "rank5"),
        ({"SLURM_PROCID": "3", "LOCAL_RANK": "1"}, "rank3"),
        ({"RANK": "0", "LOCAL_RANK": "2"}, "main"),
        ({"RANK": "", "OMPI_COMM_WORLD_RANK": "007"}, "rank7"),
        ({"RANK": "-1"}, "main"),
        ({"RANK": "first"}, "main"),
        ({}, "main"),
    ],
)
def test_the_rank_in_the_whole_job_comes_first(
    environment: dict[str, str], writer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That on the machine alone is asked last; what is no rank counts as none."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LEZEA_EXPERIMENT_ID", "job")
    tracker = ExperimentTracker("Demo", settings={"mode": "offline"})
    assert by_writer(RunFolder(tracker.run_dir)).keys() == {writer}
    tracker.end()


@pytest.mark.parametrize("is_main_gone", [False, True], ids=["elsewhere", "here"])
def test_what_another_process_of_the_run_delivers_is_no_reason_to_warn(
    is_main_gone: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A rank that ends while ``main`` delivers says what waits, and warns only where nobody else delivers it."""
    caplog.set_level(logging.INFO, logger="lezea_mlops")
    settings = {"mlflow_tracking_uri": UNREACHABLE, "close_timeout_s": 1.0}
    main = ExperimentTracker("Demo", experiment_id="job", auto_start=True, settings=settings)
    monkeypatch.setenv("RANK", "1")
    rank = ExperimentTracker("Demo", experiment_id="job", auto_start=True, settings=settings)
    rank.log_metrics({"loss": 0.5}, step=1)
    for tracker in (main, rank) if is_main_gone else (rank, main):
        tracker.end()
    waiting = [record.levelname for record in caplog.records if "ship them with" in record.getMessage()]
    assert waiting == (["WARNING", "WARNING"] if is_main_gone else ["INFO", "WARNING"])


LONE = """
def work(rank):
    for _ in range(2):
        ExperimentTracker("Demo").end()

for rank in range(3):
    assert wait(fork(rank, work)) == 0
"""


@pytest.mark.parametrize("mode", ["offline", "off"])
def test_a_rank_without_a_shared_id_has_runs_of_its_own_and_one_warning(mode: str, tmp_path: Path) -> None:
    """Rank 0 is not warned; each of the others once, with what to do, whatever number of runs it makes."""
    code = JOB + "import logging\nlogging.basicConfig(stream=sys.stdout, format='%(message)s')\n" + LONE
    told = run_script(code, tmp_path, "RANK", LEZEA_MODE=mode)
    if mode == "off":
        assert told == ""
        return
    assert [line.partition(":")[0] for line in told.splitlines()] == [
        "RANK is 1, and no experiment_id is shared with the other ranks",
        "RANK is 2, and no experiment_id is shared with the other ranks",
    ]
    assert told.count("LEZEA_EXPERIMENT_ID") == 2
    runs = [RunFolder(path) for path in (tmp_path / "runs").iterdir()]
    assert [list(run.journals()) for run in runs] == [[MAIN_WRITER]] * 6


# ---------------------------------------------------------------------- rank 0 dies

RANK_0_DIES = """
import select

def couriers():
    children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
    return [int(pid) for pid in children if b"lezea-courier" in open(f"/proc/{pid}/cmdline", "rb").read()]

def dies(rank):
    tracker = ExperimentTracker("Demo", experiment_id="job", auto_start=True)
    tracker.log_training_step(0, {"loss": 1.0})
    assert tracker.flush(60) or os.environ["LEZEA_MODE"] == "offline"
    for courier in couriers():
        # As where a machine goes with all that runs on it.
        watch = os.pidfd_open(courier)
        os.kill(courier, signal.SIGKILL)
        select.select([watch], [], [])
    os.kill(os.getpid(), signal.SIGKILL)

def lives(rank):
    with ExperimentTracker("Demo", experiment_id="job", async_mode=True) as tracker:
        tracker.log_training_step(0, {"loss": 0.5})
        os.write(begun, b"x")
        os.read(go, 1)
        for step in range(1, 5):
            tracker.log_training_step(step, {"loss": 0.5})
        assert tracker.flush(60) or os.environ["LEZEA_MODE"] == "offline"

ranks = int(sys.argv[2])
beginning, begun = os.pipe()
go, going = os.pipe()
others = [fork(rank, lives) for rank in range(1, ranks)]
for _ in others:
    os.read(beginning, 1)
assert wait(fork(0, dies)) == -signal.SIGKILL
os.write(going, b"x" * ranks)
for pid in others:
    assert wait(pid) == 0
"""


def test_the_other_ranks_go_on_when_rank_0_is_killed(tmp_path: Path) -> None:
    """Offline, their journals are whole; the run as such was killed, as the next sync tells."""
    run_script(JOB + RANK_0_DIES, tmp_path, "RANK", "4")
    run = the_run(tmp_path)
    writers = by_writer(run)
    assert [steps_of(writers[wid]) for wid in ("rank1", "rank2", "rank3")] == [list(range(5))] * 3
    assert state_of(run) == "lost"
    assert infer(run) == 1
    told = {end.wid: (end.event.status, end.event.reason) for end in ends_of(run)}
    assert told.pop(COURIER_WRITER) == ("killed", WITHOUT_A_WORD)
    assert told == dict.fromkeys(("rank1", "rank2", "rank3"), ("completed", None))


def test_the_courier_of_another_rank_takes_over_when_rank_0_is_killed(
    mlflow_store: str, tmp_path: Path
) -> None:
    """What the others log afterwards arrives without any sync; the run is shown as killed after one at the latest."""
    run_script(JOB + RANK_0_DIES, tmp_path, "RANK", "2", LEZEA_MODE="online", LEZEA_COURIER="process")
    run = the_run(tmp_path)
    wait_for_couriers(run)
    client = MlflowClient(mlflow_store)
    (shown,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    points = {name: len(client.get_metric_history(shown.info.run_id, name)) for name in shown.data.metrics}
    assert points == {"loss": 1, "rank1/loss": 5, "rank1/delta_loss": 4}
    assert [report.error for report in deliver_run(run, load_settings())] == [None]
    shown = client.get_run(shown.info.run_id)
    assert (shown.info.status, shown.data.tags["lezea.reason"]) == ("KILLED", WITHOUT_A_WORD)
