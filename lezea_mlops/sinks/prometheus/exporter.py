"""One server for all runs of a process: views come and go, and with the last of them the port is given back."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lezea_mlops._lazy import require
from lezea_mlops.errors import MissingDependencyError
from lezea_mlops.sinks.prometheus.rendering import View, render
from lezea_mlops.sinks.prometheus.targets import announce, remove_dead_targets

if TYPE_CHECKING:
    from lezea_mlops.sinks.prometheus.server import ScrapeServer

log = logging.getLogger("lezea_mlops")

LOOPBACK = "127.0.0.1"
PORT_WITHOUT_RIGHTS = 8000
FURTHER_PORTS = 100
_LARGEST_PORT = 65_535

Page = Callable[[], bytes]


class Exporter:
    """The page of a process, and the server that shows it; safe to be used by any thread.

    Attributes:
        failures: how often the view of a run raised, by run; its series were left out of that page.
    """

    _of_process: Exporter | None = None
    _guard = threading.Lock()

    def __init__(self) -> None:
        self.failures: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._views: tuple[View, ...] = ()
        self._server: ScrapeServer | None = None
        self._announced: dict[Path, Path] = {}

    @classmethod
    def of_this_process(cls) -> Exporter:
        """Return the exporter that all runs of this process share."""
        with cls._guard:
            if cls._of_process is None:
                cls._of_process = cls()
            return cls._of_process

    def serve(
        self, port: int, address: str = LOOPBACK, targets: Path | None = None
    ) -> tuple[str, int] | None:
        """Serve the page over HTTP, at the place where it is served already if it is; first ``add`` what is shown.

        A port that is taken leads to the next free one, of ``FURTHER_PORTS``; one that takes more rights leads to
        those from ``PORT_WITHOUT_RIGHTS`` on. Where nothing can be served there is one warning and no error.

        Args:
            port: where to listen; 0 for any free port.
            address: where to listen; by default programs of this host alone can ask.
            targets: a folder that Prometheus watches (``file_sd``): the address is written there while it is served,
                and what dead processes of this host left there is removed.

        Returns:
            The address and the port; None if there is no server.
        """
        with self._lock:
            if self._server is None:
                self._server = _started(address, port, self._page)
            if self._server is None:
                return None
            place = str(self._server.server_address[0]), int(self._server.server_address[1])
            if targets is not None and targets not in self._announced:
                self._announce(targets, *place)
            return place

    @property
    def views(self) -> tuple[View, ...]:
        """What is shown now."""
        return self._views

    def add(self, view: View) -> None:
        """Show a view from now on."""
        with self._lock:
            self._views = (*self._views, view)

    def remove(self, view: View) -> None:
        """Show a view no more; with the last one the server ends, and its port is free at once."""
        with self._lock:
            self._views = tuple(other for other in self._views if other is not view)
            if not self._views:
                self._end()

    def _page(self) -> bytes:
        # The tuple is replaced and never changed: a scrape goes on with the views that it began with.
        return render(self._views, self._failed)

    def _failed(self, view: View, error: Exception) -> None:
        self.failures[view.run_id] += 1
        if self.failures[view.run_id] == 1:
            log.warning(
                "the run %s is missing from the page for Prometheus: %r; other runs are shown, and nothing of the "
                "run's own records is lost", view.run_id, error, exc_info=error,
            )  # fmt: skip

    def _announce(self, folder: Path, address: str, port: int) -> None:
        try:
            remove_dead_targets(folder)
            self._announced[folder] = announce(folder, address, port)
        except OSError as error:
            log.warning(
                "Prometheus is not told of this process: %s cannot be written (%s); scrape %s:%d by name instead",
                folder, error, address, port,
            )  # fmt: skip

    def _end(self) -> None:
        for path in self._announced.values():
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                log.warning(
                    "%s cannot be removed (%s); the next process that starts here does it", path, error
                )
        self._announced = {}
        if self._server is not None:
            self._server.end()
            self._server = None

    @classmethod
    def _forget_the_parents(cls) -> None:
        """In a forked child: let go of the parent's port, which would be taken as long as the child lives."""
        cls._guard = threading.Lock()
        inherited, cls._of_process = cls._of_process, None
        if inherited is not None and inherited._server is not None:
            inherited._server.socket.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=Exporter._forget_the_parents)


def _started(address: str, port: int, page: Page) -> ScrapeServer | None:
    """Return a server that answers; None, after a warning, if there can be none."""
    try:
        require("prometheus_client", package="prometheus-client", needed_for="serving Prometheus")
    except MissingDependencyError as error:
        log.warning("%s", error)
        return None
    server = _listening(address, port, page)
    if server is None:
        return None
    try:
        server.start()
    except RuntimeError as error:
        log.warning("nothing is served to Prometheus: no thread can be started (%s)", error)
        server.end()
        return None
    return server


def _listening(address: str, port: int, page: Page) -> ScrapeServer | None:
    """Return a server at *port*, or at the next one that is free; None, after a warning, if there is none."""
    try:
        return _first_free(address, port, page)
    except PermissionError:
        log.warning(
            "port %d takes more rights than this process has; Prometheus is served from port %d on",
            port, PORT_WITHOUT_RIGHTS,
        )  # fmt: skip
    except OSError as error:
        _nothing_served(address, port, error)
        return None
    try:
        return _first_free(address, PORT_WITHOUT_RIGHTS, page)
    except OSError as error:
        _nothing_served(address, PORT_WITHOUT_RIGHTS, error)
        return None


def _first_free(address: str, port: int, page: Page) -> ScrapeServer:
    """Return a server at the first port that nobody has.

    Raises:
        OSError: all are taken, or none can be had at this address.
    """
    # ``http.server`` takes milliseconds to import, which only those who serve need.
    from lezea_mlops.sinks.prometheus.server import ScrapeServer

    last = min(port + FURTHER_PORTS, _LARGEST_PORT) if port else 0
    for candidate in range(port, last + 1):
        try:
            return ScrapeServer(address, candidate, page)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or candidate == last:
                raise
    raise OSError(errno.EADDRINUSE, f"there is no port {port}")


def _nothing_served(address: str, port: int, error: OSError) -> None:
    log.warning(
        "nothing is served to Prometheus: neither port %d of %s nor one of the %d behind it can be had (%s); choose "
        "another with prometheus_port, or 0 for any that is free",
        port, address, FURTHER_PORTS, error,
    )  # fmt: skip
