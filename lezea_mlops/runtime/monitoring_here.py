"""The monitoring of a run by a thread of the training process, and the driver of a run that is only monitored."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lezea_mlops._clock import Deadline
from lezea_mlops.config import Settings
from lezea_mlops.runtime.monitoring import Monitoring, Watched, is_wanted
from lezea_mlops.runtime.recorder import Recorder
from lezea_mlops.runtime.surroundings import InProcess

# Who asks for figures of a run waits so long for them at most.
USAGE_WAIT_S = 1.0


@dataclass(frozen=True)
class Totals:
    """What became of the totals of an attempt.

    Attributes:
        usage: they; None where nobody could tell them in time.
        told_by_others: another process journals them, now or when it has come to the end of the run.
    """

    usage: dict[str, Any] | None
    told_by_others: bool = False


class MonitoringHere:
    """A monitoring in this process, or none.

    Args:
        monitoring: makes what samples and adds up; None where that is not wanted.
        surroundings: this process.

    Attributes:
        notices: what it has to tell.
    """

    def __init__(self, monitoring: Monitoring | None, surroundings: InProcess) -> None:
        self._leads = surroundings.leads
        self.notices: collections.deque[dict[str, Any]] = surroundings.notices
        self._monitoring = monitoring

    def start(self) -> None:
        """Start the thread."""
        if self._monitoring is not None:
            self._monitoring.start()

    def stop(self, deadline: Deadline) -> None:
        """End the thread."""
        if self._monitoring is not None:
            self._monitoring.stop()
            self._monitoring.join(deadline)

    def usage(self) -> dict[str, Any] | None:
        """Return what the run has used and cost so far; None where nobody adds it up."""
        if self._monitoring is None:
            return None
        return self._monitoring.usage(Deadline.after(USAGE_WAIT_S))

    def totals(self, deadline: Deadline) -> Totals:
        """Journal the totals of the attempt, and return them."""
        if self._monitoring is None:
            return Totals(None)
        return Totals(self._monitoring.finish(deadline), not self._leads())

    def forget(self) -> None:
        """Leave the parent's thread and server to the parent, in a forked child."""
        if self._monitoring is not None:
            self._monitoring.forget()
            self._monitoring = None


def monitor_here(
    recorder: Recorder,
    settings: Settings | None,
    leads: Callable[[], bool],
    health: Callable[[], dict[str, Any]],
) -> MonitoringHere:
    """Return the monitoring of this process, not started yet.

    Args:
        recorder: journals the samples.
        settings: how often is sampled and where Prometheus is served; None: nothing of it.
        leads: tells whether this process speaks for the whole run.
        health: returns state and counts by sink.
    """
    surroundings = InProcess(recorder, leads, health)
    if settings is None or not is_wanted(settings):
        return MonitoringHere(None, surroundings)
    watched = Watched(os.getpid(), recorder.wid, recorder.attempt)
    return MonitoringHere(Monitoring(recorder.folder, settings, watched, surroundings), surroundings)
