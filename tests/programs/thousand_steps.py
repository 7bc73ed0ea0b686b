"""A training program that a test leads through its day: for each line it reads, it logs a quarter of its steps.

    python thousand_steps.py waiting|async

It prints its run's id, then after each quarter the seconds that its calls took, and at the end its health as JSON. The
line ``flush`` makes it wait until all is delivered, the line ``end`` ends it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time

from lezea_mlops import ExperimentTracker

QUARTER = 250
HOUR_NS = 3_600 * 1_000_000_000


def jump(quarter: int) -> None:
    """Set the clock of this program an hour back, then an hour ahead, and so on."""
    import lezea_mlops.journal.writer as writer

    real, shift = time.time_ns, -HOUR_NS if quarter % 2 else HOUR_NS
    writer.time_ns = lambda: real() + shift  # type: ignore[attr-defined]


def main() -> None:
    """Do what the lines say."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    tracker = ExperimentTracker("Bad days", async_mode=sys.argv[1] == "async")
    tracker.start()
    print(tracker.experiment_id, flush=True)
    step = 0
    for line in sys.stdin:
        if line.strip() == "end":
            break
        if line.strip() == "flush":
            print(tracker.flush(120.0), flush=True)
            continue
        if os.environ.get("THOUSAND_STEPS_CLOCK") == "jumps":
            jump(step // QUARTER)
        before = time.perf_counter()
        for at in range(step, step + QUARTER):
            tracker.log_training_step(at, {"loss": 1.0 / (at + 1)})
        print(time.perf_counter() - before, flush=True)
        step += QUARTER
    tracker.end()
    print(json.dumps(tracker.health()), flush=True)


if __name__ == "__main__":
    main()
