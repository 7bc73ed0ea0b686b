"""Finishers: run once for each attempt that has ended, and what they made is a record like any other."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lezea_mlops._files import LifeLock
from lezea_mlops.events import Envelope
from lezea_mlops.journal import BlobStore, JournalWriter, RunFolder, read_run
from lezea_mlops.runtime.delivering import take_delivery_lock
from lezea_mlops.runtime.finishers import Finished, holds_events, run_finishers
from tests.finishers import BROKEN, FILE, NOTHING, PAGE, TWO, calls

END = {"status": "completed", "summary": {"events": {"metric": 2, "result": 1}, "partial": False}}


def write(
    folder: RunFolder, *records: tuple[str, dict[str, Any]], wid: str = "main", attempt: int = 1
) -> None:
    """Let a writer record these and leave."""
    writer = JournalWriter(folder, wid, attempt=attempt, durability="process")
    for type_name, fields in records:
        writer.append(type_name, fields)
    writer.close()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run that has ended."""
    folder = RunFolder(tmp_path / "run-1")
    folder.create()
    write(
        folder,
        ("run_started", {"experiment_name": "x"}),
        ("metric", {"metrics": {"a": 1.0}}),
        ("run_finished", END),
    )
    return folder


def finish(folder: RunFolder, *names: str, main_is_closing: bool = False) -> Finished:
    """Run finishers as whoever delivers the run does."""
    lock = take_delivery_lock(folder)
    assert lock is not None
    try:
        return run_finishers(folder, lambda: nullcontext(lock), names, main_is_closing=main_is_closing)
    finally:
        lock.release()


def made(folder: RunFolder) -> list[tuple[int, str]]:
    """Return attempt and name of what was made."""
    return [(record.att, record.payload["name"]) for record in artifacts(folder)]


def artifacts(folder: RunFolder) -> Sequence[Envelope]:
    """Return the records of what was made."""
    return [
        record for record in read_run(folder.path) if record.type == "artifact" and record.wid == "courier"
    ]


def test_what_is_made_is_an_artifact_of_the_courier_with_its_content_kept(folder: RunFolder) -> None:
    """From bytes, and from a file in the run folder, which may change later."""
    assert finish(folder, PAGE, FILE) == Finished(made=2)
    (folder.path / "report.html").write_text("another")
    page, file = artifacts(folder)
    assert (page.wid, page.att, page.payload["name"], page.payload["role"]) == (
        "courier", 1, "evolution/tree.html", "tree",
    )  # fmt: skip
    blobs = BlobStore(folder.blobs)
    assert blobs.path(page.payload["blob"]).read_bytes() == b"<p>tree</p>"
    assert blobs.path(file.payload["blob"]).read_bytes() == b"<p>report</p>"
    assert [record.payload["size"] for record in (page, file)] == [11, 13]


def test_a_finisher_runs_once_for_each_attempt(folder: RunFolder) -> None:
    """However often the run is delivered; one that finds nothing costs only its look."""
    assert [finish(folder, PAGE, NOTHING).made for _ in range(3)] == [1, 0, 0]
    assert calls(folder) == ["page", "nothing", "nothing", "nothing"]
    write(folder, ("run_started", {"experiment_name": "x"}), attempt=2)
    assert finish(folder, PAGE) == Finished()
    write(folder, ("run_finished", END), attempt=2)
    assert finish(folder, PAGE) == Finished(made=1)
    assert made(folder) == [(1, "evolution/tree.html"), (2, "evolution/tree.html")]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cut=st.integers(0, 2_000))
