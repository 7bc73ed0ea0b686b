"""The courier: a process of low priority beside a run's process, which delivers what that one journals.

It is started by ``courier_driver``, watches its parent by more than a pid, and outlives it for as long as a sink makes
progress, ten minutes at most. It also makes the journals survive a power loss, and writes down the end of a run whose
process could not.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lezea_mlops._clock import Deadline
from lezea_mlops._process import ProcessIdentity
from lezea_mlops.config import load_settings
from lezea_mlops.journal import MAIN_WRITER, RunFolder
from lezea_mlops.runtime.assembly import build_sinks
from lezea_mlops.runtime.channel import Channel, Gone, Message
from lezea_mlops.runtime.delivering import Keeper, RunDelivery
from lezea_mlops.runtime.finishing import Finishing
from lezea_mlops.runtime.monitoring import Monitoring, Watched, is_wanted
from lezea_mlops.runtime.own_process import prepare_own_process
from lezea_mlops.runtime.surroundings import InCourier
from lezea_mlops.runtime.syncing import JournalSyncer

log = logging.getLogger("lezea_mlops")

NICENESS = 10
SESSION_NICENESS = 19
# The process that eats the memory is not this one; still, this one is the one that can be spared.
OOM_SCORE = 500
LOOK_EVERY_S = 1.0
LONGEST_STAY_S = 600.0
# How long a run's journals are read for its totals, when its process has ended and they were not read before.
LONGEST_READING_S = 60.0
# How long they are waited for at least before the delivery ends.
TOTALS_TURN_S = 2.0
# When all else is delivered, the parent's end waits so long for what finishers make, at most.
FINISHERS_TURN_S = 1.0
MAX_UNSENT = 100
MAX_TEXT = 4_000
MAX_LOG_BYTES = 1024 * 1024


def main(start: Mapping[str, Any]) -> int:
    """Deliver a run until its process has ended.

    Args:
        start: ``folder``, ``parent`` (identity), ``wid``, ``channel`` (descriptor), ``settings`` by name, and the
            names of ``finishers``.
    """
    _be_modest()
    channel = Channel.of_descriptor(start["channel"])
    notices = Notices(channel)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    log.addHandler(notices)
    _leave_deleted_folder(Path(start["folder"]))
    parent = ProcessIdentity.read(start["parent"])
    assert parent is not None, "the driver always says who it is"
    settings = load_settings(start["settings"], environ={})
    courier = Courier(
        RunFolder(Path(start["folder"])), settings, channel, notices, parent, start["wid"], start["finishers"],
        start["attempt"],
    )  # fmt: skip
    return courier.run()


def _be_modest() -> None:
    """Take what others leave, and tell nobody: neither MLflow's makers, nor by signals meant for the terminal."""
    os.nice(NICENESS)
    # Only Linux has these. Sessions share the processors evenly there, however nice their processes are among
    # themselves; that a whole session is to take what others leave is said in the second file.
    for place, value in (("oom_score_adj", OOM_SCORE), ("autogroup", SESSION_NICENESS)):
        with contextlib.suppress(OSError):
            Path("/proc/self", place).write_text(str(value))
    # A scheduler that ends a job tells every process of it; the parent's end is still to be delivered.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    prepare_own_process()


def _leave_deleted_folder(instead: Path) -> None:
    """Go to another working folder where the parent's was deleted: many a library asks for it when it is imported."""
    try:
        os.getcwd()
    except FileNotFoundError:
        os.chdir(instead)


