"""The last thing that is done for a run: its finishers are run, and what they made is delivered."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence

from lezea_mlops._clock import Deadline
from lezea_mlops._files import LifeLock
from lezea_mlops.journal import RunFolder
from lezea_mlops.runtime.delivering import RunDelivery, take_delivery_lock
from lezea_mlops.runtime.finishers import run_finishers
from lezea_mlops.sinks.base import Sink

log = logging.getLogger("lezea_mlops")

# What is left after so long is left to others.
LONGEST_DELIVERY_S = 600.0


class Finishing:
    """Runs a run's finishers once in a thread of its own, and delivers what they made.

    It is begun when all else is delivered, or left, and the right to deliver is free again; where another process has
    it, that one does this too, when its time comes. Who waits for it may stop waiting: it goes on while the process
    lives, and what it did not come to is done by the next delivery.

    Args:
        folder: the run.
        sinks: returns where what is made goes, when it is made; nobody else uses these any more then.
        names: the finishers.
        main_is_closing: the process of ``main`` waits for this; else that must have ended before.

    Attributes:
        failed: how many finishers failed.
    """

    def __init__(
        self,
        folder: RunFolder,
        sinks: Callable[[], Sequence[Sink]],
        names: Sequence[str],
        *,
        main_is_closing: bool,
    ) -> None:
        self.failed = 0
        self._folder = folder
        self._names = names
        self._main_is_closing = main_is_closing
        self._sinks = sinks
        self._lock: LifeLock | None = None
        self._delivery: RunDelivery | None = None
        self._once = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def done(self) -> bool:
        """Whether nothing of it is going on."""
        return self._thread is None or not self._thread.is_alive()

    def begin(self) -> None:
        """Start it, unless that was done; where no thread can be started it is left to the next delivery."""
        with self._once:
            if self._thread is not None or not self._names:
                return
            self._thread = threading.Thread(target=self._finish, name="lezea-finishing", daemon=True)
            try:
                self._thread.start()
            except RuntimeError as error:
                # The interpreter is ending.
                log.debug("no thread can be started for the finishers: %s", error)

    def join(self, deadline: Deadline) -> None:
        """Wait for its end, until the deadline."""
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(deadline.left_s())

    def forget_lock(self) -> None:
        """Close the lock's descriptor in a forked child, as ``RunDelivery`` does."""
        if self._lock is not None:
            self._lock.forget()
        if self._delivery is not None:
            self._delivery.forget_lock()

    @contextlib.contextmanager
    def _right(self) -> Iterator[LifeLock | None]:
        """Take the right to deliver for as long as a with-block lasts; None while another process has it."""
        try:
            self._lock = take_delivery_lock(self._folder)
        except OSError as error:
            # Whoever could not deliver for that reason has said so.
            log.debug("cannot lock the delivery of %s: %s", self._folder.path, error)
        try:
            yield self._lock
        finally:
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def _finish(self) -> None:
        finished = run_finishers(
            self._folder, self._right, self._names, main_is_closing=self._main_is_closing
        )
        self.failed = finished.failed
        if finished.made and (sinks := self._sinks()):
            self._delivery = RunDelivery(self._folder, sinks)
            closing = Deadline.after(LONGEST_DELIVERY_S)
            self._delivery.end(closing)
            self._delivery.join(closing)
