"""What sampling costs the program that is sampled: a training loop with and without it, in turn, in one process.

    python benchmarks/sampling.py [--seconds 120] [--period-s 1]

The loop multiplies matrices and does nothing else; the driver, a courier, samples it and has nothing to deliver. For
every other second and a half the courier is stopped (SIGSTOP), so that the same loop runs without it. Beside the ratio
stands what the courier used of a core in all, by the system's count.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import tempfile
import time

import psutil

from lezea_mlops.tracker import ExperimentTracker

# So long with the courier, then without it: not a multiple of the usual periods.
TURN_S = 1.5
ROWS = 40


def work() -> float:
    """Do what a step does: some hundred microseconds of arithmetic."""
    return sum(row * column % 7 for row in range(ROWS) for column in range(ROWS))


def steps_per_s(seconds: float) -> float:
    """Work for so long, and return the steps done in a second."""
    began = time.perf_counter()
    count = 0
    while (passed := time.perf_counter() - began) < seconds:
        work()
        count += 1
    return count / passed


def main() -> None:
    """Compare, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--period-s", type=float, default=1.0, help="of the samples")
    options = parser.parse_args()
    settings = {
        "sample_period_s": options.period_s, "courier": "process",
        "mlflow_tracking_uri": "http://127.0.0.1:1",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        tracker = ExperimentTracker("sampling", runs_dir=folder, async_mode=True, settings=settings)
        tracker.start(prometheus_port=0)
        pid = tracker._driver.pid  # type: ignore[union-attr]
        steps_per_s(5.0)  # until the courier has loaded what it needs
        before, began = psutil.Process(pid).cpu_times(), time.monotonic()
        with_samples, without = [], []
        while time.monotonic() - began < options.seconds:
            with_samples.append(steps_per_s(TURN_S))
            os.kill(pid, signal.SIGSTOP)
            without.append(steps_per_s(TURN_S))
            os.kill(pid, signal.SIGCONT)
        awake_s, after = TURN_S * len(with_samples), psutil.Process(pid).cpu_times()
        tracker.end()
    used_s = after.user + after.system - before.user - before.system
    ratios = [one / other for one, other in zip(with_samples, without, strict=True)]
    print("| | steps a second, median |\n|---|---|")
    print(f"| sampled every {options.period_s:g} s | {statistics.median(with_samples):,.0f} |")
    print(f"| not sampled | {statistics.median(without):,.0f} |")
    print(f"\nsampled / not sampled, median of {len(ratios)} pairs: {statistics.median(ratios):.4f}")
    print(f"the courier used {100 * used_s / awake_s:.2f} % of a core while it was awake")


if __name__ == "__main__":
    main()
