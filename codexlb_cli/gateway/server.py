"""The listener: uvicorn with our own protocol class, and the orderly end.

uvicorn answers a malformed head as text/plain and writes a refused upgrade in two pieces; both
are overridden here, because clients parse one envelope, and Codex reads a refusal's body only if
it comes together with its head.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import socket
import sys
import uuid
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.requests import upgrade_error
from codexlb_cli.errors import ConfigError
from codexlb_cli.gateway.app import GatewayApp
from codexlb_cli.gateway.client_socket import ClientSocket, upgrade
from codexlb_cli.gateway.http import Responses
from codexlb_cli.gateway.request_log import RequestLine

LONGEST_HEAD_BYTES = 256 * 1024
HEAD_SECONDS = 30.0
KEEP_ALIVE_SECONDS = 75
_UNREAD_BYTES = 64 * 1024
"""More than this behind an upgrade that has to wait is left in the kernel."""

_UPGRADE_HEADERS = frozenset({b"upgrade", b"http2-settings"})


def _without_upgrade(connection: bytes) -> list[bytes]:
    tokens = [token.strip() for token in connection.split(b",")]
    return [token for token in tokens if token.lower() not in _UPGRADE_HEADERS]


class GatewayProtocol(HttpToolsProtocol):
    """HTTP/1.1 with bounded heads, refusals in one write, and our own error envelope."""

    _received = b""
    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None
    _pipelined: bytes | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock for the first head."""
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_SECONDS, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._head_ended()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """The client has closed its side: it left, as far as anybody can tell."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        super().eof_received()

    def data_received(self, data: bytes) -> None:
        """Take bytes; a head over the limit is refused."""
        if self._pipelined is not None:
            self._pipelined += data
            if len(self._pipelined) > _UNREAD_BYTES:
                self.flow.pause_reading()
            return
        self._received = data
        self._head_bytes += len(data)
        if self._head_timer is not None and self._head_bytes > LONGEST_HEAD_BYTES:
            self._refuse(ClientError("head_too_large", "the request's headers are too large"))
            return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        if self._head_timer is None:
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def on_headers_complete(self) -> None:
        """A head is complete."""
        self._head_ended()
        if not self._passes_over_upgrade:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A message is complete; one that asks for another protocol is parsed once more."""
        if not self._passes_over_upgrade:
            super().on_message_complete()

    @property
    def _passes_over_upgrade(self) -> bool:
        asks = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        return asks and not self._should_upgrade()

    def _unsupported_upgrade_warning(self) -> None:
        """Pass over an upgrade that we do not know, such as h2c (RFC 9110 section 7.8).

        The parser takes what follows the head for the other protocol, so the message is parsed
        once more, without the headers that ask for it.
        """
        stopped_at = sys.exception()
        if stopped_at is None or not self._passes_over_upgrade:
            return
        rest = self._received[stopped_at.args[0] :]
        head = [self.parser.get_method(), b" ", self.url, b" HTTP/1.1\r\n"]
        for name, value in self.headers:
            if name == b"connection":
                value = b", ".join(_without_upgrade(value))  # noqa: PLW2901
            if name not in _UPGRADE_HEADERS:
                head += [name, b": ", value, b"\r\n"]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"".join(head) + b"\r\n" + rest)

    def _head_ended(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _should_upgrade_to_ws(self) -> bool:
        return bool(self.parser.get_http_version() != "1.0")  # RFC 9110 section 7.8

    def handle_websocket_upgrade(self) -> None:
        """Answer an upgrade, after the requests before it (RFC 9112 section 9.3.2).

        Called while the parser stops at the end of its head.
        """
        stopped_at = sys.exception()
        assert isinstance(stopped_at, httptools.HttpParserUpgrade)
        self._pipelined = self._received[stopped_at.args[0] :]
        self._upgrade_in_turn()

    def on_response_complete(self) -> None:
        """An answer is complete: the next request may be answered."""
        super().on_response_complete()
        self._upgrade_in_turn()

    def resume_writing(self) -> None:
        """The client has read."""
        super().resume_writing()
        self._upgrade_in_turn()

    def _upgrade_in_turn(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        if self._pipelined is None or answering or self.flow.write_paused:
            return
        rest, self._pipelined = self._pipelined, None
        if not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self.flow.resume_reading()
            self._upgrade(rest)

    def _upgrade(self, rest: bytes) -> None:
        """Answer an upgrade in one write.

        Args:
            rest: what came after its head.
        """
        headers = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in self.headers]
        method = self.parser.get_method().decode("ascii")
        error = self._gateway.guard.refuse(headers) or upgrade_error(method, self._path, headers)
        if error is not None:
            self._refuse(error)
            return
        websockets = self._gateway.websockets
        answer = upgrade(self.url.decode("ascii"), headers, websockets.options())
        if answer.status != 101:
            text = "this is no upgrade request of RFC 6455"
            self._refuse(ClientError("invalid_request", text))
            return
        self.connections.discard(self)
        websockets.serve(ClientSocket(self.transport, answer, rest), headers)

    @property
    def _path(self) -> str:
        try:
            return unquote(httptools.parse_url(self.url).path.decode("ascii"))
        except (httptools.HttpParserInvalidURLError, AttributeError):
            return ""  # no URL, or one without a path

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; called while the parser's error is handled."""
        about = str(sys.exception()).lower()
        code = "invalid_header" if "header" in about else "invalid_request"
        self._refuse(ClientError(code, msg.rstrip(".").lower()))

    @property
    def _gateway(self) -> GatewayApp:
        app = self.app
        assert isinstance(app, GatewayApp)
        return app

    def _refuse(self, error: ClientError) -> None:
        self._gateway.request_log.write(RequestLine(request_id="").refused(error))
        body = json.dumps(error.envelope()).encode()
        head = [
            f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            f"x-request-id: {uuid.uuid4()}",
            "connection: close",
        ]
        if error.status == 405:
            head.append("allow: GET")
        if error.status == 426:
            head.append("sec-websocket-version: 13")  # RFC 6455 section 4.4
        self.transport.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the end is ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int) -> socket.socket:
    """Bind the gateway's socket.

    Raises:
        ConfigError: the port is in use, or may not be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, since asyncio sends small writes at once only where it is.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as exc:
        listener.close()
        if exc.errno == errno.EADDRINUSE:
            message, other = f"port {port} is in use", port + 2 if port < 65534 else 2455
            raise ConfigError(message, hint=f"choose another: --port {other}") from None
        reason = (exc.strerror or type(exc).__name__).lower()
        raise ConfigError(f"cannot listen on {host} port {port}: {reason}") from None
    return listener


class Listener:
    """A running server.

    Args:
        app: the application.
        responses: the endpoint whose turns are drained, and so are those of the app's WebSockets.
        listener: the bound socket.
    """

    def __init__(self, app: GatewayApp, responses: Responses, listener: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            http=GatewayProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        self._responses = responses
        self._websockets = app.websockets
        self._server = _Server(config)
        self._socket = listener
        self._task: asyncio.Task[Any] | None = None

    async def start(self) -> None:
        """Accept connections from now on."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started:
            if self._task.done():
                self._task.result()
            await asyncio.sleep(0.001)

    async def stop(self, drain_seconds: float, hurry: asyncio.Event) -> None:
        """Accept nothing more, let turns end, then end them.

        Args:
            drain_seconds: how long turns may go on.
            hurry: set when the person does not want to wait any longer.
        """
        assert self._task is not None, "start() comes first"
        self._server.should_exit = True
        self._responses.stop_reading()
        self._websockets.stop_reading()
        waiting = asyncio.create_task(hurry.wait())
        drained = asyncio.create_task(self._drained(self._task))
        await asyncio.wait(
            (drained, waiting), timeout=drain_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        waiting.cancel()
        drained.cancel()
        await self._responses.stop_turns()
        await self._websockets.stop_turns()
        self._server.force_exit = True
        await asyncio.wait((self._task,), timeout=1.0)

    async def _drained(self, server: asyncio.Task[Any]) -> None:
        await asyncio.wait((server,))
        await self._websockets.drained()
