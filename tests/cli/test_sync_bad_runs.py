"""``lezea sync`` of what went wrong: damaged, truncated, unreadable runs, and two deliveries at once."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from mlflow import MlflowClient
from typer.testing import CliRunner

from lezea_mlops.cli import app
from lezea_mlops.journal import RunFolder
from lezea_mlops.tracker import ExperimentTracker
from tests.conftest import ROOT
from tests.sinks.mlflow.seen import history, runs_of, seen, the_run

STEPS = 8
Lines = list[bytes]


def sync(*arguments: str) -> Result:
    """Call the command in this process."""
    return CliRunner().invoke(app, ["sync", *arguments])


def offline_run() -> RunFolder:
    """Return a run that was only journaled."""
    with ExperimentTracker("Later", settings={"mode": "offline"}) as tracker:
        for step in range(STEPS):
            tracker.log_metrics({"loss": 1.0 / (step + 1)}, step=step)
    return RunFolder(tracker.run_dir)


def lines_of(folder: RunFolder) -> Lines:
    """Return the lines of the journal of ``main``."""
    return folder.journal("main").read_bytes().splitlines(keepends=True)


def steps_of(uri: str, run_id: str) -> list[int]:
    """Return the steps of ``loss`` in MLflow, each point once."""
    client = MlflowClient(uri)
    return sorted(step for step, _, _ in history(client, the_run(client, run_id), "loss"))


def environment(uri: str) -> dict[str, str]:
    """Return the environment of the program."""
    return os.environ | {"PYTHONPATH": str(ROOT), "LEZEA_MLFLOW_TRACKING_URI": uri}


def metric_places(lines: Lines) -> list[int]:
    """Return where the metrics stand."""
    return [place for place, line in enumerate(lines) if b'"t":"metric"' in line]


def with_rubbish(lines: Lines) -> Lines:
    """Put lines between the others that are no records."""
    for rubbish in (b"garbage\n", b"\x00" * 300 + b"\n", lines[2][:30] + b"\n", b"\xff\xfe\n", b"[]\n"):
        lines.insert(3, rubbish)
    return lines


def doubled(lines: Lines) -> Lines:
    """Let each line stand twice, and all of it twice."""
    return [line for line in lines for _ in range(2)] + lines


def moved(lines: Lines) -> Lines:
    """Let the metrics stand in the opposite order."""
    places = metric_places(lines)
    lines[places[0] : places[-1] + 1] = reversed(lines[places[0] : places[-1] + 1])
    return lines


def of_a_later_version(lines: Lines) -> Lines:
    """Let records be those of a format that this program does not know, with parts that it does not know."""
    newer = [line.replace(b'{"v":1,', b'{"v":2,"new":[1],') for line in lines]
    unknown = lines[2].replace(b'"t":"metric"', b'"t":"dream"')
    return [*newer[:2], unknown, *newer[2:]]


def cut_in_a_line(lines: Lines) -> Lines:
    """Lose the end of the file within the line of the last metric."""
    last = metric_places(lines)[-1]
    return [*lines[:last], lines[last][:-20]]


HARMS: list[tuple[Callable[[Lines], Lines], int, str]] = [
    (with_rubbish, STEPS, "FINISHED"), (doubled, STEPS, "FINISHED"), (moved, STEPS, "FINISHED"),
    (of_a_later_version, STEPS, "FINISHED"), (cut_in_a_line, STEPS - 1, "KILLED"),
]  # fmt: skip


@pytest.mark.parametrize(("harm", "steps", "status"), HARMS)
def test_every_record_that_can_be_read_arrives_once(
    mlflow_store: str, harm: Callable[[Lines], Lines], steps: int, status: str
) -> None:
    """It is no failure; a second call changes nothing."""
    folder = offline_run()
    folder.journal("main").write_bytes(b"".join(harm(lines_of(folder))))
    assert sync(folder.run_id).exit_code == 0
    assert steps_of(mlflow_store, folder.run_id) == list(range(steps))
    client = MlflowClient(mlflow_store)
    assert the_run(client, folder.run_id).info.status == status
    before = seen(client, folder.run_id)
    assert sync(folder.run_id).exit_code == 0
    assert seen(client, folder.run_id) == before


def test_damaged_places_are_told(mlflow_store: str) -> None:
    """Their number, in the line of the run and for programs."""
    folder = offline_run()
    folder.journal("main").write_bytes(b"".join(with_rubbish(lines_of(folder))))
    result = sync(folder.run_id, "--json")
    assert "5 damaged places stepped over, complete" in result.stderr
    assert json.loads(result.stdout)[0]["damaged"] == 5


def zero(folder: RunFolder) -> None:
    """Let the file system have lost the journal's content."""
    folder.journal("main").write_bytes(b"\x00" * folder.journal("main").stat().st_size)


