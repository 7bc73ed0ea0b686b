"""Short descriptions of whatever a user passes or raises; none of it raises by itself."""

from __future__ import annotations

import traceback
from reprlib import Repr

# Beyond so many bits Python refuses to write an integer out.
MAX_SHOWN_BITS = 1_000


class _Shortener(Repr):
    """Short descriptions of values of any kind and size, which never raise."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 200

    def repr_int(self, x: int, level: int) -> str:
        if x.bit_length() > MAX_SHOWN_BITS:
            return f"<an integer of {x.bit_length()} bits>"
        return super().repr_int(x, level)


shorten = _Shortener().repr


def message_of(error: BaseException) -> str:
    """Return kind and message of *error* in one text, also where its own ``__str__`` raises."""
    lines = traceback.format_exception_only(error)
    # A syntax error begins with its place, and notes follow the message.
    return next((line for line in lines if not line.startswith(" ")), "").rstrip() or type(error).__name__
