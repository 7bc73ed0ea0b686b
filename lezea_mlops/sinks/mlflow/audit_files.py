"""Files: each one that records brought is among the artifacts, and has its size; one of the whole run, its content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

from lezea_mlops.events import Envelope
from lezea_mlops.journal import BlobStore, RunFolder
from lezea_mlops.sinks.base import AuditCounts, AuditedJournal, Finding
from lezea_mlops.sinks.mlflow.audit_survey import Stored, Survey
from lezea_mlops.sinks.mlflow.marks import status_order
from lezea_mlops.sinks.mlflow.pieces import BlobFile, TextFile, Translation
from lezea_mlops.sinks.mlflow.translation import translate


class WantedFile(NamedTuple):
    """A file that a record must have left in MLflow.

    Attributes:
        path: its name there.
        size: in bytes; None: any.
        sha256: of its content, where the size would not tell one record's file from another's; None: any.
    """

    path: str
    size: int | None
    sha256: str | None = None


class WantedFiles:
    """Files that must be there, by path; where several records bring one path, the last of each writer counts."""

    def __init__(self, stored: Stored, survey: Survey, counts: AuditCounts) -> None:
        self._stored = stored
        self._survey = survey
        self._counts = counts
        self._blobs = BlobStore(RunFolder(stored.folder).blobs)
        # path → writer → file and number of the record
        self._wanted: dict[str, dict[str, tuple[WantedFile, int]]] = {}

    def want(self, file: WantedFile, record: Envelope) -> None:
        """Expect a file."""
        self._wanted.setdefault(file.path, {})[record.wid] = (file, record.seq)

    def brought_by(self, record: Envelope, owed: bool, brought: Translation) -> Iterator[WantedFile]:
        """Yield the files that a record must have left in MLflow."""
        if not owed:
            return
        for blob in brought.blobs:
            yield WantedFile(blob.path, self._size_of(blob))
        if not self._outdone(record, brought):
            for text in brought.texts:
                if self._survey.standing.is_newest(record, brought, text.path):
                    yield wanted_text(text, exactly=text.path in brought.of_run)

    def findings(self, journal: AuditedJournal) -> Iterator[Finding]:
        """Yield what is missing, and what has another size."""
        folders: dict[str, list[str]] = {}
        for path in self._wanted:
            folder, _, name = path.rpartition("/")
            folders.setdefault(folder, []).append(name)
        altered = {}
        for folder, names in sorted(folders.items()):
            there = self._stored.files(folder)
            for name in names:
                path = f"{folder}/{name}" if folder else name
                finding = self._compared(path, name in there, there.get(name))
                if finding is not None and finding.kind == "altered":
                    altered[path] = finding
                elif finding is not None:
                    yield finding
        if altered:
            # The size of a later record's file of that name may be there by now.
            for record, owed in journal():
                for path in [] if owed else _paths(translate(record)):
                    altered.pop(path, None)
        yield from altered.values()

    def _compared(self, path: str, is_there: bool, size: int | None) -> Finding | None:
        wanted = self._wanted[path]
        self._counts.checked += 1
        wid = max(wanted, key=lambda wid: wid == "main")
        expected, seq = wanted[wid]
        words = "a file" if expected.size is None else f"{expected.size} bytes"
        if not is_there:
            return Finding("missing", f"file {path}", wid, seq, words, mendable=True)
        sizes = {file.size for file, _ in wanted.values()}
        if size is not None and None not in sizes and size not in sizes:
            return Finding("altered", f"file {path}", wid, seq, words, f"{size} bytes", mendable=True)
        if expected.sha256 is None or (sha256 := self._stored.sha256(path)) == expected.sha256:
            return None
        expected_words, found = f"{words}, sha256:{expected.sha256[:16]}", f"sha256:{sha256[:16]}"
        return Finding("altered", f"file {path}", wid, seq, expected_words, found, mendable=True)

    def _outdone(self, record: Envelope, brought: Translation) -> bool:
        """Tell whether another writer said something newer of the run: then the texts of an end may be left out."""
        if record.type != "run_finished" or brought.status is None:
            return False
        order = status_order(record, brought.status)
        return any(newest > order for wid, newest in self._survey.newest.items() if wid != record.wid)

    def _size_of(self, blob: BlobFile) -> int | None:
        if blob.sha256 is None:
            return blob.size
        try:
            return self._blobs.path(blob.sha256).stat().st_size
        except OSError:
            # Delivered and removed since; the record may know the size.
            return blob.size


class Files:
    """Collects the files of some folders from the journal."""

    def __init__(self, stored: Stored, survey: Survey, counts: AuditCounts, part: int, parts: int) -> None:
        self.wanted = WantedFiles(stored, survey, counts)
        self._part, self._parts = part, parts

    def take(self, record: Envelope, owed: bool, brought: Translation) -> None:
        """Expect the files of one record."""
        for file in self.wanted.brought_by(record, owed, brought):
            if crc32(file.path.rpartition("/")[0].encode()) % self._parts == self._part:
                self.wanted.want(file, record)


def wanted_text(text: TextFile, *, exactly: bool = False) -> WantedFile:
    """Return what must stand where a text was sent; only *exactly* where another text could have its size."""
    content = text.content.encode()
    return WantedFile(text.path, len(content), hashlib.sha256(content).hexdigest() if exactly else None)


def _paths(brought: Translation) -> list[str]:
    return [text.path for text in brought.texts] + [blob.path for blob in brought.blobs]
