"""Who calls the shippers: here, daemon threads of this process."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Sequence
from typing import Any

from lezea_mlops._clock import Deadline, now_us
from lezea_mlops._files import LifeLock, replace_atomically
from lezea_mlops.delivery import DeliveryLoop, Shipper
from lezea_mlops.journal import RunFolder
from lezea_mlops.runtime.recorder import Recorder
from lezea_mlops.sinks.base import Sink

log = logging.getLogger("lezea_mlops")

KEEPER_PERIOD_S = 1.0
ALIVE_PERIODS = 10
# The keeper syncs each second; an append only does so itself when the keeper is this late.
LATE_SYNC_US = 5_000_000
DELIVERY_LOCK = "courier"


def take_delivery_lock(folder: RunFolder) -> LifeLock | None:
    """Take the right to deliver a run; None while another live process has it."""
    return LifeLock.take(folder.lock(DELIVERY_LOCK))


class ThreadDriver:
    """Delivers a run by one thread per sink, and keeps the journal on the disk by another."""

    def __init__(self, recorder: Recorder, sinks: Sequence[Sink]) -> None:
        self._recorder = recorder
        self._loops = [DeliveryLoop(Shipper(recorder.folder, sink, time.monotonic)) for sink in sinks]
        self._stopping = threading.Event()
        self._lock: LifeLock | None = None
        self._keeper = threading.Thread(target=self._keep, name="lezea-keeper", daemon=True)

    def start(self) -> None:
        """Start delivering; where another process delivers this run, take over when it ends."""
        self._take_over()
        self._recorder.writer.sync_after_us = LATE_SYNC_US
        try:
            self._keeper.start()
        except RuntimeError as error:
            log.warning(
                "no thread can be started (%s); lezea sync %s delivers", error, self._recorder.folder.run_id
            )

    @property
    def shippers(self) -> list[Shipper]:
        """The shippers, one per destination."""
        return [loop.shipper for loop in self._loops]

    def wait_for_call(self) -> None:
        """Let the record that was just written be delivered, waiting at most 50 ms."""
        for loop in self._loops:
            loop.wait_for_call(self._recorder.wid, self._recorder.seq)

    def wait_until_reached(self, deadline: Deadline) -> list[str]:
        """Wait for each destination's first try; return what is wrong with those that took nothing."""
        for loop in self._loops:
            loop.wake()
        return [
            f"{loop.shipper.health.destination}: {loop.shipper.health.last_error or 'no answer yet'}"
            for loop in self._loops
            if not loop.wait_for_first_try(deadline)
        ]

    def flush(self, deadline: Deadline) -> bool:
        """Wait until all that was recorded is delivered everywhere; False if the deadline passed first."""
        wanted = {self._recorder.wid: self._recorder.seq}
        return all(loop.wait_for(wanted, deadline, wake=True) for loop in self._loops)

    def close(self, deadline: Deadline) -> None:
        """Ship what waits within the deadline and end the threads."""
        for loop in self._loops:
            loop.ask_to_end(deadline)
        for loop in self._loops:
            loop.join(deadline)
        self._stopping.set()
        self._keeper.join(deadline.left_s())
        if self._lock is not None:
            self._lock.release()

    def waiting(self, shipper: Shipper) -> int:
        """Return how many records of this process wait for one destination."""
        position = shipper.positions.get(self._recorder.wid)
        return self._recorder.seq - (position.seq if position else 0)

    def health(self) -> dict[str, Any]:
        """Return state and counts by destination."""
        return {shipper.sink.name: shipper.health.as_dict(self.waiting(shipper)) for shipper in self.shippers}

    def _take_over(self) -> None:
        if self._lock is None:
            self._lock = take_delivery_lock(self._recorder.folder)
            if self._lock is not None:
                for loop in self._loops:
                    loop.start()

    def _keep(self) -> None:
        period = 0
        while True:
            if period % ALIVE_PERIODS == 0:
                self._tell_alive()
            period += 1
            if self._stopping.wait(KEEPER_PERIOD_S):
                return
            self._recorder.sync()
            self._take_over()

    def _tell_alive(self) -> None:
        content = json.dumps({"ts": now_us(), "pid": os.getpid(), "wid": self._recorder.wid}).encode()
        try:
            replace_atomically(self._recorder.folder.path / "alive.json", content)
        except OSError as error:
            log.debug("cannot renew alive.json: %s", error)