def be_a_folder(folder: RunFolder) -> None:
    """Put a folder in the journal's place."""
    folder.journal("main").unlink()
    folder.journal("main").mkdir()


def bar_the_cursors(folder: RunFolder) -> None:
    """Put a file in the place of the cursors' folder."""
    folder.cursors.write_text("")


def bar_the_locks(folder: RunFolder) -> None:
    """Put a file in the place of the locks' folder."""
    shutil.rmtree(folder.path / "locks")
    (folder.path / "locks").write_text("")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (zero, "holds no record that can be read"), (be_a_folder, "Is a directory"),
        (bar_the_cursors, "cursors"), (bar_the_locks, "cannot be locked"),
    ],
)  # fmt: skip
def test_one_bad_run_does_not_stop_the_others(
    mlflow_store: str, harm: Callable[[RunFolder], None], words: str
) -> None:
    """Its reason is told; what stands before and behind it is delivered; exit code 1."""
    one, bad, other = offline_run(), offline_run(), offline_run()
    harm(bad)
    result = sync(one.run_id, bad.run_id, other.run_id, "--json")
    assert result.exit_code == 1
    errors = {report["run_id"]: report["error"] for report in json.loads(result.stdout)}
    assert words in errors[bad.run_id]
    assert (errors[one.run_id], errors[other.run_id]) == (None, None)
    for folder in (one, other):
        assert steps_of(mlflow_store, folder.run_id) == list(range(STEPS))


def test_a_folder_that_is_none_does_not_stop_the_others(mlflow_store: str, tmp_path: Path) -> None:
    """Among all runs there may be anything: files, empty folders, links to nowhere."""
    good = offline_run()
    (tmp_path / "runs" / "file").write_text("x")
    (tmp_path / "runs" / "empty").mkdir()
    (tmp_path / "runs" / "nowhere").symlink_to(tmp_path / "missing")
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "events.jsonl").symlink_to(tmp_path / "missing")
    result = sync("--all")
    assert result.stderr.splitlines()[-1] == "2 runs: 1 complete, 1 incomplete"
    assert f"{good.run_id} → mlflow: " in result.stderr
    assert steps_of(mlflow_store, good.run_id) == list(range(STEPS))


