"""A training program that is killed: it logs steps until it ends or is ended, and says which calls have returned.

    python evolving.py STEPS [RUN_TO_RESUME FIRST_STEP]

It prints its run's id, then the number of each step whose call has returned.
"""

from __future__ import annotations

import logging
import sys

from lezea_mlops import ExperimentTracker


def main() -> None:
    """Log steps of builders, with a modification tree and a parameter now and then."""
    logging.basicConfig(level=logging.ERROR)
    count, *resumed = sys.argv[1:]
    run, first = resumed or (None, "0")
    tracker = ExperimentTracker("Chaos", async_mode=True, resume=run, tags={"kind": "chaos"})
    tracker.start()
    print(tracker.experiment_id, flush=True)
    for step in range(int(first), int(first) + int(count)):
        with tracker.builder_scope(step % 3):
            tracker.log_training_step(step, {"loss": 1.0 / (step + 1), "acc": step * 1e-3})
        if step % 50 == 0:
            tracker.log_modification_tree(step, [{"type": "widen", "accepted": step % 100 == 0}])
            tracker.log_params({"lr": 0.1 / (1 + step // 100)})
        print(step, flush=True)
    tracker.end()


if __name__ == "__main__":
    main()
