"""Requests that cannot be served: the error envelope, nothing sent upstream, nothing changed."""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from pathlib import Path

from tests.support.client import Answer, connection, request_head
from tests.support.gateway import RESPONSES, Stage, run, turn_body

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BODY = turn_body({})


def assert_refused(answer: Answer, status: int, code: str, param: str | None = None) -> None:
    error = answer.error
    assert (answer.status, error["code"], error["param"]) == (status, code, param), answer.body
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert answer.header("x-request-id")


async def assert_untouched(stage: Stage) -> None:
    """Nothing went upstream, and the gateway serves as before."""
    assert stage.dialled == []
    assert stage.mock.turns == []
    answer = await stage.turn()
    assert (answer.status, answer.types[-1]) == (200, "response.completed")


MALFORMED = {
    "empty": b"",
    "blank": b"  \n",
    "cut": b'{"model":"mock"',
    "array": b"[]",
    "text": b'"mock"',
    "null": b"null",
    "number": b"1",
    "trailing": b'{"model":"mock"} x',
    "two": b'{"model":"mock"}{"model":"mock"}',
    "single quotes": b"{'model':'mock'}",
    "trailing comma": b'{"model":"mock",}',
    "no colon": b'{"model" "mock"}',
    "unnamed": b'{1:"mock"}',
    "comment": b'{"model":"mock"/**/}',
    "NaN": b'{"model":"mock","x":NaN}',
    "Infinity": b'{"model":"mock","x":[-Infinity]}',
    "no UTF-8": b'{"model":"\xff"}',
    "UTF-16": '{"model":"mock"}'.encode("utf-16"),
    "deep": b'{"model":"mock","input":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep and cut": b'{"model":"mock","input":' + b"[" * 1_000_000,
    "control": b'{"model":"mo\x01ck"}',
    "long number": b'{"model":"mock","x":' + b"9" * 5000 + b"}",
}
WRONG_TYPES: dict[str, object] = {
    "stream": "yes",
    "background": 1,
    "store": "no",
    "model": 7,
    "previous_response_id": ["resp_1"],
    "prompt_cache_key": {"a": 1},
    "conversation": 5,
}


def test_malformed_bodies(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for body in MALFORMED.values():
            answer = await stage.post(body)
            assert_refused(answer, 400, "invalid_request")
            assert len(answer.body) < 500
        await assert_untouched(stage)

    run(test, tmp_path)


def test_wrong_types(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for name, value in WRONG_TYPES.items():
            answer = await stage.post(turn_body({name: value}))
            assert_refused(answer, 400, "invalid_request", name)
        answer = await stage.turn(conversation={"id": 5})
        assert_refused(answer, 400, "invalid_request", "conversation")
        await assert_untouched(stage)

    run(test, tmp_path)


def test_what_only_the_upstream_can_judge_is_passed_on(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.post(b"{}")
        assert (answer.status, answer.error["param"]) == (400, "model")
        assert answer.error["code"] == "missing_required_parameter"
        answer = await stage.turn(input=7, tools={"a": 1})
        assert (answer.status, answer.error["code"]) == (400, "invalid_type")

    run(test, tmp_path)


ENCODED = {
    "gzip": gzip.compress(BODY),
    "x-gzip": gzip.compress(BODY),
    "GZip": gzip.compress(BODY[:20]) + gzip.compress(BODY[20:]),
    "deflate": zlib.compress(BODY),
    "zstd": zstd.compress(BODY),
    " zstd ": zstd.compress(BODY[:20]) + zstd.compress(BODY[20:]),
    "identity": BODY,
    "": BODY,
    "gzip, zstd": zstd.compress(gzip.compress(BODY)),
    "zstd,identity,gzip": gzip.compress(zstd.compress(BODY)),
}


def test_encoded_bodies(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for encoding, body in ENCODED.items():
            answer = await stage.post(body, headers=[("Content-Encoding", encoding)])
            assert (answer.status, answer.text) == (200, "You said: hello"), encoding
        two = [("Content-Encoding", "gzip"), ("content-encoding", "zstd")]
        assert (await stage.post(ENCODED["gzip, zstd"], headers=two)).status == 200
        assert len({frame.text for frame in stage.mock.frames}) == 1

    run(test, tmp_path)


BROKEN = {
    "gzip": gzip.compress(BODY)[:-9],
    "gzip ": b"\x1f\x8b" + BODY,
    "gzip,": gzip.compress(BODY) + b"trailing",
    "zstd": zstd.compress(BODY)[:-3],
    "zstd ": b"(\xb5/\xfd" + BODY,
    "deflate": zlib.compress(BODY)[:10],
    "x-gzip": b"",
    "br": BODY,
    "gzip, br": gzip.compress(BODY),
    "aws-chunked": BODY,
}


def test_broken_encodings(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        for encoding, body in BROKEN.items():
            answer = await stage.post(body, headers=[("Content-Encoding", encoding.strip(" ,"))])
            assert_refused(answer, 400, "invalid_request")
        await assert_untouched(stage)

    run(test, tmp_path)


SMALL = "[limits]\nrequest_bytes = 100000"


def test_a_small_body_cannot_fill_the_memory(tmp_path: Path) -> None:
    """Unpacked, the bombs hold some 8 GiB; only so much is unpacked as may be taken."""
    mebibyte = bytes(2**20)
    bombs = {
        "gzip": gzip.compress(mebibyte) * 90,
        "deflate": zlib.compress(bytes(2**26)),
        "zstd": zstd.compress(mebibyte) * 2000,
        "gzip, gzip": gzip.compress(gzip.compress(mebibyte) * 8000),
    }

    async def test(stage: Stage) -> None:
        for encoding, bomb in bombs.items():
            assert len(bomb) <= 100_000, encoding
            answer = await stage.post(bomb, headers=[("Content-Encoding", encoding)])
            assert_refused(answer, 400, "request_too_large")
        await assert_untouched(stage)

    run(test, tmp_path, more=SMALL)


def test_too_large(tmp_path: Path) -> None:
    big = turn_body({"input": "x" * 100_000})
    exact = turn_body({"instructions": "x" * (100_000 - len(turn_body({"instructions": ""})))})

    async def test(stage: Stage) -> None:
        assert len(exact) == 100_000
        for body, headers in (
            (big, []),
            (gzip.compress(big), [("Content-Encoding", "gzip")]),
            (zstd.compress(big), [("Content-Encoding", "zstd")]),
        ):
            answer = await stage.post(body, headers=headers)
            assert_refused(answer, 400, "request_too_large")
        await assert_untouched(stage)
        assert (await stage.post(exact)).status == 200

    run(test, tmp_path, more=SMALL)


def test_a_body_that_is_announced_too_large_is_not_waited_for(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with connection(stage.port) as exchange:
            head = [("Host", "127.0.0.1"), ("Content-Length", "100001")]
            await exchange.send(request_head("POST", RESPONSES, head))
            answer = await exchange.answer()
            assert_refused(answer, 400, "request_too_large")
            assert answer.header("connection") == "close"
            assert await exchange.ended()
        await assert_untouched(stage)

    run(test, tmp_path, more=SMALL)


def test_a_body_without_end(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with connection(stage.port) as exchange:
            head = [("Host", "127.0.0.1"), ("Transfer-Encoding", "chunked")]
            await exchange.send(request_head("POST", RESPONSES, head))
            for _ in range(3):
                await exchange.send(b"9000\r\n" + b"x" * 0x9000 + b"\r\n")
            assert_refused(await exchange.answer(), 400, "request_too_large")
            assert await exchange.ended()
        await assert_untouched(stage)

    run(test, tmp_path, more=SMALL)


def test_a_chunked_body(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with connection(stage.port) as exchange:
            head = [
                ("Host", "127.0.0.1"),
                ("Transfer-Encoding", "chunked"),
                ("Expect", "100-continue"),
                ("Connection", "close"),
            ]
            await exchange.send(request_head("POST", RESPONSES, head))
            for at in range(0, len(BODY), 7):
                piece = BODY[at : at + 7]
                await exchange.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            await exchange.send(b"0\r\n\r\n")
            assert (await exchange.answer()).text == "You said: hello"

    run(test, tmp_path)


def test_a_frame_over_the_limit(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.turn(input="x" * 5000)
        assert (answer.status, answer.error["code"]) == (400, "request_too_large")
        assert stage.mock.frames == []
        wide = json.dumps({"model": "mock", "input": "é" * 1500}, ensure_ascii=False).encode()
        assert_refused(await stage.post(wide), 400, "request_too_large")
        assert (await stage.turn(input="x" * 1500)).status == 200

    run(test, tmp_path, more="[limits]\nframe_bytes = 3000")


def test_half_a_request_and_no_more(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        head = request_head(
            "POST", RESPONSES, [("Host", "127.0.0.1"), ("Content-Length", str(len(BODY)))]
        )
        whole = head + BODY
        for length in (10, len(head) - 2, len(head), len(head) + 5, len(whole) - 1):
            async with connection(stage.port) as exchange:
                await exchange.send(whole[:length])
                exchange.leave()
            async with connection(stage.port) as exchange:
                await exchange.send(whole[:length])
                await exchange.half_close()
                assert await exchange.ended()
        assert stage.warnings == []
        await assert_untouched(stage)

    run(test, tmp_path)


def test_several_requests_on_one_connection(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        head = [("Host", "127.0.0.1"), ("Content-Length", str(len(BODY)))]
        for body, status in ((BODY, 200), (b"{" + BODY[1:-1] + b"]", 400), (BODY, 200)):
            async with connection(stage.port) as exchange:
                for _ in range(2):
                    await exchange.send(request_head("POST", RESPONSES, head) + body)
                    await exchange.head()
                    assert exchange.status == status
                    answer = await exchange.answer()
                    assert answer.complete
                    exchange.status, exchange.complete = 0, False

    run(test, tmp_path)


CONTROLS = [b"\x00", b"\x01", b"\x0b", b"\x1f", b"\x7f"]


def test_headers_with_control_characters(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        lines = request_head(
            "POST",
            RESPONSES,
            [("Host", "127.0.0.1"), ("Content-Length", str(len(BODY))), ("X-A", "?"), ("X-B", "b")],
        )
        for control in CONTROLS:
            async with connection(stage.port) as exchange:
                await exchange.send(lines.replace(b"X-A: ?", b"X-A: secret" + control) + BODY)
                answer = await exchange.answer()
                assert_refused(answer, 400, "invalid_header")
                assert b"secret" not in answer.body
        tab = lines.replace(b"X-A: ?", b"X-A: a\tb")
        async with connection(stage.port) as exchange:
            await exchange.send(tab.replace(b"X-B: b", b"Connection: close") + BODY)
            assert (await exchange.answer()).status == 200

    run(test, tmp_path)
