"""A store and a run folder whose journal is written by hand: where the sink's tests take place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from lezea_mlops.journal import RunFolder
from lezea_mlops.sinks.base import destination_id
from lezea_mlops.sinks.mlflow import MlflowSink
from tests.sinks.hand import WrittenByHand
from tests.sinks.mlflow.seen import the_run


class Place(WrittenByHand):
    """A store, and a run folder whose journal is written by hand."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri, self.client = uri, MlflowClient(uri)
        self.artifacts = (folder / "artifacts").as_uri()
        super().__init__(RunFolder(folder / "run-1"), lambda: MlflowSink(self.uri, self.artifacts))

    def start(self, name: str = "Demo", **fields: Any) -> None:
        """Append the run's first record."""
        self.log("run_started", experiment_name=name, **fields)

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
