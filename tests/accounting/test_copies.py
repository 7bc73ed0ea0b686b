"""Copies of a tracker in one process, as journals tell of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lezea_mlops.accounting import Accounts
from lezea_mlops.journal import read_run

COPIES = """
import copy, pickle, time
from lezea_mlops.tracker import ExperimentTracker

def burn(tracker):
    with tracker.measure("tasker#0", "tasker"):
        until = time.process_time() + 0.2
        while time.process_time() < until:
            pass

tracker = ExperimentTracker("Demo", async_mode=True, auto_start=True, settings={"close_timeout_s": 0.1})
copies = [copy.deepcopy(tracker), pickle.loads(pickle.dumps(tracker))]
for one in [tracker, *copies, tracker]:
    burn(one)
for one in [*copies, tracker]:
    one.end()
print(tracker.run_dir)
"""


def test_copies_in_one_process_cost_what_the_process_used(run_python: Callable[..., Any]) -> None:
    """Each of them tells of the whole process; it is counted once."""
    done = run_python(COPIES, LEZEA_MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    accounts, told_s = Accounts(), {}
    for record in read_run(Path(done.stdout.strip())):
        accounts.observe(record.type, record.payload, record.scope, record.ts, attempt=record.att)
        if record.type == "resource_use":
            told_s[record.wid] = record.payload["process"]["cpu_s"]
    assert len(told_s) == 3
    assert min(told_s.values()) > 0.6, "each of them tells of the others' work"
    assert max(told_s, key=lambda wid: told_s[wid]) == "main"
    counted_s = accounts.as_dict()["process"]["core_hours"] * 3_600
    assert counted_s == pytest.approx(told_s["main"])
