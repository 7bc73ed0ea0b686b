"""Where the monitoring of a run happens: in a courier, or in the process that trains."""

from __future__ import annotations

import collections
import logging
from collections.abc import Callable, Mapping
from typing import Any

from lezea_mlops.errors import JournalError
from lezea_mlops.events import CLASS_OF_TYPE
from lezea_mlops.journal import JournalWriter
from lezea_mlops.runtime.delivering import RunDelivery, last_of_all
from lezea_mlops.runtime.recorder import Recorder, child_of

log = logging.getLogger("lezea_mlops")

# So many are kept for the training process; of more, the oldest go.
MAX_NOTICES = 100

Fields = Mapping[str, Any]


class InCourier:
    """The courier of one writer.

    What concerns the whole run is journaled as ``courier`` by the one that delivers it. The couriers of other writers
    have a file each for their samples, because nobody shares a file.

    Args:
        delivery: the run's delivery.
        wid: the writer whose courier this is.
        attempt: its attempt.
        tell: brings something to the training process.
    """

    def __init__(
        self, delivery: RunDelivery, wid: str, attempt: int, tell: Callable[[dict[str, Any]], None]
    ) -> None:
        self.tell = tell
        self._delivery = delivery
        self._wid, self._attempt = child_of(wid), attempt
        self._writer: JournalWriter | None = None
        self._told = False

    def write(self, type_name: str, fields: Fields) -> bool:
        """Journal a record; False if that cannot be done now."""
        try:
            if self._delivery.delivers:
                return self._delivery.write_as_courier(type_name, fields, self._attempt)
            if self._writer is None:
                self._writer = JournalWriter(self._delivery.folder, self._wid, attempt=self._attempt)
            self._writer.append(type_name, fields)
        except (JournalError, OSError) as error:
            if not self._told:
                self._told = True
                log.warning("%s: %s cannot be journaled: %s", self._delivery.folder.path, type_name, error)
            return False
        return True

    def leads(self) -> bool:
        """Tell whether this process delivers the run."""
        return self._delivery.delivers

    def health(self) -> dict[str, Any]:
        """Return state and counts by sink."""
        return self._delivery.health(last_of_all(self._delivery.folder))


class InProcess:
    """The training process itself.

    Args:
        recorder: journals.
        leads: tells whether this process speaks for the whole run.
        health: returns state and counts by sink.
    """

    def __init__(
        self, recorder: Recorder, leads: Callable[[], bool], health: Callable[[], dict[str, Any]]
    ) -> None:
        self.leads, self.health = leads, health
        self.notices: collections.deque[dict[str, Any]] = collections.deque(maxlen=MAX_NOTICES)
        self._recorder = recorder

    def write(self, type_name: str, fields: Fields) -> bool:
        """Journal a record; what the file system says of it is the recorder's business."""
        self._recorder.record(CLASS_OF_TYPE[type_name].of(fields))
        return True

    def tell(self, notice: dict[str, Any]) -> None:
        """Keep a notice for the next call that looks."""
        self.notices.append(notice)
