"""Runs that are audited, and what is done to the store behind their back."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun

from lezea_mlops.config import load_settings
from lezea_mlops.journal import RunFolder, recorded_run_id
from lezea_mlops.runtime.audit import AuditReport, audit_run
from lezea_mlops.runtime.replay import Order, deliver_run
from lezea_mlops.sinks.base import Finding
from lezea_mlops.tracker import ExperimentTracker
from tests.sinks.mlflow.seen import the_run


def no_wait(seconds: float) -> None:
    """Fail: nothing should have to pause."""
    raise AssertionError(f"a pause of {seconds} s")


def offline(**arguments: Any) -> ExperimentTracker:
    """Return a tracker that only writes its journal."""
    return ExperimentTracker("Audited", settings={"mode": "offline"}, **arguments)


def deliver(folder: RunFolder) -> None:
    """Deliver all that waits."""
    [delivered] = deliver_run(folder, load_settings(), Order(wait=no_wait))
    assert delivered.error is None


def audit(folder: RunFolder, *, repair: bool = False) -> AuditReport:
    """Audit a run at its one destination."""
    [report] = audit_run(folder, load_settings(), repair=repair, wait=no_wait)
    assert report.error is None, report.error
    assert (report.audited, report.repair_error) == (True, None)
    return report


def findings(folder: RunFolder) -> list[Finding]:
    """Return what an audit finds."""
    return audit(folder).findings


def found(folder: RunFolder) -> list[tuple[str, str]]:
    """Return kind and words of what an audit finds."""
    return [(finding.kind, finding.what) for finding in findings(folder)]


class Store:
    """A SQLite store that is changed without MLflow's knowledge.

    Args:
        uri: the store.
        folder: the run that is looked at.
    """

    def __init__(self, uri: str, folder: RunFolder) -> None:
        self._path = uri.removeprefix("sqlite:///")
        self._folder = folder
        self.client = MlflowClient(uri)

    @property
    def run(self) -> MlflowRun:
        """The run in MLflow."""
        return the_run(self.client, recorded_run_id(self._folder) or self._folder.run_id)

    def sql(self, *statements: str) -> None:
        """Run statements, each of which changes something."""
        with closing(sqlite3.connect(self._path)) as connection, connection:
            for statement in statements:
                assert connection.execute(statement).rowcount > 0, statement

    def artifact(self, path: str) -> Path:
        """Return where a file of the run stands."""
        return Path(self.run.info.artifact_uri.removeprefix("file://"), path)

    def delete(self, *paths: str) -> None:
        """Delete files of the run."""
        for path in paths:
            self.artifact(path).unlink()
