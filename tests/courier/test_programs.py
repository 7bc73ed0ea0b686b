"""Every kind of program has its courier: scripts, modules, notebooks, workers, and folders full of namesakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lezea_mlops.journal import read_run
from tests.conftest import ROOT

# The start waits for the destination's first answer, so that the courier is up after it.
PROGRAM = """
import json, os, sys, threading
from lezea_mlops.runtime import courier_driver
from lezea_mlops.tracker import ExperimentTracker

courier_driver.HEALTH_WAIT_S = 60.0
tracker = ExperimentTracker("Demo")
tracker.start(prometheus_port=None)
tracker.log_metrics({"loss": 0.5}, step=1)
health = tracker.health()
print(json.dumps({"driver": health["driver"], "state": health["sinks"]["mlflow"]["state"]}))
tracker.end()
"""
UP = {"driver": "process", "state": "down"}


def python(
    *arguments: str, folder: Path, told: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments in a folder; *told* goes to its standard input."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True, text=True, input=told, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def said(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """Return what the program said of its courier."""
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def metrics_in(folder: Path) -> list[float]:
    """Return the losses in the journal of the one run."""
    [run_dir] = (folder / "runs").iterdir()
    return [record.event.metrics["loss"] for record in read_run(run_dir) if record.type == "metric"]


@pytest.fixture(autouse=True)
def _destination(nowhere: str) -> None:
    """No program here needs to reach anything."""


def test_a_script_without_a_main_guard(tmp_path: Path) -> None:
    """The courier does not run the script again: there is one run, with one value."""
    (tmp_path / "train.py").write_text(PROGRAM)
    done = python("train.py", folder=tmp_path)
    assert said(done) == [UP]
    assert metrics_in(tmp_path) == [0.5]


def test_a_command_and_standard_input(tmp_path: Path) -> None:
    """``python -c`` and ``python -`` have no file at all."""
    assert said(python("-c", PROGRAM, folder=tmp_path)) == [UP]
    assert said(python("-", folder=tmp_path, told=PROGRAM)) == [UP]


def test_a_module_of_a_package_in_the_working_folder(tmp_path: Path) -> None:
    """``python -m`` puts the working folder first on the path; the courier has it last."""
    package = tmp_path / "lab"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "train.py").write_text(PROGRAM)
    assert said(python("-m", "lab.train", folder=tmp_path)) == [UP]


def test_an_interactive_session(tmp_path: Path) -> None:
    """Cell by cell, as in a notebook; an error in one of them ends neither run nor courier."""
    cells = (
        "from lezea_mlops.tracker import ExperimentTracker\n"
        "tracker = ExperimentTracker('Demo', auto_start=True)\n"
        "1 / 0\n"
        "tracker.log_metrics({'loss': 0.5}, step=1)\n"
        "import json\n"
        "health = tracker.health()\n"
        "print(json.dumps({'driver': health['driver'], 'state': health['sinks']['mlflow']['state']}))\n"
    )
    done = python("-i", folder=tmp_path, told=cells)
    assert "ZeroDivisionError" in done.stderr
    # The prompt goes to standard error, so that a line of its own is on standard output.
    assert said(done) == [UP]
    [run_dir] = (tmp_path / "runs").iterdir()
    [end] = [record for record in read_run(run_dir) if record.type == "run_finished"]
    assert end.event.status == "completed"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_daemonic_worker(tmp_path: Path, method: str) -> None:
    """``multiprocessing`` forbids such a worker children of its own kind; a courier is none."""
    (tmp_path / "worker.py").write_text(
        "def work():\n" + "".join(f"    {line}\n" for line in PROGRAM.splitlines())
    )
    (tmp_path / "train.py").write_text(
        "import multiprocessing, worker\n"
        "if __name__ == '__main__':\n"
        f"    process = multiprocessing.get_context('{method}').Process(target=worker.work, daemon=True)\n"
        "    process.start()\n"
        "    process.join()\n"
    )
    assert said(python("train.py", folder=tmp_path)) == [UP]


def test_files_of_the_user_are_not_taken_for_the_libraries(tmp_path: Path, mlflow_store: str) -> None:
    """``queue.py``, ``json.py``, ``logging.py`` and ``mlflow.py`` beside a script: it is delivered to MLflow."""
    scripts, work = tmp_path / "scripts", tmp_path / "work"
    work.mkdir()
    scripts.mkdir()
    # Imported late: the script itself needs the real ones.
    for name in ("queue", "json", "logging", "mlflow", "sqlalchemy", "msgspec", "select"):
        for folder in (scripts, work):
            (folder / f"{name}.py").write_text("raise SystemExit('the file of the user was imported')\n")
    (scripts / "train.py").write_text(
        "import sys\n"
        "beside = [sys.path.pop(0)]\n"
        "from lezea_mlops.tracker import ExperimentTracker\n"
        "sys.path[:0] = beside + ['']\n"
        "tracker = ExperimentTracker('Demo')\n"
        "import json as loaded_before\n"
        "tracker.start(prometheus_port=None)\n"
        "tracker.log_metrics({'loss': 0.5}, step=1)\n"
        "assert tracker.flush(100), tracker.health()\n"
        "print(loaded_before.dumps({'driver': tracker.health()['driver']}))\n"
        "tracker.end()\n"
    )
    assert said(python(str(scripts / "train.py"), folder=work)) == [{"driver": "process"}]


def test_relative_paths_mean_the_folder_of_the_constructor(
    tmp_path: Path, mlflow_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run folder, store and artifacts stay where they were meant, whatever the program does before the start."""
    (tmp_path / "elsewhere").mkdir()
    program = (
        "import os\n"
        "from lezea_mlops.tracker import ExperimentTracker\n"
        "tracker = ExperimentTracker('Demo', runs_dir='my/runs')\n"
        "os.chdir('elsewhere')\n"
        "tracker.start(prometheus_port=None)\n"
        "tracker.log_text('hello', 'note.txt')\n"
        "assert tracker.flush(100), tracker.health()\n"
        "os.chdir('/')\n"
        "tracker.end()\n"
        "assert not any(tracker.health()['sinks']['mlflow'][what] for what in ('waiting', 'failures'))\n"
    )
    python("-c", program, folder=tmp_path, LEZEA_MLFLOW_TRACKING_URI="sqlite:///mlflow.db")
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert [path.name for path in (tmp_path / "my").iterdir()] == ["runs"]
    assert len(list((tmp_path / "mlartifacts").rglob("note.txt"))) == 1


