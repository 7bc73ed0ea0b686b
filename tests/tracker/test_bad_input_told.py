"""Bad input: how it is told, and that nothing at all can make a call raise or spoil the journal."""

from __future__ import annotations

import inspect
import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lezea_mlops.journal import read_run
from lezea_mlops.tracker import ExperimentTracker

OFFLINE = {"mode": "offline"}


class Hostile:
    """An object of a broken library: whatever is asked of it raises, its own description too."""

    shape = ()

    def item(self) -> float:
        raise RuntimeError("device lost")

    def tolist(self) -> list[float]:
        raise RuntimeError("device lost")

    def __str__(self) -> str:
        raise RuntimeError("device lost")

    __repr__ = __str__


def test_a_bad_step_becomes_the_running_count() -> None:
    """A metric whose step is bad gets the next number of its name, and the record says that we counted."""
    tracker = ExperimentTracker("Demo", settings=OFFLINE)
    tracker.log_metrics({"a": 1.0})
    tracker.log_metrics({"a": 2.0}, step=-3)
    tracker.log_metrics({"a": 3.0}, step=9)
    metrics = [record for record in read_run(tracker.run_dir) if record.type == "metric"]
    assert [(r.payload["step"], r.meta.get("auto", False)) for r in metrics] == [
        (1, True),
        (2, True),
        (9, False),
    ]


def test_the_reason_is_as_clean_as_a_value() -> None:
    """An error of the user's that holds a secret, or what no UTF-8 can hold, is journaled without both."""

    class Broken:
        def __str__(self) -> str:
            raise ValueError("\udcff at postgres://me:secret@host/db")

    tracker = ExperimentTracker("Demo", settings=OFFLINE)
    tracker.log_comment(Broken())  # type: ignore[arg-type]
    _, record = read_run(tracker.run_dir)
    assert record.event.reason == "raised ValueError: \ufffd at postgres://[redacted]@host/db"


def test_a_circular_dictionary_is_cut_and_counted() -> None:
    """A dictionary that contains itself is kept up to where it comes back; the caller's object is untouched."""
    tracker = ExperimentTracker("Demo", settings=OFFLINE)
    circular: dict[str, Any] = {"lr": 0.1}
    circular["self"] = circular
    tracker.log_params(circular)
    _, record = read_run(tracker.run_dir)
    assert record.event.params == {"lr": 0.1, "self": "<cycle>"}
    assert tracker.health()["counts"]["cycle"] == 1
    assert circular["self"] is circular


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the library warned about."""
    return [
        r.getMessage() for r in caplog.records if r.name == "lezea_mlops" and r.levelno == logging.WARNING
    ]


def test_a_mistake_is_warned_about_once_per_kind_and_place(caplog: pytest.LogCaptureFixture) -> None:
    """A loop that makes the same mistake a thousand times warns once, with file and line of the caller."""
    tracker = ExperimentTracker("Demo", settings=OFFLINE)
    for number in range(1_000):
        line = here() + 1
        tracker.log_training_step(number, {f"m{number}": "text"})
    assert tracker.health()["counts"]["rejected_input"] == 1_000
    (warning,) = warnings_of(caplog)
    assert warning.startswith(f"{__file__}:{line}: log_training_step(): metrics['m0'] is text")


def test_missing_files_at_one_place_are_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """The name of the file differs each time; the mistake is the same."""
    tracker = ExperimentTracker("Demo", settings=OFFLINE)
    for number in range(50):
        tracker.log_checkpoint(f"step_{number}.pt")
    (warning,) = warnings_of(caplog)
    assert "path does not exist" in warning
    assert str(Path("step_0.pt").absolute()) in warning


def test_another_kind_and_another_place_are_told_too(caplog: pytest.LogCaptureFixture) -> None:
    """A second kind of mistake at the same place is told, and the same mistake at a second place."""
    tracker = ExperimentTracker("Demo", settings=OFFLINE)
    for bad in ("text", None, "text", None):
        tracker.log_training_step(1, {"loss": bad})
    tracker.log_training_step(1, {"loss": "text"})
    assert len(warnings_of(caplog)) == 3


@pytest.mark.parametrize(
    ("metrics", "step", "told"),
    [
        ({"loss": "text", "accuracy": 0.5}, None, "The rest of the call was kept"),
        ({"loss": "text"}, 7, "The rest of the call was kept"),
        ({"loss": "text"}, None, "Nothing of the call was kept"),
    ],
)
def test_what_became_of_the_rest_of_the_call_is_told(
    metrics: dict[str, Any], step: int | None, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is in a record of its own, or beside the reason, or there was none."""
    tracker = ExperimentTracker("Demo", settings=OFFLINE)
    tracker.log_metrics(metrics, step=step)
    _, *records = read_run(tracker.run_dir)
    kept = any(record.type == "metric" or record.payload.get("rest") for record in records)
    (warning,) = warnings_of(caplog)
    assert warning.endswith(f"({'text'!r}). {told}")
    assert kept == ("rest" in told)


def here() -> int:
    """Return the line of the caller."""
    return sys._getframe(1).f_lineno


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | st.text() | st.binary()
    | st.dates() | st.decimals() | st.fractions() | st.builds(Hostile) | st.builds(np.float32, st.floats(width=32)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    | st.frozensets(st.text(), max_size=3) | st.tuples(inner),
    max_leaves=6,
)  # fmt: skip
METHODS = sorted({name for name in vars(ExperimentTracker) if name.startswith("log_")} - {
    "log_git_commit", "log_environment_info",
} | {"register_network"})  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    calls=st.lists(
        st.tuples(st.sampled_from(METHODS), st.lists(ANYTHING, min_size=4, max_size=4)), max_size=8
    )
)
def test_no_call_raises_for_any_argument(calls: list[tuple[str, list[Any]]]) -> None:
    """Whatever is passed to whichever call, it returns, every line is strict JSON, and no number is left out."""
    tracker = ExperimentTracker("Demo", settings=OFFLINE)
    for name, arguments in calls:
        method = getattr(tracker, name)
        taken = [
            p for p in inspect.signature(method).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD
        ]
        method(*arguments[: len(taken)])
    tracker.end(reason="\ud800")
    for line in (tracker.run_dir / "events.jsonl").read_bytes().splitlines():
        json.loads(line.decode(), parse_constant=pytest.fail)
    seqs = [record.seq for record in read_run(tracker.run_dir)]
    assert seqs == list(range(1, len(seqs) + 1))
    assert isinstance(tracker.get_recommendations(), list)
