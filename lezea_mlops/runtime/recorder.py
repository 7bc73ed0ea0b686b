"""Where an event becomes a line: one lock, one writer, and what happens when the file system refuses."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lezea_mlops._clock import now_us
from lezea_mlops.errors import JournalBusyError, JournalError, LineTooLongError, NotSyncedError
from lezea_mlops.events import MAX_NAMES_APART, Event, ScopePairs, encode_json
from lezea_mlops.evolution import Folds
from lezea_mlops.journal import MAIN_WRITER, JournalWriter, Position, RunFolder
from lezea_mlops.runtime.figures import RunFigures
from lezea_mlops.runtime.snapshot import load_snapshot, save_snapshot

log = logging.getLogger("lezea_mlops")

StoreBlob = Callable[[bytes], "dict[str, Any]"]


@dataclass(frozen=True)
class Joining:
    """What another process needs to become a further writer of a run: whose child it is, and the attempt."""

    run_dir: Path
    wid: str
    attempt: int


class Recorder:
    """Records the events of one process for one run; safe for threads.

    Attributes:
        lock: held while an event is numbered and written; the facade holds it to derive values from the last ones.
        figures: running figures of what was recorded.
        series: those of the metrics.
        counts: what went wrong or was changed, by kind.
        late: the run has ended; what comes now is marked so.
    """

    def __init__(
        self,
        folder: RunFolder,
        wid: str,
        durability: str,
        store_blob: StoreBlob,
        joining: Joining | None = None,
    ) -> None:
        self.lock = threading.RLock()
        self.figures = RunFigures()
        self.series = self.figures.series
        self.counts: Counter[str] = Counter()
        self.late = False
        self.folder = folder
        self.wid = wid
        self._durability = durability
        self._store_blob = store_blob
        self._folds = Folds()
        self._writer: JournalWriter | None = None
        self._last_seq = self._last_ts = 0
        if joining is not None:
            # Its file is made by its first record: many a worker carries a tracker and never uses it.
            self.wid, self.attempt = child_of(joining.wid), joining.attempt
        else:
            self._writer = JournalWriter(folder, wid, durability=durability)
            self.attempt = self._writer.attempt
            if wid == MAIN_WRITER and self._writer.seq:
                # Of the attempts before; never by reading the journal, which may be of gigabytes.
                self.figures = load_snapshot(folder)[0]
                self.series = self.figures.series
        self._failing = False
        _RECORDERS.add(self)

    @property
    def writer(self) -> JournalWriter:
        """The writer; opened again after ``close`` or in a forked child.

        Raises:
            JournalError: it cannot be opened.
        """
        if self._writer is None:
            try:
                self._writer = self._opened()
            except JournalBusyError:
                if not self.late:
                    raise
                # The run ended here and was resumed elsewhere: what comes late stands in a file of its own.
                self.wid, self._last_seq = child_of(self.wid), 0
                self._writer = self._opened()
        return self._writer

    def _opened(self) -> JournalWriter:
        return JournalWriter(self.folder, self.wid, attempt=self.attempt, durability=self._durability)

    @property
    def seq(self) -> int:
        """Number of the last record of this process."""
        return self._writer.seq if self._writer is not None else self._last_seq

    def joining(self) -> Joining:
        """Return what another process needs to write to this run too."""
        return Joining(self.folder.path, self.wid, self.attempt)

    def prepare_note(self, note: Mapping[str, str]) -> Callable[[], object]:
        """Return a function that notes something in the writer's lock by one system call."""
        return self.writer.prepare_note(note)

    def sync_alone_after(self, delay_us: int) -> None:
        """Let an append sync by itself only when nobody did for so long; a driver that syncs says so."""
        self.writer.sync_after_us = delay_us

    def record(self, event: Event, scope: ScopePairs = (), *, auto: bool = False) -> None:
        """Record *event*; never raises for what the file system does."""
        fields = event.fields
        with self.lock:
            self.write(event.type, fields, scope, auto)
            self.figures.observe(event.type, fields, scope, self.last_ts)

    @property
    def last_ts(self) -> int:
        """Time stamp of the last record, UTC microseconds."""
        return self._writer.last_ts if self._writer is not None else self._last_ts

    def write(self, type_name: str, fields: Mapping[str, Any], scope: ScopePairs, auto: bool = False) -> None:
        """Write a record; the caller holds the lock and keeps the figures."""
        try:
            (self._writer or self.writer).append(type_name, fields, scope, auto, self.late)
        except LineTooLongError:
            if not self._write_without_large_fields(type_name, fields, scope, auto):
                return
        except NotSyncedError as error:
            self._not_synced(error)
        except JournalError as error:
            self._lost(error)
            return
        if self.series.names_seen > MAX_NAMES_APART and scope and type_name in ("training_step", "metric"):
            self._fold(fields, scope)
        if self.late:
            # The lock is not kept for a record after the end: the run may be resumed, here or elsewhere.
            self.close()
        if self._failing:
            self._failing = False
            log.warning(
                "the journal in %s takes records again; a gap record tells what is missing", self.folder.path
            )

    def finish_folds(self) -> None:
        """Record the folds that are still open; at the end of a run."""
        with self.lock:
            for event in self._folds.finish():
                self.record(event)

    def _fold(self, fields: Mapping[str, Any], scope: ScopePairs) -> None:
        # From here on a destination need not show every individual; it is shown them together.
        for event in self._folds.take(fields, scope):
            self.record(event)

    def save_figures(self) -> None:
        """Store the figures of the run for its next attempt."""
        with self.lock:
            if self.wid != MAIN_WRITER or self._writer is None:
                return
            try:
                save_snapshot(self.folder, self.figures, Position(self._writer.size_bytes, self._writer.seq))
            except OSError as error:
                log.warning("the figures of the run in %s cannot be stored: %s", self.folder.path, error)

    def sync(self) -> None:
        """Fsync the journal, whatever the file system says of it."""
        writer = self._writer
        if writer is None:
            return
        try:
            writer.sync()
        except OSError as error:
            with self.lock:
                # Another thread may have closed it meanwhile, which syncs too.
                if writer is self._writer:
                    self._not_synced(error)

    def close(self) -> None:
        """Close the journal file; a later record opens it again."""
        with self.lock:
            if self._writer is None:
                return
            try:
                self._writer.close()
            except JournalError as error:
                self._not_synced(error)
            self._last_seq, self._last_ts = self._writer.seq, self._writer.last_ts
            self._writer = None

    def after_fork_in_child(self) -> None:
        """Become a writer of one's own: the parent's file, lock and threads are not ours."""
        # The parent's lock may be held by a thread that does not exist here.
        self.lock = threading.RLock()
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None
        self.wid = child_of(self.wid)
        self._last_seq = 0
        self._begin_figures()

    def _begin_figures(self) -> None:
        """Start the figures of a forked child: its first loss and its counts do not go on from the parent's."""
        self.figures = RunFigures()
        self.series = self.figures.series
        self._folds = Folds()

    def _not_synced(self, error: Exception) -> None:
        with self.lock:
            self.counts["sync_failed"] += 1
            first = self.counts["sync_failed"] == 1
        if first:
            log.warning("the journal in %s is written and not fsynced: %s", self.folder.path, error)

    def _lost(self, error: JournalError) -> None:
        self.counts["not_written"] += 1
        if not self._failing:
            self._failing = True
            log.error("%s. The program goes on; lost records are counted in health()", error)

    def _write_without_large_fields(
        self, type_name: str, fields: Mapping[str, Any], scope: ScopePairs, auto: bool
    ) -> bool:
        """Move the largest fields to blobs until the line is short enough; False if it could not be written."""
        slim = dict(fields)
        for name in sorted(slim, key=lambda name: len(encode_json(slim[name])), reverse=True):
            try:
                slim[name] = self._store_blob(encode_json(slim[name])) | {"format": "json"}
                self.counts["blob"] += 1
                self.writer.append(type_name, slim, scope, auto, self.late)
                return True
            except LineTooLongError:
                continue
            except NotSyncedError as error:
                self._not_synced(error)
                return True
            except OSError as error:
                self._lost(JournalError(f"cannot store a large value in {self.folder.blobs}: {error}"))
                return False
            except JournalError as error:
                self._lost(error)
                return False
        self._lost(JournalError(f"an event of type {type_name} is too long for a line"))
        return False


def child_of(wid: str) -> str:
    """Return the name of a further writer: pids repeat across containers, random digits do not."""
    return f"{wid}.{os.urandom(4).hex()}"


class OffRecorder(Recorder):
    """Records nothing: the mode ``off`` has no file, no thread and no socket."""

    def __init__(self, folder: RunFolder) -> None:
        self.lock = threading.RLock()
        self.figures = RunFigures()
        self.series = self.figures.series
        self.counts = Counter()
        self.late = False
        self.folder = folder
        self.wid = "main"
        self.attempt = 1
        self._folds = Folds()
        self._writer = None
        self._last_seq = 0

    @property
    def last_ts(self) -> int:
        """The present, for figures that integrate over time."""
        return now_us()

    def write(self, type_name: str, fields: Mapping[str, Any], scope: ScopePairs, auto: bool = False) -> None:
        """Write nothing."""

    def after_fork_in_child(self) -> None:
        """Make a lock that no vanished thread holds, and begin figures of one's own."""
        self.lock = threading.RLock()
        self._begin_figures()


_RECORDERS: weakref.WeakSet[Recorder] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for recorder in list(_RECORDERS):
        recorder.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
