"""Settings of a process that is ours alone, the courier's or a command's; a training process keeps its own."""

from __future__ import annotations

import gc
import os

# MLflow waits for minutes by default, and tells its makers of its use.
MLFLOW_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
# A delivery makes thousands of small objects that hold no circles. Looking for some as often as Python does by default
# takes as long as all else that we do for a record.
COLLECT_AFTER = (50_000, 20, 100)


def prepare_own_process() -> None:
    """Let MLflow give up in time, where the user's environment says nothing else, and garbage be looked for seldom."""
    for name, value in MLFLOW_DEFAULTS.items():
        os.environ.setdefault(name, value)
    gc.set_threshold(*COLLECT_AFTER)
