"""The one place that waits: a thread that lets a shipper ship, pauses with it, and drains before it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from lezea_mlops._clock import Deadline, MonotonicClock
from lezea_mlops.delivery.shipper import Shipper, Step

IDLE_S = 0.2
# What a call with ``async_mode=False`` waits for its record, at most.
CALL_WAIT_S = 0.05


class DeliveryLoop:
    """Runs one shipper in a daemon thread.

    Args:
        shipper: what it lets ship.
        clock: tells the time that pauses and deadlines are measured by.
        when_ended: called by the thread when it ends.
        when_turned: called by the thread after each turn; it must neither wait nor raise.

    A caller that waits for its record is let go after 50 ms; from then on nobody waits until the destination has
    taken something again, so that one that hangs costs a program 50 ms and not 50 ms per call.
    """

    def __init__(
        self,
        shipper: Shipper,
        clock: MonotonicClock = time.monotonic,
        when_ended: Callable[[], None] = lambda: None,
        when_turned: Callable[[], None] = lambda: None,
    ) -> None:
        self.shipper = shipper
        self._clock = clock
        self._when_turned = when_turned
        self._when_ended = when_ended
        self._changed = threading.Condition()
        self._woken = False
        self._stop_at: Deadline | None = None
        self._ready = False
        self._behind = False
        self._tries = 0
        self._ended = False
        self._thread = threading.Thread(
            target=self._run, name=f"lezea-{shipper.health.destination}", daemon=True
        )

    def start(self) -> bool:
        """Start the thread; False where the interpreter gives no new threads (it is shutting down)."""
        try:
            self._thread.start()
        except RuntimeError:
            self._ended = True
            return False
        return True

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def wake(self) -> None:
        """Let it look at the journal now."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    @property
    def ready(self) -> bool:
        """Whether a call may wait for its record: not while starting, paused, behind or ending."""
        return self._ready and not self._behind and not self.shipper.breaker.open and self._stop_at is None

    def wait_for_call(self, wid: str, seq: int, deadline: Deadline | None = None) -> bool:
        """Wait until the record is delivered: at most 50 ms, and not at all while that makes no sense.

        Who calls has woken the loop: one that is woken once more looks at the journal once more, for nothing.
        """
        if not self.ready:
            return False
        delivered = self.wait_for({wid: seq}, deadline or Deadline.after(CALL_WAIT_S, self._clock))
        if not delivered:
            self._behind = True
        return delivered

    def wait_for(self, numbers: Mapping[str, int], deadline: Deadline) -> bool:
        """Wait until each writer's record with that number is delivered; False if the deadline passed first."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._has(numbers), deadline.left_s())
            return self._has(numbers)

    def wait_for_first_try(self, deadline: Deadline) -> bool:
        """Wait until the destination took something or failed once; True if it took something."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._tries > 0, deadline.left_s())
        return self._ready

    def ask_to_end(self, deadline: Deadline) -> None:
        """Ship what waits, then end; what is not shipped at the deadline stays in the journal.

        A destination that is down gets one more try, and one that fails again and again ends the wait early.
        """
        with self._changed:
            self._stop_at = deadline
            self.shipper.breaker.retry_now()
            self._changed.notify_all()

    def join(self, deadline: Deadline) -> None:
        """Wait for the end of the thread; it is a daemon, so one that hangs in a sink is left behind."""
        if self._thread.is_alive():
            self._thread.join(deadline.left_s())

    def _has(self, numbers: Mapping[str, int]) -> bool:
        positions = self.shipper.positions
        return all(wid in positions and positions[wid].seq >= seq for wid, seq in numbers.items())

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
            self.shipper.close()
            self._when_ended()

    def _turn(self) -> bool:
        """Ship once and wait as the outcome asks; False when it is time to end."""
        with self._changed:
            self._woken = False
        step = self.shipper.ship_once()
        with self._changed:
            if step in (Step.SHIPPED, Step.FAILED):
                self._tries += 1
            if step is Step.SHIPPED:
                self._ready, self._behind = True, False
            self._changed.notify_all()
            self._when_turned()
            if step is Step.SHIPPED:
                return not self._out_of_time()
            if self._stop_at is not None:
                return self._go_on_closing(step, self._stop_at)
            pause_s = IDLE_S if step is Step.IDLE else self.shipper.breaker.pause_s(self._clock())
            self._changed.wait_for(self._must_act, pause_s)
        return True

    def _go_on_closing(self, step: Step, deadline: Deadline) -> bool:
        if step is Step.IDLE or self.shipper.breaker.open or deadline.passed():
            return False
        self._changed.wait(min(self.shipper.breaker.pause_s(self._clock()), deadline.left_s()))
        return True

    def _must_act(self) -> bool:
        # A pause after a failure is not cut short by new records, only by closing.
        return self._stop_at is not None or (self._woken and self.shipper.breaker.allows(self._clock()))

    def _out_of_time(self) -> bool:
        return self._stop_at is not None and self._stop_at.passed()
