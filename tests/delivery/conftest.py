"""A run folder, a sink, a clock that stands still, and a shipper between them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lezea_mlops.delivery import Shipper
from lezea_mlops.journal import RunFolder
from lezea_mlops.testing import FakeClock, MemorySink
from tests.delivery.shipping import write


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Return a run folder with five records of ``main``."""
    folder = RunFolder(tmp_path / "run-1")
    folder.create()
    write(folder, 5)
    return folder


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that stands still."""
    return FakeClock()


@pytest.fixture
def sink() -> MemorySink:
    """Return the reference sink."""
    return MemorySink()


@pytest.fixture
def shipper(folder: RunFolder, sink: MemorySink, clock: FakeClock) -> Shipper:
    """Return a shipper of the five records."""
    return Shipper(folder, sink, clock)
