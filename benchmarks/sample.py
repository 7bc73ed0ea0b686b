"""What one sample of a process, its children, the host and its GPUs costs.

    python benchmarks/sample.py [--samples 300] [--children 0 20] [--period-s 5]

The process that is sampled sleeps, as its children do; another process, this one, takes the samples, as the courier
does. The cost is processor time of this process, and so holds all that the system does on its behalf. The clock of the
sampler is moved on by the period before each sample, so that it searches for children as often as it would.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lezea_mlops.capture.usage import UsageSampler

SLEEPER = "import sys; print(flush=True); sys.stdin.read()"
PARENT = f"""
import subprocess, sys
command = [sys.executable, "-S", "-c", {SLEEPER!r}]
children = [
    subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(int(sys.argv[1]))
]
for child in children:
    child.stdout.readline()
print(flush=True)
sys.stdin.read()
for child in children:
    child.stdin.close()
    child.wait()
"""
LIMIT = 0.001


@contextmanager
def family(children: int) -> Iterator[int]:
    """Yield the pid of a process with children that all sleep."""
    command = [sys.executable, "-S", "-c", PARENT, str(children)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.communicate()


class Clock:
    """The monotonic clock, ahead of itself by what is skipped."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


def measure(children: int, samples: int, period_s: float, folder: Path) -> str:
    """Sample a process with so many children; return a line of the table."""
    clock = Clock()
    costs_s, walls_s, gpus = [], [], 0
    with family(children) as pid:
        sampler = UsageSampler(pid, "main", folder, period_s, clock=clock)
        # The first sample loads libraries.
        assert sampler.sample()["sample"]["process"]["children"] == children
        for _ in range(samples):
            clock.ahead_s += period_s
            began_s, used_s = time.perf_counter(), time.process_time()
            fields = sampler.sample()
            costs_s.append(time.process_time() - used_s)
            walls_s.append(time.perf_counter() - began_s)
            gpus = len(fields["sample"].get("gpus", ()))
        sampler.close()
    share = statistics.mean(costs_s) / period_s
    return (
        f"| {children} | {gpus} | {statistics.median(costs_s) * 1e3:.2f} | {max(costs_s) * 1e3:.2f} "
        f"| {statistics.median(walls_s) * 1e3:.2f} | {share:.4%} | {'ok' if share <= LIMIT else 'over'} |"
    )


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--children", type=int, nargs="+", default=[0, 20])
    parser.add_argument("--period-s", type=float, default=5.0)
    arguments = parser.parse_args()
    print(f"{arguments.samples} samples, one each {arguments.period_s:g} s; limit {LIMIT:.1%} of a core\n")
    print("| children | GPUs | median ms of processor | most | median ms of time | share of a core | limit |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for children in arguments.children:
            print(measure(children, arguments.samples, arguments.period_s, Path(folder)))


if __name__ == "__main__":
    main()
