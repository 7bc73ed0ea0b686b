"""The cursor: positions and the sink's state, stored together, seen whole or not at all."""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lezea_mlops.journal import Cursor, CursorState, Position, RunFolder
from lezea_mlops.journal.cursor import highest_delivered

positions = st.dictionaries(st.text(), st.builds(Position, st.integers(0, 2**62), st.integers(0, 2**62)))
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=8,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "cursors" / "memory-0a1b2c3d.json"


def test_without_a_file_it_stands_at_the_beginning(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A destination that is new has taken nothing; that is no reason for a warning."""
    assert Cursor(path).state == CursorState()
    assert CursorState().positions == {}
    assert not caplog.records
    assert not path.exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(positions, st.dictionaries(st.text(), json_values, max_size=4))
def test_positions_and_the_sinks_state_come_back(
    path: Path, stored: dict[str, Position], sink: dict[str, Any]
) -> None:
    """What was saved last is what the next process finds."""
    cursor = Cursor(path)
    cursor.save(CursorState({"old": Position(1, 1)}, {"old": True}))
    cursor.save(CursorState(stored, sink))
    assert cursor.state == Cursor(path).state == CursorState(stored, sink)
    assert os.listdir(path.parent) == [path.name]


def test_the_file_is_private(path: Path) -> None:
    """A sink's ids are for their owner."""
    Cursor(path).save(CursorState())
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_reader_never_sees_half_of_it(path: Path) -> None:
    """While one thread saves small and large states in turn, each reading finds one of them, whole."""
    cursor = Cursor(path)
    states = [CursorState({"main": Position(i, i)}, {"names": ["x" * 50] * (i * 2_000)}) for i in range(2)]
    cursor.save(states[0])
    seen: set[int] = set()

    def read() -> None:
        reads = 0
        while reads < 300 or len(seen) < 2:
            seen.add(states.index(Cursor(path).state))
            reads += 1

    reader = threading.Thread(target=read)
    reader.start()
    turn = 0
    while reader.is_alive():
        turn += 1
        cursor.save(states[turn % 2])
    reader.join()
    assert seen == {0, 1}


UNREADABLE = [
    b"", b"{", b"\x00" * 100, b"null", b"5", b"[]", b'"text"', b"{}", b'{"v":1,"positions":{}}', b'{"v":1,"sink":{}}',
    b'{"positions":[],"sink":{}}', b'{"positions":{"main":5},"sink":{}}', b'{"positions":{"main":[5]},"sink":{}}',
    b'{"positions":{"main":[1,2,3]},"sink":{}}', b'{"positions":{"main":["1","2"]},"sink":{}}',
    b'{"positions":{"main":[-1,0]},"sink":{}}', b'{"positions":{"main":[0,-1]},"sink":{}}',
    b'{"positions":{"main":[1.5,2]},"sink":{}}', b'{"positions":{"main":[1e999,2]},"sink":{}}',
    b'{"positions":{"main":[true,2]},"sink":{}}', b'{"positions":{"main":null},"sink":{}}',
    b'{"positions":{},"sink":null}', b'{"positions":{},"sink":"text"}', b"\xff", b"[" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("content", UNREADABLE, ids=lambda content: repr(content[:40]))
def test_what_is_no_cursor_counts_as_none_and_is_said(
    path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The run is delivered again from its beginning, which repeats and skips nothing; one warning names the file."""
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING, "lezea_mlops"):
        cursor = Cursor(path)
    assert cursor.state == CursorState()
    [said] = [record.getMessage() for record in caplog.records]
    assert str(path) in said
    assert "delivered again from its beginning" in said
    cursor.save(CursorState({"main": Position(1, 1)}))
    assert Cursor(path).state == CursorState({"main": Position(1, 1)})


def test_a_cursor_that_cannot_be_read_counts_as_none(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """So it is where the file system refuses, here because a folder has its name."""
    path.mkdir(parents=True)
    assert Cursor(path).state == CursorState()
    assert len(caplog.records) == 1


def test_a_save_that_fails_leaves_the_old_state(path: Path) -> None:
    """File and memory keep what was stored before, and nothing lies about."""
    cursor = Cursor(path)
    before = CursorState({"main": Position(10, 1)}, {"id": "a"})
    cursor.save(before)
    with pytest.raises(TypeError):
        cursor.save(CursorState({"main": Position(20, 2)}, {"id": object()}))
    assert cursor.state == Cursor(path).state == before
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        cursor.save(CursorState({"main": Position(20, 2)}))
    assert cursor.state == before
    assert os.listdir(path.parent) == [path.name]


def test_the_file_is_plain_json(path: Path) -> None:
    """Other programs read it: positions as [offset, seq] by writer."""
    Cursor(path).save(CursorState({"main": Position(120, 3)}, {"run_id": "a"}))
    assert json.loads(path.read_bytes()) == {"v": 1, "positions": {"main": [120, 3]}, "sink": {"run_id": "a"}}


# ---------------------------------------------------------------------- the highest number that was ever taken


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.integers(0, 50), st.none()), min_size=1, max_size=8), st.booleans())
def test_the_highest_number_stays_known_whatever_the_position_does(
    tmp_path: Path, numbers: list[int | None], reopened: bool
) -> None:
    """Set back, forgotten, delivered anew: what was taken once was taken, for the next process too."""
    folder = RunFolder(tmp_path / "run")
    path = folder.cursor("memory-0a1b2c3d")
    path.unlink(missing_ok=True)
    cursor = Cursor(path)
    for number in numbers:
        if number is None:
            cursor.forget("main")
            cursor.save(cursor.state)
        else:
            cursor.save(CursorState({"main": Position(10 * number, number)}))
        if reopened:
            cursor = Cursor(path)
    highest = max(number or 0 for number in numbers)
    assert highest_delivered(folder, "main") == highest
    assert cursor.highest.get("main", 0) == highest
    last = (
        CursorState()
        if numbers[-1] is None
        else CursorState({"main": Position(10 * numbers[-1], numbers[-1])})
    )
    assert Cursor(path).state == last


def test_the_highest_number_is_asked_of_every_destination(tmp_path: Path) -> None:
    """One that is behind, one that is damaged and one that knows other writers do not hide it."""
    folder = RunFolder(tmp_path / "run")
    assert highest_delivered(folder, "main") == 0
    Cursor(folder.cursor("memory-1")).save(CursorState({"main": Position(10, 1), "rank1": Position(90, 9)}))
    Cursor(folder.cursor("memory-2")).save(CursorState({"main": Position(70, 7)}))
    folder.cursor("memory-3").write_text("{")
    folder.cursor("memory-4").mkdir()
    assert (highest_delivered(folder, "main"), highest_delivered(folder, "rank1")) == (7, 9)
    assert highest_delivered(folder, "rank2") == 0


def test_the_number_stands_in_the_file_only_where_the_position_does_not_say_it(path: Path) -> None:
    """Other programs find it as ``highest``, by writer."""
    cursor = Cursor(path)
    cursor.save(CursorState({"main": Position(120, 3), "rank1": Position(5, 1)}))
    assert "highest" not in json.loads(path.read_bytes())
    cursor.save(CursorState({"main": Position(40, 1), "rank1": Position(9, 2)}))
    assert json.loads(path.read_bytes())["highest"] == {"main": 3}
    cursor.save(CursorState({"main": Position(160, 4), "rank1": Position(9, 2)}))
    assert "highest" not in json.loads(path.read_bytes())


def test_a_position_that_is_taken_back_is_one_of_many(path: Path) -> None:
    """The other writers' and what the sink remembers stay; it is stored when something is saved."""
    cursor = Cursor(path)
    before = CursorState({"main": Position(10, 1), "rank1": Position(90, 9)}, {"run_id": "a"})
    cursor.save(before)
    cursor.forget("main")
    cursor.forget("nobody")
    assert cursor.state == CursorState({"rank1": Position(90, 9)}, {"run_id": "a"})
    assert Cursor(path).state == before
    cursor.save(cursor.state)
    assert Cursor(path).state == cursor.state


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\x00" * 60, b"not JSON", b"[]", b"7", b'{"v":1}', b'{"v":1,"positions":{"main":[1,1]}}',
        b'{"positions":{"main":[-1,1]},"sink":{}}', b'{"positions":{"main":[1,1.5]},"sink":{}}',
        b'{"positions":{"main":[1]},"sink":{}}', b'{"positions":{"main":[1,1]},"sink":[1]}',
        b'{"positions":{"main":[1,1e400]},"sink":{}}', b'{"positions":{"main":[1,true]},"sink":{}}',
        b'{"positions":{"main":[1,1]},"sink":{},"highest":{"main":"9"}}',
        b'{"positions":{"main":[1,1]},"sink":{},"highest":[1]}', b"[" * 100_000,
        b'{"positions":{"main":[1,99999999999999999999]},"sink":{}}', b"9" * 5_000,
    ],
    ids=lambda content: content[:40].decode(),
)  # fmt: skip
def test_whatever_is_no_cursor_is_told_and_counts_as_none(
    path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """One line names the file; no number of it is believed, not even one that no journal can have."""
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    cursor = Cursor(path)
    assert (cursor.state, cursor.highest) == (CursorState(), {})
    [said] = caplog.messages
    assert said.startswith(f"the cursor {path} cannot be read (")
