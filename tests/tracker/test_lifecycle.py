"""The life of a run: constructor, start, end, and every way in which a program may leave it."""

from __future__ import annotations

import json
import logging
import os
import random
import stat
import subprocess
import threading
import uuid
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from lezea_mlops.errors import ConfigurationError
from lezea_mlops.events import Envelope
from lezea_mlops.journal import read_run
from lezea_mlops.tracker import ExperimentTracker

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]
OFFLINE = {"mode": "offline"}


def offline(**arguments: Any) -> ExperimentTracker:
    """Return a tracker that only writes its journal."""
    return ExperimentTracker("Demo", settings=OFFLINE, **arguments)


def records_of(tracker: ExperimentTracker) -> list[Envelope]:
    """Return the records of a run without what ``start`` captures in the background."""
    return [record for record in read_run(tracker.run_dir) if record.type != "environment"]


def finished(tracker_or_dir: ExperimentTracker | Path) -> dict[str, Any]:
    """Return the payload of the one end of a run."""
    run_dir = tracker_or_dir if isinstance(tracker_or_dir, Path) else tracker_or_dir.run_dir
    (end,) = [record for record in read_run(run_dir) if record.type == "run_finished"]
    return dict(end.payload)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the library warned about."""
    return [
        r.getMessage() for r in caplog.records if r.name == "lezea_mlops" and r.levelno >= logging.WARNING
    ]


# ------------------------------------------------------------------------------------------------ constructor


@pytest.mark.parametrize("name", ["", "  ", None, 5, b"Demo", ["Demo"]])
def test_a_name_that_is_none_is_refused(name: Any, tmp_path: Path) -> None:
    """The error names the argument, its value and an example, and no folder is made."""
    with pytest.raises(ConfigurationError) as raised:
        ExperimentTracker(name, settings=OFFLINE)
    assert str(raised.value).startswith(f"experiment_name is {name!r}; ")
    assert '"Demo"' in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_tags_that_are_no_mapping_are_refused() -> None:
    """So are tags: a mistake in the constructor is told at once."""
    with pytest.raises(ConfigurationError, match=r"tags is \['a'\]; it must be texts by name"):
        offline(tags=["a"])


def test_a_runs_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A file in its place: the error names runs_dir, the path and both ways out."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(ConfigurationError) as raised:
        offline(runs_dir=tmp_path / "taken")
    message = str(raised.value)
    assert message.startswith(f"runs_dir is '{tmp_path}/taken'")
    assert "runs_dir=…" in message
    assert "LEZEA_RUNS_DIR" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"settings": {"durabilty": "record"}}, "unknown name 'durabilty'; did you mean 'durability'?"),
        ({"settings": 5}, "settings is 5; it must be a mapping"),
        ({"durability": "always"}, "durability is 'always'; it must be one of process, interval, record"),
        ({"capture": "move"}, "capture is 'move'; it must be one of copy, reference"),
        ({"strict": "perhaps"}, "strict is 'perhaps'"),
        ({"resume": "../other"}, "resume is '../other'; it must be 1 to 128 ASCII letters"),
        ({"experiment_id": "a/b"}, "experiment_id is 'a/b'"),
        ({"resume": "nowhere"}, "resume is 'nowhere', and .*holds no journal; check the id and runs_dir"),
    ],
)
def test_wrong_configuration_is_told_at_once(arguments: dict[str, Any], message: str) -> None:
    """Each error names the setting, its value, and what is allowed or near."""
    with pytest.raises(ConfigurationError, match=message.replace("?", r"\?")):
        ExperimentTracker("Demo", **arguments)


def test_ids_are_uuids_that_seeding_does_not_repeat() -> None:
    """Two runs after the same seed have two ids, each a UUID4 and the name of the folder."""
    ids = []
    for _ in range(2):
        random.seed(0)
        tracker = offline()
        ids.append(tracker.experiment_id)
        assert uuid.UUID(tracker.experiment_id).version == 4
        assert tracker.run_dir == Path("runs").absolute() / tracker.experiment_id
    assert ids[0] != ids[1]


def test_folder_and_files_are_private() -> None:
    """The run folder can be entered by its user alone, and so can each file in it be read."""
    tracker = offline(auto_start=True)
    tracker.log_text("plan", "plan.md")
    tracker.end()
    assert stat.S_IMODE(tracker.run_dir.stat().st_mode) == 0o700
    files = [path for path in tracker.run_dir.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"events.jsonl", "main.lock"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_a_folder_left_later_changes_nothing(tmp_path: Path) -> None:
    """After ``os.chdir`` the run goes on where it began, blobs too."""
    tracker = offline()
    (tmp_path / "elsewhere").mkdir()
    os.chdir(tmp_path / "elsewhere")
    tracker.log_text("plan", "plan.md")
    assert records_of(tracker)[-1].event.blob
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_one_writer_alone_has_a_run() -> None:
    """A second tracker with the id of one that lives is refused with the way out."""
    first = offline(experiment_id="shared")
    with pytest.raises(ConfigurationError, match=r"open in this process already; call end()"):
        offline(experiment_id="shared")
    first.end()


# ------------------------------------------------------------------------------------------------ start


@pytest.mark.parametrize("port", [-1, 65_536, 8000.0, "8000", True, [8000]])
def test_a_port_that_is_none_is_refused(port: Any) -> None:
    """``start`` raises, names argument, value and range, and the run is still to be started."""
    tracker = offline()
    with pytest.raises(ConfigurationError) as raised:
        tracker.start(prometheus_port=port)
    assert str(raised.value).startswith(f"prometheus_port is {port!r}; it must be a whole number from 0")
    assert tracker.status == "created"


@pytest.mark.parametrize("port", [None, 0, 1, 65_535])
def test_ports_are_taken(port: int | None) -> None:
    """None is off and 0 is any; both ends of the range are ports."""
    tracker = offline()
    tracker.start(prometheus_port=port)
    assert tracker.status == "running"
    tracker.end()


def test_start_captures_environment_and_git() -> None:
    """Both are in the journal when the run has ended."""
    tracker = offline(auto_start=True)
    tracker.end()
    facts = [record.event.facts for record in read_run(tracker.run_dir) if record.type == "environment"]
    assert [set(fact) for fact in facts] == [{"host", "gpu", "packages"}, {"git"}]


class Handover:
    """A driver that another thread replaces while a call is with it."""

    due_us, notices = 0, ()

    def __init__(self, tracker: ExperimentTracker, successor: Any) -> None:
        self._tracker, self._successor = tracker, successor

    def attend(self) -> Any:
        """Be replaced, and say that nothing has changed."""
        self._tracker._driver = self._successor
        return self


def test_a_driver_that_another_thread_replaced_stays_replaced() -> None:
    """Nobody would close it, and what it was to deliver would wait."""
    tracker = offline()
    successor = Handover(tracker, None)
    tracker._driver = Handover(tracker, successor)  # type: ignore[assignment]
    tracker.log_comment("a call")
    assert tracker._driver is successor
    tracker._driver = None
    tracker.end()


def test_calls_before_start_are_kept() -> None:
    """What is logged before ``start`` is in the journal like all else."""
    tracker = offline()
    tracker.log_training_step(1, {"loss": 0.5})
    tracker.start()
    tracker.end()
    assert [record.type for record in records_of(tracker)] == ["run_started", "training_step", "run_finished"]


def test_a_second_start_does_nothing_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """It warns with the run's id and status."""
    tracker = offline(auto_start=True)
    tracker.start()
    assert warnings_of(caplog) == [
        f"start(): the run {tracker.experiment_id} is running already; nothing was done"
    ]
    tracker.end()
    tracker.start()
    assert (
        warnings_of(caplog)[1]
        == f"start(): the run {tracker.experiment_id} is completed already; nothing was done"
    )


