"""HTTP as an upstream: the bytes that go out, and every way in which an answer can be broken."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from codexlb_cli.config.policies import OWN_USER_AGENT
from codexlb_cli.core.accounts import Account
from codexlb_cli.core.affinity import UNKEYED
from codexlb_cli.core.handshake import HandshakeInputs
from codexlb_cli.core.headers import HeaderOptions
from codexlb_cli.core.http_request import build_post
from codexlb_cli.gateway.http_connection import HttpConnection
from codexlb_cli.gateway.http_upstream import HttpUpstream, open_http
from codexlb_cli.gateway.lanes import Lane, Lanes
from codexlb_cli.gateway.sockets import DialError, DialOptions, SocketGone
from tests.support.client import Answer, Header
from tests.support.gateway import Stage, closed_port, key_of, turn_body
from tests.support.raw_upstream import (
    COMPLETED,
    CREATED,
    CUT,
    HANG,
    STALL,
    STREAM_HEAD,
    TURN,
    UNREAD,
    RawUpstream,
    plain,
    play_raw,
    run_raw,
    run_raw_virtually,
    sse,
)
from tests.support.virtual import VirtualLoop, play_virtually

FRAME = '{"type":"response.create","model":"m"}'
OPTIONS = DialOptions(timeout_seconds=5, largest_event_bytes=100_000)


def post_to(base_url: str) -> HandshakeInputs:
    return HandshakeInputs(Account("work", base_url=base_url), "sk", [], HeaderOptions(), "me")


async def opened(base_url: str) -> HttpUpstream:
    return await open_http(build_post(post_to(base_url)), OPTIONS)


# --- what goes out -----------------------------------------------------------------------------


CLIENT = [
    ("Authorization", "Bearer client"),
    ("Cookie", "LEAK"),
    ("OpenAI-Beta", "a=1, responses=experimental, responses_websockets=2026-02-06"),
    ("User-Agent", "codex_exec/0.169.0"),
    ("originator", "codex_exec"),
    ("thread-id", "t\xe9"),
    ("x-codex-window-id", "w:0"),
    ("x-codex-turn-state", "not ours"),
    ("x-forwarded-for", "10.0.0.1"),
    ("accept", "application/json"),
]


@pytest.mark.parametrize("client", [CLIENT, [("originator", "me")]])
def test_the_request_is_what_the_pure_function_says(tmp_path: Path, client: list[Header]) -> None:
    async def test(stage: Stage, raw: RawUpstream) -> None:
        answer = await stage.turn(headers=client, prompt_cache_key="k", note=1.50)
        assert answer.types == ["response.created", "response.completed"]
        (posted,) = raw.posted
        sent = dict(posted.headers)
        inputs = HandshakeInputs(
            account=stage.gateway.services.settings.account("work"),
            secret=key_of("work"),
            inbound=client,
            options=HeaderOptions(),
            user_agent=OWN_USER_AGENT,
            conversation_key="k",
        )
        request = build_post(inputs)
        assert posted.line == f"POST {request.target} HTTP/1.1"
        assert posted.headers == request.headers(sent["x-client-request-id"], len(posted.body))
        assert ("LEAK" in str(posted.headers), "Bearer client" in str(posted.headers)) == (
            False,
            False,
        )
        body = turn_body({"prompt_cache_key": "k", "note": 1.50}).decode()
        # The bytes of every value, in the client's order; `stream` goes first.
        expected = body.replace(', "stream": true', "").replace('{"model', '{"stream":true,"model')
        for gap in (", ", ": "):
            expected = expected.replace(gap, gap[0])
        metadata = posted.json.pop("client_metadata", None)
        assert metadata == ({"x-codex-window-id": "w:0"} if client is CLIENT else None)
        assert posted.body.decode().startswith(expected[:-1])

    run_raw(test, tmp_path, [TURN])


def test_every_post_has_an_id_of_its_own(tmp_path: Path) -> None:
    async def test(stage: Stage, raw: RawUpstream) -> None:
        for _ in range(12):  # more than may be dialled at once: posts are not paced
            await stage.turn()
        ids = {dict(posted.headers)["x-client-request-id"] for posted in raw.posted}
        assert (len(ids), raw.connections) == (12, 12)

    run_raw(test, tmp_path, [TURN])


# --- what comes back ---------------------------------------------------------------------------

CHUNKED = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def chunks(data: bytes, size: int) -> bytes:
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


EVENTS = sse(CREATED, '{"type":"response.output_text.delta","delta":"\u20ac"}', COMPLETED)
GOOD: dict[str, Sequence[object]] = {
    "to the end of the connection": [STREAM_HEAD + EVENTS],
    "chunked": [CHUNKED + chunks(EVENTS, 1_000)],
    "chunked finely": [CHUNKED + chunks(EVENTS, 1)],
    "with a length": [plain(200, EVENTS, "content-type: text/event-stream")],
    "without a type": [b"HTTP/1.1 200 OK\r\n\r\n" + EVENTS],
    "after 103": [b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + TURN],
    "with CRLF": [STREAM_HEAD + sse(CREATED, COMPLETED).replace(b"\n", b"\r\n")],
    "with comments": [STREAM_HEAD + b": hello\n\n" + sse(CREATED) + b":\n\n" + sse(COMPLETED)],
    "and then silence": [TURN, HANG],
    "in data lines": [STREAM_HEAD + sse(CREATED).replace(b",", b"\ndata: ,") + sse(COMPLETED)],
    "HTTP/1.0": [TURN.replace(b"HTTP/1.1", b"HTTP/1.0")],
}


def test_every_form_of_a_stream_is_read(tmp_path: Path) -> None:
    async def one(label: str) -> None:
        async def test(stage: Stage, raw: RawUpstream) -> None:
            answer = await stage.turn()
            assert (answer.status, answer.types[0]) == (200, "response.created"), label
            assert answer.events[-1].text == COMPLETED, label
            assert len(raw.posted) == 1

        folder = tmp_path / label.replace("/", "")
        folder.mkdir()
        await play_raw(test, folder, GOOD[label])

    async def main() -> None:
        await asyncio.gather(*map(one, GOOD))

    asyncio.run(main())


BIG = "x" * 3_000
BROKEN: dict[str, tuple[Sequence[object], str]] = {
    # what the upstream answers, twice; the code that the client sees
    "json": ([plain(200, b"{}", "content-type: application/json")], "upstream_protocol_error"),
    "204": ([b"HTTP/1.1 204 No Content\r\n\r\n"], "upstream_protocol_error"),
    "gzip": (
        [plain(200, b"x", "content-type: text/event-stream", "content-encoding: gzip")],
        "upstream_protocol_error",
    ),
    "no http": ([b"SSH-2.0-OpenSSH\r\n\r\n"], "upstream_protocol_error"),
    "bad chunk": ([CHUNKED + b"xyz\r\n"], "upstream_protocol_error"),
    "no json": ([STREAM_HEAD + sse("nonsense")], "upstream_protocol_error"),
    "no utf-8": ([STREAM_HEAD + b"data: \xff\n\n", HANG], "upstream_protocol_error"),
    "too large": ([STREAM_HEAD + sse(BIG), HANG], "upstream_protocol_error"),
    "too large, endless": (
        [STREAM_HEAD + b"data: " + BIG.encode(), HANG],
        "upstream_protocol_error",
    ),
    "endless head": ([b"HTTP/1.1 200 OK\r\nx: " + b"y" * 400_000, HANG], "upstream_protocol_error"),
    "cut at once": ([CUT], "upstream_unavailable"),
    "closed at once": ([b""], "upstream_unavailable"),
    "cut in the head": ([b"HTTP/1.1 200 OK\r\ncontent-ty", CUT], "upstream_unavailable"),
    "cut before an event": ([STREAM_HEAD, CUT], "upstream_unavailable"),
    "closed before an event": ([STREAM_HEAD], "upstream_unavailable"),
    "only comments": ([STREAM_HEAD + b": x\n\n: y\n\n"], "upstream_unavailable"),
    "half an event": ([STREAM_HEAD + b"data: {}"], "upstream_unavailable"),
    "cut in a chunk": ([CHUNKED + b"ff\r\ndata: ", CUT], "upstream_unavailable"),
    "the whole length and no event": (
        [plain(200, b"", "content-type: text/event-stream")],
        "upstream_unavailable",
    ),
    "only [DONE]": ([STREAM_HEAD + sse("[DONE]")], "upstream_unavailable"),
}


def test_every_broken_answer_has_its_code(tmp_path: Path) -> None:
    async def one(label: str) -> None:
        answers, code = BROKEN[label]

        async def test(stage: Stage, raw: RawUpstream) -> None:
            answer = await stage.turn()
            assert answer.error["code"] == code, label
            lost = code == "upstream_unavailable"
            assert (answer.status, len(raw.posted)) == ((503, 2) if lost else (502, 1)), label
            assert stage.gateway.services.lanes.__len__() == 0

        folder = tmp_path / label.replace(" ", "_")
        folder.mkdir()
        await play_raw(test, folder, answers, more="[limits]\nrequest_bytes = 2000")

    async def main() -> None:
        await asyncio.gather(*map(one, BROKEN))

    asyncio.run(main())


LATE: dict[str, Sequence[object]] = {
    "cut": [STREAM_HEAD + sse(CREATED), CUT],
    "closed": [STREAM_HEAD + sse(CREATED)],
    "chunked, closed": [CHUNKED + chunks(sse(CREATED), 1_000)],
    "chunked, cut": [CHUNKED + chunks(sse(CREATED), 1_000)[:-5], CUT],
    "no utf-8": [STREAM_HEAD + sse(CREATED) + b"data: \xff\n\n", HANG],
    "too large": [STREAM_HEAD + sse(CREATED, BIG), HANG],
    "silence": [STREAM_HEAD + sse(CREATED), HANG],
}


@pytest.mark.parametrize("stream", [True, False])
def test_after_the_first_event_there_is_one_error_and_no_replay(
    tmp_path: Path, stream: bool
) -> None:
    async def one(label: str) -> None:
        async def test(stage: Stage, raw: RawUpstream) -> None:
            answer = await stage.turn(stream=stream)
            assert_ended_early(answer, stream=stream)
            assert len(raw.posted) == 1, label

        folder = tmp_path / label.replace(" ", "_")
        folder.mkdir()
        more = "[limits]\nrequest_bytes = 2000"
        await play_raw(test, folder, LATE[label], more=more, player=play_virtually)

    async def main() -> None:
        await asyncio.gather(*map(one, LATE))

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())


def assert_ended_early(answer: Answer, *, stream: bool) -> None:
    if not stream:
        assert (answer.status, answer.error["code"]) == (502, "upstream_closed")
        return
    assert answer.types == ["response.created", "error"]
    assert answer.events[-1].data["code"] == "upstream_closed"


def test_an_answer_before_the_request_was_read_is_not_lost(tmp_path: Path) -> None:
    """An upstream that finds a body too large says so at once, and reads no further."""
    refusal = plain(413, b'{"error":{"message":"too large","code":"big"}}', "connection: close")

    async def test(stage: Stage, raw: RawUpstream) -> None:
        answer = await stage.turn(input="x" * 8_000_000)
        assert (answer.status, answer.error["code"]) == (413, "big")
        assert len(raw.posted) == 1

    run_raw(test, tmp_path, [UNREAD, refusal, STALL], more="[timeouts]\nfirst_event = 20")


@pytest.mark.parametrize("spaces", [0, 300_000])
def test_a_refusal_is_not_waited_for_to_its_end(tmp_path: Path, spaces: int) -> None:
    endless = b'HTTP/1.1 400 No\r\ncontent-type: application/json\r\n\r\n{"error":' + b" " * spaces

    async def test(stage: Stage, raw: RawUpstream) -> None:
        answer = await stage.turn()
        assert (answer.status, answer.error["code"]) == (400, None)

    run_raw(test, tmp_path, [endless, HANG], more="[timeouts]\nfirst_event = 20")


def test_silence_before_the_first_event_ends_the_connection(tmp_path: Path) -> None:
    async def test(stage: Stage, raw: RawUpstream) -> None:
        answer = await stage.turn()
        assert answer.types[-1] == "response.completed"
        assert answer.header("x-codexlb-attempts") == "2"
        await raw.left.wait()

    run_raw_virtually(test, tmp_path, [HANG], [TURN])


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    async def test(stage: Stage, raw: RawUpstream) -> None:
        answer = await stage.turn()
        assert (answer.status, answer.error["code"]) == (503, "upstream_unavailable")
        assert [posted.line for posted in raw.posted] == ["POST /v1/responses HTTP/1.1"] * 2

    run_raw(test, tmp_path, [plain(307, b"", "location: /elsewhere")])


# --- the connection itself ---------------------------------------------------------------------


def test_what_cannot_be_reached_is_a_failed_dial() -> None:
    async def main() -> None:
        with closed_port() as port:
            urls = [f"http://127.0.0.1:{port}/v1", "http://upstream.invalid/v1", "http://a..b/v1"]
            for url in urls:
                with pytest.raises(DialError) as caught:
                    await opened(url)
                assert caught.value.failure.row.reason == "dial_failed"


def test_what_speaks_no_tls_is_a_failed_dial() -> None:
    async def plain_text(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(plain_text, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(DialError):
                await opened(f"https://127.0.0.1:{port}/v1")

    asyncio.run(main())


def test_one_frame_and_no_more() -> None:
    async def main() -> None:
        async with RawUpstream([TURN]) as raw:
            upstream = await opened(raw.base_url)
            assert (upstream.open, upstream.serves_one_turn) == (True, True)
            await upstream.send(FRAME)
            assert not upstream.open
            assert [await upstream.receive() for _ in range(2)] == [CREATED, COMPLETED]
            with pytest.raises(SocketGone, match="1006"):
                await upstream.receive()
            with pytest.raises(SocketGone):
                await upstream.send(FRAME)
            await upstream.close()
            assert len(raw.posted) == 1

    asyncio.run(main())


def test_a_frame_that_http_does_not_know() -> None:
    async def main() -> None:
        async with RawUpstream([TURN]) as raw:
            upstream = await opened(raw.base_url)
            with pytest.raises(SocketGone, match="not possible over HTTP"):
                await upstream.send('{"type":"response.interrupt"}')
            assert (upstream.open, raw.posted) == (False, [])

    asyncio.run(main())


def test_the_end_wakes_a_reader_and_says_why() -> None:
    async def main() -> None:
        async with RawUpstream([HANG]) as raw:
            upstream = await opened(raw.base_url)
            await upstream.send(FRAME)
            reading = asyncio.create_task(upstream.receive())
            await asyncio.sleep(0)
            upstream.end("silent")
            upstream.end("a later word")
            with pytest.raises(SocketGone, match="silent"):
                await reading
            await raw.left.wait()

    asyncio.run(main())


def test_an_upstream_that_left_before_the_frame_was_sent() -> None:
    async def main() -> None:
        gone = asyncio.Event()

        async def leave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.transport.abort()
            gone.set()

        async with await asyncio.start_server(leave, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            upstream = await opened(f"http://127.0.0.1:{port}/v1")
            await gone.wait()
            while upstream.open:
                await asyncio.sleep(0)
            with pytest.raises(SocketGone, match="1006"):
                await upstream.send(FRAME)

    asyncio.run(main())


def test_it_joins_no_lane_even_if_nothing_was_sent_on_it() -> None:
    async def main() -> None:
        lanes = Lanes(lambda: 300.0, lambda: 3300.0)
        lane = Lane(UNKEYED, "work", None, ())
        async with RawUpstream([HANG]) as raw:
            seat = lanes.add(await opened(raw.base_url), lane)
            assert seat.socket.open
            lanes.release(seat)
            assert (len(lanes), seat.socket.open, await lanes.take(lane)) == (0, False, None)

    asyncio.run(main())


def test_a_slow_reader_holds_the_upstream_back() -> None:
    """What is not asked for stays with the upstream, but for a bounded rest."""
    event = '{"type":"response.output_text.delta","delta":"' + "x" * 10_000 + '"}'
    count = 1_000

    async def main() -> None:
        async with RawUpstream([STREAM_HEAD + sse(*[event] * count)]) as raw:
            upstream = await opened(raw.base_url)
            await upstream.send(FRAME)
            assert await upstream.receive() == event
            for _ in range(200):
                await asyncio.sleep(0)
            assert isinstance(upstream._connection, HttpConnection)
            held = len(upstream._connection._unread)
            assert held < 2_000_000
            for _ in range(count - 1):
                assert await upstream.receive() == event
            with pytest.raises(SocketGone):
                await upstream.receive()

    asyncio.run(main())
