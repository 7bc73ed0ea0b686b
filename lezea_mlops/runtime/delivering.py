"""The delivery of one run by the process that holds the right to it: a loop for each sink, and a keeper beside them."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lezea_mlops._clock import Deadline, now_us
from lezea_mlops._files import LifeLock, replace_atomically
from lezea_mlops.delivery import CALL_WAIT_S, DeliveryLoop, Shipper
from lezea_mlops.errors import JournalError
from lezea_mlops.journal import COURIER_WRITER, JournalWriter, RunFolder, last_numbers
from lezea_mlops.runtime.ends import newest_attempt, warn_of_missing_end, write_missing_ends
from lezea_mlops.sinks.base import Sink

log = logging.getLogger("lezea_mlops")

KEEPER_PERIOD_S = 1.0
ALIVE_PERIODS = 10
# How often a process looks how far another one has delivered, and how long it waits for that when it ends.
LOOK_EVERY_S = 0.05
OTHERS_TURN_S = 1.0

# The number of the last record, by writer.
Numbers = Mapping[str, int]


def take_delivery_lock(folder: RunFolder) -> LifeLock | None:
    """Take the right to deliver a run; None while another live process has it."""
    return LifeLock.take(folder.lock(COURIER_WRITER))


class RunDelivery:
    """Delivers one run by one thread per sink.

    Several processes may write one run; one of them delivers it, and when it ends another takes over. A thread that
    hangs in a sink when the delivery is ended keeps that right until it has ended itself: what it does late must not
    meet what another process does by then.

    Args:
        folder: the run.
        sinks: where its records go.
        when_turned: called by a loop after each of its turns.
    """

    def __init__(
        self, folder: RunFolder, sinks: Sequence[Sink], when_turned: Callable[[], None] = lambda: None
    ) -> None:
        self.folder = folder
        self.delivers = False
        self.loops = [
            DeliveryLoop(
                Shipper(folder, sink, time.monotonic), when_turned=when_turned, when_ended=self._loop_ended
            )
            for sink in sinks
        ]
        # The handler of a signal may come in the middle of what it guards.
        self._guard = threading.RLock()
        self._ending = False
        # Whoever took over has started the threads.
        self._begun = threading.Event()
        self._running = 0
        self._lock: LifeLock | None = None
        self._lock_failed = False
        self._looked_at: tuple[int, bool] | None = None

    @property
    def shippers(self) -> list[Shipper]:
        """The shippers, one per destination; where another process delivers, they stand where it has come to."""
        if not self.delivers:
            self._look_where_others_stand()
        return [loop.shipper for loop in self.loops]

    def _look_where_others_stand(self) -> None:
        with self._guard:
            # This process may have taken over since; from then on the cursors are the loops'.
            if not self.delivers:
                for loop in self.loops:
                    loop.shipper.read_cursor()

    @property
    def ready(self) -> bool:
        """Whether it makes sense to wait for a record: every destination takes records and is not behind."""
        return self.delivers and all(loop.ready for loop in self.loops)

    @property
    def is_elsewhere(self) -> bool:
        """Whether another process delivers the run; not where the right to deliver cannot be had at all."""
        return not self.delivers and not self._lock_failed

    @property
    def answering(self) -> list[Sink]:
        """The sinks whose destination is not known to be down."""
        return [loop.shipper.sink for loop in self.loops if not loop.shipper.breaker.open]

    @property
    def ended(self) -> bool:
        """Whether no loop runs."""
        return self._running == 0

    def take_over(self) -> None:
        """Deliver from now on, if no other process does."""
        with self._guard:
            if self.delivers or self._ending:
                return
            lock = None
            try:
                lock = take_delivery_lock(self.folder)
            except OSError as error:
                # Without the lock nothing is delivered from here; the journal keeps it for ``lezea sync``.
                if not self._lock_failed:
                    self._lock_failed = True
                    log.warning("cannot lock the delivery of %s: %s", self.folder.path, error)
            if lock is None:
                return
            self._lock, self.delivers, self._running = lock, True, len(self.loops)
        try:
            self.write_missing_ends()
            for loop in self.loops:
                loop.shipper.read_cursor()
                if not loop.start():
                    self._loop_ended()
        finally:
            self._begun.set()

    def write_missing_ends(self) -> None:
        """Journal the end of attempts whose process died without one, if this process may speak for the run.

        Where that cannot be done, a warning says so, and the rest of the run is delivered nevertheless.
        """
        with self._guard:
            if self._lock is None or self._running == 0:
                return
            # Looking for ends reads the journal; a run that goes on for days is not read again and again.
            attempt = newest_attempt(self.folder)
            if attempt is not None and attempt == self._looked_at:
                return
            written = 0
            try:
                written = write_missing_ends(self.folder, self._lock)
            except (JournalError, OSError) as error:
                warn_of_missing_end(self.folder, error)
            self._looked_at = attempt
        if written:
            self.wake()

    def write_as_courier(self, type_name: str, fields: Mapping[str, Any], attempt: int) -> bool:
        """Journal a record in the name of whoever delivers the run; False if this process does not, or not any more.

        Raises:
            JournalError: it cannot be written.
        """
        with self._guard:
            if self._lock is None:
                return False
            # Opened each time: ends and finishers are written by others, in the same name.
            writer = JournalWriter(self.folder, COURIER_WRITER, attempt=attempt, lock=self._lock)
            try:
                writer.append(type_name, fields)
            finally:
                writer.close()
        self.wake()
        return True

    def wake(self) -> None:
        """Let every loop look at the journal now."""
        for loop in self.loops:
            loop.wake()

    def wait_for_call(self, wid: str, seq: int) -> bool:
        """Let one record be delivered, waiting at most 50 ms in all; tell whether every destination has it."""
        if not self.ready:
            return False
        self.wake()
        deadline = Deadline.after(CALL_WAIT_S)
        delivered = True
        for loop in self.loops:
            delivered = loop.wait_for_call(wid, seq, deadline) and delivered
        return delivered

    def wait_until_reached(self, deadline: Deadline) -> list[str]:
        """Wait for each destination's first try; return what is wrong with those that took nothing."""
        if not self.delivers:
            return []
        self.wake()
        return [
            f"{loop.shipper.health.destination}: {loop.shipper.health.last_error or 'no answer yet'}"
            for loop in self.loops
            if not loop.wait_for_first_try(deadline)
        ]

    def flush(self, wanted: Numbers, deadline: Deadline) -> bool:
        """Wait until these records are delivered everywhere; False if the deadline passed first."""
        if not self.delivers:
            return self._wait_for_other_process(wanted, deadline)
        self.wake()
        return all(loop.wait_for(wanted, deadline) for loop in self.loops)

    def wait_for_turn(self, wanted: Numbers, deadline: Deadline) -> None:
        """Wait until this process delivers, or another one has delivered these records; a second at most.

        Who has the right may be past its last look at the journals; then nobody else delivers them.
        """
        self.take_over()
        others_turn = Deadline.after(min(OTHERS_TURN_S, deadline.left_s()))
        while not (self.delivers or self._others_delivered(wanted) or others_turn.passed()):
            time.sleep(min(LOOK_EVERY_S, others_turn.left_s()))
            self.take_over()

    def end(self, deadline: Deadline) -> None:
        """Ship what waits and end the loops; what is not shipped at the deadline stays in the journal."""
        self.take_over()
        self.write_missing_ends()
        with self._guard:
            self._ending = True
        for loop in self.loops:
            loop.ask_to_end(deadline)

    def join(self, deadline: Deadline) -> None:
        """Wait for the loops' threads; one that hangs in a sink is left behind."""
        if self.delivers:
            # Another thread may have taken over a moment ago, and be about to start them.
            self._begun.wait(min(OTHERS_TURN_S, deadline.left_s()))
        for loop in self.loops:
            loop.join(deadline)

    def waiting(self, shipper: Shipper, wanted: Numbers) -> int:
        """Return how many of the records up to these numbers one destination does not have yet."""
        positions = shipper.positions
        return sum(
            max(0, seq - positions[wid].seq) if wid in positions else seq for wid, seq in wanted.items()
        )

    def left(self, wanted: Numbers) -> dict[str, int]:
        """Return how many of the records up to these numbers wait, by sink."""
        return {shipper.sink.name: self.waiting(shipper, wanted) for shipper in self.shippers}

    def health(self, wanted: Numbers) -> dict[str, Any]:
        """Return state and counts by sink; ``elsewhere``: another process delivers this run."""
        elsewhere = {"state": "elsewhere"} if self.is_elsewhere else {}
        return {
            shipper.sink.name: shipper.health.as_dict(self.waiting(shipper, wanted)) | elsewhere
            for shipper in self.shippers
        }

    def forget_lock(self) -> None:
        """Close the lock's descriptor in a forked child: one that lives on must not keep others from delivering."""
        if self._lock is not None:
            self._lock.forget()

    def tell_alive(self, wid: str) -> None:
        """Renew ``alive.json``, which says that somebody looks after the run, and what is known of each sink."""
        if not self.delivers:
            return
        numbers = last_of_all(self.folder)
        sinks = {
            shipper.health.destination: shipper.health.as_dict(self.waiting(shipper, numbers))
            for shipper in self.shippers
        }
        content = json.dumps({"ts": now_us(), "pid": os.getpid(), "wid": wid, "sinks": sinks})
        try:
            replace_atomically(self.folder.alive, content.encode())
        except OSError as error:
            log.debug("cannot renew alive.json: %s", error)

    def _loop_ended(self) -> None:
        with self._guard:
            self._running -= 1
            if self._running == 0 and self._lock is not None:
                self._lock.release()
                self._lock = None

    def _wait_for_other_process(self, wanted: Numbers, deadline: Deadline) -> bool:
        """Look at the other process's cursors until they have come to these records."""
        while not self._others_delivered(wanted):
            if deadline.passed():
                return False
            time.sleep(min(LOOK_EVERY_S, deadline.left_s()))
        return True

    def _others_delivered(self, wanted: Numbers) -> bool:
        return not any(self.waiting(shipper, wanted) for shipper in self.shippers)