class Notices(logging.Handler):
    """Carries what is to be told to the parent, whose log it belongs into."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(logging.WARNING)
        self._channel = channel
        self._unsent: collections.deque[Message] = collections.deque(maxlen=MAX_UNSENT)
        self._one_at_a_time = threading.RLock()

    def emit(self, record: logging.LogRecord) -> None:
        """Send a log line."""
        self.send({"log": record.levelno, "text": record.getMessage()[:MAX_TEXT]})

    def send(self, notice: Message) -> None:
        """Send a notice, or keep it until there is room; of too many, the oldest go."""
        with self._one_at_a_time:
            self._unsent.append(notice)
            self.send_again()

    def send_again(self) -> None:
        """Send what is kept."""
        with self._one_at_a_time:
            try:
                while self._unsent and self._channel.send(self._unsent[0]):
                    self._unsent.popleft()
            except Gone:
                self._unsent.clear()


class Courier:
    """What the process does."""

    def __init__(
        self,
        folder: RunFolder,
        settings: Any,
        channel: Channel,
        notices: Notices,
        parent: ProcessIdentity,
        wid: str,
        finishers: Sequence[str],
        attempt: int,
    ) -> None:
        self._channel = channel
        self._notices = notices
        self._parent = Parent(parent)
        self._told_ready = False
        self._delivery = RunDelivery(folder, build_sinks(settings), self._loop_turned)
        self._finishing = Finishing(
            folder, lambda: self._delivery.answering, finishers, main_is_closing=wid == MAIN_WRITER
        )
        self._syncer = JournalSyncer(folder, settings.durability)
        self._keeper = Keeper(self._delivery, f"{wid}'s courier", self._look_around)
        self._speaks_for_run = wid == MAIN_WRITER
        self._monitoring = Monitoring(
            folder,
            settings,
            Watched(parent.pid, wid, attempt, excluded=(os.getpid(),)),
            InCourier(self._delivery, wid, attempt, lambda notice: notices.send({"tell": notice})),
        )
        self._monitors = is_wanted(settings)
        self._asked_to_close = False
        # Set when the loops have been asked to end.
        self._closing: Deadline | None = None
        self._answering: list[threading.Thread] = []

    def run(self) -> int:
        """Serve the parent until it ends or asks to close, deliver what is left, and return the exit code."""
        self._delivery.take_over()
        self._keeper.start()
        self._notices.send({"started": os.getpid()})
        if self._monitors:
            self._monitoring.start()
        while not self._should_leave():
            if self._broken:
                log.error("the delivery of %s ended by itself", self._delivery.folder.run_id)
                return 1
        self._syncer.sync()
        if self._speaks_for_run:
            # Before the end of a process that could not tell it: the end's summary holds the totals.
            self._totals(Deadline.after(LONGEST_READING_S))
        self._delivery.write_missing_ends()
        if self._closing is None:
            self._closing = Deadline.after(LONGEST_STAY_S)
            self._delivery.end(self._closing)
        self._delivery.join(self._closing)
        if self._delivery.ended:
            self._finishing.begin()
            self._finishing.join(self._closing)
        self._keeper.stop()
        self._monitoring.stop()
        last_words = Deadline.after(LOOK_EVERY_S)
        for thread in self._answering:
            thread.join(last_words.left_s())
        self._keeper.join(last_words)
        self._monitoring.join(last_words)
        return 0

    def _should_leave(self) -> bool:
        """Wait for a request, the parent's end or a second, and do what it asks for."""
        poll = select.poll()
        if self._channel.fileno() >= 0:
            poll.register(self._channel.fileno(), select.POLLIN)
        if self._parent.descriptor is not None:
            poll.register(self._parent.descriptor, select.POLLIN)
        poll.poll(LOOK_EVERY_S * 1_000)
        self._notices.send_again()
        self._serve()
        if self._parent.has_ended():
            # What it had to say is on the disk; who ends this process now loses nothing.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if self._asked_to_close:
            return self._closing is not None and (self._delivery.ended or self._closing.passed())
        return self._parent.has_ended()

    @property
    def _broken(self) -> bool:
        """Whether the threads that deliver have ended unasked; a courier without them is none."""
        return not self._asked_to_close and self._delivery.delivers and self._delivery.ended

    def _serve(self) -> None:
        try:
            while (request := self._channel.receive()) is not None:
                self._do(request)
        except Gone:
            # All ends of the parent's are closed; whether it still lives is asked of the system alone.
            self._channel.close()

    def _do(self, request: Message) -> None:
        number, wanted, deadline = request["id"], request["wanted"], Deadline(request["until"])
        match request["do"]:
            case "call":
                [(wid, seq)] = wanted.items()
                delivered = self._delivery.wait_for_call(wid, seq)
                self._told_ready = self._delivery.ready
                self._answer(number, {"delivered": delivered, "ready": self._told_ready})
            case "health":
                self._answer(number, {"sinks": self._delivery.health(wanted)})
            case "usage":
                self._later(number, lambda: {"usage": self._usage(deadline)})
            case "totals":
                self._later(number, lambda: {"usage": self._totals(deadline)})
            case "flush":
                self._later(number, lambda: {"delivered": self._delivery.flush(wanted, deadline)})
            case "reach":
                self._later(number, lambda: {"wrong": self._delivery.wait_until_reached(deadline)})
            case "close":
                self._asked_to_close = True
                self._later(number, lambda: self._close(wanted, deadline))

    def _close(self, wanted: Mapping[str, int], deadline: Deadline) -> Message:
        """Begin to end, and say at the deadline at the latest what is left and whether it goes on.

        A person who waits for the end of a program waits for its records, and hardly for a page about them.
        """
        closing = Deadline.after(LONGEST_STAY_S)
        try:
            self._delivery.wait_for_turn(wanted, deadline)
            if self._speaks_for_run:
                # While there still is the right to write them; a parent that asked long ago does not wait any more.
                self._totals(Deadline.after(max(deadline.left_s() / 2, TOTALS_TURN_S)))
            self._delivery.end(closing)
        finally:
            self._closing = closing
        self._delivery.join(deadline)
        if self._delivery.ended:
            self._finishing.begin()
            self._finishing.join(Deadline.after(min(FINISHERS_TURN_S, deadline.left_s())))
        goes_on = not (self._delivery.ended and self._finishing.done)
        return {
            "left": self._delivery.left(wanted), "sinks": self._delivery.health(wanted), "goes_on": goes_on,
            "elsewhere": self._delivery.is_elsewhere, "finisher_failed": self._finishing.failed,
        }  # fmt: skip

    def _usage(self, deadline: Deadline) -> Message | None:
        return self._monitoring.usage(deadline) if self._monitors else None

    def _totals(self, deadline: Deadline) -> Message | None:
        return self._monitoring.finish(deadline) if self._monitors else None

    def _later(self, number: int, work: Any) -> None:
        """Answer from a thread, so that a long wait keeps nothing else waiting."""
        thread = threading.Thread(target=lambda: self._answer(number, work()), daemon=True)
        self._answering = [other for other in self._answering if other.is_alive()] + [thread]
        thread.start()

    def _answer(self, number: int, answer: Message) -> None:
        # A parent that is gone, or has given up waiting, misses nothing.
        with contextlib.suppress(Gone):
            if not self._channel.send({"id": number} | _shortened(answer)) and "usage" in answer:
                # One that is too long for a message: better none now than a parent that waits.
                self._channel.send({"id": number, "usage": None})

    def _loop_turned(self) -> None:
        """Tell the parent when calls may wait again."""
        ready = self._delivery.ready
        if ready and not self._told_ready:
            self._notices.send({"ready": True})
        self._told_ready = ready

    def _look_around(self) -> None:
        self._syncer.sync()
        _cap(sys.stderr.fileno())


