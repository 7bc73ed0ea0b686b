"""Texts that Prometheus takes as values of labels, numbers that it takes as values of series, and a bounded count."""

from __future__ import annotations

import hashlib
import math
from typing import Any

from lezea_mlops.events import as_number

MAX_LABEL = 200
# Distinct things that are told apart while they are counted.
MAX_COUNTED = 10_000
_DIGEST_CHARACTERS = 16


def label_text(value: Any) -> str:
    """Return *value* as the value of a label, at most ``MAX_LABEL`` characters long.

    A text that is too long, or holds what Prometheus refuses, comes as its head and a digest of all of it: different
    texts stay different.
    """
    text = text_of(value)
    if len(text) <= MAX_LABEL and _is_taken(text):
        return text
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:_DIGEST_CHARACTERS]
    head = text[: MAX_LABEL - _DIGEST_CHARACTERS - 1].encode(errors="replace").decode().replace("\0", "?")
    return f"{head}~{digest}"


def text_of(value: Any) -> str:
    """Return a text or a number of a payload as text; all else has no name, and is empty."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, (int, float)) else ""


def _is_taken(text: str) -> bool:
    if text.isascii():
        # Prometheus takes a NUL for the end of the page.
        return "\0" not in text
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def number_of(value: Any) -> float | None:
    """Return a number of a payload, also one that is not finite; None if it is none."""
    number = as_number(value)
    if number is None:
        return None
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def finite(value: Any) -> float | None:
    """Return a number of a payload that is finite; None for all else."""
    number = number_of(value)
    return number if number is not None and math.isfinite(number) else None


def amount(value: Any) -> float | None:
    """Return a number of a payload that counts or measures something, and so is not negative; None for all else."""
    number = finite(value)
    return number if number is not None and number >= 0 else None


class DistinctCount:
    """How many series different things would have been; things beyond ``MAX_COUNTED`` are not counted any more."""

    def __init__(self) -> None:
        self.series = 0
        self._seen: set[int] = set()

    def add(self, thing: Any, series: int = 1) -> None:
        """Count *thing*, which would be so many *series*, unless it was counted before."""
        identity = hash(thing)
        if identity not in self._seen and len(self._seen) < MAX_COUNTED:
            self._seen.add(identity)
            self.series += series
