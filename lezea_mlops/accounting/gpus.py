"""GPUs as samples tell of them: several processes may see the same device, and its time counts once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from lezea_mlops._bounded import BoundedTable, stored_step, stored_text
from lezea_mlops.accounting.quantities import UNNAMED, amount, short_text

MAX_DEVICES = 1_000
# GPUs of further names are counted under one.
MAX_NAMES = 50
OTHER_NAMES = "(other GPUs)"
# So many spans of time are remembered for each device; of one process that goes on they are one.
MAX_SPANS = 64


class Gpu(NamedTuple):
    """What one sample says of one GPU.

    Attributes:
        name: its name, such as ``NVIDIA H200``.
        used: share of the device that was busy; of a device that others alone hold, none.
        held: whether a process of ours holds it; None where the driver does not tell.
        watts: its power, where it is ours and known.
    """

    name: str
    used: float
    held: bool | None
    watts: float | None


def read_gpus(sample: Mapping[str, Any], writer: str) -> dict[str, Gpu]:
    """Return the GPUs of a sample by what tells devices apart: the uuid, else the writer and a number."""
    listed = sample.get("gpus")
    found: dict[str, Gpu] = {}
    for number, gpu in enumerate(listed[:MAX_DEVICES] if isinstance(listed, list) else ()):
        if not isinstance(gpu, Mapping):
            continue
        index = gpu.get("index")
        device = short_text(gpu.get("uuid")) or f"{writer}/{index if type(index) is int else number}"
        held = gpu.get("held")
        theirs = held is False
        percent = None if theirs else amount(gpu.get("util_percent"))
        found[device] = Gpu(
            name=short_text(gpu.get("name")) or UNNAMED,
            # Above its whole no device is busy.
            used=min(percent or 0.0, 100.0) / 100,
            held=held if isinstance(held, bool) else None,
            watts=None if theirs else amount(gpu.get("power_w"), 1e5),
        )
    return found


class Coverage:
    """Which time of a device was counted, and for whom: what one process counted counts for no other."""

    __slots__ = ("_spans",)

    def __init__(self) -> None:
        self._spans: list[tuple[int, int, str]] = []

    def take(self, start: int, end: int, owner: str) -> float:
        """Count the time from *start* to *end* for *owner*, and return which share of it was still free."""
        free = [(start, end)]
        for a, b, other in self._spans:
            if other != owner and a < end and b > start:
                free = [
                    piece
                    for s, e in free
                    for piece in ((s, min(e, a)), (max(s, b), e))
                    if piece[0] < piece[1]
                ]
        for s, e in free:
            self._add(s, e, owner)
        return sum(e - s for s, e in free) / (end - start)

    def _add(self, start: int, end: int, owner: str) -> None:
        for number in range(len(self._spans) - 1, -1, -1):
            a, b, other = self._spans[number]
            if other == owner:
                if a <= start <= b:
                    self._spans[number] = (a, max(b, end), owner)
                    return
                break
        self._spans.append((start, end, owner))
        del self._spans[:-MAX_SPANS]

    def state(self) -> list[Any]:
        """Return all of it as JSON, for ``restored``."""
        return [list(span) for span in self._spans]

    @classmethod
    def restored(cls, state: Any) -> Coverage:
        """Return what goes on from a state.

        Raises:
            TypeError, ValueError: it is damaged.
        """
        coverage = cls()
        for start, end, owner in state:
            if not stored_step(start) < stored_step(end):
                raise ValueError(f"expected a span of time, found {start!r:.80} to {end!r:.80}")
            coverage._spans.append((start, end, stored_text(owner)))
        return coverage


class Devices:
    """All GPUs that samples told of: the time of each that was counted, and the names in use."""

    def __init__(self) -> None:
        self._counted: BoundedTable[str, Coverage] = BoundedTable(Coverage, MAX_DEVICES)
        self._names: dict[str, None] = {}

    def free_share(self, device: str, start: int, end: int, owner: str) -> float:
        """Return which share of a time no other process has counted, and count it for *owner*."""
        return self._counted[device].take(start, end, owner)

    def name(self, name: str) -> str:
        """Return the name under which the time of a GPU is kept."""
        if name not in self._names:
            if len(self._names) >= MAX_NAMES:
                return OTHER_NAMES
            self._names[name] = None
        return name

    def state(self) -> list[Any]:
        """Return all of it as JSON, for ``restore``."""
        return [self._counted.state(Coverage.state), list(self._names)]

    def restore(self, state: Any) -> None:
        """Go on from a state.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        counted, names = state
        self._counted.restore(counted, stored_text, Coverage.restored)
        self._names = dict.fromkeys(map(stored_text, names))
