"""A run folder whose journal is written by hand, and the shipper of one sink: what the places of the sinks share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lezea_mlops.delivery import Shipper, Step
from lezea_mlops.journal import JournalWriter, RunFolder
from lezea_mlops.sinks.base import Sink, destination_id
from lezea_mlops.testing import FakeClock


class WrittenByHand:
    """A run folder, and what delivers it.

    Args:
        folder: of the run; it is made.
        make_sink: returns a new sink for it.
    """

    def __init__(self, folder: RunFolder, make_sink: Callable[[], Sink]) -> None:
        self.folder = folder
        self.folder.create()
        self._make_sink = make_sink
        self.shipper = self.make_shipper()

    def make_shipper(self) -> Shipper:
        """Return a shipper with a sink of its own, as another process has them."""
        return Shipper(self.folder, self._make_sink(), FakeClock())

    def log(self, kind: str, *, wid: str = "main", att: int = 1, **fields: Any) -> None:
        """Append one record."""
        writer = JournalWriter(self.folder, wid, attempt=att, durability="process")
        writer.append(kind, fields)
        writer.close()

    def ship(self) -> Shipper:
        """Ship until nothing waits, or until a delivery fails."""
        self.shipper.breaker.retry_now()
        while self.shipper.ship_once() is Step.SHIPPED:
            pass
        return self.shipper

    def forget(self) -> None:
        """Lose the cursor."""
        self.shipper.close()
        self.folder.cursor(destination_id(self.shipper.sink)).unlink()
        self.shipper = self.make_shipper()
