"""A store and a run folder whose journal is written by hand: where the sink's tests take place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from lezea_mlops.delivery import Shipper, Step
from lezea_mlops.journal import JournalWriter, RunFolder
from lezea_mlops.sinks.base import destination_id
from lezea_mlops.sinks.mlflow import MlflowSink
from lezea_mlops.testing import FakeClock
from tests.sinks.mlflow.seen import the_run


class Place:
    """A store, and a run folder whose journal is written by hand."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri, self.client = uri, MlflowClient(uri)
        self.artifacts = (folder / "artifacts").as_uri()
        self.folder = RunFolder(folder / "run-1")
        self.folder.create()
        self.shipper = self.make_shipper()

    def make_shipper(self) -> Shipper:
        """Return a shipper with a sink of its own, as another process has them."""
        return Shipper(self.folder, MlflowSink(self.uri, self.artifacts), FakeClock())

    def log(self, kind: str, *, wid: str = "main", att: int = 1, **fields: Any) -> None:
        """Append one record."""
        writer = JournalWriter(self.folder, wid, attempt=att, durability="process")
        writer.append(kind, fields)
        writer.close()

    def start(self, name: str = "Demo", **fields: Any) -> None:
        """Append the run's first record."""
        self.log("run_started", experiment_name=name, **fields)

    def ship(self) -> Shipper:
        """Ship until nothing waits, or until a delivery fails."""
        self.shipper.breaker.retry_now()
        while self.shipper.ship_once() is Step.SHIPPED:
            pass
        return self.shipper

    def forget(self) -> None:
        """Lose the cursor."""
        self.folder.cursor(destination_id(self.shipper.sink)).unlink()
        self.shipper = self.make_shipper()

    @property
    def run(self) -> Run:
        """The one run."""
        return the_run(self.client, "run-1")

    def set_aside(self) -> list[dict[str, Any]]:
        """Return what was refused."""
        path = self.folder.rejected(destination_id(self.shipper.sink))
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def place(mlflow_store: str, tmp_path: Path) -> Place:
    """Return an empty store and an empty run folder."""
    return Place(mlflow_store, tmp_path)
