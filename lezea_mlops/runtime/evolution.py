"""Reading the evolution of a run back from its folder: modifications, networks, populations."""

from __future__ import annotations

from lezea_mlops.evolution import Evolution, ModificationTree
from lezea_mlops.runtime.history import RunDir, _whole_records

__all__ = ["Evolution", "ModificationTree", "read_evolution"]


def read_evolution(run_dir: RunDir) -> Evolution:
    """Return the modifications and networks of a run, as its journals hold them.

    Args:
        run_dir: the run folder; the run may be going on.

    Raises:
        JournalError: the folder holds no journal, or it cannot be read.
    """
    return Evolution().read(_whole_records(run_dir))
