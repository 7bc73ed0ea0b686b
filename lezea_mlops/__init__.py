"""The experiment tracker for long, evolutionary AI research.

Importing this package costs nothing: each public name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module

# Type checkers take this name for true; importing it from ``typing`` would cost most of this package's import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from lezea_mlops.runtime.evolution import ModificationTree, query_evolution, read_evolution
    from lezea_mlops.runtime.history import ABSENT, read_config, read_history, read_revisions
    from lezea_mlops.tracker import ExperimentTracker, NetworkType

__version__ = "0.1.0"
__all__ = [
    "ABSENT",
    "ExperimentTracker",
    "ModificationTree",
    "NetworkType",
    "__version__",
    "query_evolution",
    "read_config",
    "read_evolution",
    "read_history",
    "read_revisions",
]

_HOME_OF = {
    "ABSENT": "lezea_mlops.runtime.history",
    "ExperimentTracker": "lezea_mlops.tracker",
    "ModificationTree": "lezea_mlops.runtime.evolution",
    "NetworkType": "lezea_mlops.tracker",
    "query_evolution": "lezea_mlops.runtime.evolution",
    "read_config": "lezea_mlops.runtime.history",
    "read_evolution": "lezea_mlops.runtime.evolution",
    "read_history": "lezea_mlops.runtime.history",
    "read_revisions": "lezea_mlops.runtime.history",
}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
