"""What is no request, or comes from where none may come: refused on the wire, in one envelope."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Sequence
from pathlib import Path

from codexlb_cli.gateway.server import listen
from tests.support.client import Header, connection, request, request_head
from tests.support.gateway import RESPONSES, Stage, run, turn_body

BODY = turn_body({})
MALFORMED = {
    "garbage": b"GARBAGE\r\n\r\n",
    "binary": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "version": b"GET / HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n",
    "method": b"G@T / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "length": b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1x\r\n\r\n",
    "negative length": b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "smuggling": b"POST /v1/responses HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunk": b"POST /v1/responses HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "header name": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nb ad: 1\r\n\r\n",
    "no colon": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nbad\r\n\r\n",
}


def test_what_is_no_http(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for what, data in MALFORMED.items():
            async with connection(stage.port) as exchange:
                await exchange.send(data)
                answer = await exchange.answer()
                assert answer.status == 400, what
                error = answer.error
                assert error["code"] in ("invalid_request", "invalid_header")
                assert error["type"] == "invalid_request_error"
                assert await exchange.ended()
        assert stage.dialled == []
        assert (await stage.get("/healthz")).status == 200

    run(test, tmp_path)


ODD_TARGETS = ("*", "//", "http:///x", "/%ff", "/%00", "/\xff", "/v1/models/%0d%0a", "/a b", "?")


def test_odd_targets(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for target in ODD_TARGETS:
            async with connection(stage.port) as exchange:
                lines = [("Host", "127.0.0.1"), ("Connection", "close")]
                await exchange.send(request_head("GET", target, lines))
                answer = await exchange.answer()
                assert answer.status in (400, 404, 501), target
                assert answer.error["type"] == "invalid_request_error"

    run(test, tmp_path)


def test_connect_is_no_proxy(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with connection(stage.port) as exchange:
            await exchange.send(request_head("CONNECT", "127.0.0.1:443", [("Host", "127.0.0.1")]))
            answer = await exchange.answer()
            assert answer.status in (400, 404, 405, 501)
            assert answer.error["type"] == "invalid_request_error"

    run(test, tmp_path)


def test_requests_in_a_row_are_answered_in_order(tmp_path: Path) -> None:
    """Both requests come in one piece, before the first answer (RFC 9112 section 9.3.2)."""

    async def test(stage: Stage) -> None:
        for stream in (True, False):
            pieces = []
            for text, ending in (("first", "keep-alive"), ("second", "close")):
                body = turn_body({"input": text, "stream": stream})
                lines = [("Host", "127.0.0.1"), ("Connection", ending)]
                lines.append(("Content-Length", str(len(body))))
                pieces.append(request_head("POST", RESPONSES, lines) + body)
            async with connection(stage.port) as exchange:
                await exchange.send(b"".join(pieces))
                for text in ("first", "second"):
                    answer = await exchange.answer()
                    assert (answer.status, answer.complete) == (200, True)
                    assert f"You said: {text}".encode().split()[-1] in answer.body
                    exchange.status, exchange.complete = 0, False

    run(test, tmp_path)


def test_a_head_without_end(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with connection(stage.port) as exchange:
            await exchange.send(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n")
            try:
                for _ in range(80):
                    await exchange.send(b"X-Filler: " + b"x" * 4000 + b"\r\n")
            except ConnectionError:
                pass
            else:
                answer = await exchange.answer()
                assert (answer.status, answer.error["code"]) == (431, "head_too_large")
        assert (await stage.get("/healthz")).status == 200

    run(test, tmp_path)


async def raw(port: int, data: bytes) -> tuple[bytes, bytes]:
    """Send bytes; return what one read gives, and what comes after it until the end."""
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, data)
        first = await loop.sock_recv(client, 1 << 16)
        rest = b""
        while piece := await loop.sock_recv(client, 1 << 16):
            rest += piece
        return first, rest


UPGRADE = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
]


REFUSED_UPGRADES: list[tuple[list[Header], int, str]] = [
    ([("Origin", "https://example.com")], 403, "forbidden_origin"),
    ([("Sec-Fetch-Site", "cross-site")], 403, "forbidden_origin"),
    ([("Host", "example.com")], 403, "forbidden_host"),
]


def test_an_upgrade_is_refused_in_one_write(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for path in (RESPONSES, "/backend-api/codex/responses", "/nothing"):
            for more, status, code in REFUSED_UPGRADES:
                lines = [*more, *UPGRADE]
                if "Host" not in dict(more):
                    lines.insert(0, ("Host", f"127.0.0.1:{stage.port}"))
                first, rest = await raw(stage.port, request_head("GET", path, lines))
                assert rest == b""
                assert_refusal(first, status, code)
        for method, path, lines, status, code in OTHER_UPGRADES:
            named = [("Host", f"127.0.0.1:{stage.port}"), *lines]
            first, rest = await raw(stage.port, request_head(method, path, named))
            assert rest == b"", path
            assert_refusal(first, status, code)
        assert stage.dialled == []

    run(test, tmp_path)


def _upgrade(**others: str) -> list[Header]:
    changed = {name.replace("_", "-"): value for name, value in others.items()}
    lines = [(name, changed.get(name.lower(), value)) for name, value in UPGRADE]
    return [(name, value) for name, value in lines if value]


OTHER_UPGRADES: list[tuple[str, str, list[Header], int, str]] = [
    ("GET", "/nothing", UPGRADE, 404, "not_found"),
    ("GET", "/v1/realtime?model=gpt", UPGRADE, 501, "not_supported"),
    ("GET", "/backend-api/codex/else", UPGRADE, 501, "not_supported"),
    ("POST", RESPONSES, UPGRADE, 405, "method_not_allowed"),
    ("GET", RESPONSES, _upgrade(sec_websocket_version="8"), 426, "upgrade_required"),
    ("GET", RESPONSES, _upgrade(sec_websocket_key=""), 400, "invalid_request"),
    ("GET", RESPONSES, _upgrade(sec_websocket_key="short"), 400, "invalid_request"),
    ("GET", RESPONSES, [*UPGRADE, ("X-Long", "a\x01b")], 400, "invalid_header"),
]


def test_an_upgrade_is_accepted_in_one_write_whatever_its_size(tmp_path: Path) -> None:
    """Codex's metadata is longer than what the WebSocket library reads of a head."""

    async def test(stage: Stage) -> None:
        for path in (f"{RESPONSES}?model=mock", "/backend-api/codex/responses", "/v1/%72esponses"):
            many = [(f"x-header-{number}", "1") for number in range(150)]
            lines = [("Host", f"127.0.0.1:{stage.port}"), ("x-codex-turn-metadata", "x" * 20_000)]
            head = request_head("GET", path, [*lines, *many, *UPGRADE])
            reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
            writer.write(head)
            answer = await reader.read(1 << 16)
            assert answer.startswith(b"HTTP/1.1 101 ")
            assert answer.endswith(b"\r\n\r\n")
            assert b"x-request-id: " in answer
            writer.close()
            await writer.wait_closed()

    run(test, tmp_path)


