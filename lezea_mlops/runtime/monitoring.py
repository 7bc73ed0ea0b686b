"""The live picture of a run: what it uses is sampled, added up and priced, and Prometheus is told, by one thread.

It belongs to whoever drives the delivery, the courier's process or a thread of the training process. Every process of
a run has its own use sampled; one of them, the one that delivers the run, adds all of it up.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from lezea_mlops._clock import Deadline
from lezea_mlops.accounting import Accounts, Budgets
from lezea_mlops.config import Settings
from lezea_mlops.config.settings import NO_PORT
from lezea_mlops.errors import JournalError
from lezea_mlops.events import BudgetReached, Envelope, ResourceLogged, ResourceTotals, RunFinished
from lezea_mlops.journal import COURIER_WRITER, MAIN_WRITER, JournalReader, RunFolder
from lezea_mlops.runtime.exposing import Exposing

if TYPE_CHECKING:
    from lezea_mlops.sinks.prometheus import Outside

log = logging.getLogger("lezea_mlops")

LOOK_EVERY_S = 1.0
# How long one turn reads a journal that is longer, before something else has its turn.
TURN_S = 0.5
# So much of a journal is taken before somebody else may look at the figures.
TURN_BYTES = 1024 * 1024

# So many budgets are told with the figures of a run.
SHOWN_BUDGETS = 100

Fields = Mapping[str, Any]


class Surroundings(Protocol):
    """What the monitoring of a run needs of the process that it happens in."""

    def write(self, type_name: str, fields: Fields) -> bool:
        """Journal a record; False if that cannot be done now."""

    def leads(self) -> bool:
        """Tell whether this process speaks for the whole run."""

    def health(self) -> dict[str, Any]:
        """Return state and counts by sink."""

    def tell(self, notice: dict[str, Any]) -> None:
        """Bring something to the training process."""


@dataclass(frozen=True)
class Watched:
    """The process whose use is sampled.

    Attributes:
        pid: its process id.
        wid: its writer's name.
        attempt: the attempt that it belongs to.
        excluded: children of it that are none of the run's, such as the courier.
    """

    pid: int
    wid: str
    attempt: int
    excluded: Collection[int] = ()


def is_wanted(settings: Settings) -> bool:
    """Tell whether the settings ask for samples, for Prometheus or for a budget."""
    served = settings.prometheus_port != NO_PORT or settings.prometheus_textfile is not None
    asked = settings.sample_period_s > 0 or served or settings.budget_eur is not None
    return settings.mode != "off" and asked


class Monitoring:
    """Samples, adds up, serves.

    Args:
        folder: the run.
        settings: how often, and where Prometheus is served.
        watched: the process that is sampled.
        surroundings: the process that this happens in.
    """

    def __init__(
        self, folder: RunFolder, settings: Settings, watched: Watched, surroundings: Surroundings
    ) -> None:
        self._folder, self._settings, self._watched = folder, settings, watched
        self._surroundings = surroundings
        self._exposing = Exposing(folder.run_id, settings, self._outside, surroundings.tell)
        self._accounts, self._budgets = Accounts(), Budgets()
        self._reader = JournalReader(folder)
        # One thread at a time samples, reads the journal, takes the totals. While the last is held records are written:
        # whoever waits for it has a deadline, or is the thread of the monitoring.
        self._sampling, self._reading, self._finishing = (threading.RLock() for _ in range(3))
        # Held while records are taken or figures are read, for moments only: nothing is journaled meanwhile, for who
        # journals in another thread may hold the recorder and wait for this one.
        self._lock = threading.RLock()
        self._sampler: Any = None
        self._next_sample_s = 0.0
        self._end_seen = self._finished = False
        self._faults: set[str] = set()
        # What scrapes are shown, and when it was made.
        self._shown: Outside | None = None
        self._shown_s = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lezea-monitoring", daemon=True)

    def start(self) -> None:
        """Start the thread; where the interpreter gives none, nothing is sampled or served."""
        try:
            self._thread.start()
        except RuntimeError as error:
            log.warning("no thread can be started (%s); resources are not sampled", error)

    def stop(self) -> None:
        """Let the thread end, and take the run out of what Prometheus is told."""
        self._stopping.set()

    def join(self, deadline: Deadline) -> None:
        """Wait for its end, until the deadline."""
        if self._thread.is_alive():
            self._thread.join(deadline.left_s())

    def forget(self) -> None:
        """Leave thread, sampler and server to the parent, in a forked child."""
        # No lock is taken here: the thread that held it does not exist in the child.
        self._exposing.forget()

    def usage(self, deadline: Deadline) -> dict[str, Any]:
        """Return what the run has used and cost so far, without long tables; as far as it is read by the deadline."""
        self._read_on(deadline)
        return self._usage_now()

    def finish(self, deadline: Deadline) -> dict[str, Any] | None:
        """Take a last sample, journal the totals of the attempt, once, and return them without long tables.

        Returns:
            None where another process speaks for the run, or the deadline passed first.
        """
        if not self._surroundings.leads() or not self._finishing.acquire(timeout=deadline.left_s()):
            return None
        try:
            if not self._finished:
                self._sample(deadline)
                if not self._read_on(deadline):
                    return None
                self._check_budgets()
                with self._lock:
                    totals = self._accounts.totals()
                self._finished = self._surroundings.write(ResourceTotals.type, totals)
            return self._usage_now()
        finally:
            self._finishing.release()

    # ------------------------------------------------------------------ the thread

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._turn()
                except Exception as error:  # noqa: BLE001 (what only watches a run must not end by itself, nor end it)
                    self._tell_fault(error)
                self._stopping.wait(self._pause_s())
        finally:
            self._exposing.end()
            with self._sampling:
                if self._sampler is not None:
                    self._sampler.close()

    def _turn(self) -> None:
        """Do what is due: sample, take what was journaled meanwhile, and do what follows from it."""
        self._sample_if_due()
        if not self._surroundings.leads():
            return
        caught_up = self._read_on(Deadline.after(TURN_S))
        self._exposing.renew()
        if not caught_up:
            # What is read later may say that a budget was told of.
            return
        with self._finishing:
            # The end of the run waits until what is due now is told.
            if not self._finished:
                self._check_budgets()
        if self._end_seen:
            self.finish(Deadline.after(TURN_S))

    def _tell_fault(self, error: Exception) -> None:
        kind = type(error).__name__
        if kind not in self._faults:
            self._faults.add(kind)
            log.warning(
                "the monitoring of %s goes on without a part: %r", self._folder.path, error, exc_info=error
            )

    def _pause_s(self) -> float:
        until_sample_s = (
            self._next_sample_s - time.monotonic() if self._settings.sample_period_s else LOOK_EVERY_S
        )
        return max(0.0, min(LOOK_EVERY_S, until_sample_s))

    def _sample_if_due(self) -> None:
        period_s = self._settings.sample_period_s
        if not period_s or time.monotonic() < self._next_sample_s:
            return
        # Never two in a row after a pause of the machine.
        self._next_sample_s = time.monotonic() + period_s
        self._sample(Deadline.after(period_s))

    def _sample(self, deadline: Deadline) -> None:
        if not self._settings.sample_period_s or self._finished:
            return
        if not self._sampling.acquire(timeout=deadline.left_s()):
            return
        try:
            if self._sampler is None:
                self._sampler = self._new_sampler()
            fields = self._sampler.sample()
        finally:
            self._sampling.release()
        if fields:
            self._surroundings.write(ResourceLogged.type, fields)

    def _new_sampler(self) -> Any:
        # psutil and NVML are loaded where something is sampled, and nowhere else.
        from lezea_mlops.capture.usage import UsageSampler

        return UsageSampler(
            self._watched.pid, self._watched.wid, self._folder.path, self._settings.sample_period_s,
            excluded=self._watched.excluded,
        )  # fmt: skip

    def _read_on(self, deadline: Deadline) -> bool:
        """Take the records behind those that were taken; False if the deadline passed first."""
        if not self._reading.acquire(timeout=deadline.left_s()):
            return False
        try:
            self._exposing.begin()
            records = iter(self._reader)
            while turn := _next_turn(records):
                # Who asks for figures meanwhile need not wait for all of a long journal.
                with self._lock:
                    for record in turn:
                        self._take(record)
                if deadline.passed():
                    return False
        finally:
            self._reading.release()
        return True

    def _take(self, record: Envelope) -> None:
        scope = tuple((level, identity) for level, identity in record.scope)
        self._accounts.observe(record.type, record.payload, scope, record.ts, record.att)
        self._budgets.observe(record.type, record.payload)
        self._exposing.observe(record)
        if record.type == RunFinished.type and record.wid in (MAIN_WRITER, COURIER_WRITER):
            self._end_seen = self._end_seen or record.att == self._watched.attempt

    def _check_budgets(self) -> None:
        with self._lock:
            if not self._budgets:
                return
            due = self._budgets.reached(self._accounts.costs_only())
        for fields in due:
            self._surroundings.write(BudgetReached.type, fields)
            self._surroundings.tell({"budget": fields})

    def _outside(self) -> Outside:
        """Return what a scrape shows beside what the records say; made once a second, however many ask."""
        from lezea_mlops.sinks.prometheus import Outside

        health = self._surroundings.health()
        with self._lock:
            now_s = time.monotonic()
            if self._shown is None or now_s - self._shown_s > LOOK_EVERY_S:
                live = self._accounts.live()
                self._shown = Outside(live["resources"], live["costs"], health, self._budgets.as_dict())
                self._shown_s = now_s
            return replace(self._shown, sinks=health)

    def _usage_now(self) -> dict[str, Any]:
        with self._lock:
            told = self._accounts.totals_only()
            budgets = dict(islice(self._budgets.as_dict().items(), SHOWN_BUDGETS))
        # The training process has these itself, and a message between processes has an end.
        costs = {name: value for name, value in told["costs"].items() if name not in ("business", "scopes")}
        return {"resources": told["resources"], "costs": costs, "budgets": budgets}


def _next_turn(records: Iterator[Envelope]) -> list[Envelope]:
    """Return the next records, about a megabyte of them; none at the present end."""
    turn: list[Envelope] = []
    size_bytes = 0
    try:
        for record in records:
            turn.append(record)
            size_bytes += record.size_bytes
            if size_bytes >= TURN_BYTES:
                break
    except (JournalError, OSError) as error:
        log.debug("the live picture cannot read on: %s", error)
    return turn
