"""Knowing a courier by its command line."""

from __future__ import annotations

from collections.abc import Sequence

# Stands in the code that a courier's interpreter is started with; this layer cannot ask the one that holds it.
COURIER_MARK = "from lezea_mlops.runtime.courier import main"


def is_command_of_courier(command: Sequence[str]) -> bool:
    """Tell whether a process with this command line is a courier."""
    return list(command[1:3]) == ["-I", "-c"] and COURIER_MARK in "".join(command[3:4])
