"""The driver that leaves delivery to a courier process: no thread, no network and no backend in this one."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from lezea_mlops._clock import Deadline
from lezea_mlops._process import ProcessIdentity
from lezea_mlops.config import Settings
from lezea_mlops.delivery import CALL_WAIT_S
from lezea_mlops.journal import Cursor, Position
from lezea_mlops.runtime.channel import Channel, Gone, Message
from lezea_mlops.runtime.driver import ATTEND_EVERY_US, Closing, Driver, drop_in_forked_child
from lezea_mlops.runtime.recorder import Recorder
from lezea_mlops.runtime.spawning import CannotSpawn, spawn

log = logging.getLogger("lezea_mlops")

MAX_RESTARTS = 3
# What an answer may take on its way.
ANSWER_MARGIN_S = 0.05
HEALTH_WAIT_S = 1.0
# The courier syncs each second; while it lives no append does.
NEVER_US = 2**62
LATE_SYNC_US = 1_000_000


class CourierDriver:
    """Starts the courier, looks after it, and asks it.

    Args:
        recorder: whose records go.
        settings: where to; they are told to the courier.
        destinations: the names of the cursors, by sink.
        waits: a call waits for its record, at most 50 ms.
        instead: makes the driver that takes over where no courier works; it is not started yet.
    """

    kind = "process"

    def __init__(
        self,
        recorder: Recorder,
        settings: Settings,
        destinations: Mapping[str, str],
        *,
        waits: bool,
        instead: Callable[[], Driver],
    ) -> None:
        self.due_us = 0
        self._recorder = recorder
        self._settings = settings
        self._destinations = destinations
        self._waits = waits
        self._instead = instead
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._turn = threading.Lock()
        self._last_id = 0
        self._starts = 0
        self._was_up = False
        self._ready = False
        self._given_up = False
        self._closed = False
        self._health: dict[str, Any] = {}
        drop_in_forked_child(self)

    @property
    def pid(self) -> int | None:
        """The courier's process id; None while there is none."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the courier.

        Raises:
            CannotSpawn: there is none here.
        """
        mine, its = Channel.pair()
        start = {
            "folder": str(self._recorder.folder.path),
            "wid": self._recorder.wid,
            "parent": ProcessIdentity.of_this_process().stored(),
            "channel": its.fileno(),
            "settings": _as_json(self._settings),
        }
        try:
            self._process = spawn(start, its.fileno(), self._recorder.folder.courier_log)
        except CannotSpawn:
            mine.close()
            raise
        finally:
            its.close()
        self._starts += 1
        self._channel, self._ready = mine, False
        self._recorder.sync_alone_after(NEVER_US)

    # ------------------------------------------------------------------ calls

    def attend(self) -> Driver:
        """Wait for the record that was just written, where that makes sense; else look after the courier."""
        if self._ready:
            answer = self._ask("call", Deadline.after(CALL_WAIT_S + ANSWER_MARGIN_S))
            if answer is not None and answer["ready"]:
                return self
            self._ready = False
        self.due_us = self._recorder.last_ts + ATTEND_EVERY_US
        # Another thread may be in a long wait; it takes note of what happens meanwhile.
        if not self._turn.acquire(blocking=False):
            return self
        try:
            return self._look_after(may_replace=True)
        finally:
            self._turn.release()

    def wait_until_reached(self, deadline: Deadline) -> list[str]:
        """Wait for each destination's first try; return what is wrong with those that took nothing."""
        answer = self._ask("reach", deadline)
        if answer is not None:
            return list(answer["wrong"])
        return [f"{destination}: no answer yet" for destination in self._destinations.values()]

    def flush(self, deadline: Deadline) -> bool:
        """Wait until all that was recorded is delivered everywhere; False if the deadline passed first."""
        answer = self._ask("flush", deadline)
        return answer is not None and bool(answer["delivered"])

    def close(self, deadline: Deadline) -> Closing:
        """Have what waits shipped within the deadline; the courier goes on after it while it makes progress."""
        self._closed = True
        answer = self._ask("close", deadline)
        process = self._process
        self._drop_channel()
        if process is None or answer is None:
            return Closing(self._left())
        if answer["goes_on"]:
            return Closing(answer["left"], process.pid)
        self._reap(process)
        return Closing(answer["left"])

    def health(self) -> dict[str, Any]:
        """Return state and counts by sink, as the courier tells them or, where it does not answer, as last told."""
        answer = self._ask("health", Deadline.after(HEALTH_WAIT_S))
        if answer is not None:
            self._health = answer["sinks"]
        state = "no courier" if self._given_up else "starting" if not self._was_up else "no answer"
        silent = {} if answer is not None else {"state": state}
        left = self._left()
        return {
            sink: self._health.get(sink, _NOTHING_KNOWN) | {"waiting": left[sink]} | silent
            for sink in self._destinations
        }

    def after_fork_in_child(self) -> None:
        """Close the child's copy of the channel; the courier is the parent's."""
        self._drop_channel()
        if self._process is not None:
            # Not a child of this process, which has nothing to wait for.
            self._process.returncode = 0
            self._process = None
        self._closed = True

    # ------------------------------------------------------------------ the courier's life

    def _look_after(self, *, may_replace: bool = False) -> Driver:
        """Take notices, and start the courier again if it has died; return the driver from now on."""
        self._take_notices()
        process = self._process
        if process is None or process.poll() is None or self._given_up:
            return self
        if self._starts > MAX_RESTARTS and not self._was_up and not may_replace:
            return self
        self._drop_channel()
        return self._after_death(process.returncode)

    def _after_death(self, code: int) -> Driver:
        run_id = self._recorder.folder.run_id
        said = _last_line(self._recorder.folder.courier_log) or "it said nothing"
        what = f"the courier of {run_id} ended ({_ending(code)}; {said})"
        self._recorder.sync_alone_after(LATE_SYNC_US)
        if self._starts <= MAX_RESTARTS:
            try:
                self.start()
            except CannotSpawn as error:
                what += f", and no other can be started: {error}"
            else:
                log.warning("%s; another was started", what)
                return self
        self._given_up = True
        if self._was_up or self._closed:
            # One that works and then dies, again and again, would take a thread's process with it.
            log.warning("%s; deliver with: lezea sync %s", what, run_id)
            return self
        log.warning("%s; a thread of this process delivers instead", what)
        driver = self._instead()
        driver.start()
        return driver

    def _take_notices(self) -> None:
        try:
            while self._channel is not None and (message := self._channel.receive()) is not None:
                self._notice(message)
        except Gone:
            # Its end is looked at by its process id, which says more.
            return

    def _notice(self, message: Message) -> None:
        if "log" in message:
            log.log(message["log"], "%s", message["text"])
        elif "started" in message:
            self._was_up = True
        elif "ready" in message and self._waits:
            self._ready, self.due_us = True, 0

    def _ask(self, what: str, deadline: Deadline) -> Message | None:
        """Return the courier's answer; None if there is no courier, or it gives none in time."""
        if not self._turn.acquire(timeout=deadline.left_s()):
            return None
        try:
            self._look_after()
            return self._answer(what, deadline)
        except Gone:
            return None
        finally:
            self._turn.release()

    def _answer(self, what: str, deadline: Deadline) -> Message | None:
        channel = self._channel
        if channel is None:
            return None
        self._last_id += 1
        wanted = {self._recorder.wid: self._recorder.seq}
        # The monotonic clock is one for all processes of a machine, and a courier may take a while to start.
        until_s = deadline.at_s - ANSWER_MARGIN_S
        if not channel.send({"id": self._last_id, "do": what, "until": until_s, "wanted": wanted}):
            return None
        while channel.wait(deadline):
            message = channel.receive()
            if message is None:
                continue
            if message.get("id") == self._last_id:
                return message
            # An answer that came too late for its question says nothing any more.
            if "id" not in message:
                self._notice(message)
        return None

    @staticmethod
    def _reap(process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(HEALTH_WAIT_S)
        except subprocess.TimeoutExpired:
            log.debug("the courier %d takes its time to end", process.pid)

    def _drop_channel(self) -> None:
        channel, self._channel = self._channel, None
        self._ready = False
        if channel is not None:
            channel.close()

    def _left(self) -> dict[str, int]:
        """Return how many records of this process wait, by what the cursors say."""
        wid, seq = self._recorder.wid, self._recorder.seq
        cursors = {
            sink: Cursor(self._recorder.folder.cursor(destination)).state.positions
            for sink, destination in self._destinations.items()
        }
        return {sink: max(0, seq - at.get(wid, Position()).seq) for sink, at in cursors.items()}


_NOTHING_KNOWN: Mapping[str, Any] = {
    "state": "starting", "delivered": 0, "waiting": 0, "rejected": 0, "damaged": 0, "failures": {}, "last_error": None,
}  # fmt: skip


def _as_json(settings: Settings) -> dict[str, Any]:
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return {name: os.fspath(value) if isinstance(value, Path) else value for name, value in values.items()}


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _last_line(path: Path) -> str:
    """Return the last line of a log file, which in Python's tracebacks names the error."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4_096))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""
