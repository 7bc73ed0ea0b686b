"""Later delivery: the journal of a run shipped until nothing waits, by the process that asks for it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lezea_mlops._files import LifeLock
from lezea_mlops.config import Settings
from lezea_mlops.delivery import Shipper, Step
from lezea_mlops.errors import JournalError
from lezea_mlops.journal import Cursor, CursorState, RunFolder, is_writing, last_record
from lezea_mlops.runtime.assembly import FINISHERS, build_sinks
from lezea_mlops.runtime.delivering import take_delivery_lock
from lezea_mlops.runtime.ends import write_missing_ends
from lezea_mlops.runtime.finishers import run_finishers
from lezea_mlops.runtime.retrying import forget_set_aside, rewind_to_set_aside, set_aside_again
from lezea_mlops.sinks.base import Sink, destination_id

Wait = Callable[[float], None]
# Told with the sink's name, the bytes of journal that it has, and all bytes of journal.
Progress = Callable[[str, int, int], None]

ELSEWHERE = "another process delivers this run now"
# Stands for the destination where a delivery failed before there was one.
NO_SINK = "*"


@dataclass(frozen=True)
class Delivered:
    """What came of the delivery of one run to one destination.

    Attributes:
        run_id: the experiment id.
        sink: the destination; ``*`` where it failed before there was one.
        records: how many records were taken now.
        rejected: how many were set aside now.
        error: why it is not complete; None if it is.
        damaged: how many places of the journal held no record, and were stepped over now.
        finisher_failed: how many finishers of the run failed now; the run is complete without what they make.
    """

    run_id: str
    sink: str
    records: int
    rejected: int
    error: str | None
    damaged: int = 0
    finisher_failed: int = 0


@dataclass(frozen=True)
class Order:
    """What is asked of a delivery.

    Attributes:
        sinks: names of the sinks to deliver to; None for all.
        recreate: deliver from the beginning, to a new run where a person deleted the old one.
        retry_rejected: offer once more what was set aside.
        wait: lets the seconds of a pause pass.
        progress: told how far it has come.
        finishers: make files of a run that has ended, each named as ``package.module:function``.
    """

    sinks: Collection[str] | None = None
    recreate: bool = False
    retry_rejected: bool = False
    wait: Wait = field(default=time.sleep)
    progress: Progress = field(default=lambda sink, done, total: None)
    finishers: Sequence[str] = FINISHERS


def deliver_run(folder: RunFolder, settings: Settings, order: Order | None = None) -> list[Delivered]:
    """Ship all that waits in one run to every destination; trips of the breaker end it with the reason.

    Of a run that is written meanwhile, what was written before the call is shipped, and perhaps more.

    Args:
        folder: the run.
        settings: which destinations there are.
        order: what is asked for; None for all that waits.

    Raises:
        JournalError: a journal cannot be read.
        OSError: the file system refuses.
    """
    order = order or Order()
    try:
        lock = take_delivery_lock(folder)
    except OSError as error:
        return [Delivered(folder.run_id, NO_SINK, 0, 0, f"its delivery cannot be locked: {error}")]
    if lock is None:
        return [Delivered(folder.run_id, NO_SINK, 0, 0, ELSEWHERE)]
    try:
        return _deliver_locked(folder, settings, order, lock)
    finally:
        lock.release()


def _deliver_locked(folder: RunFolder, settings: Settings, order: Order, lock: LifeLock) -> list[Delivered]:
    """Deliver a run that this process has the right to deliver."""
    wrong = _written_ends(folder, lock) or _without_records(folder)
    # Before all that waits is shipped, so that what they make waits with it.
    failed = run_finishers(folder, lambda: contextlib.nullcontext(lock), order.finishers).failed
    sinks = [sink for sink in build_sinks(settings) if order.sinks is None or sink.name in order.sinks]
    reports = [_deliver(folder, sink, order, wrong) for sink in sinks]
    return [replace(report, finisher_failed=failed) for report in reports]


def _written_ends(folder: RunFolder, lock: LifeLock) -> str | None:
    """Write down the end of attempts whose process died without one; else say why not."""
    try:
        write_missing_ends(folder, lock)
    except (JournalError, OSError) as error:
        # What can be delivered shall be.
        return f"the end of the run cannot be written down: {error}"
    return None


def _without_records(folder: RunFolder) -> str | None:
    """Return which file holds bytes and not one record, as a file system that lost its content leaves it."""
    for wid, size in _sizes(folder).items():
        if size and is_writing(folder, wid) is False and last_record(folder, wid) is None:
            return f"{folder.journal(wid)} holds no record that can be read ({size} bytes)"
    return None


def _deliver(folder: RunFolder, sink: Sink, order: Order, wrong: str | None) -> Delivered:
    destination = destination_id(sink)
    if order.retry_rejected or order.recreate:
        set_aside_again(folder, destination)
    if order.recreate:
        # The sink reads this word once; what it remembers after its first batch replaces it.
        Cursor(folder.cursor(destination)).save(CursorState(sink={"recreate": True}))
    not_retried = _rewound(folder, destination)
    shipper = Shipper(folder, sink, time.monotonic)
    try:
        error = _ship(folder, shipper, order) or not_retried or wrong
    finally:
        shipper.close()
    if error is None:
        forget_set_aside(folder, destination)
    health = shipper.health
    return Delivered(folder.run_id, sink.name, health.delivered, health.rejected, error, health.damaged)


def _rewound(folder: RunFolder, destination: str) -> str | None:
    """Let what was set aside come again, also where a delivery before was killed in doing so; else say why not."""
    try:
        rewind_to_set_aside(folder, destination)
    except JournalError as error:
        # What can be delivered shall be; the records that are missing here stay in the file with those set aside.
        return f"what was set aside cannot be tried again: {error}"
    return None


def _ship(folder: RunFolder, shipper: Shipper, order: Order) -> str | None:
    """Ship until nothing waits; return why not."""
    targets = _targets(folder, shipper)
    while (step := shipper.ship_once()) is not Step.IDLE:
        if step is Step.SHIPPED:
            _tell(folder, shipper, order.progress)
            if targets is not None and _has_all(shipper, targets):
                return None
        elif step is Step.FAILED and shipper.breaker.open:
            return shipper.health.last_error
        else:
            order.wait(shipper.breaker.pause_s(time.monotonic()))
    _tell(folder, shipper, order.progress)
    return _gone(shipper)


def _gone(shipper: Shipper) -> str | None:
    """Return that the destination has lost a run of which nothing waits; one that cannot be asked has lost nothing."""
    nothing_shipped = shipper.health.delivered == 0 and shipper.positions
    if nothing_shipped and shipper.look() is Step.FAILED and shipper.health.state == "removed":
        return shipper.health.last_error
    return None


def _targets(folder: RunFolder, shipper: Shipper) -> dict[str, int] | None:
    """Return the sizes at which shipping may end, by writer; None: where nothing waits any more."""
    sizes, positions = _sizes(folder), shipper.positions
    beyond = any(wid in positions and positions[wid].offset > size for wid, size in sizes.items())
    # A run whose process lives may write as fast as this ships, which would never end.
    return sizes if is_writing(folder) is not False and not beyond else None


def _has_all(shipper: Shipper, targets: dict[str, int]) -> bool:
    positions = shipper.positions
    return all(wid in positions and positions[wid].offset >= size for wid, size in targets.items())


def _tell(folder: RunFolder, shipper: Shipper, progress: Progress) -> None:
    sizes, positions = _sizes(folder), shipper.positions
    done = sum(min(positions[wid].offset, size) for wid, size in sizes.items() if wid in positions)
    progress(shipper.sink.name, done, sum(sizes.values()))


def _sizes(folder: RunFolder) -> dict[str, int]:
    return {wid: _size(path) for wid, path in folder.journals().items()}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        # It is gone, or its mount is; the shipper says so.
        return 0
