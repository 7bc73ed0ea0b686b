"""``measure``: whose time it was, in which scope; nothing a caller passes breaks the block."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from lezea_mlops.journal import read_run
from lezea_mlops.tracker import ExperimentTracker
from tests.conftest import ROOT
from tests.monitored import of_type


def burn() -> int:
    """Use CPU for some milliseconds."""
    return sum(number * number for number in range(60_000))


def offline(**arguments: Any) -> ExperimentTracker:
    """Return a run whose journal is all there is."""
    return ExperimentTracker("measured", auto_start=True, settings={"mode": "offline"}, **arguments)


def totals_of(tracker: ExperimentTracker) -> dict[str, Any]:
    """End the run, and return its totals."""
    tracker.end()
    [record] = of_type(list(read_run(tracker.run_dir)), "resource_totals")
    return dict(record.payload["resources"])


def test_parts_never_exceed_what_the_process_used() -> None:
    """Builders, taskers and layers in each other, and what is left is unattributed."""
    tracker = offline()
    for number in range(20):
        with tracker.builder_scope("1"), tracker.measure("builder#1", "builder"):
            burn()
            with tracker.measure(f"tasker#{number % 4}", "tasker"), tracker.layer_scope("0"):
                burn()
                with tracker.measure("dense", "layer"):
                    burn()
        burn()
    totals = totals_of(tracker)
    parts = sum(component["core_hours"] for component in totals["components"].values())
    assert 0 < parts <= totals["process"]["core_hours"] == totals["total"]["core_hours"]
    assert totals["unattributed"]["core_hours"] == pytest.approx(totals["total"]["core_hours"] - parts)
    assert totals["components"].keys() == {"builder#1", "dense", *(f"tasker#{n}" for n in range(4))}
    assert {name: row["uses"] for name, row in totals["types"].items()} == {
        "builder": 20,
        "tasker": 20,
        "layer": 20,
    }
    assert totals["scopes"]["builder:1"]["core_hours"] == pytest.approx(parts)
    assert totals["scopes"]["builder:1/layer:0"]["uses"] == 20


def test_what_threads_measure_is_theirs() -> None:
    """CPU time is the thread's own, however many run at once."""
    tracker = offline()

    def work(name: str) -> None:
        with tracker.measure(name, "tasker"):
            burn()

    threads = [threading.Thread(target=work, args=(f"t{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    totals = totals_of(tracker)
    assert {name for name, row in totals["components"].items() if row["uses"] == 1} == {
        f"t{n}" for n in range(6)
    }
    assert totals["types"]["tasker"]["core_hours"] <= totals["process"]["core_hours"]


def test_an_exception_passes_and_is_measured() -> None:
    """What the block raises is raised, and the time until then counts."""
    tracker = offline()
    with pytest.raises(KeyError), tracker.measure("tasker#0"):
        {}[burn()]
    assert totals_of(tracker)["components"]["tasker#0"]["core_hours"] > 0


@pytest.mark.parametrize("name", [None, "", object()])
def test_a_component_without_a_name_is_told_and_the_block_runs(name: Any) -> None:
    """Or it has the name that the object writes; nothing raises."""
    tracker = offline()
    ran = []
    with tracker.measure(name, "tasker"):
        ran.append(1)
    tracker.end()
    rejected = of_type(list(read_run(tracker.run_dir)), "rejected_input")
    assert ran == [1]
    assert [record.payload["call"] for record in rejected] == (
        [] if isinstance(name, object) and name else ["measure"]
    )


def test_a_component_without_a_name_raises_with_strict() -> None:
    """As every mistake of a call does."""
    tracker = offline(strict=True)
    with pytest.raises(ValueError, match="component_id"):
        tracker.measure(None)
    tracker.end()


def test_strange_names_and_types_are_cleaned() -> None:
    """A number is a name too; lone surrogates and endless names fit a record."""
    tracker = offline()
    with tracker.measure(7, 8), tracker.measure("a\ud800b"), tracker.measure("x" * 100_000):
        burn()
    components = totals_of(tracker)["components"]
    assert components["7"]["component_type"] == "8"
    assert "a�b" in components
    assert max(map(len, components)) < 1_001


def test_nothing_is_recorded_of_a_run_that_is_off(tmp_path: Any) -> None:
    """No file, and the block runs."""
    tracker = ExperimentTracker("off", auto_start=True, settings={"mode": "off"})
    with tracker.measure("tasker#0"):
        burn()
    tracker.end()
    assert list(tmp_path.iterdir()) == []
    assert tracker.get_experiment_data()["resources"]["components"]["tasker#0"]["uses"] == 1


def test_another_process_of_the_run_measures_in_its_own_name() -> None:
    """A pickled tracker is a further writer, with a process of its own."""
    tracker = offline()
    other = pickle.loads(pickle.dumps(tracker))
    with other.measure("tasker#9", "tasker"):
        burn()
    other.end()
    tracker.end()
    writers = {
        record.payload["process"]["writer"]: record.wid
        for record in of_type(list(read_run(tracker.run_dir)), "resource_use")
    }
    assert len(writers) == 1
    [(writer, wid)] = writers.items()
    assert writer == wid != "main"
    assert writer.startswith("main.")


@pytest.mark.parametrize("call", ["log_resource", "log_component_resources", "log_resource_cost"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), 1e30, "much", True])
def test_amounts_that_cannot_be_are_set_aside(call: str, value: Any) -> None:
    """Negative, NaN, infinite, absurd: told once, journaled with the reason, and in no total."""
    tracker = offline()
    names = {
        "log_resource": {"component_id": "c", "cpu": value, "mem": 5},
        "log_component_resources": {"component_id": "c", "cpu_percent": value, "memory_mb": 5},
        "log_resource_cost": {"cpu_hours": value, "mem_gb": 5},
    }
    getattr(tracker, call)(**names[call])
    tracker.end()
    records = list(read_run(tracker.run_dir))
    if value is True:
        # A truth value is a number everywhere in this package.
        assert of_type(records, "rejected_input") == []
        return
    [rejected] = of_type(records, "rejected_input")
    assert rejected.payload["argument"] in ("cpu", "cpu_percent", "cpu_hours")
    [kept] = [record for record in records if record.type in ("resource", "resource_cost")]
    assert 5 in kept.payload.values()
    summary = tracker.get_experiment_summary()
    assert (summary["resources"]["core_hours"], summary["costs"]["cpu_hours"]) == (0, 0)


POOL = """
import multiprocessing, sys
from lezea_mlops.tracker import ExperimentTracker

def task(tracker, number):
    with tracker.measure(f"tasker#{number}", "tasker"):
        sum(range(100_000))

if __name__ == "__main__":
    settings = {"mode": "offline", "runs_dir": "runs"}
    with ExperimentTracker("Pool", settings=settings) as tracker:
        with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
            pool.starmap(task, [(tracker, number) for number in range(10)], chunksize=1)
            pool.close()
            pool.join()
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_short_tasks_of_a_pool_are_all_measured(method: str, tmp_path: Path) -> None:
    """Each gets a copy of the tracker that lives for less than a second and is never ended."""
    (tmp_path / "program.py").write_text(POOL)
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, "program.py", method],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        check=True,
    )
    [run_dir] = (tmp_path / "runs").iterdir()
    measured = [
        use["component_id"]
        for record in of_type(list(read_run(run_dir)), "resource_use")
        for use in record.payload["uses"]
    ]
    assert sorted(measured) == sorted(f"tasker#{number}" for number in range(10))


def test_what_was_measured_shows_at_once() -> None:
    """A question for the figures need not wait for the next record."""
    tracker = offline()
    with tracker.measure("tasker#0", "tasker"):
        burn()
    assert tracker.get_experiment_data()["resources"]["components"]["tasker#0"]["uses"] == 1
    assert tracker.get_experiment_summary()["resources"]["core_hours"] > 0
    tracker.end()