def test_small_writes_are_not_held_back() -> None:
    """An event that waits for the client's delayed ACK is 40 ms late (Nagle's algorithm)."""

    async def main() -> None:
        accepted = asyncio.get_running_loop().create_future()
        server = await asyncio.start_server(
            lambda _, writer: accepted.set_result(writer), sock=listen("127.0.0.1", 0)
        )
        async with server:
            port = server.sockets[0].getsockname()[1]
            _, client = await asyncio.open_connection("127.0.0.1", port)
            writer = await accepted
            inner = writer.get_extra_info("socket")
            assert inner.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            for one in (client, writer):
                one.close()
                await one.wait_closed()

    asyncio.run(main())


def assert_refusal(data: bytes, status: int, code: str) -> None:
    """A whole answer: its head, and as much body as the head says."""
    head, _, body = data.partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    assert line.startswith(f"HTTP/1.1 {status} ")
    headers = dict(field.lower().split(": ", 1) for field in fields)
    assert headers["content-length"] == str(len(body))
    assert headers["connection"] == "close"
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "code", "param"}
    assert error["code"] == code


def test_other_upgrades_are_passed_over(tmp_path: Path) -> None:
    """A server may ignore an upgrade that it does not know (RFC 9110 section 7.8)."""

    async def test(stage: Stage) -> None:
        h2c = [
            ("Connection", "Upgrade, HTTP2-Settings, close"),
            ("Upgrade", "h2c"),
            ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
        ]
        assert (await request(stage.port, "GET", "/healthz", h2c)).status == 200
        answer = await stage.post(BODY, headers=h2c)
        assert (answer.status, answer.text) == (200, "You said: hello")

    run(test, tmp_path)