# ------------------------------------------------------------------------------------------------ end


@pytest.mark.parametrize("name", ["end", "finalize_experiment"])
def test_an_end_writes_the_summary_and_the_status(name: str) -> None:
    """Both names end the run as completed, with its figures and how long it took."""
    tracker = offline(auto_start=True)
    tracker.log_training_step(3, {"loss": 0.5})
    getattr(tracker, name)()
    end = finished(tracker)
    assert (tracker.status, end["status"]) == ("completed", "completed")
    assert end["summary"]["metrics"] == {"loss": 0.5}
    assert end["summary"]["last_step"] == 3
    assert end["duration_ms"] >= 0


def test_a_second_end_does_nothing_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """The first end stands."""
    tracker = offline(auto_start=True)
    tracker.end("failed", "no disk")
    tracker.end()
    assert warnings_of(caplog) == [
        f"end(): the run {tracker.experiment_id} is failed already; nothing was done"
    ]
    assert (finished(tracker)["status"], finished(tracker)["reason"]) == ("failed", "no disk")


def test_many_ends_at_once_are_one() -> None:
    """Of threads that end the run together one does; the others find it ended."""
    tracker = offline(auto_start=True)
    barrier = threading.Barrier(8)

    def end() -> None:
        barrier.wait()
        tracker.end()

    threads = [threading.Thread(target=end) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert finished(tracker)["status"] == "completed"


def test_an_end_before_start_is_recorded() -> None:
    """A run that was never started can be ended."""
    tracker = offline()
    tracker.end()
    assert [record.type for record in records_of(tracker)] == ["run_started", "run_finished"]


@pytest.mark.parametrize("strict", [False, True])
def test_a_status_that_is_none_ends_the_run_all_the_same(strict: bool) -> None:
    """A wrong word is set aside and told, and is no success; with ``strict`` it raises when the run has ended."""
    tracker = offline(auto_start=True, strict=strict)
    with pytest.raises(ValueError, match="none of completed, failed, killed") if strict else nullcontext():
        tracker.end("done")
    assert tracker.status == "failed"
    *_, aside, finished = records_of(tracker)
    assert (aside.type, aside.payload["argument"], aside.payload["value"]) == (
        "rejected_input",
        "status",
        "'done'",
    )
    assert (finished.type, finished.payload["status"]) == ("run_finished", "failed")
    assert "'done'" in finished.payload["reason"]


@pytest.mark.parametrize(
    ("word", "status"),
    [("FAILED", "failed"), ("Killed ", "killed"), ("FINISHED", "completed"), ("COMPLETED", "completed")],
)
def test_the_words_of_mlflow_are_understood(word: str, status: str) -> None:
    """However they are spelled."""
    tracker = offline(auto_start=True)
    tracker.end(word)
    assert records_of(tracker)[-1].payload["status"] == status


def test_calls_after_the_end_are_late() -> None:
    """They are journaled, marked, and numbered on; the status stays."""
    tracker = offline(auto_start=True)
    tracker.end("failed")
    tracker.log_training_step(1, {"loss": 0.5})
    tracker.log_comment("one more thing")
    late = records_of(tracker)[-2:]
    assert [(record.type, record.meta.get("late")) for record in late] == [
        ("training_step", True),
        ("comment", True),
    ]
    seqs = [record.seq for record in read_run(tracker.run_dir)]
    assert seqs == list(range(1, len(seqs) + 1))
    assert tracker.status == finished(tracker)["status"] == "failed"


# ------------------------------------------------------------------------------------------------ with


def test_a_with_block_starts_and_ends() -> None:
    """Left normally, the run is completed; one that was ended inside stays as it was ended."""
    with offline() as tracker:
        assert tracker.status == "running"
    assert finished(tracker)["status"] == "completed"
    with offline() as tracker:
        tracker.end("failed")
    assert finished(tracker)["status"] == "failed"


LEFT: list[tuple[BaseException, str, str]] = [
    (ValueError("boom"), "failed", "ValueError: boom"),
    (ValueError("bad \udcff postgres://me:secret@host/db"), "failed", "ValueError: bad \ufffd postgres://[redacted]@host/db"),
    (SystemExit(3), "failed", "SystemExit(3)"),
    (SystemExit("no data"), "failed", "SystemExit('no data')"),
    (SystemExit(0), "completed", "SystemExit(0)"),
    (SystemExit(), "completed", "SystemExit(None)"),
    (KeyboardInterrupt(), "killed", "KeyboardInterrupt"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "status", "reason"), LEFT, ids=lambda value: repr(value)[:20])
def test_a_with_block_that_is_left_by_an_exception(error: BaseException, status: str, reason: str) -> None:
    """The exception goes on; the run has its status, its reason and, unless it is completed, the traceback."""
    with pytest.raises(type(error)) as raised, offline() as tracker:
        raise error
    assert raised.value is error
    end = finished(tracker)
    assert (tracker.status, end["status"], end["reason"]) == (status, status, reason)
    assert ("error" in end) is (status != "completed")
    if status != "completed":
        assert end["error"]["type"] == type(error).__name__
        assert "raise error" in end["error"]["traceback"]
        assert "secret" not in json.dumps(end)


def test_an_exception_that_cannot_be_written_out_ends_the_run_too() -> None:
    """An error whose own text raises is recorded by its kind."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    with pytest.raises(Mute), offline() as tracker:
        raise Mute
    assert finished(tracker)["error"]["type"] == "Mute"


# ------------------------------------------------------------------------------------------------ exits

MINIMAL = """
from lezea_mlops.tracker import ExperimentTracker

tracker = ExperimentTracker("Demo", purpose="sanity", auto_start=True)
tracker.log_lezea_config(64, 4, "SAC", hyperparameters={"lr":3e-4})
for step in range(1, 6):
    tracker.log_training_step(step, {"loss": 1.0/step})
tracker.log_reward("t0", 0.77)
tracker.finalize_experiment()
"""


def test_the_minimal_example_leaves_a_journal_that_json_reads_strictly(
    run_python: RunPython, tmp_path: Path
) -> None:
    """Five losses, four deltas, the config and the reward, and the library printed nothing."""
    done = run_python(MINIMAL, LEZEA_MODE="offline")
    assert (done.stdout, done.stderr) == ("", "")
    (journal,) = tmp_path.glob("runs/*/events.jsonl")
    records = [json.loads(line, parse_constant=pytest.fail) for line in journal.read_text().splitlines()]
    assert [record["m"]["seq"] for record in records] == list(range(1, len(records) + 1))
    steps = [record["p"] for record in records if record["t"] == "training_step"]
    assert [step["metrics"]["loss"] for step in steps] == [1.0, 1 / 2, 1 / 3, 1 / 4, 1 / 5]
    assert ["delta_loss" in step for step in steps] == [False, True, True, True, True]
    assert {"lezea_config", "reward", "environment", "run_finished"} <= {record["t"] for record in records}
    assert records[-1]["p"]["status"] == "completed"


BEGIN = """
from lezea_mlops.tracker import ExperimentTracker
tracker = ExperimentTracker("Demo", auto_start=True)
tracker.log_training_step(1, {"loss": 0.5})
"""


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("", "completed", "interpreter exit"),
        ("raise ValueError('boom')", "failed", "ValueError: boom"),
        ("raise KeyboardInterrupt", "killed", "KeyboardInterrupt"),
        ("raise SystemExit(3)", "completed", "interpreter exit"),
        ("with tracker: raise SystemExit(3)", "failed", "SystemExit(3)"),
    ],
)
def test_an_end_that_was_forgotten_is_made_up(
    run_python: RunPython, tmp_path: Path, code: str, status: str, reason: str
) -> None:
    """At interpreter exit the run ends as the interpreter does; the exit code is the program's own."""
    done = run_python(BEGIN + code, check=False, LEZEA_MODE="offline")
    (run_dir,) = (tmp_path / "runs").iterdir()
    end = finished(run_dir)
    assert (end["status"], end["reason"]) == (status, reason)
    assert (done.returncode == 0) is (code == "")
    if status == "failed" and "ValueError" in code:
        assert "ValueError: boom" in end["error"]["traceback"]
        assert "ValueError: boom" in done.stderr
