"""How a run stands: its state, and for each destination what is delivered, waiting, set aside; nothing is changed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lezea_mlops.errors import JournalError
from lezea_mlops.journal import (
    MAIN_WRITER,
    Cursor,
    CursorState,
    Position,
    RunFolder,
    SignOfLife,
    is_writing,
    last_numbers,
    read_chunk,
    read_sign_of_life,
    recorded_run_id,
    stands_behind,
    state_of,
)
from lezea_mlops.journal.tail import last_newline_before
from lezea_mlops.runtime.remembered import sync_command
from lezea_mlops.runtime.retrying import files_to_retry, refused_in

# The state of a run whose journal cannot be read.
UNREADABLE = "unreadable"
# Up to so many bytes behind a cursor the records are counted, beyond it their numbers tell how many there are.
_COUNTED_BYTES = 1024 * 1024
_FIRST_BYTES = 4 * 1024
_HEAD_BYTES = 64 * 1024


@dataclass(frozen=True)
class DeliveryStatus:
    """How far one destination is.

    Attributes:
        sink: its kind, such as ``mlflow``.
        destination: the name of its cursor, such as ``mlflow-1a2b3c4d``.
        configured: whether the present settings name it.
        delivered: records that it took.
        waiting: records that it did not take yet.
        rejected: records that were set aside, since it can never take them.
        state: what the run's driver said of it last; None if nobody did.
        last_error: what went wrong last, if its state is not well.
    """

    sink: str
    destination: str
    configured: bool
    delivered: int
    waiting: int
    rejected: int
    state: str | None = None
    last_error: str | None = None


@dataclass(frozen=True)
class RunStatus:
    """How one run stands.

    Attributes:
        run_id: the experiment id, which is the folder's name.
        path: the run folder.
        experiment: the experiment's name; None if the journal does not say.
        state: ``running``, ``stalled``, ``lost``, how the last attempt ended, or ``unreadable``.
        attempts: how many times it was started.
        records: how many records its writers numbered.
        deliveries: one for each destination.
        notes: what is out of order, in words.
    """

    run_id: str
    path: str
    experiment: str | None
    state: str
    attempts: int
    records: int
    deliveries: list[DeliveryStatus]
    notes: list[str]


@dataclass
class _File:
    """The end of one writer's file."""

    path: Path
    whole: int
    seq: int
    att: int


@dataclass
class _Look:
    """What is gathered while a run is looked at."""

    folder: RunFolder
    files: dict[str, _File] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_status(folder: RunFolder, destinations: Mapping[str, str]) -> RunStatus:
    """Return how a run stands, from the ends of its files: a journal of gigabytes is not read for it.

    Whatever is wrong with the folder is said in the notes; nothing raises.

    Args:
        folder: the run.
        destinations: names of the configured destinations' cursors, by sink.
    """
    look = _Look(folder)
    state = _state(look)
    _look_at_files(look)
    sign = read_sign_of_life(folder)
    deliveries = [
        _delivery(look, sink, destination, configured, sign)
        for sink, destination, configured in _all_destinations(folder, destinations)
    ]
    return RunStatus(
        run_id=folder.run_id,
        path=str(folder.path),
        experiment=_experiment(look),
        state=state,
        attempts=max((file.att for wid, file in look.files.items() if wid == MAIN_WRITER), default=0),
        records=sum(file.seq for file in look.files.values()),
        deliveries=deliveries,
        notes=look.notes,
    )


def begun_us(folder: RunFolder) -> int:
    """Return when a run began, in UTC microseconds, as its first record says; else when its folder last changed."""
    for path in folder.journals().values():
        try:
            if records := read_chunk(path, 0, _FIRST_BYTES).records:
                return records[0].ts
        except JournalError:
            # Another writer's file may tell; what is wrong with this one is noted where the run is looked at.
            continue
    try:
        return folder.path.stat().st_mtime_ns // 1_000
    except OSError:
        return 0


def _state(look: _Look) -> str:
    try:
        return state_of(look.folder)
    except JournalError:
        # Which file it is, and why, is noted with the others.
        return UNREADABLE


def _look_at_files(look: _Look) -> None:
    for wid, path in look.folder.journals().items():
        try:
            look.files[wid] = _look_at(look, wid, path)
        except OSError as error:
            look.notes.append(f"{path.name} cannot be read: {error.strerror or error}")


