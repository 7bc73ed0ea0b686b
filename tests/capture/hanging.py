"""What does not answer until it is let go, and the patience of who asks it, without a clock."""

from __future__ import annotations

import threading


class Hanging:
    """Something of which a question may hang."""

    def __init__(self) -> None:
        self._hangs = threading.Event()
        self._let_go = threading.Event()

    def hang(self) -> None:
        """Hang until it is let go."""
        self._hangs.set()
        self._let_go.wait()

    def patience(self, finished: threading.Event, _seconds: float) -> bool:
        """Wait for the end of a round, and lose patience as soon as something hangs."""
        while not finished.wait(0.001):
            if self._hangs.is_set():
                self._hangs.clear()
                return False
        return True

    def let_go(self) -> None:
        """Answer what hangs, and wait until all who were left behind have taken note."""
        self._let_go.set()
        for thread in threading.enumerate():
            if thread.name == "lezea-sample":
                thread.join()
