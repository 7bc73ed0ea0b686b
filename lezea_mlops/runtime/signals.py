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
from pathlib import Path
from types import FrameType

from lezea_mlops.runtime.ends import SIGNAL_NOTE

Note = Callable[[], object]

# The terminal that is closed ends a program as much as the scheduler that stops it.
_ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))
_NOTES: dict[int, Mapping[int, Note]] = {}


def watch(key: int, prepare: Callable[[Mapping[str, str]], Note]) -> None:
    """Have signals noted for the run *key*, from now until ``unwatch``.

    From another thread than the main one no handler can be installed; one that is there already notes for this run too.

    Args:
        key: of the tracker.
        prepare: makes, of what is to be noted, a function that notes it by one system call.
    """
    _NOTES[key] = {number: prepare({SIGNAL_NOTE: signal.Signals(number).name}) for number in _ENDING}
    if threading.current_thread() is not threading.main_thread():
        return
    caught = _caught_by_anybody()
    for number in _ENDING:
        if signal.getsignal(number) is signal.SIG_DFL and not caught >> (number - 1) & 1:
            signal.signal(number, _note_and_end)


def unwatch(key: int) -> None:
    """Note nothing for this run any more; with the last one the system's default is back."""
    _NOTES.pop(key, None)
    if _NOTES or threading.current_thread() is not threading.main_thread():
        return
    for number in _ENDING:
        if signal.getsignal(number) is _note_and_end:
            signal.signal(number, signal.SIG_DFL)


def _caught_by_anybody() -> int:
    """Return the set of signals with a handler, bit by bit; what a library in C has installed Python does not know."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        # Elsewhere than on Linux only Python's own answer is there.
        return 0
    return next((int(line.partition(":")[2], 16) for line in lines if line.startswith("SigCgt:")), 0)


def _note_and_end(number: int, frame: FrameType | None) -> None:
    for notes in list(_NOTES.values()):
        with contextlib.suppress(OSError):
            # A disk that fails takes no note; the process ends as it would have.
            notes[number]()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


# What a thread that forks had blocked before.
_FORKING = threading.local()


def _before_fork() -> None:
    """Hold our signals back: one that came to a child at its birth would be lost, for Python forgets such then."""
    ours = [number for number in _ENDING if signal.getsignal(number) is _note_and_end]
    _FORKING.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ours) if ours else None


def _after_fork_in_parent() -> None:
    if _FORKING.blocked is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _FORKING.blocked)


def _after_fork_in_child() -> None:
    """Leave signals to the system: the locks are the parent's, and what ends a child says nothing of it."""
    _NOTES.clear()
    if _FORKING.blocked is None:
        return
    for number in _ENDING:
        if signal.getsignal(number) is _note_and_end:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, _FORKING.blocked)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )
