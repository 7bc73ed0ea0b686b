"""A real Prometheus server, and an exporter whose port is free again at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lezea_mlops.sinks.prometheus import Exporter
from tests.sinks.prometheus.server import PrometheusServer


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[PrometheusServer]:
    """A server of the test's own, started; it scrapes whatever is written down in ``tmp_path / "targets"``."""
    server = PrometheusServer(tmp_path / "prometheus", tmp_path / "targets")
    server.targets.mkdir()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    """An exporter of the test's own."""
    exporter = Exporter()
    yield exporter
    for view in exporter.views:
        exporter.remove(view)
