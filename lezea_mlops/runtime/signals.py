"""A signal that ends the process is noted in the journal's lock before it does; nothing else is done then.

A handler is installed only in the main thread and only over the system's default; a handler of the user's is never
replaced. The note is one system call on a descriptor that is open already, so it may happen at any moment, also while
the interrupted code is writing a record. Whoever delivers the run then knows what ended it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Mapping
from types import FrameType

from lezea_mlops.runtime.ends import SIGNAL_NOTE

Note = Callable[[], object]

# The terminal that is closed ends a program as much as the scheduler that stops it.
_ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))
_NOTES: dict[int, Mapping[int, Note]] = {}


def watch(key: int, prepare: Callable[[Mapping[str, str]], Note]) -> None:
    """Have signals noted for the run *key*, from now until ``unwatch``.

    Args:
        key: of the tracker.
        prepare: makes, of what is to be noted, a function that notes it by one system call.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    _NOTES[key] = {number: prepare({SIGNAL_NOTE: signal.Signals(number).name}) for number in _ENDING}
    for number in _ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _note_and_end)


def unwatch(key: int) -> None:
    """Note nothing for this run any more; with the last one the system's default is back."""
    _NOTES.pop(key, None)
    if _NOTES or threading.current_thread() is not threading.main_thread():
        return
    for number in _ENDING:
        if signal.getsignal(number) is _note_and_end:
            signal.signal(number, signal.SIG_DFL)


def _note_and_end(number: int, frame: FrameType | None) -> None:
    for notes in list(_NOTES.values()):
        with contextlib.suppress(OSError):
            # A disk that fails takes no note; the process ends as it would have.
            notes[number]()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


if hasattr(os, "register_at_fork"):
    # The locks are the parent's; the signals of a child say nothing of it.
    os.register_at_fork(after_in_child=_NOTES.clear)
