"""How far one destination has come in a run: a position per writer file, and what the sink must remember."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lezea_mlops._files import make_private_folder, replace_atomically
from lezea_mlops.journal.layout import RunFolder

log = logging.getLogger("lezea_mlops")

# Nothing real is larger, and not every reader of JSON knows larger ones.
_MAX_NUMBER = 2**62


@dataclass(frozen=True)
class Position:
    """Where a destination stands in one writer's file.

    Attributes:
        offset: bytes of the file that were taken.
        seq: number of the last record that was taken.
    """

    offset: int = 0
    seq: int = 0


@dataclass(frozen=True)
class CursorState:
    """Positions by writer, and the sink's own ids; stored and replaced together."""

    positions: Mapping[str, Position] = field(default_factory=dict)
    sink: Mapping[str, Any] = field(default_factory=dict)


class Cursor:
    """The stored state of one destination of one run.

    A crash between delivery and ``save`` repeats records, never skips one; sinks are idempotent. A cursor that
    cannot be read counts as none: the journal is replayed from its beginning.

    Attributes:
        path: the file.
        state: what it says.
        highest: by writer, the highest number that was ever taken, wherever the position stands now.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state, self.highest = _load(path)

    def save(self, state: CursorState) -> None:
        """Store *state* so that a reader sees all of it or none.

        Raises:
            OSError: the file system refuses; the old state stays.
        """
        highest = _highest(self.highest, state.positions)
        content: dict[str, Any] = {
            "v": 1,
            "positions": {wid: [at.offset, at.seq] for wid, at in state.positions.items()},
            "sink": state.sink,
        }
        beyond = {wid: seq for wid, seq in highest.items() if seq > _at(state.positions, wid).seq}
        if beyond:
            # Delivered once, and then taken from the journal or set back: a writer must not use the numbers again.
            content["highest"] = beyond
        make_private_folder(self.path.parent)
        # Without fsync: after a power loss an older cursor, or none, only repeats what the sink already has.
        replace_atomically(self.path, json.dumps(content).encode())
        self.state, self.highest = state, highest

    def forget(self, wid: str) -> None:
        """Take back where the destination stands in one writer's file; stored with the next ``save``.

        Which numbers it has taken stays known.
        """
        positions = {name: at for name, at in self.state.positions.items() if name != wid}
        self.state = CursorState(positions, self.state.sink)


def highest_delivered(folder: RunFolder, wid: str) -> int:
    """Return the highest number of the writer *wid* that any destination has taken; 0 if none did."""
    cursors = sorted(folder.cursors.glob("*.json"))
    return max((Cursor(path).highest.get(wid, 0) for path in cursors), default=0)


def _highest(before: Mapping[str, int], positions: Mapping[str, Position]) -> dict[str, int]:
    reached = {wid: at.seq for wid, at in positions.items()}
    return {wid: max(before.get(wid, 0), reached.get(wid, 0)) for wid in {**before, **reached}}


def _at(positions: Mapping[str, Position], wid: str) -> Position:
    return positions.get(wid, Position())


def _load(path: Path) -> tuple[CursorState, dict[str, int]]:
    try:
        content = json.loads(path.read_bytes())
        positions = {wid: _position(*numbers) for wid, numbers in content["positions"].items()}
        beyond = {wid: _position(0, seq).seq for wid, seq in content.get("highest", {}).items()}
        return CursorState(positions, dict(content["sink"])), _highest(beyond, positions)
    except FileNotFoundError:
        return CursorState(), {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        log.warning(
            "the cursor %s cannot be read (%s); the run is delivered again from its beginning", path, error
        )
        return CursorState(), {}


def _position(offset: object, seq: object) -> Position:
    if type(offset) is int and type(seq) is int and 0 <= offset <= _MAX_NUMBER and 0 <= seq <= _MAX_NUMBER:
        return Position(offset, seq)
    raise ValueError(f"{offset!r} and {seq!r} are no position")