def test_an_upgrade_within_http_1_0_is_passed_over(tmp_path: Path) -> None:
    """A server must ignore it (RFC 9110 section 7.8)."""

    async def test(stage: Stage) -> None:
        lines = [("Host", f"127.0.0.1:{stage.port}"), *UPGRADE]
        head = request_head("GET", RESPONSES, lines).replace(b"HTTP/1.1", b"HTTP/1.0")
        async with connection(stage.port) as exchange:
            await exchange.send(head)
            await exchange.head()
            assert exchange.status == 405

    run(test, tmp_path)


ALLOWED: list[list[Header]] = [
    [("Host", "127.0.0.1")],
    [("Host", "localhost:1")],
    [("Host", "[::1]:2455")],
    [("Origin", "http://127.0.0.1:{port}")],
    [("Origin", "http://localhost:{port}"), ("Sec-Fetch-Site", "same-origin")],
    [("Sec-Fetch-Mode", "cors")],
    [("sec-fetch-mode", "cors"), ("accept-language", "*"), ("user-agent", "node")],
    [("Sec-Fetch-Site", "none")],
    [("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Proto", "https"), ("X-Real-IP", "1.2.3.4")],
    [("X-Forwarded-Host", "example.com"), ("Forwarded", "for=203.0.113.9;host=example.com")],
]
FOREIGN: list[tuple[list[Header], str]] = [
    ([("Host", "example.com")], "forbidden_host"),
    ([("Host", "example.com:{port}")], "forbidden_host"),
    ([("Host", "127.0.0.1.example.com:{port}")], "forbidden_host"),
    ([("Host", "0.0.0.0:{port}")], "forbidden_host"),
    ([("Host", "192.0.2.1:{port}")], "forbidden_host"),
    ([("Host", "")], "forbidden_host"),
    ([("Origin", "https://example.com")], "forbidden_origin"),
    ([("Origin", "null")], "forbidden_origin"),
    ([("Origin", "")], "forbidden_origin"),
    ([("Origin", "http://127.0.0.1:1")], "forbidden_origin"),
    ([("Origin", "http://127.0.0.1")], "forbidden_origin"),
    ([("Origin", "file://")], "forbidden_origin"),
    ([("Origin", "http://127.0.0.1:{port}"), ("Origin", "https://a.example")], "forbidden_origin"),
    ([("Sec-Fetch-Site", "cross-site")], "forbidden_origin"),
    ([("Sec-Fetch-Site", "Cross-Site"), ("Sec-Fetch-Mode", "no-cors")], "forbidden_origin"),
]


def placed(headers: Sequence[Header], port: int) -> list[Header]:
    return [(name, value.replace("{port}", str(port))) for name, value in headers]


def test_who_may_speak_to_it(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for headers in ALLOWED:
            answer = await stage.post(BODY, headers=placed(headers, stage.port))
            assert (answer.status, answer.types[-1]) == (200, "response.completed"), headers
            assert answer.all("access-control-allow-origin") == []
        assert "forwarded" not in str([h.headers for h in stage.mock.handshakes]).lower()

    run(test, tmp_path)


def test_who_may_not(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for headers, code in FOREIGN:
            lines = placed(headers, stage.port)
            for method, path in (("POST", RESPONSES), ("GET", "/v1/models"), ("GET", "/healthz")):
                close = [*lines, ("Connection", "close")]
                answer = await request(stage.port, method, path, close)
                assert (answer.status, answer.error["code"]) == (403, code), (headers, path)
                assert answer.error["type"] == "permission_error"
            preflight = [
                *lines,
                ("Access-Control-Request-Method", "POST"),
                ("Connection", "close"),
            ]
            answer = await request(stage.port, "OPTIONS", RESPONSES, preflight)
            assert answer.status == 403
            assert answer.all("access-control-allow-origin") == []
        assert stage.dialled == []

    run(test, tmp_path)


def test_two_hosts_or_none(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for hosts in ([], ["127.0.0.1", "127.0.0.1"], ["127.0.0.1", "example.com"]):
            async with connection(stage.port) as exchange:
                lines = [("Host", host) for host in hosts]
                await exchange.send(request_head("GET", "/healthz", lines))
                answer = await exchange.answer()
                assert (answer.status, answer.error["code"]) == (403, "forbidden_host")

    run(test, tmp_path)


def test_a_foreign_host_in_the_target(tmp_path: Path) -> None:
    """RFC 9112 section 3.2.2: the target's authority counts, whatever Host says."""

    async def test(stage: Stage) -> None:
        async with connection(stage.port) as exchange:
            lines = [("Host", "127.0.0.1"), ("Connection", "close")]
            await exchange.send(request_head("GET", "http://127.0.0.1/healthz", lines))
            assert (await exchange.answer()).status == 200

    run(test, tmp_path)
