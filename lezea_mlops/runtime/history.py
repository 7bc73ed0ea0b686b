"""Reading a run back as its readers see it: the history of its metrics, and the revisions of its configuration."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, TypeAlias

from lezea_mlops.errors import JournalError
from lezea_mlops.insight.history import history_of
from lezea_mlops.insight.points import Point, points_of
from lezea_mlops.insight.revisions import ABSENT, Revision, RevisionHistory
from lezea_mlops.journal import MAIN_WRITER, read_run

__all__ = ["ABSENT", "Point", "Revision", "read_config", "read_history", "read_revisions"]

RunDir: TypeAlias = "str | os.PathLike[str]"


def read_history(
    run_dir: RunDir, metric: str | None = None, *, all_attempts: bool = False
) -> Iterator[Point]:
    """Yield the points of a run's metrics, sorted by name, writer (``main`` first) and step.

    There is one point per metric, writer and step: that of the newest attempt that covers the step, which is any step
    between the least and the greatest that the attempt logged of the metric. Memory is bounded: beyond 50,000 points
    the sorting goes through a temporary file, in the folder that ``TMPDIR`` names.

    Args:
        run_dir: the run folder; the run may be going on.
        metric: whole name of one metric, such as ``builder:42/val/loss``; None: all of them.
        all_attempts: yield every point that was ever logged, those of one step by attempt.

    Raises:
        JournalError: the folder holds no journal, or the points cannot be read or sorted.
    """
    # Asked here and not below: a wrong folder is said at the call.
    points = points_of(read_run(run_dir))
    wanted = points if metric is None else (point for point in points if point.name == metric)
    return _told(run_dir, history_of(wanted, all_attempts=all_attempts))


def _told(run_dir: RunDir, points: Iterator[Point]) -> Iterator[Point]:
    try:
        yield from points
    except OSError as error:
        raise JournalError(
            f"the history of {os.fspath(run_dir)} cannot be sorted: {error}; long histories need a temporary file "
            "of about 100 bytes a point: let TMPDIR name a folder with room, or ask for one metric"
        ) from error


def read_revisions(run_dir: RunDir, *, wid: str = MAIN_WRITER) -> list[Revision]:
    """Return the revisions of a run's configuration, with what each changed and which attempt made it.

    Args:
        run_dir: the run folder.
        wid: whose configuration; ``main`` speaks for the run.

    Raises:
        JournalError: the folder holds no journal, or it cannot be read.
    """
    return _revisions(run_dir, wid).revisions


def read_config(
    run_dir: RunDir, at_step: int | None = None, attempt: int | None = None, *, wid: str = MAIN_WRITER
) -> dict[str, Any]:
    """Return the configuration in force, by dotted name.

    Args:
        run_dir: the run folder.
        at_step: at this training step, of the newest attempt that covers it; None: at the end.
        attempt: as this attempt and those before it set it; None: the one that ``at_step`` leads to, or all.
        wid: whose configuration; ``main`` speaks for the run.

    Raises:
        JournalError: the folder holds no journal, or it cannot be read.
        ValueError: the run has no such attempt.
    """
    return _revisions(run_dir, wid).config(at_step, attempt)


def _revisions(run_dir: RunDir, wid: str) -> RevisionHistory:
    return RevisionHistory(record for record in read_run(run_dir) if record.wid == wid)
