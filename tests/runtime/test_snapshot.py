"""The stored figures of a run: never wrong about what they count, whatever happened to the journal or to them."""

from __future__ import annotations

import json
import logging
import stat
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lezea_mlops.errors import JournalError
from lezea_mlops.journal import JournalWriter, Position, RunFolder
from lezea_mlops.runtime import snapshot
from lezea_mlops.runtime.figures import RunFigures
from lezea_mlops.runtime.snapshot import catch_up, journal_end, load_snapshot, save_snapshot, snapshot_file


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run folder without a journal."""
    made = RunFolder(tmp_path / "runs" / "5c2f3a1e")
    made.create()
    return made


def write(folder: RunFolder, first: int, last: int, *, begin: bool = False) -> None:
    """Journal the training steps *first* to *last*, in a new attempt if so wanted."""
    writer = JournalWriter(folder, "main")
    if begin:
        writer.append("run_started", {"experiment_name": "Demo"})
    for number in range(first, last + 1):
        writer.append("training_step", {"step": number, "metrics": {"loss": 1.0 / number}})
    writer.close()


def steps(figures: RunFigures) -> int:
    """Return how many training steps were counted."""
    return figures.events.get("training_step", 0)


def facts(figures: RunFigures) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return all that is asked of figures."""
    return figures.as_dict(), figures.summary()


def read_all(folder: RunFolder) -> RunFigures:
    """Return the figures of the whole journal, read at once."""
    return RunFigures().read(snapshot.read_chunk(folder.journal("main"), 0).records)


def test_what_is_stored_comes_back_and_belongs_to_this_user(folder: RunFolder) -> None:
    """Figures and position; the file is private and strict JSON."""
    write(folder, 1, 3, begin=True)
    save_snapshot(folder, read_all(folder), journal_end(folder))
    figures, position = load_snapshot(folder)
    assert facts(figures) == facts(read_all(folder))
    assert position == Position(folder.journal("main").stat().st_size, 4)
    assert stat.S_IMODE(snapshot_file(folder).stat().st_mode) == 0o600
    assert json.loads(snapshot_file(folder).read_text(), parse_constant=pytest.fail)["v"] == 1
    assert figures.as_dict()["partial"] is False
    assert [path.name for path in folder.path.glob("*figures*")] == ["figures.json"]


def test_a_run_without_a_journal_has_empty_figures_and_misses_nothing(folder: RunFolder) -> None:
    """Nothing was recorded, so nothing is partial, and nothing needs to be stored."""
    for figures in (load_snapshot(folder)[0], catch_up(folder)):
        assert facts(figures) == facts(RunFigures())
    assert load_snapshot(folder)[1] == Position()
    assert not snapshot_file(folder).exists()


def test_a_killed_attempt_that_nobody_caught_up_with_makes_the_next_partial(folder: RunFolder) -> None:
    """The totals go on from what is stored and say that something is missing; ``catch_up`` mends that."""
    write(folder, 1, 3, begin=True)
    catch_up(folder)
    write(folder, 4, 5)
    figures, _position = load_snapshot(folder)
    assert (steps(figures), figures.incomplete, figures.summary()["partial"]) == (3, True, True)
    catch_up(folder)
    figures, _position = load_snapshot(folder)
    assert (steps(figures), figures.incomplete) == (5, False)


def test_a_journal_without_stored_figures_makes_the_next_attempt_partial(folder: RunFolder) -> None:
    """It is not read in the constructor."""
    write(folder, 1, 3)
    figures, position = load_snapshot(folder)
    assert (steps(figures), figures.incomplete, position) == (0, True, Position())


def test_catching_up_reads_what_a_partial_attempt_missed(folder: RunFolder) -> None:
    """An attempt that began with partial figures stores them so; whoever has time reads the journal from its start."""
    write(folder, 1, 3, begin=True)
    figures, _position = load_snapshot(folder)
    write(folder, 4, 6, begin=True)
    save_snapshot(folder, figures, journal_end(folder))
    assert load_snapshot(folder)[0].incomplete
    assert facts(catch_up(folder)) == facts(read_all(folder))
    assert not load_snapshot(folder)[0].incomplete


@given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=1, max_size=6))
def test_catching_up_again_and_again_equals_reading_once(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[int, bool]]
) -> None:
    """In any parts, over any number of attempts."""
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    for count, begin in parts:
        write(folder, 1, count, begin=begin)
        catch_up(folder)
    assert facts(catch_up(folder)) == facts(read_all(folder))
    assert facts(load_snapshot(folder)[0]) == facts(read_all(folder))


def test_only_what_is_new_is_read(folder: RunFolder) -> None:
    """What stands before the position counts by the stored figures alone."""
    write(folder, 1, 3)
    figures = RunFigures()
    figures.observe("comment", {"text": "not in the journal"}, (), 0)
    save_snapshot(folder, figures, journal_end(folder))
    write(folder, 4, 5)
    assert catch_up(folder).events == {"comment": 1, "training_step": 2}


