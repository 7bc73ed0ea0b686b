"""A courier is known by its command line."""

from __future__ import annotations

import pytest

from lezea_mlops.capture.couriers import COURIER_MARK, is_command_of_courier
from lezea_mlops.runtime.spawning import BOOT


def test_what_starts_a_courier_holds_its_mark() -> None:
    """The layer that samples cannot import the one that spawns; here the two are held together."""
    assert COURIER_MARK in BOOT.splitlines()
    assert is_command_of_courier(["/usr/bin/python3", "-I", "-c", BOOT, "lezea-courier", "run"])


@pytest.mark.parametrize(
    "command",
    [
        [], ["python"], ["python", "-I", "-c"], ["python", "-c", COURIER_MARK],
        ["python", "-I", "train.py", COURIER_MARK], ["python", "-I", "-c", "import train", COURIER_MARK],
    ],
)  # fmt: skip
def test_other_programs_are_no_couriers(command: list[str]) -> None:
    """Also those that have the mark somewhere else, and those of which the system tells nothing."""
    assert not is_command_of_courier(command)
