"""The driver of a run that nothing is delivered of yet: it is monitored, and the journal waits for ``lezea sync``."""

from __future__ import annotations

from typing import Any

from lezea_mlops._clock import Deadline
from lezea_mlops.config import Settings
from lezea_mlops.journal import MAIN_WRITER
from lezea_mlops.runtime.driver import ATTEND_EVERY_US, Closing, drop_in_forked_child
from lezea_mlops.runtime.monitoring_here import Totals, monitor_here
from lezea_mlops.runtime.recorder import Recorder


class UndeliveredDriver:
    """Samples and adds up what a run uses, and delivers nothing.

    Args:
        recorder: whose run it is.
        settings: how it is monitored.
    """

    kind = None

    def __init__(self, recorder: Recorder, settings: Settings) -> None:
        self._recorder = recorder
        self._monitoring = monitor_here(recorder, settings, lambda: recorder.wid == MAIN_WRITER, self.health)
        self.notices = self._monitoring.notices
        self.due_us = 0
        drop_in_forked_child(self)

    def start(self) -> None:
        """Begin to sample."""
        self._monitoring.start()

    def attend(self) -> UndeliveredDriver:
        """Look again in a second: nothing is waited for."""
        self.due_us = self._recorder.last_ts + ATTEND_EVERY_US
        return self

    def wait_until_reached(self, deadline: Deadline) -> list[str]:
        """Return nothing: no destination is to be reached."""
        return []

    def flush(self, deadline: Deadline) -> bool:
        """Return False: nothing is delivered."""
        return False

    def close(self, deadline: Deadline) -> Closing:
        """End the thread."""
        self._monitoring.stop(deadline)
        return Closing({})

    def health(self) -> dict[str, Any]:
        """Return nothing: there is no sink."""
        return {}

    def usage(self) -> dict[str, Any] | None:
        """Return what the run has used and cost so far."""
        return self._monitoring.usage()

    def totals(self, deadline: Deadline) -> Totals:
        """Journal the totals of the attempt, and return them."""
        return self._monitoring.totals(deadline)

    def after_fork_in_child(self) -> None:
        """Leave the parent's thread to the parent."""
        self._monitoring.forget()
