"""What sampling costs the program that is sampled: a training loop with and without it, in turn, in one process.

    python benchmarks/sampling.py [--seconds 240] [--period-s 1]

The loop computes and does nothing else. Two runs are open, each with a courier that has nothing to deliver: one samples
and serves Prometheus, the other does neither. In turn one of them is stopped (SIGSTOP), so that the same loop runs with
and without samples and nothing else differs. Beside the ratio stands what each courier used of a core.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import statistics
import tempfile
import time
from pathlib import Path

import psutil

from lezea_mlops.tracker import ExperimentTracker

# Not a multiple of the usual periods.
TURN_S = 1.5
WARM_UP_S = 8.0
ROWS = 40


def work() -> float:
    """Do what a step does: some dozens of microseconds of arithmetic."""
    return sum(row * column % 7 for row in range(ROWS) for column in range(ROWS))


def steps_per_s(seconds: float) -> float:
    """Work for so long, and return the steps done in a second."""
    began = time.perf_counter()
    count = 0
    while (passed := time.perf_counter() - began) < seconds:
        work()
        count += 1
    return count / passed


class Courier:
    """A run with a courier, which can be stopped."""

    def __init__(self, folder: Path, period_s: float, port: int | None) -> None:
        settings = {
            "sample_period_s": period_s,
            "courier": "process",
            "mlflow_tracking_uri": "http://127.0.0.1:1",
        }
        self.tracker = ExperimentTracker("sampling", runs_dir=folder, async_mode=True, settings=settings)
        self.tracker.start(prometheus_port=port)
        self.process = psutil.Process(self.tracker._driver.pid)  # type: ignore[union-attr]
        self.awake_s, self._began_s = 0.0, 0.0

    def begin(self) -> None:
        """Count from here."""
        self._began_s = self._used_s()

    def let_work(self, seconds: float) -> float:
        """Wake it, and return the steps a second of the loop beside it."""
        os.kill(self.process.pid, signal.SIGCONT)
        found = steps_per_s(seconds)
        os.kill(self.process.pid, signal.SIGSTOP)
        self.awake_s += seconds
        return found

    def share(self) -> float:
        """Return what it used of a core while it was awake."""
        return (self._used_s() - self._began_s) / self.awake_s

    def end(self) -> None:
        """Wake it and end the run."""
        os.kill(self.process.pid, signal.SIGCONT)
        self.tracker.end()

    def _used_s(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)


def main() -> None:
    """Compare, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--period-s", type=float, default=1.0, help="of the samples")
    options = parser.parse_args()
    # That nobody listens at the destination is meant.
    logging.getLogger("lezea_mlops").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        couriers = [Courier(Path(folder), options.period_s, 0), Courier(Path(folder), 0.0, None)]
        steps_per_s(min(WARM_UP_S, options.seconds))
        for courier in couriers:
            os.kill(courier.process.pid, signal.SIGSTOP)
            courier.begin()
        found: tuple[list[float], list[float]] = ([], [])
        until = time.monotonic() + options.seconds
        while time.monotonic() < until:
            for courier, rates in zip(couriers, found, strict=True):
                rates.append(courier.let_work(TURN_S))
        shares = [courier.share() for courier in couriers]
        for courier in couriers:
            courier.end()
    ratios = sorted(one / other for one, other in zip(*found, strict=True))
    print("| | steps a second, median | courier, % of a core |\n|---|---|---|")
    for name, rates, share in zip(
        (f"sampled every {options.period_s:g} s", "not sampled"), found, shares, strict=True
    ):
        print(f"| {name} | {statistics.median(rates):,.0f} | {100 * share:.2f} |")
    print(f"\nsampled / not sampled, {len(ratios)} pairs: median {statistics.median(ratios):.4f}, ", end="")
    print(f"half of them from {ratios[len(ratios) // 4]:.4f} to {ratios[-1 - len(ratios) // 4]:.4f}")


if __name__ == "__main__":
    main()
