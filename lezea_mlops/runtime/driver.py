"""Who calls the shippers: a process beside this one (``courier_driver``) or, here, threads of this process."""

from __future__ import annotations

import collections
import logging
import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lezea_mlops._clock import Deadline
from lezea_mlops.config import Settings
from lezea_mlops.journal import MAIN_WRITER
from lezea_mlops.runtime.delivering import Keeper, Numbers, RunDelivery
from lezea_mlops.runtime.finishing import Finishing
from lezea_mlops.runtime.monitoring_here import Totals, monitor_here
from lezea_mlops.runtime.recorder import Recorder
from lezea_mlops.runtime.remembered import sync_command
from lezea_mlops.sinks.base import Sink

log = logging.getLogger("lezea_mlops")

# How often a call that does not wait looks after its driver, at most.
ATTEND_EVERY_US = 1_000_000
# The keeper syncs each second; an append only does so itself when the keeper is this late.
LATE_SYNC_US = 5_000_000
# With less time left than this, finishers are left to the next delivery.
LEAST_TO_FINISH_S = 0.5


@dataclass(frozen=True)
class Closing:
    """What was left when a driver was closed.

    Attributes:
        left: how many records of this process still wait, by sink.
        courier_pid: the process that goes on delivering them; None if none does.
        elsewhere: another process of the run delivers it.
    """

    left: Mapping[str, int]
    courier_pid: int | None = None
    elsewhere: bool = False


class Driver(Protocol):
    """Delivers what one process records.

    Attributes:
        due_us: from this time stamp of a record on (UTC microseconds) its call has to ``attend``; 0: every call.
        notices: what the monitoring of the run has to tell the training process; whoever takes one removes it.
    """

    due_us: int
    notices: collections.deque[dict[str, Any]]

    @property
    def kind(self) -> str | None:
        """``process`` or ``thread``; None where nothing is delivered."""

    def start(self) -> None:
        """Begin to deliver."""

    def attend(self) -> Driver:
        """Do what a call that is due has to: wait for its record where it waits, and look whether all is well.

        Returns:
            The driver from now on.
        """

    def wait_until_reached(self, deadline: Deadline) -> list[str]:
        """Wait for each destination's first try; return what is wrong with those that took nothing."""

    def flush(self, deadline: Deadline) -> bool:
        """Wait until all that was recorded is delivered everywhere; False if the deadline passed first."""

    def close(self, deadline: Deadline) -> Closing:
        """Ship what waits within the deadline and end; return what is left."""

    def health(self) -> dict[str, Any]:
        """Return state and counts by sink."""

    def usage(self) -> dict[str, Any] | None:
        """Return what the run has used and cost so far; None where nobody adds it up, or gives no answer."""

    def totals(self, deadline: Deadline) -> Totals:
        """Have the totals of the attempt journaled, and return them."""

    def after_fork_in_child(self) -> None:
        """Give back what belongs to the parent."""


class ThreadDriver:
    """Delivers by threads of this process, and keeps the journal on the disk by another.

    Args:
        recorder: whose records go.
        sinks: where to.
        waits: a call waits for its record, at most 50 ms.
        finishers: make files of the run when it has ended, each named as ``package.module:function``.
        settings: how the run is monitored; None: not at all.
    """

    kind = "thread"

    def __init__(
        self,
        recorder: Recorder,
        sinks: Sequence[Sink],
        *,
        waits: bool = True,
        finishers: Sequence[str] = (),
        settings: Settings | None = None,
    ) -> None:
        self._recorder = recorder
        self._waits = waits
        self._delivery = RunDelivery(recorder.folder, sinks)
        self._finishing = Finishing(
            recorder.folder,
            lambda: self._delivery.answering,
            finishers,
            main_is_closing=recorder.wid == MAIN_WRITER,
        )
        self._keeper = Keeper(self._delivery, recorder.wid, recorder.sync)
        self._monitoring = monitor_here(recorder, settings, lambda: self._delivery.delivers, self.health)
        self.notices = self._monitoring.notices
        self.due_us = 0
        drop_in_forked_child(self)

    def start(self) -> None:
        """Start delivering; where another process delivers this run, take over when it ends."""
        self._delivery.take_over()
        self._recorder.sync_alone_after(LATE_SYNC_US)
        try:
            self._keeper.start()
        except RuntimeError as error:
            log.warning(
                "no thread can be started (%s); %s delivers", error, sync_command(self._recorder.folder)
            )
        self._monitoring.start()

    def attend(self) -> ThreadDriver:
        """Let the record that was just written be delivered, waiting at most 50 ms, if calls wait."""
        if self._waits:
            self._delivery.wait_for_call(self._recorder.wid, self._recorder.seq)
        # While a destination is down, a call need not even ask.
        self.due_us = 0 if self._waits and self._delivery.ready else self._recorder.last_ts + ATTEND_EVERY_US
        return self

    def wait_until_reached(self, deadline: Deadline) -> list[str]:
        """Wait for each destination's first try; return what is wrong with those that took nothing."""
        return self._delivery.wait_until_reached(deadline)

    def flush(self, deadline: Deadline) -> bool:
        """Wait until all that was recorded is delivered everywhere; False if the deadline passed first."""
        return self._delivery.flush(self._numbers(), deadline)

    def close(self, deadline: Deadline) -> Closing:
        """Ship what waits within the deadline, end the threads and, if there is time left, run the finishers."""
        self._keeper.stop()
        self._delivery.wait_for_turn(self._numbers(), deadline)
        self._delivery.end(deadline)
        self._delivery.join(deadline)
        self._keeper.join(deadline)
        if self._delivery.ended and deadline.left_s() >= LEAST_TO_FINISH_S:
            self._finishing.begin()
            self._finishing.join(deadline)
            self._recorder.counts["finisher_failed"] += self._finishing.failed
        self._monitoring.stop(deadline)
        elsewhere = self._delivery.is_elsewhere
        return Closing(self._delivery.left(self._numbers()), elsewhere=elsewhere)

    def health(self) -> dict[str, Any]:
        """Return state and counts by sink; ``elsewhere``: another process delivers this run."""
        return self._delivery.health(self._numbers())

    def usage(self) -> dict[str, Any] | None:
        """Return what the run has used and cost so far."""
        return self._monitoring.usage()

    def totals(self, deadline: Deadline) -> Totals:
        """Journal the totals of the attempt, and return them."""
        self._delivery.wait_for_turn(self._numbers(), deadline)
        return self._monitoring.totals(deadline)

    def after_fork_in_child(self) -> None:
        """Close the parent's lock."""
        self._delivery.forget_lock()
        self._finishing.forget_lock()
        self._monitoring.forget()

    def _numbers(self) -> Numbers:
        return {self._recorder.wid: self._recorder.seq}


_DRIVERS: weakref.WeakSet[Driver] = weakref.WeakSet()


def drop_in_forked_child(driver: Driver) -> None:
    """Have *driver* give back, in every forked child, what belongs to the parent."""
    _DRIVERS.add(driver)


def _after_fork_in_child() -> None:
    for driver in list(_DRIVERS):
        driver.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
