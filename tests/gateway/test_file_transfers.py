"""Files on the wire: streamed both ways, broken off cleanly, never sent twice."""

from __future__ import annotations

import asyncio
import os
import tracemalloc
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.core.accounts import Availability
from codexlb_cli.gateway.bodies import BodyError
from codexlb_cli.gateway.transfers import ClientBody
from tests.gateway.filing import (
    Asked,
    Reply,
    asked,
    call,
    ending,
    form,
    form_headers,
    upload,
    uploaded,
    upstream,
)
from tests.support.client import Exchange, connection, request_head
from tests.support.gateway import Stage, Test, closed_port, play, run, session

FILE = {"id": "file-1", "object": "file"}
MIB = 1 << 20


BesideTest = Callable[[Stage, list[Asked]], Awaitable[None]]


def run_beside(reply: Reply, test: BesideTest, folder: Path, **options: Any) -> None:
    """Run a test where the account work lies at an upstream that answers by `reply`."""

    async def main() -> None:
        async with upstream(reply) as (url, seen):

            async def one(stage: Stage) -> None:
                await test(stage, seen)

            await play(one, folder, names=["work", "home"], urls={"work": url}, **options)

    asyncio.run(main())


async def begin(exchange: Exchange, stage: Stage, length: int | None) -> None:
    """Send the head of an upload."""
    lines = [("Host", f"127.0.0.1:{stage.port}"), *form_headers(length)]
    await exchange.send(request_head("POST", "/v1/files", lines))


def test_an_upload_is_streamed(tmp_path: Path) -> None:
    first = asyncio.Event()
    body = form(os.urandom(300_000))
    half = len(body) // 2

    async def reply(asked: Asked) -> None:
        await asked.read(half)
        first.set()
        await asked.read(len(body) - half)
        await asked.answer(200, FILE)

    async def test(stage: Stage, seen: list[Asked]) -> None:
        async with connection(stage.port) as exchange:
            await begin(exchange, stage, len(body))
            await exchange.send(body[:half])
            await first.wait()  # the upstream has it, and the client has not sent the rest
            await exchange.send(body[half:])
            answer = await exchange.answer()
        assert (answer.status, answer.json) == (200, FILE)
        assert seen[0].body == body
        assert seen[0].head.value("content-length") == str(len(body))

    run_beside(reply, test, tmp_path)


