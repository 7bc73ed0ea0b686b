"""What Prometheus is shown of a run, at a port of this process or as a file of a folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lezea_mlops.config import Settings
from lezea_mlops.config.settings import NO_PORT
from lezea_mlops.events import Envelope

if TYPE_CHECKING:
    from lezea_mlops.sinks.prometheus import LiveView, Outside

log = logging.getLogger("lezea_mlops")

# The node exporter reads its files when it is scraped, which is seldom more often.
TEXTFILE_EVERY_S = 5.0


class Exposing:
    """Shows one run, if the settings ask for it; used by one thread, except that scrapes ask at any moment.

    Args:
        run_id: the run.
        settings: port, address and folders.
        outside: returns what others than the journal know of the run.
        tell: is told where the metrics are served.
    """

    def __init__(
        self,
        run_id: str,
        settings: Settings,
        outside: Callable[[], Outside],
        tell: Callable[[dict[str, Any]], None],
    ) -> None:
        self._run_id, self._settings, self._outside, self._tell = run_id, settings, outside, tell
        self._view: LiveView | None = None
        self._begun = self._served = False
        self._next_file_s = 0.0
        self._file_failed = False

    def begin(self) -> None:
        """Begin to take records, before the first of them; a second call changes nothing."""
        settings = self._settings
        if self._begun:
            return
        self._begun = True
        if settings.prometheus_textfile is None and settings.prometheus_port == NO_PORT:
            return
        # Where nothing is served, none of this is loaded.
        from lezea_mlops.sinks.prometheus import LiveView

        self._view = LiveView(self._run_id, self._outside)

    def observe(self, record: Envelope) -> None:
        """Take one record."""
        if self._view is not None:
            self._view.observe(record)

    def renew(self) -> None:
        """Serve from now on, or write the file if it is time to."""
        if self._view is None:
            return
        if self._settings.prometheus_textfile is not None:
            self._write_file(self._view)
        elif not self._served:
            self._serve(self._view)

    def end(self) -> None:
        """Show nothing more: the port is free, or the file is gone."""
        view, self._view = self._view, None
        if view is None:
            return
        from lezea_mlops.sinks.prometheus import Exporter, remove_textfile

        if self._settings.prometheus_textfile is None:
            Exporter.of_this_process().remove(view)
            return
        try:
            remove_textfile(self._settings.prometheus_textfile, self._run_id)
        except OSError as error:
            log.warning("the metrics of %s cannot be removed: %s", self._run_id, error)

    def forget(self) -> None:
        """Leave all of it to the parent, in a forked child."""
        self._view = None

    def _serve(self, view: LiveView) -> None:
        from lezea_mlops.sinks.prometheus import Exporter

        self._served = True
        exporter = Exporter.of_this_process()
        exporter.add(view)
        settings = self._settings
        place = exporter.serve(
            int(settings.prometheus_port), settings.prometheus_address, settings.prometheus_targets
        )
        if place is not None:
            address = f"[{place[0]}]" if ":" in place[0] else place[0]
            self._tell({"prometheus": f"http://{address}:{place[1]}/metrics"})

    def _write_file(self, view: LiveView) -> None:
        from lezea_mlops.sinks.prometheus import remove_dead_textfiles, write_textfile

        folder = self._settings.prometheus_textfile
        if folder is None or time.monotonic() < self._next_file_s:
            return
        try:
            if not self._next_file_s:
                remove_dead_textfiles(folder)
            write_textfile(folder, [view])
        except OSError as error:
            if not self._file_failed:
                self._file_failed = True
                log.warning("the metrics of %s cannot be written to %s: %s", self._run_id, folder, error)
        self._next_file_s = time.monotonic() + TEXTFILE_EVERY_S
