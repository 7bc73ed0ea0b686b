"""A port that behaves as told: nobody there, silent, broken, or a way to a real server behind it."""

from __future__ import annotations

import contextlib
import socket
import threading

from lezea_mlops.servers.process import free_port

LOOPBACK = "127.0.0.1"
_BROKEN = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\nConnection: close\r\n\r\noops"


class Gate:
    """A port on loopback. It begins with nobody there.

    Attributes:
        uri: its address.
        connections: how many were made to it.
    """

    def __init__(self, upstream_port: int | None = None) -> None:
        self.connections = 0
        self._upstream_port = upstream_port
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._answer: bytes | None = None
        self._cut_answers_to: list[bytes] = []
        self.port = free_port()
        self.uri = f"http://{LOOPBACK}:{self.port}"

    def close(self) -> None:
        """Let nobody be there: connections are refused, those that stand are cut."""
        if self._listener is not None:
            # A thread may wait in ``accept``; closing alone would not wake it.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for each in list(self._open):
            self._cut(each)

    def be_silent(self) -> None:
        """Let connections be made, and never answer."""
        self.close()
        self._listen()

    def be_broken(self, answer: bytes = _BROKEN) -> None:
        """Answer every request with this, by default with an error 500."""
        self._serve(answer)

    def lead_on(self) -> None:
        """Pass everything on to the server behind."""
        self._serve(None)

    def cut_answer_to(self, path: bytes) -> None:
        """Pass the next request for *path* on, and cut the connection where its answer should come."""
        self._cut_answers_to.append(path)

    def _serve(self, answer: bytes | None) -> None:
        self.close()
        self._answer = answer
        threading.Thread(target=self._accept, args=(self._listen(),), daemon=True).start()

    def _listen(self) -> socket.socket:
        self._listener = socket.create_server((LOOPBACK, self.port), backlog=128)
        return self._listener

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(client)
            handle = self._lead if self._answer is None else self._answer_all
            threading.Thread(target=handle, args=(client,), daemon=True).start()

    def _answer_all(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            client.recv(65536)
            client.sendall(self._answer or b"")
            client.shutdown(socket.SHUT_WR)
            # What came of the request since must be read: closed before, the system resets the connection, and the
            # answer may be gone with it.
            while client.recv(65536):
                continue
        self._cut(client)

    def _lead(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection((LOOPBACK, self._upstream_port or 0))
        except OSError:
            self._cut(client)
            return
        self._open.add(server)
        doomed = threading.Event()
        threading.Thread(target=self._answers, args=(server, client, doomed), daemon=True).start()
        with contextlib.suppress(OSError):
            while part := client.recv(65536):
                for path in [path for path in self._cut_answers_to if path in part]:
                    self._cut_answers_to.remove(path)
                    doomed.set()
                server.sendall(part)
        self._cut(server)

    def _answers(self, server: socket.socket, client: socket.socket, doomed: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while (part := server.recv(65536)) and not doomed.is_set():
                client.sendall(part)
        self._cut(client)
        self._cut(server)

    def _cut(self, connection: socket.socket) -> None:
        self._open.discard(connection)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()
