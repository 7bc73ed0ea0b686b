"""What surrounds a run when it starts: repository, host, packages, GPUs, data.

Each function answers with plain values and never stops a run for what it cannot learn. The one exception is
`fingerprint_dataset`: there the caller names the data, so data that is not there is the caller's mistake.
"""

from __future__ import annotations

from lezea_mlops.capture.datasets import fingerprint_dataset
from lezea_mlops.capture.git import capture_git
from lezea_mlops.capture.gpu import capture_gpus
from lezea_mlops.capture.host import capture_host
from lezea_mlops.capture.packages import capture_packages

__all__ = ["capture_git", "capture_gpus", "capture_host", "capture_packages", "fingerprint_dataset"]
