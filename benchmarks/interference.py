"""What logging and its background delivery cost a training loop, ours and others', each in a process of its own.

    python benchmarks/interference.py [--steps 5000] [--pairs 12] [--python wandb=/path/to/python …]

A step is about 200 µs of pure Python, and two metrics are logged after it. Blocks of steps with the tracker stand in
turn with blocks without it, and with blocks without it while a process of the lowest priority computes: what that one
costs is this machine's part, for whoever delivers beside the loop. Each block with the tracker begins with steps that
are not timed, so that delivery is under way, and after it the process and its helpers come to rest. Each call is
timed too; ``beyond the call`` is what the loop lost besides the median call.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from trackers import Log, Nothing, add_arguments, measured_alone, metrics_of, row, tell

WORK_US = 200
LEAD_S = 0.3
# A pair of blocks, and the rest after it, take about so long at most; a slow tracker gets fewer steps.
PAIR_S = 6.0
QUIET_SHARE = 0.05
REST_S = 20.0
NEIGHBOUR = "import os\nos.nice(19)\nwhile True:\n    [number * number for number in range(1000)]"
HEADER = (
    "tracker", "steps × pairs", "loop alone, µs", "beside a busy process", "with the tracker", "quartiles",
    "median call, µs", "beyond the call", "CPU beside the loop",
)  # fmt: skip


def work(numbers: tuple[int, ...]) -> None:
    """Compute a little; no memory is taken, so that the speed does not depend on what the heap looks like."""
    total = 0
    for number in numbers:
        total = (total + number) & 127


def calibrated() -> int:
    """Return how many rounds of a hundred numbers take the work of one step."""
    numbers = tuple(range(100)) * 20
    times = []
    for _ in range(2_000):
        before = time.perf_counter()
        work(numbers)
        times.append(time.perf_counter() - before)
    return max(1, round(WORK_US / 1e6 / statistics.median(times) * 20))


class Loop:
    """The training loop."""

    def __init__(self, rounds: int) -> None:
        self._numbers = tuple(range(100)) * rounds
        self._step = 0

    def block(self, log: Log, steps: int) -> tuple[float, float]:
        """Run *steps*; return the microseconds of a step and those of the median call."""
        clock, numbers, calls = time.perf_counter_ns, self._numbers, array("q")
        first, self._step = self._step, self._step + steps
        began = clock()
        for step in range(first, first + steps):
            work(numbers)
            before = clock()
            log(step, metrics_of(step))
            calls.append(clock() - before)
        return (clock() - began) / steps / 1e3, statistics.median(calls) / 1e3

    def timed(self, log: Log, steps: int) -> tuple[float, float]:
        """Run a block after steps that are not timed."""
        lead = min(steps, int(LEAD_S * 1e6 / WORK_US))
        self.block(log, lead)
        return self.block(log, steps)


def cpu_s(besides: int = 0) -> float:
    """Return the CPU seconds of this process and its helpers, except the process *besides*."""
    used = 0.0
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):  # it has just ended
            if process.pid != besides:
                used += sum(process.cpu_times()[:2])
    return used


def rest(besides: int) -> float:
    """Wait until this process and its helpers have nothing left to do, for a while at most; return how long."""
    began, quiet, used = time.perf_counter(), 0, cpu_s(besides)
    while quiet < 4 and time.perf_counter() - began < REST_S:
        time.sleep(0.15)
        now = cpu_s(besides)
        quiet = quiet + 1 if now - used <= 0.15 * QUIET_SHARE + 0.005 else 0
        used = now
    return time.perf_counter() - began


@contextlib.contextmanager
def neighbour() -> Iterator[subprocess.Popen[bytes]]:
    """Yield a process that computes at the lowest priority, stopped."""
    process = subprocess.Popen([sys.executable, "-c", NEIGHBOUR])
    process.send_signal(signal.SIGSTOP)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def measure(tracker: Nothing, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one tracker."""
    (folder / "run").mkdir()
    idle = Nothing().start(folder)
    loop = Loop(arguments.rounds)
    with neighbour() as busy:
        log = tracker.start(folder / "run")
        rest(busy.pid)
        steps = fitting(loop, log, arguments.steps, busy.pid)
        blocks = []
        give_up = time.perf_counter() + arguments.seconds
        while len(blocks) < arguments.pairs and (len(blocks) < 3 or time.perf_counter() < give_up):
            blocks.append(one_round(loop, log, idle, steps, busy))
        tracker.end()
    return figures(blocks, steps)