def test_who_was_killed_in_the_middle_leaves_nothing_out_and_nothing_doubled(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The courier's journal ends at any byte; afterwards each file is there once."""
    folder = RunFolder(tmp_path_factory.mktemp("cut") / "run-1")
    folder.create()
    write(folder, ("run_started", {"experiment_name": "x"}), ("run_finished", END))
    finish(folder, TWO)
    content = folder.journal("courier").read_bytes()
    folder.journal("courier").write_bytes(content[:cut])
    finish(folder, TWO)
    assert made(folder) == [(1, "report/a.txt"), (1, "report/b.txt")]
    assert len(calls(folder)) == (1 if cut >= len(content) else 2)


def test_a_run_that_goes_on_is_not_finished(folder: RunFolder) -> None:
    """Neither before its end, nor while the process that has told it still writes, unless that asks for it."""
    write(folder, ("run_started", {"experiment_name": "x"}), attempt=2)
    assert finish(folder, PAGE) == Finished()
    write(folder, ("run_finished", END), attempt=2)
    main = LifeLock.take(folder.lock("main"))
    assert main is not None
    assert finish(folder, PAGE) == Finished()
    assert finish(folder, PAGE, main_is_closing=True) == Finished(made=1)
    main.release()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (BROKEN, "ValueError: no page from postgres://"), ("tests.finishers:no_such_function", "no_such_function"),
        ("tests.no_such_module:make", "no_such_module"), ("no_such_package:make", "no_such_package"),
        ("tests.finishers:missing_file", "missing.html"), ("tests.finishers", "AttributeError"),
    ],
)  # fmt: skip
def test_one_that_fails_costs_a_warning_and_nothing_else(
    folder: RunFolder, name: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The others are run; it is counted, told without secrets, and tried again the next time."""
    assert finish(folder, name, PAGE) == Finished(made=1, failed=1)
    [told] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert name in told
    assert said in told
    assert f"lezea sync {folder.path}" in told
    assert "canary" not in told
    assert made(folder) == [(1, "evolution/tree.html")]
    assert finish(folder, name, PAGE) == Finished(failed=1)


def test_a_run_that_cannot_be_read_is_told_and_not_finished(
    folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """What can be delivered of it shall be."""
    write(folder, ("comment", {"text": "x"}), wid="courier")
    folder.journal("courier").unlink()
    folder.journal("courier").mkdir()
    assert finish(folder, PAGE) == Finished()
    assert "events.courier.jsonl" in caplog.text
    assert calls(folder) == []


# ---------------------------------------------------------------------- is there anything to do


def named(type_name: str) -> tuple[str, dict[str, Any]]:
    """Return a record that only names an event type."""
    return "comment", {"text": "x", "about": type_name}


def test_the_summary_of_the_end_tells_what_main_logged(folder: RunFolder) -> None:
    """The journal is not read: a name in it is not seen."""
    assert holds_events(folder, ["network", "result"])
    assert not holds_events(folder, ["network"])
    lines = folder.journal("main").read_bytes().splitlines(keepends=True)
    write(folder, named("network"), ("run_finished", END))
    assert not holds_events(folder, ["network"])
    assert b'"network"' in folder.journal("main").read_bytes()
    assert len(lines) == 3


@pytest.mark.parametrize(
    "end",
    [
        {"status": "completed", "summary": {"events": {"metric": 2}, "partial": True}},
        {"status": "completed", "summary": {"$blob": "0" * 64, "size": 3}},
        {"status": "killed", "inferred": True},
    ],
    ids=["partial", "in a blob", "of a killed process"],
)
def test_where_the_end_does_not_tell_the_journal_is_searched(folder: RunFolder, end: dict[str, Any]) -> None:
    """By the types' names, of which one may stand across two blocks."""
    write(folder, ("run_finished", end))
    assert not holds_events(folder, ["network"])
    write(folder, ("network", {"network_id": "n"}), ("run_finished", end))
    assert holds_events(folder, ["population", "network"])


def test_the_courier_tells_for_a_process_that_could_not(folder: RunFolder) -> None:
    """Of the newest attempt; what it told of an older one says nothing of this one."""
    write(folder, ("run_started", {"experiment_name": "x"}), named("network"), attempt=2)
    write(folder, ("run_finished", END | {"inferred": True}), wid="courier", attempt=2)
    assert not holds_events(folder, ["network"])
    write(folder, ("run_started", {"experiment_name": "x"}), attempt=3)
    assert holds_events(folder, ["network"])


def test_further_writers_are_searched(folder: RunFolder) -> None:
    """The summary counts what ``main`` logged, and no other."""
    write(folder, ("metric", {"metrics": {"a": 1.0}}), wid="rank1")
    assert not holds_events(folder, ["network"])
    write(folder, ("network", {"network_id": "n"}), wid="rank1")
    assert holds_events(folder, ["network"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(before=st.integers(0, 300), block=st.integers(1, 64))
def test_a_name_across_two_blocks_is_found(folder: RunFolder, before: int, block: int) -> None:
    """Wherever it stands, and however little is read at a time."""
    folder.journal("rank1").write_bytes(b"x" * before + b'"network"\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lezea_mlops.runtime.finishers._BLOCK_BYTES", block)
        assert holds_events(folder, ["network"])
        assert not holds_events(folder, ["networks", "networ"])