def test_a_large_upload_and_download_stay_out_of_memory(tmp_path: Path) -> None:
    size, piece = 48 * MIB, bytes(MIB // 4)

    async def reply(asked: Asked) -> None:
        if asked.head.method == "POST":
            left = int(asked.head.value("content-length"))
            while left:
                left -= len(await asked.read(min(left, MIB // 4)))
                asked.body = b""
            await asked.answer(200, FILE)
            return
        await asked.start(200, [("content-length", str(size)), ("connection", "close")])
        for _ in range(size // len(piece)):
            await asked.send(piece)

    async def test(stage: Stage, seen: list[Asked]) -> None:
        await call(stage, "GET", "/v1/files")  # loads what is loaded once
        begun, rest = form(b""), ending(b"")
        begun = begun.removesuffix(rest)
        tracemalloc.start()
        try:
            async with connection(stage.port) as exchange:
                await begin(exchange, stage, len(begun) + size + len(rest))
                await exchange.send(begun)
                for _ in range(size // len(piece)):
                    await exchange.send(piece)
                await exchange.send(rest)
                assert (await exchange.answer()).status == 200
            async with connection(stage.port) as exchange:
                lines = [("Host", f"127.0.0.1:{stage.port}"), ("Connection", "close")]
                await exchange.send(request_head("GET", "/v1/files/file-1/content", lines))
                await exchange.head()
                received = 0
                while some := await exchange.piece():
                    received += len(some)
            assert (received, exchange.complete) == (size, True)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < size // 4

    run_beside(reply, test, tmp_path)


@pytest.mark.parametrize("when", ["in the body", "before the answer"])
def test_a_client_that_leaves_ends_the_request_upstream(tmp_path: Path, when: str) -> None:
    here, gone = asyncio.Event(), asyncio.Event()
    body = form(b"hello" * 100)
    sent = body[:-5] if when == "in the body" else body

    async def reply(asked: Asked) -> None:
        if here.is_set():
            await asked.read_all()
            await asked.answer(200, FILE)
            return
        await asked.read(len(sent))
        here.set()
        assert await asked.gone()
        gone.set()

    async def test(stage: Stage, seen: list[Asked]) -> None:
        async with connection(stage.port) as exchange:
            await begin(exchange, stage, len(body))
            await exchange.send(sent)
            await here.wait()
            exchange.leave()
            await gone.wait()
        assert (len(seen), asked(stage)) == (1, [])
        assert await uploaded(stage) == ("file-1", "work")

    run_beside(reply, test, tmp_path)


def test_an_upload_that_announces_too_much_is_not_read(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        async with connection(stage.port) as exchange:
            await begin(exchange, stage, 2000)
            answer = await exchange.answer()
        assert (answer.status, answer.error["code"]) == (400, "request_too_large")
        assert answer.header("connection") == "close"
        assert asked(stage) == []
        assert (await upload(stage, b"x" * 100)).status == 200

    run(test, tmp_path, more="[limits]\nrequest_bytes = 1024\n")


def test_an_upload_that_grows_too_large_is_broken_off(tmp_path: Path) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def reply(asked: Asked) -> None:
        await asked.read(100)
        begun.set()
        assert await asked.gone()
        ended.set()

    async def test(stage: Stage, seen: list[Asked]) -> None:
        async with connection(stage.port) as exchange:
            await begin(exchange, stage, None)
            await exchange.send(b"258\r\n" + bytes(600) + b"\r\n")
            await begun.wait()
            await exchange.send(b"258\r\n" + bytes(600) + b"\r\n")
            answer = await exchange.answer()
        assert (answer.status, answer.error["code"]) == (400, "request_too_large")
        assert answer.header("connection") == "close"
        await ended.wait()
        assert len(seen) == 1
        assert asked(stage) == []

    run_beside(reply, test, tmp_path, more="[limits]\nrequest_bytes = 1024\n")


def test_a_body_that_stalls_is_given_up() -> None:
    async def receive() -> MutableMapping[str, Any]:
        await asyncio.Event().wait()
        return {}

    async def test() -> None:
        body = ClientBody(receive, 10, stall_seconds=0)
        with pytest.raises(BodyError) as caught:
            await anext(body.pieces())
        assert caught.value.error.code == "request_timeout"
        assert not body.begun

    asyncio.run(test())


def test_content_is_streamed(tmp_path: Path) -> None:
    seen_by_client = asyncio.Event()

    async def reply(asked: Asked) -> None:
        await asked.start(
            200,
            [
                ("content-length", "10"), ("content-type", "a/b"), ("set-cookie", "a=b"),
                ("content-disposition", "attachment"), ("connection", "close"),
            ],
        )  # fmt: skip
        await asked.send(b"first")
        await seen_by_client.wait()
        await asked.send(b"later")

    async def test(stage: Stage, seen: list[Asked]) -> None:
        async with connection(stage.port) as exchange:
            lines = [("Host", f"127.0.0.1:{stage.port}"), ("Connection", "close")]
            await exchange.send(request_head("GET", "/v1/files/file-1/content", lines))
            await exchange.head()
            assert await exchange.piece() == b"first"
            seen_by_client.set()
            assert await exchange.piece() == b"later"
            assert exchange.complete
            headers = {name.lower(): value for name, value in exchange.headers}
        assert headers["content-type"] == "a/b"
        assert headers["content-disposition"] == "attachment"
        assert headers["x-codexlb-account"] == "work"
        assert "set-cookie" not in headers

    run_beside(reply, test, tmp_path)


def test_a_client_that_leaves_ends_the_download(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def reply(asked: Asked) -> None:
        await asked.start(200, [("content-length", "10"), ("connection", "close")])
        await asked.send(b"first")
        assert await asked.gone()
        ended.set()

    async def test(stage: Stage, seen: list[Asked]) -> None:
        async with connection(stage.port) as exchange:
            lines = [("Host", f"127.0.0.1:{stage.port}"), ("Connection", "close")]
            await exchange.send(request_head("GET", "/v1/files/file-1/content", lines))
            await exchange.head()
            await exchange.piece()
            exchange.leave()
            await ended.wait()

    run_beside(reply, test, tmp_path)


@pytest.mark.parametrize("framing", [("content-length", "10"), ("transfer-encoding", "chunked")])
def test_content_that_breaks_off_is_seen_to_be_broken(
    tmp_path: Path, framing: tuple[str, str]
) -> None:
    async def reply(asked: Asked) -> None:
        await asked.start(200, [framing])
        chunked = framing[1] == "chunked"
        await asked.send(b"5\r\nfirst\r\n" if chunked else b"first")

    async def test(stage: Stage, seen: list[Asked]) -> None:
        answer = await call(stage, "GET", "/v1/files/file-1/content")
        assert (answer.status, answer.body) == (200, b"first")
        assert not answer.complete

    run_beside(reply, test, tmp_path)


REFUSALS: dict[str, tuple[int, dict[str, Any], dict[str, str], str, Availability]] = {
    "401": (401, {"code": "invalid_api_key"}, {}, "upstream_unavailable", Availability.NEEDS_LOGIN),
    "403": (403, {}, {}, "upstream_unavailable", Availability.COOLING_DOWN),
    "429": (429, {}, {"retry-after": "30"}, "upstream_unavailable", Availability.LIMITED),
    "500": (500, {}, {}, "upstream_unavailable", Availability.READY),
    "redirect": (307, {}, {"location": "/v1/x"}, "upstream_unavailable", Availability.READY),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_an_upload_that_is_refused_is_not_sent_again(tmp_path: Path, case: str) -> None:
    status, error, headers, code, state = REFUSALS[case]

    async def reply(asked: Asked) -> None:
        await asked.read_all()
        await asked.answer(status, {"error": {"message": "sk-LEAK", **error}}, headers)

    async def test(stage: Stage, seen: list[Asked]) -> None:
        answer = await upload(stage)
        assert (answer.status, answer.error["code"]) == (503, code)
        assert answer.header("retry-after") == "1"
        assert answer.header("x-codexlb-account") == "work"
        assert b"LEAK" not in answer.body
        assert (len(seen), asked(stage)) == (1, [])
        ready = await stage.get("/readyz")
        assert ready.json["accounts"]["work"] == state
        if state is not Availability.READY:
            assert (await uploaded(stage))[1] == "home"

    run_beside(reply, test, tmp_path)


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (401, "invalid_api_key", (503, "owner_unavailable", None)),
        (429, "rate_limit_exceeded", (429, "rate_limit_exceeded", "10")),
        (500, "server_error", (503, "upstream_unavailable", "1")),
        (302, None, (503, "upstream_unavailable", "1")),
    ],
)
def test_what_an_owner_refuses_is_asked_of_nobody_else(
    tmp_path: Path, status: int, code: str | None, told: tuple[int, str, str | None]
) -> None:
    async def reply(asked: Asked) -> None:
        await asked.read_all()
        if asked.head.method == "POST":
            await asked.answer(200, FILE)
        else:
            await asked.answer(status, {"error": {"code": code}}, {"location": "/v1/elsewhere"})

    async def test(stage: Stage, seen: list[Asked]) -> None:
        assert await uploaded(stage) == ("file-1", "work")
        answer = await call(stage, "GET", "/v1/files/file-1/content")
        assert (answer.status, answer.error["code"], answer.header("retry-after")) == told
        assert (len(seen), asked(stage)) == (2, [])

    run_beside(reply, test, tmp_path)


@pytest.mark.parametrize("status", [400, 404, 409, 413])
def test_what_is_wrong_with_an_upload_is_the_upstreams_own_word(
    tmp_path: Path, status: int
) -> None:
    error = {"message": "Not so.", "type": "invalid_request_error", "code": "x", "param": "file"}

    async def reply(asked: Asked) -> None:
        await asked.read_all()
        await asked.answer(status, {"error": error}, {"set-cookie": "a=b", "openai-version": "1"})

    async def test(stage: Stage, seen: list[Asked]) -> None:
        answer = await upload(stage)
        assert (answer.status, answer.error) == (status, error)
        assert answer.header("openai-version") == "1"
        assert answer.header("set-cookie") is None
        assert asked(stage) == []

    run_beside(reply, test, tmp_path)


def test_an_upload_whose_connection_breaks_is_not_sent_again(tmp_path: Path) -> None:
    async def reply(asked: Asked) -> None:
        await asked.read(50)

    async def test(stage: Stage, seen: list[Asked]) -> None:
        answer = await upload(stage)
        assert (answer.status, answer.error["code"]) == (503, "upstream_unavailable")
        assert (len(seen), asked(stage)) == (1, [])

    run_beside(reply, test, tmp_path)


def on_a_closed_port(test: Test, folder: Path, name: str) -> None:
    with closed_port() as port:
        run(test, folder, names=["work", "home"], urls={name: f"http://127.0.0.1:{port}/v1"})


def test_an_account_that_cannot_be_reached_is_passed_over(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        name, account = await uploaded(stage)
        assert account == "home"
        assert (await call(stage, "GET", f"/v1/files/{name}")).status == 200
        listed = await call(stage, "GET", "/v1/files")
        assert (listed.status, listed.error["code"]) == (503, "upstream_unavailable")
        missing = await call(stage, "GET", "/v1/files/file-nobody")
        assert (missing.status, missing.error["code"]) == (503, "upstream_unavailable")

    on_a_closed_port(test, tmp_path, "work")


def test_an_upload_of_a_session_waits_for_no_other_account(tmp_path: Path) -> None:
    async def test(stage: Stage, seen: list[Asked]) -> None:
        assert (await uploaded(stage, b"a", *session("s")))[1] == "work"
        answer = await upload(stage, b"b", *session("s"))
        assert (answer.status, answer.error["code"]) == (503, "upstream_unavailable")
        assert asked(stage) == []

    answers = iter([200, 500])

    async def reply(asked: Asked) -> None:
        await asked.read_all()
        await asked.answer(next(answers), FILE)

    run_beside(reply, test, tmp_path)


def test_the_upload_that_succeeds_binds_its_session(tmp_path: Path) -> None:
    here, done = asyncio.Event(), asyncio.Event()

    async def reply(asked: Asked) -> None:
        if b"bad" in await asked.read_all():
            here.set()
            await done.wait()
            await asked.answer(400)
        else:
            await asked.answer(200, FILE)

    async def test(stage: Stage, seen: list[Asked]) -> None:
        first = asyncio.create_task(upload(stage, b"bad", *session("s")))
        await here.wait()
        stage.gateway.services.accounts.chosen("work")  # others would go elsewhere now
        assert (await uploaded(stage, b"good", *session("s")))[1] == "work"
        done.set()
        assert (await first).status == 400
        assert (await uploaded(stage, b"good", *session("s")))[1] == "work"
        assert (await uploaded(stage))[1] == "home"

    run_beside(reply, test, tmp_path)


def test_no_cookie_of_an_account_comes_back_to_it(tmp_path: Path) -> None:
    async def reply(asked: Asked) -> None:
        await asked.read_all()
        await asked.answer(200, FILE, {"set-cookie": "a=b; Path=/"})

    async def test(stage: Stage, seen: list[Asked]) -> None:
        for _ in range(2):
            assert (await upload(stage)).header("set-cookie") is None
        assert [request.head.values("cookie") for request in seen] == [[], []]

    run_beside(reply, test, tmp_path)


ODD: Mapping[str, bytes] = {
    "no JSON": b"hello",
    "a list": b'["file-1"]',
    "an id that is none": b'{"id": "../x"}',
}


@pytest.mark.parametrize("case", ODD)
def test_answers_that_name_no_file_are_passed_on_and_pin_nothing(tmp_path: Path, case: str) -> None:
    async def reply(asked: Asked) -> None:
        await asked.read_all()
        length = ("content-length", str(len(ODD[case])))
        await asked.start(200, [("content-type", "text/plain"), length])
        await asked.send(ODD[case])

    async def test(stage: Stage, seen: list[Asked]) -> None:
        answer = await upload(stage)
        assert (answer.status, answer.body) == (200, ODD[case])
        assert answer.header("content-type") == "text/plain"

    run_beside(reply, test, tmp_path)


def test_an_account_without_files_has_an_empty_list(tmp_path: Path) -> None:
    async def reply(asked: Asked) -> None:
        await asked.answer(404, {"detail": "Not Found"})

    async def test(stage: Stage, seen: list[Asked]) -> None:
        del stage.environ["WORK_KEY"]
        name, _ = await uploaded(stage)
        stage.environ["WORK_KEY"] = "sk-test-work"
        listed = await call(stage, "GET", "/v1/files")
        assert [file["id"] for file in listed.json["data"]] == [name]
        assert listed.header("x-codexlb-account") == "home"
        assert len(seen) == 1

    run_beside(reply, test, tmp_path)


def test_a_list_of_thousands_is_pinned_and_known_after_a_restart(tmp_path: Path) -> None:
    names = [f"file-{number}" for number in range(1_200)]

    async def reply(asked: Asked) -> None:
        await asked.answer(200, {"data": [{"id": name} for name in names], "has_more": False})

    async def test(stage: Stage, seen: list[Asked]) -> None:
        for _ in range(2):
            async with stage.serving():
                listed = await call(stage, "GET", "/v1/files")
                assert [file["id"] for file in listed.json["data"]] == names
                owners = {stage.gateway.services.keys.owner("file", name) for name in names}
                assert owners == {"work"}

    run_beside(reply, test, tmp_path, serve=False)