def _look_at(look: _Look, wid: str, path: Path) -> _File:
    with path.open("rb", buffering=0) as file:
        descriptor = file.fileno()
        size = os.fstat(descriptor).st_size
        whole = last_newline_before(descriptor, size)
        seq, att = last_numbers(descriptor, whole)
    if att == 0:
        look.notes.append(
            f"{path.name} holds no record that can be read ({size} bytes)"
            if size
            else f"{path.name} is empty"
        )
    elif whole < size and is_writing(look.folder, wid) is False:
        look.notes.append(
            f"{path.name} ends with {size - whole} bytes of an unfinished line, which no call returned"
        )
    return _File(path, whole, seq, att)


def _experiment(look: _Look) -> str | None:
    """Return the experiment's name from the first records, and note where they belong to another run."""
    try:
        recorded = recorded_run_id(look.folder)
        if recorded is not None and recorded != look.folder.run_id:
            look.notes.append(
                f"the records are those of the run {recorded}: this folder is a copy, or was renamed; they are "
                "delivered as that run's"
            )
        main = look.files.get(MAIN_WRITER)
        records = read_chunk(main.path, 0, _HEAD_BYTES).records if main is not None else []
    except JournalError:
        # Noted with the files.
        return None
    started = next((record for record in records if record.type == "run_started"), None)
    name = started.payload.get("experiment_name") if started is not None else None
    return name if isinstance(name, str) else None


# ---------------------------------------------------------------------- destinations


def _all_destinations(folder: RunFolder, configured: Mapping[str, str]) -> Iterator[tuple[str, str, bool]]:
    """Yield sink, name of the cursor and whether it is configured, for each destination now or ever."""
    for sink, destination in configured.items():
        yield sink, destination, True
    for path in sorted(folder.cursors.glob("*.json")):
        if path.stem not in configured.values():
            yield path.stem.rpartition("-")[0] or path.stem, path.stem, False


def _delivery(
    look: _Look, sink: str, destination: str, configured: bool, sign: SignOfLife | None
) -> DeliveryStatus:
    cursor = _cursor(look, destination)
    waiting = sum(_waiting(look, destination, cursor, wid, file) for wid, file in look.files.items())
    for wid in sorted(cursor.positions.keys() - look.files.keys()):
        path = look.folder.journal(wid)
        if not path.exists():
            look.notes.append(
                f"{path.name} is gone; {destination} has it up to record {cursor.positions[wid].seq}"
            )
    rejected = len(set(_refused(look, destination)))
    total = sum(file.seq for file in look.files.values())
    health = sign.sinks.get(destination, {}) if sign is not None else {}
    state = str(health["state"]) if "state" in health else None
    if not waiting and state in ("starting", "down"):
        # What was said of it then is not true any more: somebody has delivered the rest.
        state = "ok"
    return DeliveryStatus(
        sink, destination, configured, max(0, total - waiting - rejected), waiting, rejected, state,
        str(health["last_error"]) if health.get("last_error") and state != "ok" else None,
    )  # fmt: skip


def _cursor(look: _Look, destination: str) -> CursorState:
    path = look.folder.cursor(destination)
    state = Cursor(path).state
    # A cursor that is stored says something of positions or of the sink.
    if not state.positions and not state.sink and path.exists():
        look.notes.append(
            f"cursors/{path.name} cannot be read; {destination} gets all records again, none twice"
        )
    return state


def _waiting(look: _Look, destination: str, cursor: CursorState, wid: str, file: _File) -> int:
    """Return how many records of one writer wait."""
    at = cursor.positions.get(wid, Position())
    try:
        if not stands_behind(file.path, at):
            look.notes.append(
                f"{file.path.name} was cut or replaced: {destination} had it up to record {at.seq}, which ended at "
                f"byte {at.offset} and does no more; what is there now is delivered from its beginning"
            )
            return file.seq
        if at.offset >= file.whole:
            return 0
        if file.whole - at.offset <= _COUNTED_BYTES:
            return len(read_chunk(file.path, at.offset, _COUNTED_BYTES).records)
    except (JournalError, OSError):
        # It was readable a moment ago; the numbers still tell.
        return max(0, file.seq - at.seq)
    return max(1, file.seq - at.seq)


def _refused(look: _Look, destination: str) -> Iterator[tuple[str, int]]:
    """Yield writer and number of what was set aside, and note where a second try of it was cut short."""
    folder = look.folder
    try:
        if again := files_to_retry(folder, destination):
            look.notes.append(
                f"a second try of what {destination} refused was cut short ({', '.join(path.name for path in again)}); "
                f"{sync_command(folder)} goes on with it"
            )
        for path in (folder.rejected(destination), *again):
            yield from refused_in(path)
    except OSError as error:
        look.notes.append(f"what {destination} refused cannot be read: {error}")
