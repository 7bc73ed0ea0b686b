"""The recorder tells apart what is lost and what is only not yet safe from a power loss."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from lezea_mlops.events import MAX_LINE_BYTES, CommentLogged
from lezea_mlops.journal import BlobStore, RunFolder
from lezea_mlops.runtime.files import FileCapture
from lezea_mlops.runtime.recorder import Recorder


@pytest.mark.parametrize("size", [1, MAX_LINE_BYTES + 1], ids=["one line", "moved to a blob"])
def test_a_record_that_could_not_be_fsynced_is_not_counted_as_lost(tmp_path: Path, size: int) -> None:
    """It is in the file, whole, and the health says what was not done."""
    folder = RunFolder(tmp_path / "run")
    folder.create()
    # A pipe takes what is written and refuses to be fsynced.
    os.mkfifo(folder.journal("main"))
    files = FileCapture(BlobStore(folder.blobs), "copy", 1)
    recorder = Recorder(folder, "main", "record", files.store_blob)
    lines: list[bytes] = []
    descriptor = os.open(folder.journal("main"), os.O_RDONLY)
    reader = threading.Thread(target=lambda: lines.append(os.read(descriptor, 1_000_000)))
    reader.start()
    recorder.record(CommentLogged(text="x" * size))
    reader.join()
    os.close(descriptor)
    assert lines[0].count(b"\n") == 1
    assert recorder.counts["sync_failed"] == 1
    assert recorder.counts["not_written"] == 0
