"""What a sink, or other code that stands behind a name, does not declare: the one place where it ends."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Iterator

from lezea_mlops.delivery.health import without_secrets
from lezea_mlops.sinks.base import Unavailable

log = logging.getLogger("lezea_mlops")


@contextlib.contextmanager
def surprises_end_here(
    who: str, told_before: str | None = None, declared: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Turn what somebody does not declare into ``Unavailable``, and log it with its traceback.

    Args:
        who: whose work it is: what it is, and its name.
        told_before: the message of the last error; the same again is not logged again.
        declared: errors beside ``Unavailable`` that go on as they are.

    Raises:
        Unavailable: it was raised, or something that is not declared.
    """
    try:
        yield
    except Unavailable:
        raise
    except declared:
        raise
    except Exception as error:
        message = without_secrets(f"{type(error).__name__}: {error}")
        if message != told_before:
            _tell(who, error)
        raise Unavailable(message, "error") from error


def _tell(who: str, error: Exception) -> None:
    told = "".join(traceback.format_exception(error))
    said = "%s failed in a way it does not declare"
    if (shown := without_secrets(told)) == told:
        log.error(said, who, exc_info=error)
    else:
        log.error(said + ":\n%s", who, shown)
