"""A TCP relay that keeps what went over it, to see what a client did that leaves no other trace."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit


@dataclass
class Connection:
    """What one connection carried, in the pieces in which it was received."""

    sent: list[bytes] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)


class Relay(socketserver.ThreadingTCPServer):
    """Relays to the server of `base_url`; a context manager that listens while entered.

    Attributes:
        connections: what clients sent and received, in the order in which they connected.
    """

    daemon_threads = True

    def __init__(self, base_url: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.connections: list[Connection] = []
        parts = urlsplit(base_url)
        self.target = (parts.hostname or "", parts.port or 0)
        self.base_url = f"http://127.0.0.1:{self.server_address[1]}{parts.path}"


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        relay = cast("Relay", self.server)
        connection = Connection()
        relay.connections.append(connection)
        with socket.create_connection(relay.target) as server:
            upwards = threading.Thread(
                target=_pump, args=(self.request, server, connection.sent), daemon=True
            )
            upwards.start()
            _pump(server, self.request, connection.received)
            upwards.join()


def _pump(source: socket.socket, target: socket.socket, kept: list[bytes]) -> None:
    """Carry one direction until its end, and end the other side's with it."""
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            kept.append(piece)
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def relaying(base_url: str) -> Iterator[Relay]:
    """Run a relay while the context lasts."""
    with Relay(base_url) as relay:
        thread = threading.Thread(target=relay.serve_forever, daemon=True)
        thread.start()
        try:
            yield relay
        finally:
            relay.shutdown()
            thread.join()
