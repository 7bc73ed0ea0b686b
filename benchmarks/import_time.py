"""What ``import lezea_mlops`` adds to the start of a bare Python.

    python benchmarks/import_time.py [--runs 30]

Whole processes are timed in turn (bare, package, facade), so that a machine whose speed drifts slows all of them; the
medians are compared.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

PROGRAMS = {
    "bare Python": "pass",
    "import lezea_mlops": "import lezea_mlops",
    "from lezea_mlops.journal import read_run": "from lezea_mlops.journal import read_run",
    "from lezea_mlops.tracker import ExperimentTracker": "from lezea_mlops.tracker import ExperimentTracker",
}


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=30)
    runs = parser.parse_args().runs
    times_ms: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(runs + 1):
        for name, code in PROGRAMS.items():
            before = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            times_ms[name].append((time.perf_counter() - before) * 1e3)
    bare = statistics.median(times_ms["bare Python"][1:])
    print("| program | median ms | beyond bare Python, ms |")
    print("|---|---|---|")
    for name, times in times_ms.items():
        median = statistics.median(times[1:])
        print(f"| `{name}` | {median:.1f} | {median - bare:.1f} |")


if __name__ == "__main__":
    main()
