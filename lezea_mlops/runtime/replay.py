"""Later delivery: the journal of a run shipped until nothing waits, by the process that asks for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from lezea_mlops.config import Settings
from lezea_mlops.delivery import Shipper, Step
from lezea_mlops.journal import Cursor, CursorState, RunFolder
from lezea_mlops.runtime.assembly import build_sinks
from lezea_mlops.runtime.driver import take_delivery_lock
from lezea_mlops.sinks.base import Sink, destination_id

Wait = Callable[[float], None]


@dataclass(frozen=True)
class Delivered:
    """What came of the delivery of one run to one destination.

    Attributes:
        run_id: the experiment id.
        sink: the destination.
        records: how many records were taken now.
        rejected: how many were set aside now.
        error: why it is not complete; None if it is.
    """

    run_id: str
    sink: str
    records: int
    rejected: int
    error: str | None


def deliver_run(
    folder: RunFolder, settings: Settings, wait: Wait = time.sleep, *, recreate: bool = False
) -> list[Delivered]:
    """Ship all that waits in one run to every destination; trips of the breaker end it with the reason.

    Args:
        folder: the run.
        settings: which destinations there are.
        wait: lets the seconds of a pause pass.
        recreate: deliver from the beginning, to a new run where a person deleted the old one.
    """
    try:
        lock = take_delivery_lock(folder)
    except OSError as error:
        return [Delivered(folder.run_id, "*", 0, 0, f"its delivery cannot be locked: {error}")]
    if lock is None:
        return [Delivered(folder.run_id, "*", 0, 0, "another process delivers this run now")]
    try:
        return [_deliver(folder, sink, wait, recreate) for sink in build_sinks(settings)]
    finally:
        lock.release()


def _deliver(folder: RunFolder, sink: Sink, wait: Wait, recreate: bool) -> Delivered:
    if recreate:
        # The sink reads this word once; what it remembers after its first batch replaces it.
        Cursor(folder.cursor(destination_id(sink))).save(CursorState(sink={"recreate": True}))
    shipper = Shipper(folder, sink, time.monotonic)
    error = None
    try:
        while (step := shipper.ship_once()) is not Step.IDLE:
            if step is Step.FAILED and shipper.breaker.open:
                error = shipper.health.last_error
                break
            if step is not Step.SHIPPED:
                wait(shipper.breaker.pause_s(time.monotonic()))
    finally:
        shipper.close()
    health = shipper.health
    return Delivered(folder.run_id, sink.name, health.delivered, health.rejected, error)
