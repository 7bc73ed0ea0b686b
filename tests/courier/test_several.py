"""Several trackers of one process, each with a courier."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

# A child that uses next to nothing is how the test learns that a sampler has searched: it is found when couriers are,
# and missed when they are.
TWO = """
import json, subprocess, sys
import psutil
from lezea_mlops.journal import read_run
from lezea_mlops.tracker import ExperimentTracker

def own_samples(tracker):
    return [r.payload["sample"]["process"] for r in read_run(tracker.run_dir) if "sample" in r.payload]

def wait_until(tracker, holds):
    while not holds(own_samples(tracker)):
        pass
    return own_samples(tracker)[-1]

def start_other():
    return subprocess.Popen(["cat"], stdin=subprocess.PIPE)

def begin():
    tracker = ExperimentTracker("Demo", async_mode=True, settings={"close_timeout_s": 60.0}, auto_start=True)
    wait_until(tracker, lambda samples: samples)
    return tracker

def children(count):
    return lambda samples: samples and samples[-1].get("children") == count

first, second = begin(), begin()
couriers = [psutil.Process(t._driver._process.pid) for t in (first, second)]
other = start_other()
alive = [wait_until(tracker, children(1)) for tracker in (first, second)]
used_s = [sum(courier.cpu_times()[:2]) for courier in couriers]
process = second._driver._process
second.end()
process.wait(60)
other.communicate()
ended = wait_until(first, children(0))
other = start_other()
later = wait_until(first, children(1))
other.communicate()
first.end()
print(json.dumps({"alive": alive, "used_s": used_s, "ended": [ended, later]}))
"""
# A courier takes several times as much only to begin; the child beside them takes a hundredth of it.
NEAR_ZERO_S = 0.05


@pytest.mark.slow
def test_no_tracker_pays_for_the_courier_of_another(nowhere: str, run_python: Callable[..., Any]) -> None:
    """Neither while it lives nor when the process has waited for its end."""
    done = run_python(TWO, LEZEA_SAMPLE_PERIOD_S="0.05")
    told = json.loads(done.stdout.splitlines()[-1])
    assert min(told["used_s"]) > 2 * NEAR_ZERO_S
    for process in told["alive"] + told["ended"]:
        assert process["children_cpu_s"] <= NEAR_ZERO_S
    assert [process["children"] for process in told["alive"] + told["ended"]] == [1, 1, 0, 1]
