"""Living in someone's program: other trackers, their own random numbers, and being switched off."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lezea_mlops.events import Envelope
from lezea_mlops.journal import read_run
from lezea_mlops.tracker import ExperimentTracker

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]


def offline(**arguments: Any) -> ExperimentTracker:
    """Return a tracker that only writes its journal."""
    return ExperimentTracker("Demo", settings={"mode": "offline"}, **arguments)


def records_of(tracker: ExperimentTracker) -> list[Envelope]:
    """Return the records of a run without what ``start`` captures in the background."""
    return [record for record in read_run(tracker.run_dir) if record.type != "environment"]


def test_two_trackers_live_beside_each_other() -> None:
    """Each has its own journal, numbers and scopes."""
    first, second = offline(auto_start=True), offline(auto_start=True)
    with first.builder_scope("1"):
        first.log_training_step(1, {"loss": 1.0})
        second.log_training_step(1, {"loss": 2.0})
    first.end()
    second.log_training_step(2, {"loss": 3.0})
    second.end("failed")
    scopes = [[r.scope for r in records_of(t) if r.type == "training_step"] for t in (first, second)]
    assert scopes == [[[["builder", "1"]]], [[], []]]
    assert [records_of(t)[-1].event.status for t in (first, second)] == ["completed", "failed"]


def test_a_run_is_resumed_as_its_next_attempt() -> None:
    """Numbers go on, the attempt is counted, and the first loss has no delta to the attempt before."""
    first = offline()
    first.log_training_step(1, {"loss": 1.0})
    first.end("failed")
    second = offline(resume=first.experiment_id)
    second.log_training_step(1, {"loss": 0.5})
    second.log_training_step(2, {"loss": 0.25})
    second.end()
    assert second.run_dir == first.run_dir
    records = records_of(second)
    assert [record.seq for record in records] == list(range(1, 8))
    assert [record.att for record in records] == [1, 1, 1, 2, 2, 2, 2]
    deltas = [record.event.delta_loss for record in records if record.type == "training_step"]
    assert deltas == [None, None, 0.25]
    assert second.get_experiment_summary()["attempt"] == 2


def test_random_numbers_are_left_alone(tmp_path: Path) -> None:
    """No public call draws from, or seeds, the generators of Python and numpy."""
    (tmp_path / "a.pt").write_bytes(b"weights")
    random.seed(1)
    np.random.seed(1)
    python, (_, numpy, *_) = random.getstate(), np.random.get_state()
    with offline() as tracker, tracker.builder_scope("1"):
        tracker.log_lezea_config(64, 4, "SAC", seeds={"global": 1})
        tracker.log_training_step(1, {"loss": 0.5}, "train", sample_ids=[1, 2])
        tracker.log_modification_tree(1, [{"type": "widen"}])
        tracker.log_checkpoint("a.pt")
        tracker.log_dataset_version("d", "v1", "a.pt")
        tracker.log_results({"x": np.zeros(20_000)})
        tracker.log_population_snapshot(2, 1, 0, [0.1, 0.2])
        tracker.log_reward("t0", "bad")
        tracker.get_experiment_data()
        tracker.get_recommendations()
    assert random.getstate() == python
    assert (np.random.get_state()[1] == numpy).all()


OFF = """
import sys, threading
touched = []
def watch(event, arguments):
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wxa+"):
        touched.append((event, arguments))
    elif event == "open" and arguments[2] & 3:  # opened for writing by os.open
        touched.append((event, arguments))
    elif event.startswith(("socket.", "os.mkdir", "os.rename", "os.link", "subprocess.")):
        touched.append((event, arguments))
import json, lezea_mlops.capture.datasets
from lezea_mlops.tracker import ExperimentTracker
sys.dont_write_bytecode = True
threads = threading.active_count()
sys.addaudithook(watch)
with ExperimentTracker("Demo") as tracker, tracker.builder_scope("1"):
    tracker.log_training_step(1, {"loss": 0.5})
    tracker.log_training_step(2, {"loss": "text"})
    first = tracker.log_modification_tree(1, [{"type": "widen"}])
    assert first != tracker.log_modification_tree(2, [{"type": "widen"}])
    tracker.log_text("plan", "plan.md")
    tracker.log_checkpoint(sys.executable)
    tracker.log_results({"x": list(range(20_000))})
    assert threading.active_count() == threads
    assert tracker.get_experiment_summary()["metrics"] == {"builder:1/loss": 0.5}
    assert tracker.health()["journal"]["records"] == 0
assert tracker.status == "completed"
assert not touched, touched
"""


def test_mode_off_leaves_no_file_no_thread_and_no_socket(run_python: RunPython, tmp_path: Path) -> None:
    """Every call works and figures are kept, and the system is asked for nothing, which an audit hook watches."""
    run_python(OFF, LEZEA_MODE="off")
    assert list(tmp_path.iterdir()) == []


def test_the_audit_hook_of_that_test_sees_what_it_looks_for(run_python: RunPython) -> None:
    """In the mode ``offline``, which writes a journal, the same program fails."""
    with pytest.raises(subprocess.CalledProcessError) as raised:
        run_python(
            OFF.replace("assert threading", "# ").replace("assert tracker.health", "# "), LEZEA_MODE="offline"
        )
    assert "events.jsonl" in raised.value.stderr
