"""Delivering for ever: look at the runs every few seconds, deliver what waits, leave alone what others deliver."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from lezea_mlops.delivery import Breaker
from lezea_mlops.journal import COURIER_WRITER, RunFolder, is_writing
from lezea_mlops.runtime.replay import ELSEWHERE, Delivered

ROUND_S = 3.0


class Interruption:
    """Ctrl-C and SIGTERM end what stands in its ``with`` block, wherever it is, and are no error.

    A delivery may be cut short anywhere: it goes on from its cursor the next time.
    """

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> bool:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        return kind is not None and issubclass(kind, KeyboardInterrupt)

    def wait(self, seconds: float) -> None:
        """Let time pass; the one place where a watching process waits."""
        if self._asked:
            # An exception that is raised inside a destructor or a callback is lost; this is the second one.
            raise KeyboardInterrupt
        time.sleep(seconds)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        raise KeyboardInterrupt


class Watch:
    """Delivers what waits in many runs, and tells what changed.

    Args:
        attempt: delivers a run; told whether it was done before.
        tell: told of each change.
    """

    def __init__(
        self, attempt: Callable[[RunFolder, bool], list[Delivered]], tell: Callable[[Delivered], None]
    ) -> None:
        self._attempt = attempt
        self._tell = tell
        self._known: dict[Path, _Known] = {}

    def go_on(self, folders: Callable[[], Sequence[RunFolder]], interruption: Interruption) -> None:
        """Look at the runs again and again, new ones included, until interrupted."""
        while True:
            # A run that is deleted while the folder is listed is not there the next time.
            with contextlib.suppress(FileNotFoundError):
                for folder in folders():
                    self.look_at(folder)
                    interruption.wait(0)
            interruption.wait(ROUND_S)

    def look_at(self, folder: RunFolder) -> None:
        """Deliver a run if something of it changed, or failed before and a try is due."""
        if not folder.journals():
            # It was deleted; a delivery would make its folder again.
            return
        known = self._known.setdefault(folder.path, _Known())
        if is_writing(folder, COURIER_WRITER) is not False or not known.breaker.allows(time.monotonic()):
            return
        present = _signature(folder)
        if present == known.delivered:
            return
        reports = self._attempt(folder, known.tried)
        if any(report.error == ELSEWHERE for report in reports):
            return
        known.tried = True
        if any(report.error for report in reports):
            known.breaker.failed(time.monotonic())
        else:
            known.breaker.succeeded()
            known.delivered = present
        for report in reports:
            if report.records or report.rejected or report.error != known.errors.get(report.sink):
                self._tell(report)
            known.errors[report.sink] = report.error


class _Known:
    """What a watch remembers of a run."""

    def __init__(self) -> None:
        self.tried = False
        self.delivered: object = None
        self.errors: dict[str, str | None] = {}
        # The delivery has tried three times itself; from then on there are ever longer pauses.
        self.breaker = Breaker(trip_after=1)


def _signature(folder: RunFolder) -> object:
    """Return what changes whenever there may be something to deliver: sizes, and whether the run's process lives."""
    sizes = []
    for wid, path in folder.journals().items():
        with contextlib.suppress(OSError):
            # What cannot be looked at now is looked at again; the delivery says what is wrong with it.
            sizes.append((wid, path.stat().st_size))
    return tuple(sizes), is_writing(folder)
