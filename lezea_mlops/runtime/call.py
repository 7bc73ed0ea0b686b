"""One call of the facade: what is good of its arguments is recorded, the rest is set down with the reason."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any

from lezea_mlops.events import (
    Cleaner,
    Event,
    NotANumber,
    RejectedInput,
    ScopePairs,
    clean_number,
    element_count,
)
from lezea_mlops.runtime.describing import message_of, shorten
from lezea_mlops.runtime.recorder import Recorder

log = logging.getLogger("lezea_mlops")

MAX_STEP = 2**63 - 1
# How deep a value is taken apart to find the one item of it that raises.
MAX_SEARCH_DEPTH = 10
_PACKAGE = str(Path(__file__).resolve().parent.parent) + os.sep


class BadInput(Exception):
    """An argument that cannot be taken; raised where nothing of the call can be kept without it."""

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
    place. Where the call recorded nothing, the first of them carries the good arguments as ``rest``, so that no good
    value is lost. With ``strict`` the first one then raises ``TypeError`` or ``ValueError``.

    Args:
        name: the method that was called.
        recorder: where its event goes.
        cleaner: cleans its values.
        scope: the scopes of the call.
        warned: what was warned about before.
        strict: mistakes raise.
        given: arguments by name, needed only where the call may end up recording nothing.
    """

    def __init__(
        self,
        name: str,
        recorder: Recorder,
        cleaner: Cleaner,
        scope: ScopePairs,
        warned: Warned,
        strict: bool,
        given: Mapping[str, Any],
    ) -> None:
        self.name = name
        self.scope = scope
        self.recorder = recorder
        self.cleaner = cleaner
        self.recorded = False
        self._warned = warned
        self._strict = strict
        self._given = given
        self._bad: list[BadInput] = []

    def __enter__(self) -> Call:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, BadInput):
            if error not in self._bad:
                self._bad.append(error)
        elif isinstance(error, Exception):
            # An object of the user's whose own methods raise, or a fault of ours: neither may stop the training.
            self._raised("*", None, error)
        elif error is not None:
            return False
        if self._bad:
            self._tell()
        return error is not None

    def record(self, event: Event, *, auto: bool = False) -> None:
        """Record *event* in the scope of the call; one without any field says nothing, and is set aside."""
        if event.fields:
            self.recorded = True
            self.recorder.record(event, self.scope, auto=auto)
        elif not self._bad:
            self.reject("*", None, "nothing was given")

    def reject(self, argument: str, value: Any, reason: str, kind: type[Exception] = ValueError) -> None:
        """Set *argument* aside and go on with the rest of the call."""
        self._bad.append(BadInput(argument, value, reason, kind))

    def step(self, argument: str, value: Any) -> int | None:
        """Return a step as an integer from 0; None if there is none, or a bad one, which is set aside."""
        if type(value) is int and 0 <= value <= MAX_STEP:
            return value
        number = self._number(argument, value, " (a whole number from 0)")
        if number is None:
            return None
        if isinstance(number, str) or number != int(number):
            self.reject(argument, value, "is no whole number")
            return None
        if not 0 <= number <= MAX_STEP:
            self.reject(argument, value, f"is outside 0 to {MAX_STEP}")
            return None
        return int(number)

    def metrics(self, argument: str, value: Any) -> dict[str, Any]:
        """Return the good numbers by name; the others are set aside."""
        if not isinstance(value, Mapping):
            self.reject(argument, value, "is no mapping of names to numbers", TypeError)
            return {}
        found, error = _attempt(self.cleaner.metrics, value)
        if error is not None:
            found = self._metrics_one_by_one(argument, value)
        good, bad = found
        for name, item, reason in bad:
            self.reject(f"{argument}[{name!r}]", item, reason, TypeError)
        return good  # type: ignore[no-any-return]

    def needed_metrics(self, argument: str, value: Any) -> dict[str, Any]:
        """Return the good numbers by name, where the call says nothing without one.

        Raises:
            BadInput: all of them are bad.
        """
        good = self.metrics(argument, value)
        if not good and self._bad:
            raise self._bad[-1]
        return good

    def number(self, argument: str, value: Any) -> int | float | str | None:
        """Return a number; None if there is none, or a bad one, which is set aside."""
        return self._number(argument, value)

    def quantity(self, argument: str, value: Any, maximum: float) -> int | float | None:
        """Return an amount of something, from 0 to *maximum*; None if there is none, or a bad one, which is set aside.

        No amount is negative or NaN; one above the maximum is a mistake of units, and would spoil all sums.
        """
        number = self._number(argument, value)
        if number is None:
            return None
        if isinstance(number, str) or not 0 <= number <= maximum:
            self.reject(argument, value, f"is no amount from 0 to {maximum:g}")
            return None
        return number

    def needed_number(self, argument: str, value: Any) -> int | float | str:
        """Return a number without which the call says nothing.

        Raises:
            BadInput: it is none.
        """
        if value is None:
            raise BadInput(argument, value, "is None, and a number was expected", TypeError)
        number = self._number(argument, value)
        if number is None:
            raise self._bad[-1]
        return number

    def mapping(self, argument: str, value: Any) -> dict[str, Any] | None:
        """Return a mapping, cleaned; None if there is none, or something else, which is set aside."""
        if value is None:
            return None
        cleaned = self.value(argument, value)
        if isinstance(cleaned, dict) and (isinstance(value, Mapping) or not _is_marked(cleaned)):
            return cleaned
        if cleaned is not None:
            reason = f"is of type {type(value).__name__}, and a mapping of names to values was expected"
            self.reject(argument, value, reason, TypeError)
        return None

    def needed_mapping(self, argument: str, value: Any) -> dict[str, Any]:
        """Return a mapping without which the call says nothing.

        Raises:
            BadInput: it is none.
        """
        if value is None:
            raise BadInput(
                argument, value, "is None, and a mapping of names to values was expected", TypeError
            )
        cleaned = self.mapping(argument, value)
        if cleaned is None:
            raise self._bad[-1]
        return cleaned

    def text(self, argument: str, value: Any) -> str | None:
        """Return text; a number or another plain object is written out; None stays None."""
        if value is None:
            return None
        plain = value.value if isinstance(value, Enum) else value
        return self.converted(argument, value, lambda _: self.cleaner.text(plain))  # type: ignore[no-any-return]

    def needed_text(self, argument: str, value: Any) -> str:
        """Return text without which the call says nothing.

        Raises:
            BadInput: it is None, empty or cannot be written out.
        """
        text = self.text(argument, value)
        if text:
            return text
        if text is None and value is not None:
            raise self._bad[-1]
        found = "None" if value is None else "empty"
        raise BadInput(argument, value, f"is {found}, and text was expected")

    def ids(self, argument: str, value: Any) -> Any:
        """Return ids as something that has a length; one text is one id; None if there are none, or bad ones.

        Arrays and sets stay what they are, for ``value`` knows how to clean them.
        """
        if value is None or isinstance(value, (list, tuple, set, frozenset)):
            return value
        if isinstance(value, (str, bytes)):
            return [value]
        if element_count(value) is not None:
            return value
        if not callable(getattr(value, "__iter__", None)):
            reason = f"is of type {type(value).__name__}, and a list of ids was expected"
            self.reject(argument, value, reason, TypeError)
            return None
        return self.converted(argument, value, list)

    def value(self, argument: str, value: Any, depth: int = 0) -> Any:
        """Return any value, cleaned; items of it that raise are set aside."""
        cleaned, error = _attempt(self.cleaner.clean, value)
        if error is None:
            return cleaned
        if depth < MAX_SEARCH_DEPTH and isinstance(value, Mapping):
            return self._items_one_by_one(argument, value, depth)
        if depth < MAX_SEARCH_DEPTH and isinstance(value, (list, tuple)):
            found = (self.value(f"{argument}[{index}]", item, depth + 1) for index, item in enumerate(value))
            return [item for item in found if item is not None]
        self._raised(argument, value, error)
        return None

    def _items_one_by_one(self, argument: str, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        cleaned: dict[str, Any] = {}
        for key, item in list(value.items()):
            place = f"{argument}[{shorten(key)}]"
            # Cleaned together with its key, whose name may say that it is a secret.
            pair, error = _attempt(self.cleaner.clean, {key: item})
            if error is None:
                cleaned |= pair
                continue
            name = self.converted(place, key, self.cleaner.name)
            inside = None if name is None else self.value(place, item, depth + 1)
            if inside is not None:
                cleaned[name] = inside
        return cleaned

    def _metrics_one_by_one(
        self, argument: str, value: Mapping[Any, Any]
    ) -> tuple[dict[str, Any], list[tuple[str, Any, str]]]:
        good: dict[str, Any] = {}
        bad: list[tuple[str, Any, str]] = []
        for key, item in list(value.items()):
            one, error = _attempt(self.cleaner.metrics, {key: item})
            if error is not None:
                self._raised(f"{argument}[{shorten(key)}]", item, error)
                continue
            good |= one[0]
            bad += one[1]
        return good, bad

    def _number(self, argument: str, value: Any, hint: str = "") -> int | float | str | None:
        if value is None:
            return None
        number, error = _attempt(clean_number, value)
        if isinstance(error, NotANumber):
            self.reject(argument, value, f"{error}{hint}", TypeError)
        elif error is not None:
            self._raised(argument, value, error)
        return number  # type: ignore[no-any-return]

    def converted(self, argument: str, value: Any, convert: Callable[[Any], Any]) -> Any:
        """Return what *convert* makes of *value*; None where it raises, and then the argument is set aside."""
        converted, error = _attempt(convert, value)
        if error is not None:
            self._raised(argument, value, error)
        return converted

    def _raised(self, argument: str, value: Any, error: Exception) -> None:
        """Set an argument aside because its own methods raised *error*."""
        log.debug("%s(): %s raised", self.name, argument, exc_info=error)
        bad = BadInput(argument, value, f"raised {message_of(error)}", type(error))
        bad.__cause__ = error
        self._bad.append(bad)

    def _tell(self) -> None:
        first = self._bad[0]
        rest = {} if self.recorded else self._rest()
        place = _place_of_call()
        kept = "The rest" if self.recorded or rest else "Nothing"
        for bad in self._bad:
            shown, reason = self._shown(bad), self.cleaner.text(bad.reason)
            fields: dict[str, Any] = {"call": self.name, "argument": self.cleaner.name(bad.argument)}
            fields |= {"value": shown, "reason": reason}
            if rest and bad is first:
                fields["rest"] = rest
            with self.recorder.lock:
                self.recorder.counts["rejected_input"] += 1
                self.recorder.record(RejectedInput.of(fields), self.scope)
            # What stands behind the colon differs from case to case of one mistake.
            mistake = bad.reason.partition(":")[0]
            if self._warned.first((self.name, bad.argument.partition("[")[0], mistake, place)):
                log.warning(
                    "%s: %s(): %s %s (%s). %s of the call was kept",
                    place, self.name, bad.argument, reason, shown, kept,
                )  # fmt: skip
        if self._strict:
            kind = TypeError if issubclass(first.kind, TypeError) else ValueError
            raise kind(
                f"{self.name}(): {first.argument} {self.cleaner.text(first.reason)} ({self._shown(first)})"
            ) from first.__cause__

    def _shown(self, bad: BadInput) -> str:
        """Return a short description of a bad value, without secrets: in ``metrics['password']`` all of it is one."""
        name = bad.argument.rpartition("[")[2].strip("]'\"")
        return str(self.cleaner.clean({name: shorten(bad.value)})[name])

    def _rest(self) -> dict[str, Any]:
        """Return the good arguments of a call that recorded nothing."""
        bad = {bad.argument.partition("[")[0] for bad in self._bad}
        cleaned = {
            name: self.value(name, value)
            for name, value in self._given.items()
            if value is not None and name not in bad
        }
        return {name: value for name, value in cleaned.items() if value is not None}


def _attempt(convert: Callable[[Any], Any], value: Any) -> tuple[Any, Exception | None]:
    """Return what *convert* makes of a user's value, or the error: an object may raise anything when looked at."""
    try:
        return convert(value), None
    except Exception as error:  # noqa: BLE001 (one of the two places where all is absorbed: the facade)
        return None, error


def _is_marked(cleaned: Mapping[str, Any]) -> bool:
    """Tell whether a cleaned value is an object only because JSON has no word for what it was."""
    return any(name.startswith("$") for name in cleaned)


def _place_of_call() -> str:
    """Return file and line of the first frame outside this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
