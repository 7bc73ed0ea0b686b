"""One call of the facade: what is good of its arguments is recorded, the rest is set down with the reason."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from reprlib import Repr
from types import TracebackType
from typing import Any

from lezea_mlops.events import Cleaner, Event, NotANumber, RejectedInput, clean_number
from lezea_mlops.runtime.figures import ScopePairs
from lezea_mlops.runtime.recorder import Recorder

log = logging.getLogger("lezea_mlops")

MAX_STEP = 2**63 - 1
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 200
_PACKAGE = str(Path(__file__).resolve().parent.parent) + os.sep


class BadInput(Exception):
    """An argument without which nothing of the call can be kept."""

    def __init__(self, argument: str, value: Any, reason: str, kind: type[Exception] = ValueError) -> None:
        super().__init__(reason)
        self.argument, self.value, self.reason, self.kind = argument, value, reason, kind


class Warned:
    """Remembers which mistakes were told already, so that each is told once per kind and place."""

    def __init__(self) -> None:
        self._seen: set[tuple[Any, ...]] = set()
        self._lock = threading.Lock()

    def first(self, key: tuple[Any, ...]) -> bool:
        """Tell whether *key* is new."""
        with self._lock:
            if key in self._seen or len(self._seen) >= 1_000:
                return False
            self._seen.add(key)
            return True


class Call:
    """Collects the arguments of one call; as a context manager it absorbs what they did wrong.

    On leaving, every bad argument is journaled as ``rejected_input``, counted, and warned about once per kind and
    place. With ``strict`` the first one then raises ``TypeError`` or ``ValueError``.
    """

    def __init__(
        self, name: str, recorder: Recorder, cleaner: Cleaner, scope: ScopePairs, warned: Warned, strict: bool
    ) -> None:
        self.name = name
        self.scope = scope
        self.recorder = recorder
        self.cleaner = cleaner
        self._warned = warned
        self._strict = strict
        self._bad: list[BadInput] = []

    def __enter__(self) -> Call:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, BadInput):
            self._bad.append(error)
        elif isinstance(error, Exception):
            # An object of the user's whose own methods raise, or a fault of ours: neither may stop the training.
            log.debug("%s: an unexpected error", self.name, exc_info=error)
            self._bad.append(BadInput("*", None, f"{type(error).__name__}: {error}", type(error)))
        elif error is not None:
            return False
        if self._bad:
            self._tell()
        return error is not None

    def record(self, event: Event, *, auto: bool = False) -> None:
        """Record *event* in the scope of the call."""
        self.recorder.record(event, self.scope, auto=auto)

    def reject(self, argument: str, value: Any, reason: str, kind: type[Exception] = ValueError) -> None:
        """Set *argument* aside and go on with the rest of the call."""
        self._bad.append(BadInput(argument, value, reason, kind))

    def step(self, argument: str, value: Any) -> int | None:
        """Return a step as an integer from 0; None if there is none, or a bad one, which is set aside."""
        if value is None:
            return None
        try:
            number = clean_number(value)
        except NotANumber as error:
            self.reject(argument, value, f"{error} (a whole number from 0)", TypeError)
            return None
        if isinstance(number, str) or number != int(number):
            self.reject(argument, value, "is no whole number")
            return None
        if not 0 <= number <= MAX_STEP:
            self.reject(argument, value, f"is outside 0 to {MAX_STEP}")
            return None
        return int(number)

    def metrics(self, argument: str, value: Any) -> dict[str, Any]:
        """Return the good numbers by name; the others are set aside.

        Raises:
            BadInput: it is no mapping, or nothing in it is good.
        """
        if not isinstance(value, Mapping):
            raise BadInput(argument, value, "is no mapping of names to numbers", TypeError)
        good, bad = self.cleaner.metrics(value)
        for name, item, reason in bad:
            self.reject(f"{argument}[{name!r}]", item, reason, TypeError)
        return good

    def number(self, argument: str, value: Any) -> int | float | str | None:
        """Return a number; None if there is none, or a bad one, which is set aside."""
        if value is None:
            return None
        try:
            return clean_number(value)
        except NotANumber as error:
            self.reject(argument, value, str(error), TypeError)
            return None

    def needed_number(self, argument: str, value: Any) -> int | float | str:
        """Return a number without which the call says nothing.

        Raises:
            BadInput: it is none.
        """
        try:
            return clean_number(value)
        except NotANumber as error:
            raise BadInput(argument, value, str(error), TypeError) from None

    def mapping(self, argument: str, value: Any) -> dict[str, Any] | None:
        """Return a mapping, cleaned; None if there is none, or something else, which is set aside."""
        if value is None:
            return None
        try:
            return self.cleaner.clean_mapping(value)
        except TypeError as error:
            self.reject(argument, value, str(error), TypeError)
            return None

    def needed_mapping(self, argument: str, value: Any) -> dict[str, Any]:
        """Return a mapping without which the call says nothing.

        Raises:
            BadInput: it is none.
        """
        try:
            return self.cleaner.clean_mapping(value)
        except TypeError as error:
            raise BadInput(argument, value, str(error), TypeError) from None

    def text(self, argument: str, value: Any) -> str | None:
        """Return text; a number or another plain object is written out; None stays None."""
        return None if value is None else self.cleaner.text(getattr(value, "value", value))

    def needed_text(self, argument: str, value: Any) -> str:
        """Return text without which the call says nothing.

        Raises:
            BadInput: it is None or empty.
        """
        text = self.text(argument, value)
        if not text:
            raise BadInput(argument, value, "is empty, and text was expected")
        return text

    def value(self, value: Any) -> Any:
        """Return any value, cleaned."""
        return self.cleaner.clean(value)

    def _tell(self) -> None:
        for bad in self._bad:
            shown = shorten(bad.value)
            self.recorder.counts["rejected_input"] += 1
            self.recorder.record(
                RejectedInput(
                    call=self.name, argument=bad.argument, value=self.cleaner.text(shown), reason=bad.reason
                ),
                self.scope,
            )
            place = _place_of_call()
            if self._warned.first((self.name, bad.argument.partition("[")[0], bad.reason, place)):
                log.warning(
                    "%s: %s(): %s %s (%s). The rest of the call was kept",
                    place, self.name, bad.argument, bad.reason, shown,
                )  # fmt: skip
        if self._strict:
            first = self._bad[0]
            kind = first.kind if issubclass(first.kind, (TypeError, ValueError)) else ValueError
            raise kind(f"{self.name}(): {first.argument} {first.reason} ({shorten(first.value)})")


def shorten(value: Any) -> str:
    """Return a short description of *value*, whatever it is and however large."""
    return _SHORT.repr(value)


def _place_of_call() -> str:
    """Return file and line of the first frame outside this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
