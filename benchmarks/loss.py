"""How many acknowledged steps a kill costs, with our tracker and with others.

    python benchmarks/loss.py [--kills 1000] [--peer-kills 20] [--python wandb=/path/to/python …]

A process logs steps at full speed, and after each call that returned it writes the step to a memory that outlives it.
At a random moment (seeded) it gets SIGKILL; in the rows that say so, every helper process of its does too, else those
have some seconds to write what they hold. Then the tracker's own reader reads. Lost is what was acknowledged and does
not come back. The processes are forks of one that has the library imported already, so that a thousand kills take
a minute or two.
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import signal
import statistics
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

import psutil
from trackers import Nothing, add_arguments, measured_alone, metrics_of, row, tell

# A process that has logged nothing after so long has failed.
START_S = 120.0
HEADER = (
    "tracker", "killed", "kills", "within, s", "acknowledged, mean", "kills with loss", "unreadable", "lost, mean",
    "lost, most", "lost of all",
)  # fmt: skip


class Count:
    """A number that survives the process that writes it: a page of memory which forks share."""

    def __init__(self) -> None:
        self._view = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")

    def set(self, value: int) -> None:
        """Store *value* at once and whole."""
        self._view[0] = value

    def get(self) -> int:
        """Return what was stored last."""
        return self._view[0]


@dataclass(frozen=True)
class Kill:
    """What one kill cost; nothing can be read back where the reader fails."""

    acknowledged: int
    readable: int | None

    @property
    def lost(self) -> int:
        """How many acknowledged steps do not come back."""
        return self.acknowledged - (self.readable or 0)


def log_until_killed(tracker: Nothing, folder: Path, count: Count, pace_s: float) -> None:
    """Log steps at full speed, and count each when its call has returned."""
    log, step = tracker.start(folder), 0
    while True:
        log(step, metrics_of(step))
        step += 1
        count.set(step)
        if pace_s:
            time.sleep(pace_s)


def forked(function: Any, *arguments: Any) -> int:
    """Run *function* in a fork of this process, which ends with it; return its process id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        function(*arguments)
        status = 0
    finally:
        if status:
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(status)


def wait_for_first(pid: int, count: Count) -> None:
    """Wait until the process has logged something.

    Raises:
        RuntimeError: it ended, or took too long.
    """
    give_up = time.monotonic() + START_S
    while not count.get():
        if os.waitpid(pid, os.WNOHANG)[0] or time.monotonic() > give_up:
            raise RuntimeError("the process that logs ended before it had logged a step")
        time.sleep(0.001)


def end_helpers(helpers: list[psutil.Process], grace_s: float) -> None:
    """Give helpers time to write what they hold, then kill those that are left."""
    _gone, alive = psutil.wait_procs(helpers, timeout=grace_s)
    for process in alive:
        if process.is_running():
            process.kill()


def kill_once(tracker: Nothing, folder: Path, after_s: float, arguments: argparse.Namespace) -> Kill:
    """Kill one process that logs, *after_s* seconds after its first step, and count what is lost."""
    folder.mkdir()
    count, common = Count(), Count()
    pid = forked(log_until_killed, tracker, folder, count, arguments.pace_ms / 1e3)
    wait_for_first(pid, count)
    time.sleep(after_s)
    helpers = psutil.Process(pid).children(recursive=True)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    if arguments.helpers_too:
        end_helpers(helpers, 0)
    elif tracker.grace_s:
        end_helpers(helpers, tracker.grace_s)
    acknowledged = count.get()

    def read() -> None:
        common.set(len(tracker.steps(folder) & set(range(acknowledged))))

    _pid, failed = os.waitpid(forked(read), 0)
    end_helpers(helpers, 0)
    rmtree(folder, ignore_errors=True)
    return Kill(acknowledged, None if failed else common.get())


def measure(tracker: Nothing, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what the kills of one tracker cost."""
    moments = random.Random(arguments.seed)
    kills = [
        kill_once(tracker, folder / f"run{number}", moments.random() * arguments.within_s, arguments)
        for number in range(arguments.kills)
    ]
    lost = [kill.lost for kill in kills]
    acknowledged = sum(kill.acknowledged for kill in kills)
    return {
        "kills": len(kills), "within_s": arguments.within_s, "with_loss": sum(1 for steps in lost if steps),
        "unreadable": sum(1 for kill in kills if kill.readable is None),
        "mean": statistics.mean(lost), "most": max(lost), "share": sum(lost) / acknowledged,
        "acknowledged": acknowledged / len(kills), "killed": "it and its helpers" if arguments.helpers_too else "it",
    }  # fmt: skip


def cells(found: dict[str, Any]) -> list[str]:
    """Return the figures of one tracker as texts."""
    return [
        found["killed"], f"{found['kills']:,}", f"{found['within_s']:g}", f"{found['acknowledged']:,.0f}",
        f"{found['with_loss']:,}", f"{found['unreadable']:,}", f"{found['mean']:,.1f}", f"{found['most']:,}",
        f"{found['share']:.1%}",
    ]  # fmt: skip


def main() -> None:
    """Kill each tracker in turn and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=1_000, help="of ours, in each of its rows")
    parser.add_argument("--peer-kills", type=int, default=20)
    parser.add_argument(
        "--within-s", type=float, default=0.06, help="of the first step, for most kills of ours"
    )
    parser.add_argument(
        "--peer-within-s", type=float, default=2.0, help="for others, and as many kills of ours"
    )
    parser.add_argument("--pace-ms", type=float, default=0.0, help="a pause after each step")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--helpers-too", action="store_true", help=argparse.SUPPRESS)
    add_arguments(parser)
    arguments = parser.parse_args()
    if arguments.only:
        tell(arguments, lambda tracker, folder: measure(tracker, folder, arguments))
        return
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    for name in arguments.trackers:
        if name == "nobody":
            continue
        like_others = ["--kills", str(arguments.peer_kills), "--within-s", str(arguments.peer_within_s)]
        ways = [[], ["--helpers-too"], like_others] if name.startswith("lezea") else [like_others]
        for extra in ways:
            print(row(name, measured_alone(arguments, name, extra), cells, len(HEADER) - 1), flush=True)


if __name__ == "__main__":
    main()
