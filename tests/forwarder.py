"""A TCP proxy for tests, whose links stop without an end, as in a computer that hangs or forgets."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self


class Forwarder:
    """Passes connections to a port of this computer on. port: of its own."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._links: list[tuple[socket.socket, socket.socket]] = []
        #: set while new connections pass anything on
        self.passes = threading.Event()
        self.passes.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def forget(self) -> None:
        """Close the clients' sides of all connections; the server's stay, and it hears nothing more of them."""
        for client, _ in self._links:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._links.append((client, server))
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self.passes.wait()
                target.sendall(data)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.passes.set()
        self._listener.close()
        for link in self._links:
            for side in link:
                side.close()