def test_two_deliveries_at_once_deliver_once(mlflow_store: str) -> None:
    """Whoever comes second says that another delivers, or finds nothing left; both orders are possible."""
    folder = offline_run()
    command = [sys.executable, "-m", "lezea_mlops.cli", "sync", folder.run_id]
    both = [
        subprocess.Popen(command, env=environment(mlflow_store), stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate()[1] for process in both]
    for process, line in zip(both, said, strict=True):
        assert (process.returncode == 0) == ("another process delivers" not in line), line
    assert 0 in [process.returncode for process in both]
    assert steps_of(mlflow_store, folder.run_id) == list(range(STEPS))
    assert len(runs_of(MlflowClient(mlflow_store), folder.run_id)) == 1


# ---------------------------------------------------------------------- killed again and again

KILLS = 20
POINTS = 2_000


@pytest.fixture
def rich_run(tmp_path: Path) -> RunFolder:
    """An offline run with some of everything, whose journal takes several batches."""
    rng = random.Random(7)
    with ExperimentTracker("Later", "all of it", settings={"mode": "offline"}) as tracker:
        tracker.log_params({f"p{number}": number for number in range(150)})
        for step in range(POINTS):
            tracker.log_metrics({"loss": rng.random(), "reward": rng.random()}, step=step)
            if step % 200 == 0:
                (tmp_path / "weights.bin").write_bytes(rng.randbytes(1_000))
                tracker.log_artifact(tmp_path / "weights.bin", f"step{step}")
                tracker.log_params({"lr": rng.random()})
                tracker.log_comment(f"at {step}: " + "x" * 120_000)
    return RunFolder(tracker.run_dir)


# Loading MLflow takes most of a short delivery's time; here it is loaded once, before the processes part.
PROGRAM = """
import os, sys
import mlflow.store.tracking.sqlalchemy_store
import mlflow.tracking
from lezea_mlops.cli import app
for line in sys.stdin:
    uri, run = line.split()
    child = os.fork()
    if child == 0:
        os.environ["LEZEA_MLFLOW_TRACKING_URI"] = uri
        app(["sync", run])
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Deliveries:
    """One ``lezea sync`` after the other, each a process of its own that can be killed."""

    def __init__(self) -> None:
        self._parent = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], env=os.environ | {"PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
        )  # fmt: skip
        self._pid = 0

    def start(self, folder: RunFolder, uri: str) -> None:
        """Start one, and return when it has written something to the store, or has ended."""
        store = Path(uri.removeprefix("sqlite:///"))
        before = store.stat().st_mtime_ns
        assert self._parent.stdin is not None
        self._parent.stdin.write(f"{uri} {folder.path}\n")
        self._parent.stdin.flush()
        self._pid = int(self._said())
        while store.stat().st_mtime_ns == before and not self.ends_within(0.001):
            pass

    def ends_within(self, seconds: float) -> bool:
        """Wait for its end; False if it goes on longer."""
        return bool(select.select([self._parent.stdout], [], [], seconds)[0])

    def kill(self) -> None:
        """Kill it wherever it is."""
        with contextlib.suppress(ProcessLookupError):
            # It ended before; then its status says so.
            os.kill(self._pid, signal.SIGKILL)
        self.end()

    def end(self) -> int:
        """Wait for its end, and return its status."""
        return int(self._said())

    def close(self) -> None:
        """Kill all that is left."""
        os.killpg(self._parent.pid, signal.SIGKILL)
        self._parent.communicate()

    def _said(self) -> str:
        assert self._parent.stdout is not None
        return self._parent.stdout.readline()


@pytest.fixture
def deliveries() -> Iterator[Deliveries]:
    """Deliveries that end with the test."""
    deliveries = Deliveries()
    yield deliveries
    deliveries.close()


@pytest.mark.slow
@pytest.mark.chaos
# Its steps have limits of their own, together longer than a test has otherwise.
@pytest.mark.timeout(1_200)
def test_killed_at_twenty_points_it_ends_like_one_clean_delivery(
    rich_run: RunFolder, deliveries: Deliveries, mlflow_store: str, prepared_store: Path, tmp_path: Path
) -> None:
    """SIGKILL at random moments of the delivery, three runs to the end, and not a point, param, tag or file differs.

    A delivery that came to its end before its moment is made to begin anew: its cursor is taken away.
    """
    clean = f"sqlite:///{tmp_path}/clean.db"
    shutil.copyfile(prepared_store, tmp_path / "clean.db")
    copy = RunFolder(tmp_path / "copy" / rich_run.run_id)
    shutil.copytree(rich_run.path, copy.path)
    deliveries.start(copy, clean)
    began = os.times().elapsed
    assert deliveries.end() == 0
    whole_s = os.times().elapsed - began
    rng, cut_short = random.Random(20), 0
    while cut_short < KILLS:
        deliveries.start(rich_run, mlflow_store)
        if deliveries.ends_within(rng.uniform(0, whole_s / 2)):
            assert deliveries.end() == 0
            shutil.rmtree(rich_run.cursors)
        else:
            deliveries.kill()
            cut_short += 1
    for _ in range(3):
        deliveries.start(rich_run, mlflow_store)
        assert deliveries.end() == 0
    expected = seen(MlflowClient(clean), rich_run.run_id)
    assert len(expected["metrics"]["loss"]) == POINTS
    assert expected["status"] == "FINISHED"
    assert seen(MlflowClient(mlflow_store), rich_run.run_id) == expected
