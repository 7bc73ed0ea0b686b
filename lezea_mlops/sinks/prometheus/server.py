"""The HTTP server of a process: one page, whatever is asked for."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from lezea_mlops.sinks.prometheus.rendering import CONTENT_TYPE

log = logging.getLogger("lezea_mlops")

# A client that connects and asks nothing.
_SILENT_CLIENT_S = 10.0


class _Handler(BaseHTTPRequestHandler):
    """Answers with the page."""

    server: ScrapeServer
    timeout = _SILENT_CLIENT_S

    def do_GET(self) -> None:
        """Answer with the page; its length is told, so that half an answer is no answer."""
        body = self.server.page()
        self._answer(len(body))
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        """Answer without the page."""
        self._answer(len(self.server.page()))

    def _answer(self, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def version_string(self) -> str:
        """Say who answers."""
        return "lezea_mlops"

    def log_message(self, format: str, *args: Any) -> None:
        """A scrape every few seconds is nothing to tell a person."""
        log.debug(f"Prometheus: {format}", *args)


class ScrapeServer(ThreadingHTTPServer):
    """Listens from the constructor on; a port that others use raises ``OSError`` there.

    Args:
        address: where to listen.
        port: 0 for any free one.
        page: makes the page, in the thread of a request.
    """

    daemon_threads = True
    # Windows would give a port that another program uses.
    allow_reuse_address = os.name != "nt"

    def __init__(self, address: str, port: int, page: Callable[[], bytes]) -> None:
        self.page = page
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._thread: threading.Thread | None = None
        super().__init__((address, port), _Handler)

    def server_bind(self) -> None:
        """Bind, and leave out that the address is looked up in the DNS, which may take seconds."""
        TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)

    def start(self) -> None:
        """Answer from now on, in a thread.

        Raises:
            RuntimeError: the interpreter ends, or the system has no thread left.
        """
        thread = threading.Thread(target=self.serve_forever, name="lezea-prometheus", daemon=True)
        thread.start()
        self._thread = thread

    def end(self) -> None:
        """Give the port back, at once; requests that were taken are still answered."""
        if self._thread is not None:
            with contextlib.suppress(OSError):
                # It wakes the thread, which would look up only twice a second; macOS does not know it.
                self.socket.shutdown(socket.SHUT_RDWR)
            self.shutdown()
            self._thread.join()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away, or a request that is none; the default would print it."""
        log.debug("a scrape from %s was not answered", client_address, exc_info=True)
