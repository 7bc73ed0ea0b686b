"""What the tests of reading share: a run folder and its one journal file, which is not there yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from lezea_mlops.journal import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Return an empty run folder."""
    folder = RunFolder(tmp_path / "run-1")
    folder.create()
    return folder


@pytest.fixture
def path(folder: RunFolder) -> Path:
    """Return the journal file of ``main``."""
    return folder.journal("main")
