"""Every command that a document shows can be typed: it exists, its options exist, and on a run it does what it says."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lezea_mlops.tracker import ExperimentTracker
from tests.conftest import ROOT

# How the documents name a run.
RUN = re.compile(r"RUN|[0-9a-f]{8}-[0-9a-f-]{27}|<experiment_id>")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list[str]:
    """Return the lines of all bash blocks that call ``lezea``, each once."""
    found: dict[str, None] = {}
    for document in DOCUMENTS:
        for block in re.findall(r"^```bash\n(.*?)^```$", document.read_text(), re.DOTALL | re.MULTILINE):
            lines = (line.partition("  #")[0].strip() for line in block.splitlines())
            found |= dict.fromkeys(line for line in lines if re.match(r"(\w+=\S+ )*lezea ", line))
    return list(found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, prepared_store: Path) -> Path:
    """Return a folder with one run that was only journaled, and a store."""
    folder = tmp_path_factory.mktemp("commands")
    store = folder / "mlflow.db"
    store.write_bytes(prepared_store.read_bytes())
    # A run remembers where it is to be delivered to; without this, that would be where the tests were started.
    settings = {"mode": "offline", "mlflow_tracking_uri": f"sqlite:///{store}"}
    with ExperimentTracker(
        "Shown", runs_dir=folder / "runs", experiment_id="shown-run", settings=settings
    ) as tracker:
        tracker.log_training_step(1, {"loss": 0.5})
        tracker.register_network("net-g10-t3", "tasker", generation=10)
        tracker.log_modification_tree(10, [{"id": "mod-g10-t3", "accepted": True, "target": "net-g10-t3"}])
    return folder


def test_there_are_commands() -> None:
    """The documents show how to deliver, look, compare, make room, and see what led where."""
    shown = " ".join(commands())
    assert all(f"lezea {name}" in shown for name in ("sync", "status", "audit", "gc", "tree", "lineage"))


@pytest.mark.slow
# Its steps have limits of their own, together longer than a test has otherwise.
@pytest.mark.timeout(1_200)
def test_the_commands_of_the_documents_do_what_they_say(folder: Path) -> None:
    """One after the other on one run; each ends well, and the watch ends by Ctrl-C."""
    # In the end all is delivered, so the order is that of a person: deliver first, then look.
    for command in sorted(commands(), key=lambda line: "sync" not in line):
        settings, words = [], shlex.split(RUN.sub("shown-run", command))
        while "=" in words[0]:
            settings.append(words.pop(0).partition("="))
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | {name: value for name, _, value in settings}
        process = subprocess.Popen(
            [sys.executable, "-m", "lezea_mlops.cli", *words[1:]], cwd=folder, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        if "--watch" in words:
            assert process.stderr is not None
            # It says what it watches when it has begun.
            assert process.stderr.readline(), command
            process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, f"{command}: {output}{errors}"
