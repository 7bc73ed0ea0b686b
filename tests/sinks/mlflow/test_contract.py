"""The MLflow sink keeps the contract of every sink, with a real store and a real server."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from lezea_mlops.sinks.base import Run, Sink
from lezea_mlops.sinks.mlflow import MlflowSink
from tests.conftest import MlflowServer
from tests.sinks.contract import SinkContract, clean, destination, rich_run
from tests.sinks.mlflow.seen import seen

__all__ = ["clean", "destination", "rich_run"]


class OfMlflow(SinkContract):
    """The destination is the URI of a store or server, and where it keeps files."""

    def make(self, destination: tuple[str, str | None]) -> Sink:
        """Return a sink that delivers to this URI."""
        return MlflowSink(*destination)

    def seen(self, destination: tuple[str, str | None], sink: Sink, run: Run) -> Any:
        """Return all that a person sees of the run."""
        return seen(MlflowClient(destination[0]), run.run_id)


class TestMlflowStore(OfMlflow):
    """A SQLite store that the sink opens itself."""

    @classmethod
    def place(cls, request: pytest.FixtureRequest) -> tuple[str, str]:
        """Return a store with its tables, and nothing in them."""
        place: Path = request.getfixturevalue("tmp_path_factory").mktemp("contract")
        shutil.copyfile(request.getfixturevalue("prepared_store"), place / "mlflow.db")
        return f"sqlite:///{place}/mlflow.db", (place / "artifacts").as_uri()


@pytest.mark.slow
class TestMlflowServer(OfMlflow):
    """A server with a store of its own."""

    @classmethod
    def place(cls, request: pytest.FixtureRequest) -> tuple[str, None]:
        """Return the server, which keeps the files itself."""
        server: MlflowServer = request.getfixturevalue("shared_mlflow_server")
        return server.uri, None
