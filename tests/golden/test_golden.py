"""Journals of every released format are read, figured and translated as on the day they were written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lezea_mlops.events import CLASS_OF_TYPE, encode_envelope
from lezea_mlops.journal import JournalReader, RunFolder, read_run
from lezea_mlops.runtime.figures import RunFigures
from lezea_mlops.sinks.mlflow.translation import translate

HERE = Path(__file__).resolve().parent
GOLDEN = sorted(path.parent for path in HERE.glob("*/*/events.jsonl"))
Run = Callable[..., object]


@pytest.fixture(params=GOLDEN, ids=lambda path: path.parent.name)
def golden(request: pytest.FixtureRequest) -> Path:
    """A run folder of an old format."""
    path: Path = request.param
    return path


def test_every_line_is_a_record(golden: Path) -> None:
    """No record is lost, none is damage, and numbers grow by one."""
    reader = JournalReader(RunFolder(golden))
    records = list(reader)
    assert reader.damaged == 0
    assert len(records) == (golden / "events.jsonl").read_bytes().count(b"\n")
    assert [record.seq for record in records] == list(range(1, len(records) + 1))


def test_a_record_is_carried_on_unchanged(golden: Path) -> None:
    """Reading and writing a line gives the same JSON."""
    lines = (golden / "events.jsonl").read_bytes().splitlines()
    for line, record in zip(lines, read_run(golden), strict=True):
        assert json.loads(encode_envelope(record)) == json.loads(line)


def test_the_figures_are_those_of_the_day_it_was_written(golden: Path) -> None:
    """The summary that the run wrote at its end comes out again; there may be more in it by now."""
    records = list(read_run(golden))
    written = next(record.payload["summary"] for record in records if record.type == "run_finished")
    before_the_end = [record for record in records if record.type != "run_finished"]
    again = RunFigures().read(before_the_end).summary()
    assert within(written, json.loads(json.dumps(again))) == []


def within(old: Any, new: Any, place: str = "summary") -> list[str]:
    """Return the places where *new* lacks something of *old*, or says something else."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            lack for name in old for lack in within(old[name], new.get(name, "nothing"), f"{place}.{name}")
        ]
    # The last digit of a sum is that of the order in which it was added up.
    same = old == new or (isinstance(old, float) and new == pytest.approx(old, rel=1e-12))
    return [] if same else [f"{place}: {old!r} is {new!r} now"]


def test_mlflow_would_be_told_of_it(golden: Path) -> None:
    """Every type that MLflow has a place for brings something."""
    silent = {"network", "rejected_input", "gap", "status", "log", "resource_use", "budget"}
    for record in read_run(golden):
        brought = translate(record)
        told = [brought.points, brought.params, brought.tags, brought.texts, brought.blobs, brought.datasets]
        assert record.type in silent or any(told) or brought.note or brought.status, record.type


def test_the_newest_format_has_a_journal_with_nearly_every_type() -> None:
    """A type that is added gets a place in a golden journal of its own day."""
    seen = Counter(record.type for path in GOLDEN for record in read_run(path))
    assert set(CLASS_OF_TYPE) - set(seen) == {"gap", "status", "log"}
