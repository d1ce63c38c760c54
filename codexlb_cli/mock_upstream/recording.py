"""What was received and what came of it, bounded, with a way to wait for more."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Transport = Literal["websocket", "http"]

_SECRET_HEADERS = {"cookie", "proxy-authorization", "api-key", "x-api-key"}
_FRAME_BYTES_KEPT = 256 * 1024 * 1024


@dataclass(slots=True)
class Handshake:
    """A WebSocket upgrade.

    Attributes:
        socket: the number of the TCP connection, from 1.
        account: whose key it carried; None if nobody's.
        request_line: `GET /v1/responses HTTP/1.1`.
        headers: every header line, in order, exactly as sent, decoded as Latin-1. Holds the key.
        at: when, by the server's monotonic clock, in seconds.
        status: what was answered; None if nothing was (yet).
        violations: what strict mode holds against it; empty without strict mode.
        ended: how the socket ended: `close 1011` (ours), `client close 1000` or `client left`;
            None while it is open, and where it was never opened.
    """

    socket: int
    account: str | None
    request_line: str
    headers: list[tuple[str, str]] = field(repr=False)
    at: float
    status: int | None = None
    violations: tuple[str, ...] = ()
    ended: str | None = None


@dataclass(slots=True)
class Frame:
    """A text message that a client sent over a WebSocket.

    Attributes:
        json: the parsed text; None if it is no JSON.
    """

    socket: int
    account: str
    text: str = field(repr=False)
    json: Any = field(repr=False)


@dataclass(slots=True)
class Turn:
    """One `response.create`, or one `POST …/responses`.

    Attributes:
        number: counts the turns from 1.
        at: when it was received, by the server's monotonic clock, in seconds.
        warm_up: whether it said `generate: false`.
        response_id: the id of its response; None if it got none.
        outcome: how it ended, None while it runs: the type of the terminal event, `error STATUS
            CODE`, `close CODE`, `silence`, or `client left`.
    """

    number: int
    socket: int
    account: str
    transport: Transport
    model: str
    at: float
    warm_up: bool = False
    response_id: str | None = None
    outcome: str | None = None


@dataclass(slots=True)
class FileRequest:
    """A request for files or uploads.

    Attributes:
        account: whose key it carried; None if nobody's.
        target: the path with its query.
        headers: every header line, in order, exactly as sent, decoded as Latin-1. Holds the key.
        status: what was answered; None if nothing was (yet), as where the client left.
        received: the length of its body, in bytes; None until it was complete.
    """

    socket: int
    account: str | None
    method: str
    target: str
    headers: list[tuple[str, str]] = field(repr=False)
    status: int | None = None
    received: int | None = None


@dataclass(slots=True)
class ApiRequest(FileRequest):
    """A call about what is stored, one that stores nothing, or a background response's.

    Attributes:
        body: its text, as far as it was kept; empty until it was complete.
        left: whether the client left before its answer was complete.
    """

    body: str = field(default="", repr=False)
    left: bool = False


@dataclass(slots=True)
class IssuerRequest:
    """A request to the issuer.

    Attributes:
        endpoint: `authorize`, `token`, `refresh`, `usercode`, `device`, `revoke` or `usage`; None
            for the page of the device flow.
        account: whose tokens it was about; empty if nobody's.
        target: the path with its query. Holds a `state`.
        headers: every header line, in order, exactly as sent, decoded as Latin-1.
        body: the body, decoded as Latin-1. Holds codes and tokens.
        status: what was answered; None if nothing was (yet).
    """

    socket: int
    endpoint: str | None
    account: str
    method: str
    target: str = field(repr=False)
    headers: list[tuple[str, str]] = field(repr=False)
    body: str = field(repr=False)
    status: int | None = None


class _OnSocket(Protocol):
    @property
    def socket(self) -> int: ...


T = TypeVar("T", bound=_OnSocket)


class Recording:
    """Everything received, oldest first.

    Args:
        keep: how many handshakes, frames, turns and requests of each other kind are kept each;
            the oldest go first. The frames' text is bounded too, by 256 MiB.
        on_turn: called with each turn when it has ended.
        clock: the monotonic clock of the records, in seconds.
    """

    def __init__(
        self,
        *,
        keep: int,
        clock: Callable[[], float],
        on_turn: Callable[[Turn], None] | None = None,
    ) -> None:
        self.handshakes: list[Handshake] = []
        self.frames: list[Frame] = []
        self.turns: list[Turn] = []
        self.file_requests: list[FileRequest] = []
        self.api_requests: list[ApiRequest] = []
        self.issuer_requests: list[IssuerRequest] = []
        self.overlaps = 0
        self._keep = keep
        self._clock = clock
        self._frame_bytes = 0
        self._turns_begun = 0
        self._on_turn = on_turn
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    def handshake(self, handshake: Handshake) -> None:
        """Record an upgrade, whatever will be answered."""
        self._append(self.handshakes, handshake)

    def frame(self, frame: Frame) -> None:
        """Record a client's message."""
        self._frame_bytes += len(frame.text)
        while self._frame_bytes > _FRAME_BYTES_KEPT and self.frames:
            self._frame_bytes -= len(self.frames.pop(0).text)
        if dropped := self._append(self.frames, frame):
            self._frame_bytes -= sum(len(old.text) for old in dropped)

    def file_request(self, request: FileRequest) -> None:
        """Record a request for files, before its body has come."""
        self._append(self.file_requests, request)

    def api_request(self, request: ApiRequest) -> None:
        """Record a call, before its body has come."""
        self._append(self.api_requests, request)

    def issuer_request(self, request: IssuerRequest) -> None:
        """Record a request to the issuer, before it is answered."""
        self._append(self.issuer_requests, request)

    def begin(
        self, *, socket: int, account: str, transport: Transport, model: str, warm_up: bool
    ) -> Turn:
        """Record a turn that begins, and return it."""
        self._turns_begun += 1
        now = self._clock()
        turn = Turn(self._turns_begun, socket, account, transport, model, now, warm_up)
        self._append(self.turns, turn)
        return turn

    def finish(self, turn: Turn, outcome: str) -> None:
        """Record how a turn ended; only the first word on it counts."""
        if turn.outcome is not None:
            return
        turn.outcome = outcome
        if self._on_turn is not None:
            self._on_turn(turn)
        self.changed()

    def overlap(self) -> None:
        """Record that a turn arrived on a socket whose turn was still running."""
        self.overlaps += 1
        self.changed()

    def changed(self) -> None:
        """Wake those whose predicate has become true."""
        for predicate, woken in self._waiters:
            if not woken.done() and predicate():
                woken.set_result(None)

    async def wait_for(self, predicate: Callable[[], bool], timeout: float) -> None:  # noqa: ASYNC109
        """Return once `predicate()` holds.

        Raises:
            TimeoutError: it did not within `timeout` seconds.
        """
        if predicate():
            return
        waiter = (predicate, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout):
                await waiter[1]
        except TimeoutError:
            outcomes = [turn.outcome for turn in self.turns[-5:]]
            raise TimeoutError(
                f"not within {timeout} s; so far {len(self.handshakes)} handshakes, "
                f"{len(self.frames)} frames, {len(self.turns)} turns, the last {outcomes}"
            ) from None
        finally:
            self._waiters.remove(waiter)

    def document(self) -> dict[str, object]:
        """Return the recording as JSON values; keys are masked by the account they belong to."""
        return {
            "schema": "codexlb.mock.recording/1",
            "handshakes": [_masked(handshake) for handshake in self.handshakes],
            "frames": [
                {"socket": frame.socket, "account": frame.account, "json": frame.json}
                for frame in self.frames
            ],
            "turns": [
                {
                    "number": turn.number,
                    "socket": turn.socket,
                    "account": turn.account,
                    "transport": turn.transport,
                    "model": turn.model,
                    "at": turn.at,
                    "warm_up": turn.warm_up,
                    "response_id": turn.response_id,
                    "outcome": turn.outcome,
                }
                for turn in self.turns
            ],
            "file_requests": [_request(request) for request in self.file_requests],
            "api_requests": [_request(request) for request in self.api_requests],
            "issuer_requests": [
                {
                    "socket": request.socket,
                    "endpoint": request.endpoint,
                    "account": request.account,
                    "method": request.method,
                    "path": request.target.partition("?")[0],
                    "headers": _masked_headers(request.headers, request.account),
                    "status": request.status,
                }
                for request in self.issuer_requests
            ],
            "overlaps": self.overlaps,
        }

    def _append(self, kept: list[T], new: T) -> list[T]:
        kept.append(new)
        dropped: list[T] = []
        # Dropped in blocks, so that a long list is not moved for every record.
        if len(kept) >= 2 * self._keep:
            dropped = kept[: len(kept) - self._keep]
            del kept[: len(dropped)]
        self.changed()
        return dropped


def _request(request: FileRequest) -> dict[str, object]:
    return {
        "socket": request.socket,
        "account": request.account,
        "method": request.method,
        "target": request.target,
        "headers": _masked_headers(request.headers, request.account),
        "status": request.status,
        "received": request.received,
    }


def _masked_headers(headers: list[tuple[str, str]], account: str | None) -> list[list[str]]:
    masked = []
    for name, value in headers:
        shown = value
        if name.lower() == "authorization":
            shown = f"Bearer <{account or 'unknown'}>"
        elif name.lower() in _SECRET_HEADERS:
            shown = "***"
        masked.append([name, shown])
    return masked


def _masked(handshake: Handshake) -> dict[str, object]:
    return {
        "socket": handshake.socket,
        "account": handshake.account,
        "request_line": handshake.request_line,
        "headers": _masked_headers(handshake.headers, handshake.account),
        "at": handshake.at,
        "status": handshake.status,
        "violations": list(handshake.violations),
        "ended": handshake.ended,
    }
