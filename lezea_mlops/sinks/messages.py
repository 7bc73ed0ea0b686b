"""What is told of the errors of a destination's library."""

from __future__ import annotations

from lezea_mlops.events import Redactor

MAX_LINE = 500


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, which in these libraries says what happened, without secrets."""
    lines = str(error).strip().splitlines()
    # Redacted before it is cut: half a secret has no shape.
    said = Redactor().redact(lines[0])[0] if lines else ""
    return f"{type(error).__name__}: {said[:MAX_LINE]}"