def last_of_all(folder: RunFolder) -> dict[str, int]:
    """Return the number of the last readable record of each writer, without reading more than the files' ends."""
    numbers = {}
    for wid, path in folder.journals().items():
        try:
            with path.open("rb", buffering=0) as file:
                numbers[wid] = last_numbers(file.fileno(), os.fstat(file.fileno()).st_size)[0]
        except OSError as error:
            log.debug("cannot look at the end of %s: %s", path, error)
    return numbers


class Keeper:
    """A thread that each second has the journal fsynced, and looks whether the delivery is to be taken over.

    Args:
        delivery: what it looks after.
        wid: in whose name ``alive.json`` is renewed.
        sync: fsyncs what was journaled.
    """

    def __init__(self, delivery: RunDelivery, wid: str, sync: Callable[[], None]) -> None:
        self._delivery = delivery
        self._wid = wid
        self._sync = sync
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lezea-keeper", daemon=True)

    def start(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: the interpreter gives no new threads.
        """
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end."""
        self._stopping.set()

    def join(self, deadline: Deadline) -> None:
        """Wait for its end."""
        if self._thread.is_alive():
            self._thread.join(deadline.left_s())

    def _keep(self) -> None:
        period = 0
        while True:
            if period % ALIVE_PERIODS == 0:
                self._delivery.tell_alive(self._wid)
            period += 1
            if self._stopping.wait(KEEPER_PERIOD_S):
                return
            self._sync()
            self._delivery.take_over()
            if period % ALIVE_PERIODS == 0:
                self._delivery.write_missing_ends()
