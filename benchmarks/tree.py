"""How soon `lezea tree` shows a large tree, and how a browser stands its page.

    python benchmarks/tree.py [--modifications 50000] [--runs 7] [--quick]

Whole processes are timed from their start to their end, in turn, so that a machine whose speed drifts slows all of
them; the medians are compared. `lezea --version` is what any command of this package takes; the first screen is what
comes on top of it. The page is opened in Chromium where that and selenium are installed, without a graphics card.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lezea_mlops import read_evolution
from lezea_mlops.journal import JournalWriter, RunFolder
from lezea_mlops.reports.tree_page import tree_page

PER_GENERATION = 50
SLOTS = 8
KINDS = ("widen_layer", "add_layer", "prune_units", "change_activation", "crossover")
QUICK = (500, 1)
PAGE_SIZES = (1_000, 10_000, 20_000)
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=1400,860",
)  # fmt: skip
FIRST_PAINT = "return performance.getEntriesByType('paint')[0].startTime"
# From the turn of the wheel until the picture after it is on its way to the screen; the median of twenty.
ZOOM_STEP = """
const done = arguments[0], times = [];
const step = () => {
  const before = performance.now();
  page.view.zoom(times.length % 2 ? 1 / 1.3 : 1.3, 400, 300);
  requestAnimationFrame(() => requestAnimationFrame(() => {
    times.push(performance.now() - before);
    times.length < 20 ? step() : done(times.sort((a, b) => a - b)[10]);
  }));
};
step();
"""


def generations(count: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the modifications of each generation: some slots, proposals for each, of which few are accepted."""
    chance = random.Random(0)
    slots: list[tuple[str | None, float]] = [(None, 0.3)] * SLOTS
    for generation in range(-(-count // PER_GENERATION)):
        after, modifications = list(slots), []
        for number in range(min(PER_GENERATION, count - generation * PER_GENERATION)):
            slot, kind = chance.randrange(SLOTS), chance.choice(KINDS)
            above = [slots[slot][0], slots[chance.randrange(SLOTS)][0] if kind == "crossover" else None]
            name, score = f"m{generation}-{number}", slots[slot][1] + chance.gauss(-0.004, 0.01)
            accepted = score > slots[slot][1] and chance.random() < 0.5
            if accepted:
                after[slot] = (name, score)
            modifications.append(
                {
                    "id": name, "parent_ids": list(dict.fromkeys(p for p in above if p)), "type": kind,
                    "accepted": accepted, "score": score, "target": f"net-g{generation}-t{slot}",
                    "params": {"units": chance.randrange(64), "layer": number % 3},
                }
            )  # fmt: skip
        yield modifications
        slots = after


def write_run(folder: RunFolder, count: int) -> RunFolder:
    """Write a journal with so many modifications."""
    folder.create()
    writer = JournalWriter(folder, "main", durability="process")
    for step, modifications in enumerate(generations(count)):
        writer.append("modification_tree", {"step": step, "modifications": modifications}, ())
    writer.close()
    return folder


def seconds_of(arguments: Sequence[str]) -> float:
    """Return how long a whole process took."""
    before = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - before


def first_screens(run: Path, count: int, runs: int) -> None:
    """Print how long the commands take."""
    lezea = ["-m", "lezea_mlops.cli"]
    programs = {
        "bare Python": ["-c", "pass"],
        "`lezea --version`": [*lezea, "--version"],
        f"`lezea tree`, {count:,} modifications": [*lezea, "tree", str(run)],
        "the same, `--accepted`": [*lezea, "tree", str(run), "--accepted"],
        "the same, `--step 5`": [*lezea, "tree", str(run), "--step", "5"],
    }
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(runs + 1):
        for name, arguments in programs.items():
            times[name].append(seconds_of(arguments))
    print("| process | median s | slowest s |")
    print("|---|---|---|")
    for name, found in times.items():
        print(f"| {name} | {statistics.median(found[1:]):.2f} | {max(found[1:]):.2f} |")


def pages(folder: Path, sizes: Sequence[int]) -> None:
    """Print how large pages are, and how long they take to make, to show and to zoom."""
    browser = opened_browser(folder)
    print("\n| modifications | page, kB | made in s | first paint, ms | a zoom step, ms |")
    print("|---|---|---|---|---|")
    try:
        for size in sizes:
            evolution = read_evolution(write_run(RunFolder(folder / f"page-{size}"), size).path)
            before = time.perf_counter()
            page = tree_page(evolution, "Benchmark")
            made_s = time.perf_counter() - before
            shown = in_browser(browser, folder / f"{size}.html", page)
            print(f"| {size:,} | {len(page.encode()) / 1e3:,.0f} | {made_s:.2f} | {shown} |")
    finally:
        if browser is not None:
            browser.quit()


def opened_browser(folder: Path) -> Any:
    """Return a browser; None where there is none."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    try:
        from selenium import webdriver
    except ImportError:
        return None
    if program is None or driver is None:
        return None
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for option in (*OPTIONS, f"--user-data-dir={folder / 'chromium'}"):
        options.add_argument(option)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def in_browser(browser: Any, file: Path, page: str) -> str:
    """Return the last cells of a row."""
    if browser is None:
        return "no browser | no browser"
    file.write_text(page, "utf-8")
    browser.get(file.as_uri())
    zoom_ms = browser.execute_async_script(ZOOM_STEP)
    return f"{browser.execute_script(FIRST_PAINT):.0f} | {zoom_ms:.0f}"


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--modifications", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK[0]} modifications, once")
    arguments = parser.parse_args()
    count, runs = QUICK if arguments.quick else (arguments.modifications, arguments.runs)
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).resolve().parent.parent))
    with tempfile.TemporaryDirectory() as folder:
        first_screens(write_run(RunFolder(Path(folder) / "run"), count).path, count, runs)
        pages(Path(folder), (count,) if arguments.quick else PAGE_SIZES)


if __name__ == "__main__":
    main()
