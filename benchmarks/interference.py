"""What logging and its background delivery cost a training loop, ours and others', each in a process of its own.

    python benchmarks/interference.py [--steps 5000] [--pairs 12] [--python wandb=/path/to/python …]

A step is about 200 µs of pure Python, and two metrics are logged after it. Blocks of steps with the tracker stand in
turn with blocks without it, and with blocks without it while a process of the lowest priority computes: what that one
costs is this machine's part, for whoever delivers beside the loop. Each block begins with steps that are not timed, so
that delivery is under way, and after one with the tracker the process and its helpers come to rest. Each call is timed
too; ``beyond the call`` is what the loop lost besides the median call. How much of its time the loop waited for a
processor, without the tracker and with it, tells how busy the machine was: a table of a busy one says little.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from trackers import Log, Nothing, add_arguments, measured_alone, metrics_of, row, tell

WORK_US = 200
LEAD_S = 0.3
# A pair of blocks, and the rest after it, take about so long at most; a slow tracker gets fewer steps.
PAIR_S = 6.0
# It rests when it uses less than this share of a core in so many looks.
QUIET_SHARE = 0.05
QUIET_LOOKS = 4
LOOK_EVERY_S = 0.15
SHORTEST_REST_S = QUIET_LOOKS * LOOK_EVERY_S
REST_S = 20.0
NEIGHBOUR = "import os\nos.nice(19)\nwhile True:\n    [number * number for number in range(1000)]"
HEADER = (
    "tracker", "steps × pairs", "loop alone, µs", "beside a busy process", "with the tracker", "quartiles",
    "median call, µs", "beyond the call", "CPU beside the loop", "waited for a CPU",
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


@dataclass(frozen=True)
class Block:
    """What was measured of a block of steps.

    Attributes:
        step_us: microseconds of a step.
        call_us: those of the median call.
        waited: share of the time in which the loop was ready to run and had no processor.
        cores: CPU that other threads of the process and its helpers used meanwhile.
    """

    step_us: float
    call_us: float
    waited: float
    cores: float


class Loop:
    """The training loop.

    Args:
        rounds: how much work a step is.
        besides: a process whose CPU is not counted.
    """

    def __init__(self, rounds: int, besides: int) -> None:
        self._numbers = tuple(range(100)) * rounds
        self._besides = besides
        self._step = 0

    def run(self, log: Log, steps: int) -> tuple[float, float]:
        """Run *steps*; return the microseconds of all and those of the median call."""
        clock, numbers, calls = time.perf_counter_ns, self._numbers, array("q")
        first, self._step = self._step, self._step + steps
        began = clock()
        for step in range(first, first + steps):
            work(numbers)
            before = clock()
            log(step, metrics_of(step))
            calls.append(clock() - before)
        return (clock() - began) / 1e3, statistics.median(calls) / 1e3

    def block(self, log: Log, steps: int) -> Block:
        """Measure a block, after steps that are not measured."""
        self.run(log, min(steps, int(LEAD_S * 1e6 / WORK_US)))
        used, own, waited = cpu_s(self._besides), time.thread_time(), waited_s()
        whole_us, call_us = self.run(log, steps)
        seconds, waited, own = whole_us / 1e6, waited_s() - waited, time.thread_time() - own
        used = cpu_s(self._besides) - used
        return Block(whole_us / steps, call_us, waited / seconds, (used - own) / seconds)


# Alone, beside the busy process, and with the tracker.
Round = tuple[Block, Block, Block]


def cpu_s(besides: int = 0) -> float:
    """Return the CPU seconds of this process and its helpers, except the process *besides*."""
    used = 0.0
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):  # it has just ended
            if process.pid != besides:
                used += sum(process.cpu_times()[:2])
    return used


def waited_s() -> float:
    """Return the seconds that this thread was ready to run and had no processor; 0 where only the system knows."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    return 0.0


def rest(besides: int) -> float:
    """Wait until this process and its helpers have nothing left to do, for a while at most; return how long."""
    began, quiet, used = time.perf_counter(), 0, cpu_s(besides)
    while quiet < QUIET_LOOKS and time.perf_counter() - began < REST_S:
        time.sleep(LOOK_EVERY_S)
        now = cpu_s(besides)
        quiet = quiet + 1 if now - used <= LOOK_EVERY_S * QUIET_SHARE + 0.005 else 0
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
    with neighbour() as busy:
        loop = Loop(arguments.rounds, busy.pid)
        log = tracker.start(folder / "run")
        rest(busy.pid)
        steps = fitting(loop, log, arguments.steps, busy.pid)
        rounds: list[Round] = []
        give_up = time.perf_counter() + arguments.seconds
        while len(rounds) < arguments.pairs and (len(rounds) < 3 or time.perf_counter() < give_up):
            rounds.append(one_round(loop, log, idle, steps, busy))
        tracker.end()
    return figures(rounds, steps)


def fitting(loop: Loop, log: Log, steps: int, besides: int) -> int:
    """Return how many steps a block may have for its pair to stay short; the path is warm afterwards."""
    loop.run(log, 20)
    tried = min(steps, 300)
    seconds = loop.run(log, tried)[0] / 1e6 + max(0.0, rest(besides) - SHORTEST_REST_S)
    return max(50, min(steps, int(PAIR_S / (seconds / tried))))


def one_round(loop: Loop, log: Log, idle: Log, steps: int, busy: subprocess.Popen[bytes]) -> Round:
    """Run a block alone, one beside the busy process, and one with the tracker."""
    alone = loop.block(idle, steps)
    busy.send_signal(signal.SIGCONT)
    beside = loop.block(idle, steps)
    busy.send_signal(signal.SIGSTOP)
    logged = loop.block(log, steps)
    rest(busy.pid)
    return alone, beside, logged


def figures(rounds: list[Round], steps: int) -> dict[str, Any]:
    """Return medians over the rounds; ratios are taken within a round."""
    ratios = sorted(logged.step_us / alone.step_us for alone, _, logged in rounds)
    median = statistics.median
    return {
        "steps": steps,
        "pairs": len(rounds),
        "ratio": median(ratios),
        "quartiles": [ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]],
        "neighbour": median(beside.step_us / alone.step_us for alone, beside, _ in rounds),
        "alone": median(alone.step_us for alone, _, _ in rounds),
        "call": median(logged.call_us for _, _, logged in rounds),
        "beyond": median(
            (logged.step_us - alone.step_us - logged.call_us) / alone.step_us for alone, _, logged in rounds
        ),
        "cores": median(logged.cores for _, _, logged in rounds),
        "waited": [
            median(alone.waited for alone, _, _ in rounds),
            median(log.waited for _, _, log in rounds),
        ],
    }


def cells(found: dict[str, Any]) -> list[str]:
    """Return the figures of one tracker as texts."""
    return [
        f"{found['steps']:,} × {found['pairs']}", f"{found['alone']:.0f}", f"× {found['neighbour']:.3f}",
        f"× {found['ratio']:.3f}", "{:.3f}–{:.3f}".format(*found["quartiles"]), f"{found['call']:.1f}",
        f"{found['beyond']:+.1%}", f"{found['cores']:.2f}",
        "{:.0%} → {:.0%}".format(*found["waited"]),
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
