"""The driver that leaves delivery to a courier process: no thread, no network and no backend in this one."""

from __future__ import annotations

import collections
import logging
import os
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from lezea_mlops._clock import Deadline
from lezea_mlops._process import ProcessIdentity
from lezea_mlops.config import Settings
from lezea_mlops.delivery import CALL_WAIT_S
from lezea_mlops.journal import Cursor, Position
from lezea_mlops.runtime.channel import Channel, Conversation, Gone, Message
from lezea_mlops.runtime.driver import ATTEND_EVERY_US, Closing, Driver, drop_in_forked_child
from lezea_mlops.runtime.monitoring_here import Totals
from lezea_mlops.runtime.recorder import Recorder
from lezea_mlops.runtime.remembered import sync_command
from lezea_mlops.runtime.spawning import CannotSpawn, leave_behind, reap_left_behind, spawn, wait_for_end
from lezea_mlops.runtime.surroundings import MAX_NOTICES

log = logging.getLogger("lezea_mlops")

MAX_RESTARTS = 3
# It is up within a second; on a busy machine with its files on a network it may take many.
COME_UP_S = 60.0
# What an answer may take on its way; and what that of a busy courier may, as a part of the time there is.
ANSWER_MARGIN_S = 0.05
CLOSING_MARGIN = 0.1
LONGEST_MARGIN_S = 1.0
HEALTH_WAIT_S = 1.0
LONGEST_WAIT_S = 365 * 86_400.0
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
        finishers: make files of the run when it has ended; the courier runs them.
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
        finishers: Sequence[str] = (),
    ) -> None:
        self.due_us = 0
        self._recorder = recorder
        self._settings = settings
        self._destinations = destinations
        self._waits = waits
        self._instead = instead
        self._finishers = finishers
        self._process: subprocess.Popen[bytes] | None = None
        self._conversation: Conversation | None = None
        # Held by the thread that starts the courier or looks after it; a signal's handler may end the run meanwhile.
        self._turn = threading.RLock()
        self._starts = 0
        self._was_up = False
        # When the present one must be up; None once it is.
        self._up_by: Deadline | None = None
        self._ready = False
        self._given_up = False
        # How the last one ended that did.
        self._last_end: str | None = None
        self._log_start = 0
        self._told_at_the_end = False
        self._health: dict[str, Any] = {}
        self.notices: collections.deque[dict[str, Any]] = collections.deque(maxlen=MAX_NOTICES)
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
        self._starts += 1
        reap_left_behind()
        try:
            mine, its = Channel.pair()
        except OSError as error:
            raise CannotSpawn(str(error)) from error
        start = {
            "folder": str(self._recorder.folder.path),
            "wid": self._recorder.wid,
            "attempt": self._recorder.attempt,
            "parent": ProcessIdentity.of_this_process().stored(),
            "channel": its.fileno(),
            "settings": _as_json(self._settings),
            "finishers": list(self._finishers),
        }
        self._log_start = _size(self._recorder.folder.courier_log)
        try:
            self._process = spawn(start, its.fileno(), self._recorder.folder.courier_log)
        except CannotSpawn:
            mine.close()
            raise
        finally:
            its.close()
        self._conversation, self._ready = Conversation(mine, self._notice), False
        self._up_by = Deadline.after(COME_UP_S)
        self._recorder.sync_alone_after(NEVER_US)

    # ------------------------------------------------------------------ calls

    def attend(self) -> Driver:
        """Wait for the record that was just written, where that makes sense; else look after the courier."""
        if self._ready and self._waited_for_record():
            return self
        self.due_us = self._recorder.last_ts + ATTEND_EVERY_US
        # Another thread does it already.
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
        why = self._last_end or "no answer yet"
        return [f"{destination}: {why}" for destination in self._destinations.values()]

    def flush(self, deadline: Deadline) -> bool:
        """Wait until all that was recorded is delivered everywhere; False if the deadline passed first."""
        answer = self._ask("flush", deadline)
        # Without an answer the cursors still tell what was delivered.
        return bool(answer["delivered"]) if answer is not None else not any(self._left().values())

    def close(self, deadline: Deadline) -> Closing:
        """Have what waits shipped within the deadline; the courier goes on after it while it makes progress."""
        # Without an answer nobody knows whether it goes on.
        margin_s = max(ANSWER_MARGIN_S, min(CLOSING_MARGIN * deadline.left_s(), LONGEST_MARGIN_S))
        answer = self._ask("close", deadline, margin_s)
        process = self._let_go(deadline)
        if process is None:
            return Closing(self._left())
        if answer is None:
            leave_behind(process)
            return Closing(self._left())
        self._health, self._told_at_the_end = answer["sinks"], True
        self._recorder.counts["finisher_failed"] += answer["finisher_failed"]
        if not answer["goes_on"]:
            wait_for_end(process, deadline)
        leave_behind(process)
        return Closing(answer["left"], process.pid if answer["goes_on"] else None, answer["elsewhere"])

    def health(self) -> dict[str, Any]:
        """Return state and counts by sink, as the courier tells them or, where it does not answer, as last told."""
        answer = self._ask("health", Deadline.after(HEALTH_WAIT_S))
        if answer is not None:
            self._health = answer["sinks"]
        silent = {} if answer is not None or self._told_at_the_end else {"state": self._silence()}
        left = self._left()
        return {
            sink: self._health.get(sink, _NOTHING_KNOWN) | {"waiting": left[sink]} | silent
            for sink in self._destinations
        }

    def usage(self) -> dict[str, Any] | None:
        """Return what the run has used and cost so far; None where the courier gives no answer."""
        answer = self._ask("usage", Deadline.after(HEALTH_WAIT_S))
        return None if answer is None else answer["usage"]

    def totals(self, deadline: Deadline) -> Totals:
        """Have the totals of the attempt journaled, and return them."""
        answer = self._ask("totals", deadline)
        if answer is not None and answer["usage"] is not None:
            return Totals(answer["usage"])
        # One that is slow, or does not speak for the run, sees the end of the attempt in the journal.
        process = self._process
        return Totals(None, process is not None and not self._given_up and process.poll() is None)

    def after_fork_in_child(self) -> None:
        """Close the child's copy of the channel; the courier is the parent's."""
        self._turn = threading.RLock()
        self._drop_channel()
        if self._process is not None:
            # Not a child of this process, which has nothing to wait for.
            self._process.returncode = 0
            self._process = None

    # ------------------------------------------------------------------ the courier's life

    def _look_after(self, *, may_replace: bool = False) -> Driver:
        """Take notices, and start the courier again if it has died; return the driver from now on."""
        self._take_notices()
        process = self._process
        if process is None or self._given_up:
            return self
        if self._up_by is not None and self._up_by.passed():
            # It hangs where it cannot be asked, for instance in a file system that is gone.
            process.kill()
            wait_for_end(process, Deadline.after(ANSWER_MARGIN_S))
        elif process.poll() is None:
            return self
        self._drop_channel()
        leave_behind(process)
        return self._after_death(process.returncode, may_replace)

    def _after_death(self, code: int, may_replace: bool) -> Driver:
        run_id = self._recorder.folder.run_id
        said = _last_words(self._recorder.folder.courier_log, self._log_start) or "it said nothing"
        late = self._up_by is not None and self._up_by.passed()
        how = f"it was not up within {COME_UP_S:g} s" if late else _ending(code)
        what = self._last_end = f"the courier of {run_id} ended ({how}; {said})"
        self._recorder.sync_alone_after(LATE_SYNC_US)
        if self._starts <= MAX_RESTARTS:
            try:
                self.start()
            except CannotSpawn as error:
                what += f", and no other can be started: {error}"
                if self._starts <= MAX_RESTARTS:
                    # Where memory is short it may be possible a second later.
                    return self
            else:
                # One that never comes up is told of once, when that is known.
                log.log(logging.WARNING if self._was_up else logging.INFO, "%s; another was started", what)
                return self
        if not self._was_up and not may_replace:
            # Only a call that records goes over to another driver.
            return self
        self._given_up = True
        if self._was_up:
            # One that works and then dies, again and again, would take a thread's process with it.
            log.warning("%s; deliver with: %s", what, sync_command(self._recorder.folder))
            return self
        log.warning("%s; a thread of this process delivers instead", what)
        driver = self._instead()
        driver.start()
        return driver

    def _take_notices(self) -> None:
        try:
            if self._conversation is not None:
                self._conversation.take_notices()
        except Gone:
            # Its end is looked at by its process id, which says more.
            return

    def _notice(self, message: Message) -> None:
        # Whatever it says, it is up.
        self._was_up, self._up_by = True, None
        if "log" in message:
            log.log(message["log"], "%s", message["text"])
        elif "tell" in message:
            self.notices.append(message["tell"])
        elif "ready" in message and self._waits:
            # An answer to a call, too late for it, tells as much as a notice.
            self._ready = bool(message["ready"])
            if self._ready:
                self.due_us = 0

    def _waited_for_record(self) -> bool:
        """Wait until the courier has delivered the record; False if it does not say that waiting makes sense."""
        deadline = Deadline.after(CALL_WAIT_S)
        try:
            answer = self._put("call", deadline, deadline)
        except Gone:
            answer = None
        self._ready = answer is not None and bool(answer["ready"])
        return self._ready

    def _ask(self, what: str, deadline: Deadline, margin_s: float = ANSWER_MARGIN_S) -> Message | None:
        """Return the courier's answer, which it is to give a margin earlier; None if it gives none in time."""
        # An endless wait is none that the system's calls know.
        deadline = Deadline.after(min(deadline.left_s(), LONGEST_WAIT_S))
        its_deadline = Deadline(deadline.at_s - margin_s)
        while self._turn.acquire(timeout=deadline.left_s()):
            try:
                self._look_after()
                process = self._process
            finally:
                self._turn.release()
            try:
                return self._put(what, deadline, its_deadline)
            except Gone:
                # It has died; the next one, if there is one, is asked again.
                if process is None or not wait_for_end(process, deadline):
                    return None
        return None

    def _put(self, what: str, deadline: Deadline, its_deadline: Deadline) -> Message | None:
        conversation = self._conversation
        if conversation is None:
            return None
        wanted = {self._recorder.wid: self._recorder.seq}
        # The monotonic clock is one for all processes of a machine, and a courier may take a while to start.
        return conversation.ask({"do": what, "until": its_deadline.at_s, "wanted": wanted}, deadline)

    def _silence(self) -> str:
        """Return why the courier gives no answer."""
        if self._given_up:
            return "no courier"
        return "no answer" if self._up_by is None else "starting"

    def _let_go(self, deadline: Deadline) -> subprocess.Popen[bytes] | None:
        # A thread that starts another courier, or another driver, may hold it for long.
        has_turn = self._turn.acquire(timeout=min(deadline.left_s() + ANSWER_MARGIN_S, LONGEST_WAIT_S))
        try:
            process, self._process = self._process, None
            self._drop_channel()
        finally:
            if has_turn:
                self._turn.release()
        return process

    def _drop_channel(self) -> None:
        conversation, self._conversation = self._conversation, None
        self._ready = False
        if conversation is not None:
            conversation.close()

    def _left(self) -> dict[str, int]:
        """Return how many records of this process wait, by what the cursors say."""
        wid, seq = self._recorder.wid, self._recorder.seq
        cursors = {
            sink: Cursor(self._recorder.folder.cursor(destination)).state.positions
            for sink, destination in self._destinations.items()
        }
        return {sink: max(0, seq - at.get(wid, Position()).seq) for sink, at in cursors.items()}


_NOTHING_KNOWN: Mapping[str, Any] = {
    "state": "starting", "delivered": 0, "waiting": 0, "lag_s": 0.0, "rejected": 0, "damaged": 0, "failures": {},
    "last_error": None,
}  # fmt: skip


def _as_json(settings: Settings) -> dict[str, Any]:
    # The courier takes the prices from the journal, as every reader does.
    values = {
        field.name: getattr(settings, field.name) for field in fields(settings) if field.name != "rates"
    }
    return {name: os.fspath(value) if isinstance(value, Path) else value for name, value in values.items()}


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _last_words(path: Path, since: int) -> str:
    """Return the last line that a process wrote to a file, which in Python's tracebacks names the error.

    Lines with a date are those of its log, which were told as they came.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(since, os.fstat(file.fileno()).st_size - 4_096))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    last = lines[-1] if lines else ""
    return "" if last[:1].isdigit() else last