def test_an_unfinished_last_line_is_not_counted_and_misses_nothing(folder: RunFolder) -> None:
    """That append never returned; the next writer cuts it off, and the figures go on."""
    write(folder, 1, 3)
    catch_up(folder)
    with folder.journal("main").open("ab") as file:
        file.write(b'{"v":1,"t":"training_step","m":{"se')
    assert steps(catch_up(folder)) == 3
    figures, _position = load_snapshot(folder)
    assert (steps(figures), figures.incomplete) == (3, False)
    write(folder, 4, 4)
    assert steps(catch_up(folder)) == 4


def cut_short(path: Path) -> None:
    """Take the last line away, as a power loss does."""
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def replace_by_other(path: Path) -> None:
    """Put other records in its place, as many bytes before a line's end."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:-2], lines[-1], lines[-2], lines[-1]]))


def shift(path: Path) -> None:
    """Let every line begin elsewhere."""
    path.write_bytes(b" " + path.read_bytes() + b"\n")


def remove(path: Path) -> None:
    """Leave no journal."""
    path.unlink()


@pytest.mark.parametrize("change", [cut_short, replace_by_other, shift, remove])
def test_a_journal_that_is_another_one_is_counted_from_its_start(folder: RunFolder, change: Any) -> None:
    """A position that it does not have says nothing of it: partial in a constructor, read anew by ``catch_up``."""
    write(folder, 1, 9, begin=True)
    catch_up(folder)
    change(folder.journal("main"))
    figures, position = load_snapshot(folder)
    assert (steps(figures), figures.incomplete, position) == (0, True, Position())
    expected = read_all(folder) if folder.journal("main").exists() else RunFigures()
    assert facts(catch_up(folder)) == facts(expected)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b'{"v":2}', b'{"v":1,"main":[0,0]}', b"[" * 100_000, b"\xff\xfe",
        b'{"v":1,"main":[-1,0],"figures":{}}', b'{"v":1,"main":[true,0],"figures":{}}', b'{"v":1,"main":5}',
    ],
)  # fmt: skip
def test_stored_figures_that_cannot_be_read_are_said_and_made_anew(
    folder: RunFolder, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning names the file; a constructor goes on with partial figures, ``catch_up`` with the journal."""
    write(folder, 1, 3)
    snapshot_file(folder).write_bytes(content)
    with caplog.at_level(logging.WARNING, "lezea_mlops"):
        figures, position = load_snapshot(folder)
    assert (steps(figures), figures.incomplete, position) == (0, True, Position())
    assert [record.getMessage().split(" cannot")[0] for record in caplog.records] == [
        f"the stored figures {snapshot_file(folder)}"
    ]
    assert steps(catch_up(folder)) == 3
    assert not load_snapshot(folder)[0].incomplete


def test_stored_figures_that_are_too_large_are_not_read(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A constructor does not spend its time on them."""
    write(folder, 1, 3)
    catch_up(folder)
    monkeypatch.setattr(snapshot, "MAX_SNAPSHOT_BYTES", 100)
    assert load_snapshot(folder)[0].incomplete
    assert "more than 100 bytes" in caplog.text


def test_figures_that_cannot_be_stored_are_returned_all_the_same(
    folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """Something else stands where the file belongs: said once in the log, and the summary is there."""
    write(folder, 1, 3)
    (snapshot_file(folder) / "inside").mkdir(parents=True)
    assert steps(catch_up(folder)) == 3
    assert "cannot be stored" in caplog.text


def test_a_journal_that_cannot_be_read_is_an_error_of_catching_up_alone(folder: RunFolder) -> None:
    """A constructor goes on with partial figures."""
    write(folder, 1, 3)
    catch_up(folder)
    folder.journal("main").unlink()
    folder.journal("main").mkdir()
    assert load_snapshot(folder)[0].incomplete
    with pytest.raises(JournalError, match="cannot read the journal"):
        catch_up(folder)


def test_damage_is_stepped_over_and_said(folder: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    """Records behind it count, and so does the position."""
    write(folder, 1, 3)
    with folder.journal("main").open("ab") as file:
        file.write(b"not a record\n\x00\n")
    write(folder, 4, 6)
    with folder.journal("main").open("ab") as file:
        file.write(b"nor this\n")
    assert steps(catch_up(folder)) == 6
    assert "3 places" in caplog.text
    figures, position = load_snapshot(folder)
    assert (steps(figures), figures.incomplete, position.seq) == (6, False, 6)
    with folder.journal("main").open("ab") as file:
        file.write(b"and this came alone\n")
    assert steps(catch_up(folder)) == 6
    assert load_snapshot(folder)[1] == Position(folder.journal("main").stat().st_size, 6)


def test_other_writers_do_not_count(folder: RunFolder) -> None:
    """The stored figures are those of ``main``, as a live tracker's are."""
    write(folder, 1, 3)
    writer = JournalWriter(folder, "courier")
    writer.append("comment", {"text": "killed"})
    writer.close()
    assert catch_up(folder).events == {"training_step": 3}


def test_catching_up_holds_little_of_a_long_journal(folder: RunFolder) -> None:
    """A journal of 10 MB is read within 2 MB."""
    writer = JournalWriter(folder, "main")
    for number in range(2_000):
        writer.append("comment", {"text": f"{number:05}" * 1_000})
    writer.close()
    assert folder.journal("main").stat().st_size > 10_000_000
    tracemalloc.start()
    try:
        assert catch_up(folder).events == {"comment": 2_000}
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
