"""What scopes are, and which of them hold individuals: said once, for those who record and those who show."""

from __future__ import annotations

from typing import TypeAlias

# (level, id), outermost first.
ScopePairs: TypeAlias = tuple[tuple[str, str], ...]

# Levels of which a run may have thousands.
INDIVIDUAL_LEVELS = frozenset({"builder", "tasker", "modification"})

# Up to so many metric names a destination shows each individual's own. Above it the recorder folds individuals, and
# a destination may show the folds in their place; the two must not disagree.
MAX_NAMES_APART = 1_000