class Parent:
    """The process that started this one.

    Attributes:
        descriptor: becomes readable when it ends; None where the system has none, or once that is known.
    """

    def __init__(self, identity: ProcessIdentity) -> None:
        self._identity = identity
        self._ended = False
        try:
            self.descriptor = os.pidfd_open(identity.pid) if hasattr(os, "pidfd_open") else None
        except OSError:
            # It has ended already, or may not be asked; its identity is looked at each second then.
            self.descriptor = None
        # Its pid may have been another's by then.
        self._look()

    def has_ended(self) -> bool:
        """Tell whether it has ended."""
        if not self._ended:
            self._look()
        return self._ended

    def _look(self) -> None:
        told = self.descriptor is not None and bool(select.select([self.descriptor], [], [], 0)[0])
        if not told and self._identity.exists() is not False:
            return
        self._ended = True
        if self.descriptor is not None:
            # It stays readable: who waited for it would not wait any more.
            os.close(self.descriptor)
            self.descriptor = None


def _shortened(answer: Any) -> Any:
    """Return *answer* with texts that fit a message; an error's may be a whole page."""
    if isinstance(answer, dict):
        return {name: _shortened(value) for name, value in answer.items()}
    return answer[:MAX_TEXT] if isinstance(answer, str) else answer


def _cap(descriptor: int) -> None:
    """Keep a log file from growing for ever."""
    if os.fstat(descriptor).st_size <= MAX_LOG_BYTES:
        return
    with contextlib.suppress(OSError):
        # A full disk takes not even this; the next second comes.
        os.ftruncate(descriptor, 0)
        os.write(descriptor, b"(what stood here was too long and was cut)\n")