def test_a_working_folder_that_was_deleted(tmp_path: Path) -> None:
    """Before the start or after it: the run goes on, with its courier."""
    program = (
        "import os, shutil\n"
        "os.chdir('gone')\n"
        "from lezea_mlops.tracker import ExperimentTracker\n"
        "runs = os.path.dirname(os.getcwd()) + '/runs'\n"
        "tracker = ExperimentTracker('Demo', runs_dir=runs)\n"
        "shutil.rmtree('../gone')\n"
    ) + PROGRAM.partition('("Demo")\n')[2]
    (tmp_path / "gone").mkdir()
    assert said(python("-c", "import json\n" + program, folder=tmp_path)) == [UP]
    assert metrics_in(tmp_path) == [0.5]


def test_an_isolated_interpreter(tmp_path: Path) -> None:
    """``python -I`` with a path of its own; entries of ``sys.path`` that Python passes over are passed over."""
    program = f"import sys\nsys.path[:0] = [{str(ROOT)!r}, b'bytes', None]\n{PROGRAM}"
    assert said(python("-I", "-c", program, folder=tmp_path)) == [UP]


def test_a_strict_interpreter_has_nothing_to_complain_about(tmp_path: Path) -> None:
    """Warnings are errors, in development mode: no resource is forgotten, no exception is ignored at the exit."""
    program = PROGRAM + "del tracker\n"
    done = python("-W", "error", "-X", "dev", "-c", program, folder=tmp_path)
    assert said(done) == [UP]
    complaints = [line for line in done.stderr.splitlines() if "ning" in line and "lezea" not in line]
    assert "Traceback" not in done.stderr
    assert "ResourceWarning" not in done.stderr, complaints


def test_an_audit_hook_that_forbids_programs(tmp_path: Path) -> None:
    """A thread delivers, and the log says why."""
    hook = (
        "import sys\n"
        "def forbid(event, arguments):\n"
        "    if event == 'subprocess.Popen':\n"
        "        raise RuntimeError('no programs here')\n"
        "sys.addaudithook(forbid)\n"
    )
    done = python("-c", hook + PROGRAM, folder=tmp_path)
    assert said(done) == [{"driver": "thread", "state": "down"}]
    assert done.stderr.count("no courier process can be started (no programs here)") == 1


def test_a_signal_for_closed_pipes_does_not_end_the_program(tmp_path: Path) -> None:
    """``SIGPIPE`` at its default, as in many a command line tool, while the courier dies."""
    program = PROGRAM.replace(
        "health = tracker.health()\n",
        "import signal\n"
        "signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
        "os.kill(tracker._driver.pid, signal.SIGKILL)\n"
        "tracker._driver._process.wait()\n"
        "health = tracker.health()\n",
    )
    # The next courier may not have looked for MLflow yet.
    [told] = said(python("-c", program, folder=tmp_path))
    assert told["driver"] == "process"
    assert told["state"] in ("starting", "down")


def test_a_very_long_import_path(tmp_path: Path) -> None:
    """What the courier is told is longer than a pipe usually holds, and nobody waits."""
    program = f"import sys\nsys.path += [f'/nowhere/{{number:0200}}' for number in range(1_000)]\n{PROGRAM}"
    assert said(python("-c", program, folder=tmp_path)) == [UP]


def test_a_program_without_descriptors_to_spare(tmp_path: Path) -> None:
    """Where no pipe can be made a thread delivers; the run itself goes on."""
    program = PROGRAM.replace(
        "tracker.start(prometheus_port=None)\n",
        "taken = []\n"
        "while len(taken) == 0 or taken[-1] < 63:\n"
        "    taken.append(os.dup(1))\n"
        "for descriptor in taken[-4:]:\n"
        "    os.close(descriptor)\n"
        "tracker.start(prometheus_port=None)\n"
        "for descriptor in taken[:-4]:\n"
        "    os.close(descriptor)\n",
    )
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
    done = python("-c", limit + program, folder=tmp_path)
    assert said(done)[0]["driver"] == "thread"
    assert "no courier process can be started" in done.stderr
