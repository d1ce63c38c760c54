"""Tries an account: the gateway's own handshake, without a turn and without learning anything."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2
from websockets.exceptions import WebSocketException

from codexlb_cli.config.load import Settings
from codexlb_cli.config.policies import OWN_USER_AGENT, header_options
from codexlb_cli.core.accounts import Account, Transport
from codexlb_cli.core.failures import Failure, Fault, parse
from codexlb_cli.core.handshake import HandshakeInputs, account_lines, build, client_lines
from codexlb_cli.core.trials import Timings, Tried, accepted, refused, unreachable
from codexlb_cli.gateway.dial import dial
from codexlb_cli.gateway.sockets import DialError, DialOptions

_MOST_BYTES = 256 * 1024
"""More than this of an answer is not read."""


@dataclass(frozen=True, slots=True, repr=False)
class Trial:
    """One try.

    Attributes:
        account: the account.
        secret: its credential.
        account_id: the value of its `chatgpt-account-id`; None if it has none.
        settings: the configuration.
        timeout_seconds: for all of it.
        now: seconds since the epoch.
    """

    account: Account
    secret: str
    account_id: str | None
    settings: Settings
    timeout_seconds: float
    now: Callable[[], float]

    async def run(self) -> Tried:
        """Try the account as the gateway would speak to it: WebSocket, else HTTP."""
        if self.account.transport == "http":
            return await self._over_http(_Watch())
        watch = _Watch()
        try:
            return await self._over_websocket(watch)
        except DialError as exc:
            if exc.failure.status is None:
                return unreachable(self.account.name, reason_of(exc), watch.timings())
            fault = exc.failure.row.fault
            if fault is Fault.NO_WEBSOCKET and self.account.transport == "auto":
                return await self._over_http(watch.again())
            return self._refused("websocket", exc.failure, watch)
        except (OSError, TimeoutError, UnicodeError) as exc:
            return unreachable(self.account.name, reason_of(exc), watch.timings())

    async def _over_websocket(self, watch: _Watch) -> Tried:
        handshake = build(self._inputs())
        async with asyncio.timeout(self.timeout_seconds):
            connected = await _connect(self.account.websocket_url, watch)
        options = DialOptions(
            timeout_seconds=max(0.001, self.timeout_seconds - watch.seconds()),
            largest_event_bytes=_MOST_BYTES,
        )
        opened = await dial(handshake, options, self.now, connected, watch.secured)
        watch.answered()
        with suppress(OSError, TimeoutError):
            await opened.close()
        return accepted(
            self.account.name, "websocket", 101, opened.response_headers, watch.timings()
        )

    async def _over_http(self, watch: _Watch) -> Tried:
        inputs = self._inputs()
        lines = [*account_lines(inputs), *client_lines(inputs, ())]
        left = max(0.001, self.timeout_seconds - watch.seconds())
        try:
            async with (
                asyncio.timeout(left),
                httpx2.AsyncClient(timeout=left, trust_env=False) as client,
                client.stream(
                    "GET",
                    f"{self.account.http_url}/models",
                    headers=[(line.name, line.value) for line in lines],
                ) as answer,
            ):
                watch.answered()
                headers = [(name.lower(), value) for name, value in answer.headers.multi_items()]
                status = answer.status_code
                body = b"" if status < 300 else await _some(answer)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, TimeoutError, UnicodeError) as exc:
            return unreachable(self.account.name, reason_of(exc), watch.timings())
        if status < 300:
            return accepted(self.account.name, "http", status, headers, watch.timings())
        failure = parse(
            status, _json(body), dict(headers), self.now(), handshake=False, answer=True
        )
        return self._refused("http", failure, watch)

    def _inputs(self) -> HandshakeInputs:
        return HandshakeInputs(
            account=self.account,
            secret=self.secret,
            inbound=(),
            options=header_options(self.settings),
            user_agent=OWN_USER_AGENT,
            account_id=self.account_id,
        )

    def _refused(self, transport: Transport, failure: Failure, watch: _Watch) -> Tried:
        if transport == "websocket":
            watch.answered()
        return refused(self.account.name, transport, failure, self.secret, watch.timings())


class _Watch:
    """Takes the time of each step, by the loop's clock.

    Args:
        started: when the try began; None for now.
    """

    def __init__(self, started: float | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time() if started is None else started
        self._step = self._loop.time()
        self._took: dict[str, int] = {}

    def again(self) -> _Watch:
        """Return a watch for another way to ask: its steps are new, the total goes on."""
        return _Watch(self._started)

    def seconds(self) -> float:
        """Return how long it took so far."""
        return self._loop.time() - self._started

    def found(self) -> None:
        """The host's addresses are known."""
        self._end("dns")

    def connected(self) -> None:
        """The connection stands."""
        self._end("tcp")

    def secured(self, *, tls: bool) -> None:
        """The connection is ready for the request."""
        if tls:
            self._end("tls")

    def answered(self) -> None:
        """The upstream answered."""
        self._end("answer")

    def timings(self) -> Timings:
        """Return what is known."""
        return Timings(**self._took, total=round(self.seconds() * 1000))

    def _end(self, name: str) -> None:
        now = self._loop.time()
        self._took[name] = round((now - self._step) * 1000)
        self._step = now


async def _connect(url: str, watch: _Watch) -> socket.socket:
    """Connect to the host of a WebSocket URL, step by step.

    Raises:
        OSError: it has no address, or none of them can be reached.
        UnicodeError: its name is no name.
    """
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "wss" else 80)
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(parts.hostname or "", port, type=socket.SOCK_STREAM)
    watch.found()
    failed: OSError = OSError("no address")
    for family, kind, protocol, _, address in found:
        connection = socket.socket(family, kind, protocol)
        connection.setblocking(False)
        try:
            await loop.sock_connect(connection, address)
        except OSError as exc:
            connection.close()
            failed = exc
        except BaseException:
            connection.close()
            raise
        else:
            watch.connected()
            return connection
    raise failed


def reason_of(exc: BaseException) -> str:
    """Return why an upstream could not be reached: a key of `trials.REASONS`."""
    causes = list(_causes(exc))
    kinds: tuple[tuple[str, tuple[type[BaseException], ...]], ...] = (
        ("dns", (socket.gaierror, UnicodeError)),
        ("tls", (ssl.SSLError, ssl.CertificateError)),
        ("connection_refused", (ConnectionRefusedError,)),
        ("timeout", (TimeoutError, httpx2.TimeoutException)),
        ("network", (ConnectionError, EOFError)),
        ("no_answer", (WebSocketException, httpx2.ProtocolError)),
    )
    for reason, classes in kinds:
        if any(isinstance(cause, classes) for cause in causes):
            return reason
    return "network"


def _causes(exc: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = exc
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


async def _some(answer: httpx2.Response) -> bytes:
    body = b""
    async for chunk in answer.aiter_bytes():
        body += chunk
        if len(body) > _MOST_BYTES:
            break
    return body[:_MOST_BYTES]


def _json(body: bytes) -> Mapping[str, object] | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
