"""Reading a run back as its readers see it: the history of its metrics, and the revisions of its configuration."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from lezea_mlops.errors import JournalError
from lezea_mlops.events import Envelope
from lezea_mlops.insight.history import history_of
from lezea_mlops.insight.points import MAX_DEPTH, Point, points_of
from lezea_mlops.insight.revisions import ABSENT, CONFIGURATION, Revision, RevisionHistory
from lezea_mlops.journal import MAIN_WRITER, BlobStore, RunFolder, read_run

log = logging.getLogger("lezea_mlops")

__all__ = ["ABSENT", "Point", "Revision", "read_config", "read_history", "read_revisions"]

# Fields with numbers of metrics. Others that may be too large for a line, such as lists of samples, are left alone.
_NUMBERS = frozenset(
    "metrics stats statistics result_dict tasker_rewards builder_rewards fitness_scores modification_statistics".split()
)
_SHA256 = re.compile(r"[0-9a-f]{64}")

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
    points = points_of(whole_records(run_dir))
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
    return RevisionHistory(record for record in whole_records(run_dir) if record.wid == wid)


# ---------------------------------------------------------------------- values that were too large for a line


def whole_records(run_dir: RunDir) -> Iterator[Envelope]:
    """Return the records of a run, with the values in them that were too large for a line."""
    records = read_run(run_dir)
    values = _LargeValues(BlobStore(RunFolder(Path(run_dir)).blobs))
    return map(values.put_back, records)


class _LargeValues:
    """Puts values back that a record only points to, where the run folder still holds them."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._told = False

    def put_back(self, record: Envelope) -> Envelope:
        """Return the record with its large values, if they matter to configuration or metrics."""
        payload = record.payload
        if record.type in CONFIGURATION:
            whole = self._whole(payload)
        else:
            # Almost no record has any; most are asked this and nothing more.
            large = [name for name in _NUMBERS & payload.keys() if _is_pointer(payload[name])]
            if not large:
                return record
            whole = {**payload, **{name: self._content(payload[name]) for name in large}}
        return Envelope(record.type, record.meta, whole, record.version)

    def _whole(self, value: Any, depth: int = 0) -> Any:
        if depth > MAX_DEPTH:
            return value
        if _is_pointer(value):
            return self._content(value)
        if isinstance(value, Mapping):
            return {name: self._whole(item, depth + 1) for name, item in value.items()}
        if isinstance(value, list):
            return [self._whole(item, depth + 1) for item in value]
        return value

    def _content(self, pointer: Mapping[str, Any]) -> Any:
        path = self._blobs.path(pointer["$blob"])
        try:
            text = path.read_text("utf-8")
            # A text may be inside what is itself too large.
            return self._whole(json.loads(text)) if pointer["format"] == "json" else text
        except (OSError, ValueError, RecursionError) as error:
            if not self._told:
                self._told = True
                log.warning("a value that was too large for a line cannot be read (%s: %s)", path, error)
            return pointer


def _is_pointer(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and value.get("format") in ("json", "text")
        and isinstance(sha256 := value.get("$blob"), str)
        and _SHA256.fullmatch(sha256) is not None
    )
