"""Who calls the shippers: here, daemon threads of this process."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import weakref
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
# How often a process looks how far another one has delivered, and how long it waits for that when it ends.
LOOK_EVERY_S = 0.05
OTHERS_TURN_S = 1.0


def take_delivery_lock(folder: RunFolder) -> LifeLock | None:
    """Take the right to deliver a run; None while another live process has it."""
    return LifeLock.take(folder.lock(DELIVERY_LOCK))


class ThreadDriver:
    """Delivers a run by one thread per sink, and keeps the journal on the disk by another.

    Several processes may write one run; one of them delivers it, and when it ends another takes over. A thread that
    hangs in a sink when the driver is closed keeps that right until it has ended: what it does late must not meet
    what another process does by then.
    """

    def __init__(self, recorder: Recorder, sinks: Sequence[Sink]) -> None:
        self._recorder = recorder
        self._loops = [
            DeliveryLoop(Shipper(recorder.folder, sink, time.monotonic), when_ended=self._loop_ended)
            for sink in sinks
        ]
        self._stopping = threading.Event()
        self._guard = threading.Lock()
        self._delivers = False
        self._running = 0
        self._lock: LifeLock | None = None
        self._lock_failed = False
        self._keeper = threading.Thread(target=self._keep, name="lezea-keeper", daemon=True)
        _DRIVERS.add(self)

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
        """The shippers, one per destination; where another process delivers, they stand where it has come to."""
        shippers = [loop.shipper for loop in self._loops]
        if not self._delivers:
            for shipper in shippers:
                shipper.read_cursor()
        return shippers

    def wait_for_call(self) -> None:
        """Let the record that was just written be delivered, waiting at most 50 ms."""
        for loop in self._loops:
            loop.wait_for_call(self._recorder.wid, self._recorder.seq)

    def wait_until_reached(self, deadline: Deadline) -> list[str]:
        """Wait for each destination's first try; return what is wrong with those that took nothing."""
        if not self._delivers:
            return []
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
        if not self._delivers:
            return self._wait_for_other_process(deadline)
        return all(loop.wait_for(wanted, deadline, wake=True) for loop in self._loops)

    def close(self, deadline: Deadline) -> None:
        """Ship what waits within the deadline and end the threads."""
        self._take_over()
        self._stopping.set()
        if not self._delivers:
            self._wait_for_other_process(Deadline.after(min(OTHERS_TURN_S, deadline.left_s())))
        for loop in self._loops:
            loop.ask_to_end(deadline)
        for loop in self._loops:
            loop.join(deadline)
        if self._keeper.is_alive():
            self._keeper.join(deadline.left_s())

    def waiting(self, shipper: Shipper) -> int:
        """Return how many records of this process wait for one destination."""
        position = shipper.positions.get(self._recorder.wid)
        return self._recorder.seq - (position.seq if position else 0)

    def health(self) -> dict[str, Any]:
        """Return state and counts by destination; ``elsewhere``: another process delivers this run."""
        elsewhere = {} if self._delivers else {"state": "elsewhere"}
        return {
            shipper.sink.name: shipper.health.as_dict(self.waiting(shipper)) | elsewhere
            for shipper in self.shippers
        }

    def after_fork_in_child(self) -> None:
        """Close the parent's lock: a forked child that lives on must not keep others from delivering."""
        if self._lock is not None:
            self._lock.forget()

    def _take_over(self) -> None:
        """Deliver from now on, if no other process does."""
        with self._guard:
            if self._delivers or self._stopping.is_set():
                return
            try:
                self._lock = take_delivery_lock(self._recorder.folder)
            except OSError as error:
                # Without the lock nothing is delivered from here; the journal keeps it for ``lezea sync``.
                if not self._lock_failed:
                    self._lock_failed = True
                    log.warning("cannot lock the delivery of %s: %s", self._recorder.folder.path, error)
            if self._lock is None:
                return
            self._delivers, self._running = True, len(self._loops)
        for loop in self._loops:
            loop.shipper.read_cursor()
            if not loop.start():
                self._loop_ended()

    def _loop_ended(self) -> None:
        with self._guard:
            self._running -= 1
            if self._running == 0 and self._lock is not None:
                self._lock.release()

    def _wait_for_other_process(self, deadline: Deadline) -> bool:
        """Look at the other process's cursors until they have come to this process's last record."""
        while any(self.waiting(shipper) for shipper in self.shippers):
            if deadline.passed():
                return False
            time.sleep(min(LOOK_EVERY_S, deadline.left_s()))
        return True

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


_DRIVERS: weakref.WeakSet[ThreadDriver] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for driver in list(_DRIVERS):
        driver.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
