"""Scopes as accounts keep them: bounded in depth and length, each with the paths that it counts for."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from lezea_mlops.accounting.quantities import MAX_TEXT, short_text
from lezea_mlops.events import ScopePairs

# Levels further inside are left out; what was used there counts for the levels around them.
MAX_DEPTH = 20
# No path of a scope that is kept is longer.
MAX_PATH = MAX_DEPTH * 2 * (MAX_TEXT + 1)


def read_scope(told: Any) -> ScopePairs:
    """Return a scope as a record or a row tells it; none where it is not one."""
    if not told or not isinstance(told, (list, tuple)):
        return ()
    pairs = []
    for pair in told[:MAX_DEPTH]:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            return ()
        level, identity = map(short_text, pair)
        if level is None or identity is None:
            return ()
        pairs.append((level, identity))
    return tuple(pairs)


@lru_cache(maxsize=1_000)
def paths_of(scope: ScopePairs) -> tuple[str, ...]:
    """Return the paths of a scope and of those around it, outermost first."""
    levels = [f"{level}:{identity}" for level, identity in scope]
    return tuple("/".join(levels[: depth + 1]) for depth in range(len(levels)))