def fitting(loop: Loop, log: Log, steps: int, besides: int) -> int:
    """Return how many steps a block may have for its pair to stay short; the path is warm afterwards."""
    loop.block(log, 20)
    tried = min(steps, 300)
    before = time.perf_counter()
    loop.block(log, tried)
    seconds = time.perf_counter() - before + max(0.0, rest(besides) - 0.8)
    return max(50, min(steps, int(PAIR_S / (seconds / tried))))


def one_round(loop: Loop, log: Log, idle: Log, steps: int, busy: subprocess.Popen[bytes]) -> dict[str, float]:
    """Run a block alone, one beside the busy process, and one with the tracker."""
    alone, _ = loop.timed(idle, steps)
    busy.send_signal(signal.SIGCONT)
    beside, _ = loop.timed(idle, steps)
    busy.send_signal(signal.SIGSTOP)
    loop.block(log, min(steps, int(LEAD_S * 1e6 / WORK_US)))
    cpu, own, began = cpu_s(busy.pid), time.thread_time(), time.perf_counter()
    logged, call = loop.block(log, steps)
    seconds = time.perf_counter() - began
    others = cpu_s(busy.pid) - cpu - (time.thread_time() - own)
    rest(busy.pid)
    return {"alone": alone, "beside": beside, "logged": logged, "call": call, "cores": others / seconds}


def figures(blocks: list[dict[str, float]], steps: int) -> dict[str, Any]:
    """Return medians over the rounds; ratios are taken within a round."""
    ratios = sorted(block["logged"] / block["alone"] for block in blocks)
    beyond = [(block["logged"] - block["alone"] - block["call"]) / block["alone"] for block in blocks]
    return {
        "steps": steps, "pairs": len(blocks), "ratio": statistics.median(ratios),
        "quartiles": [ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]], "beyond": statistics.median(beyond),
        "neighbour": statistics.median(block["beside"] / block["alone"] for block in blocks),
    } | {name: statistics.median(block[name] for block in blocks) for name in ("alone", "call", "cores")}  # fmt: skip


def cells(found: dict[str, Any]) -> list[str]:
    """Return the figures of one tracker as texts."""
    return [
        f"{found['steps']:,} × {found['pairs']}", f"{found['alone']:.0f}", f"× {found['neighbour']:.3f}",
        f"× {found['ratio']:.3f}", "{:.3f}–{:.3f}".format(*found["quartiles"]), f"{found['call']:.1f}",
        f"{found['beyond']:+.1%}", f"{found['cores']:.2f}",
    ]  # fmt: skip


def main() -> None:
    """Measure each tracker in turn and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=5_000, help="of a block")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=90, help="for one tracker, but three pairs at least")
    parser.add_argument("--rounds", type=int, default=0, help="the work of a step; default: measured")
    add_arguments(parser)
    arguments = parser.parse_args()
    if arguments.only:
        tell(arguments, lambda tracker, folder: measure(tracker, folder, arguments))
        return
    rounds = arguments.rounds or calibrated()
    print(f"load before: {os.getloadavg()[0]:.2f}\n\n| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    for name in arguments.trackers:
        found = measured_alone(arguments, name, ["--rounds", str(rounds)])
        print(row(name, found, cells, len(HEADER) - 1), flush=True)


if __name__ == "__main__":
    main()
