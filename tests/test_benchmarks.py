"""The benchmark programs run, with tiny numbers, and print the tables that the documents show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = ["lezea_mlops, process", "lezea_mlops, thread"]
SYNC_FIGURES = r"`lezea sync`: [\d.]+ MB after its first batch, .* grown by [+-][\d.]+ MB; [\d,]+ records"

# Each program with its smallest numbers, and the first cells that its tables must have.
PROGRAMS = {
    "append.py": (["--calls", "1000"], ["tracker", "limit"]),
    "import_time.py": (["--runs", "1"], ["bare Python", "`import lezea_mlops`"]),
    "interference.py": (
        ["--steps", "50", "--pairs", "1", "--seconds", "1", "--trackers", "nobody", "lezea", "lezea-thread"],
        ["nobody", *OURS],
    ),
    "lineage.py": (["--quick"], ["limit", "`read_evolution`", "`lineage`", "`ancestors`", "`StreamingStatistics`"]),
    "loss.py": (
        ["--kills", "2", "--peer-kills", "1", "--peer-within-s", "0.05", "--trackers", "lezea"],
        OURS[:1] * 3,
    ),
    "measure.py": (
        ["--uses", "2000"],
        ["limit: four clocks", "measure", "inside a scope and a use", "64 components in turn", "detail=True"],
    ),
    "memory.py": (["--events", "1000"], ["20,000", "1,000"]),
    "modifications.py": (
        ["--generations", "3", "--size", "100"],
        ["whole", "long ids", "no id", "lean", "network", "individual", "limit", "a line of 30", "children of 300"],
    ),
    "mongodb.py": (
        ["--steps", "500", "--modifications", "500", "--rounds", "1"],
        [f"{kind}, {way}" for kind in ("training steps", "modifications") for way in ("bare", "sync", "again")],
    ),
    "queries.py": (["--modifications", "2000"], ["lineage", "ancestors", "best_path", "network_lineage"]),
    "read.py": (["--events", "1000"], ["read_run", "limit"]),
    "sample.py": (["--samples", "3", "--children", "0", "2"], ["children", "0", "2"]),
    "sampling.py": (["--seconds", "6"], ["sampled every 1 s", "not sampled"]),
    "scrape.py": (
        ["--scrapes", "5", "--components", "1000"],
        ["a run of 1,000 series", "the same page, without HTTP", "limit", "1,000"],
    ),
    "start.py": (["--runs", "1"], ["a bare interpreter, start to exit", "`end()`, all being delivered"]),
    "throughput.py": (["--steps", "100", "--rounds", "1"], ["bare", "sync", "live"]),
    "tree.py": (["--quick"], ["bare Python", "lezea tree`, 500 modifications", "500"]),
    "waiting.py": (
        ["--calls", "25", "--away-calls", "500"],
        ["`async_mode=False`", "`async_mode=True`", "`MlflowClient.log_batch`"],
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def store_at_hand(prepared_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No benchmark spends seconds on making a store's tables."""
    monkeypatch.setenv("PREPARED_STORE", str(prepared_store))


def printed(program: str, *arguments: str) -> str:
    """Run a benchmark to its end and return what it printed."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(ROOT / "benchmarks" / program), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def first_cells(output: str) -> list[str]:
    """Return the first cell of each line of the tables in *output*."""
    return [match.strip("` ") for match in re.findall(r"^\|([^|]*)\|", output, re.MULTILINE)]


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_benchmark_prints_its_table(program: str) -> None:
    """A benchmark runs to its end and has a row, with figures, for everything that it compares."""
    arguments, rows = PROGRAMS[program]
    output = printed(program, *arguments)
    cells = first_cells(output)
    assert [row for row in rows if cells.count(row.strip("`")) < rows.count(row)] == [], output
    assert "failed" not in output


@pytest.mark.slow
def test_the_backlog_benchmark_tells_the_memory_of_both_sides() -> None:
    """It tells what an outage takes of the program's memory, and what catching up takes of another's."""
    output = printed("backlog.py", "--events", "5000", "--sync-s", "1")
    assert {"events", "500", "5,000"} <= set(first_cells(output))
    assert re.search(SYNC_FIGURES, output)


@pytest.mark.slow
@pytest.mark.parametrize("program", ["interference.py", "loss.py"])
def test_a_tracker_that_is_not_installed_is_a_row_that_says_so(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing library costs its own row and nothing else."""
    (tmp_path / "tensorboardX.py").write_text("raise ModuleNotFoundError('not here', name='tensorboardX')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    few = ["--pairs", "1"] if program == "interference.py" else ["--peer-kills", "1"]
    output = printed(program, *few, "--trackers", "tensorboardx")
    assert "| TensorBoardX | tensorboardX is not installed |" in output
