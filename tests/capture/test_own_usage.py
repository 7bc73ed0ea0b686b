"""What this process holds and has moved."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from lezea_mlops.capture import own_usage
from lezea_mlops.capture.own_usage import OwnUsage


def test_a_reading_is_of_this_process() -> None:
    """Resident memory as the system tells it, and transfers that do not fall."""
    first, second = OwnUsage.read(), OwnUsage.read()
    assert first is not None
    assert second is not None
    assert first.memory_bytes == pytest.approx(psutil.Process(os.getpid()).memory_info().rss, rel=0.5)
    assert second.io_bytes >= first.io_bytes >= 0


def test_without_psutil_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken installation does not end a training."""
    monkeypatch.setattr(own_usage, "_PROCESSES", {})
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert OwnUsage.read() is None


USED_UP = """
import json, os, resource, sys
from lezea_mlops.capture.own_usage import OwnUsage
from lezea_mlops.journal import read_run
from lezea_mlops.tracker import ExperimentTracker

def limited(most):
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))

def use():
    with tracker.measure("tasker#0", "tasker", detail=True):
        block = bytearray(2**20)

before = resource.getrlimit(resource.RLIMIT_NOFILE)
tracker = ExperimentTracker("Demo", async_mode=True, auto_start=True)
limited(0)
readings = [OwnUsage.read() is None]
use()
with tracker.measure("tasker#0", "tasker", detail=True):
    limited(before[0])
    use()
    limited(0)
use()
readings.append(OwnUsage.read() is None)
limited(before[0])
use()
readings.append(OwnUsage.read() is None)
tracker.end()
uses = [use for record in read_run(tracker.run_dir) for use in record.payload.get("uses", ())]
print(json.dumps({"readings": readings, "uses": uses}))
"""


def test_a_process_without_a_descriptor_left_is_measured_on(
    mlflow_store: str, run_python: Callable[..., Any]
) -> None:
    """Nothing is raised into the training; what is not known is not charged, and the times are there."""
    told = json.loads(run_python(USED_UP).stdout.splitlines()[-1])
    assert told["readings"] == [True, True, False]
    assert sum(use["count"] for use in told["uses"]) == 5
    assert sum(use["wall_s"] for use in told["uses"]) > 0
    assert sum(use["memory_gb_s"] for use in told["uses"]) > 0
