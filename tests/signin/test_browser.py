"""The browser flow on virtual time, and the server for its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from codexlb_cli.signin.browser import BrowserSignIn
from codexlb_cli.signin.callback import CallbackServer, Page
from codexlb_cli.signin.issuer import SignInRefused
from codexlb_cli.store.logins import Login
from tests.signin.person import FakePerson, answers, issuer_client, tokens
from tests.support.virtual import VirtualLoop

OAUTH = "/oauth/token"


def virtually(main: Callable[[], Awaitable[None]]) -> float:
    """Run on virtual time; return how much of it passed, in seconds."""

    async def timed() -> float:
        began = asyncio.get_running_loop().time()
        await main()
        return asyncio.get_running_loop().time() - began

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(timed())


def begin(person: FakePerson, answer: httpx2.Response, draws: bytes = b"\1") -> BrowserSignIn:
    issuer = issuer_client(answers({OAUTH: [answer]})[0])
    return BrowserSignIn(issuer, person.terminal, draw=lambda count: draws * count, port=0)


def test_nobody_comes() -> None:
    person = FakePerson()

    async def main() -> None:
        with pytest.raises(SignInRefused, match="nobody signed in within 5 minutes") as caught:
            await begin(person, httpx2.Response(200, json=tokens())).run()
        assert caught.value.reason == "timeout"

    assert 300 <= virtually(main) < 301
    assert len(person.opened) == 1


def test_what_was_pasted_ends_the_waiting() -> None:
    person = FakePerson()

    async def main() -> None:
        running: asyncio.Task[Login] = asyncio.create_task(
            begin(person, httpx2.Response(200, json=tokens())).run()
        )
        person.typed.put_nowait("")
        person.typed.put_nowait("ac_0123456789")
        login = await running
        assert login.account_id == "acct-ada"

    assert virtually(main) < 1
    assert person.warned == []


def test_the_end_of_the_input_ends_nothing() -> None:
    person = FakePerson()

    async def main() -> None:
        running = asyncio.create_task(begin(person, httpx2.Response(200, json=tokens())).run())
        person.typed.put_nowait(None)
        while not person.opened:
            await asyncio.sleep(1)
        query = parse_qs(urlsplit(person.opened[0]).query)
        where = f"{query['redirect_uri'][0]}?code=c&state={query['state'][0]}"
        async with httpx2.AsyncClient(trust_env=False) as http:
            page = await http.get(where)
        assert "Signed in" in page.text
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["referrer-policy"] == "no-referrer"
        await running

    virtually(main)


def test_two_sign_ins_differ() -> None:
    people = FakePerson(), FakePerson()

    async def main() -> None:
        for draws, person in zip((b"\1", b"\2"), people, strict=True):
            person.typed.put_nowait("ac_0123456789")
            await begin(person, httpx2.Response(200, json=tokens()), draws).run()

    virtually(main)
    queries = [parse_qs(urlsplit(person.opened[0]).query) for person in people]
    for name in ("state", "code_challenge"):
        assert queries[0][name] != queries[1][name]


async def nothing() -> None:
    pass


def visit(
    test: Callable[[CallbackServer, list[str]], Awaitable[None]],
    afterwards: Callable[[], Awaitable[None]] = nothing,
) -> float:
    async def main() -> None:
        queries: list[str] = []

        def visited(query: str) -> Page:
            queries.append(query)
            return Page(200, "<Title>", "A & B")

        async with CallbackServer(0, visited) as server:
            await test(server, queries)
        await afterwards()

    return virtually(main)


async def raw(server: CallbackServer, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


def test_a_page_is_escaped_and_whole() -> None:
    async def test(server: CallbackServer, queries: list[str]) -> None:
        answer = await raw(server, b"GET /auth/callback?a=b HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert f"content-length: {len(body)}".encode() in head
        assert b"<h1>&lt;Title&gt;</h1>" in body
        assert b"A &amp; B" in body
        assert queries == ["a=b"]

    visit(test)


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 404 Not Found"),
        (b"GET /auth/callback/ HTTP/1.1\r\n\r\n", b"HTTP/1.1 404 Not Found"),
        (b"POST /auth/callback HTTP/1.1\r\n\r\n", b"HTTP/1.1 405 Method Not Allowed"),
        (b"HEAD /auth/callback HTTP/1.1\r\n\r\n", b"HTTP/1.1 405 Method Not Allowed"),
        (b"\x16\x03\x01\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
        (b"GET /" + b"x" * 100_000, b""),
    ],
)
def test_what_is_no_callback(request_: bytes, answer: bytes) -> None:
    async def test(server: CallbackServer, queries: list[str]) -> None:
        try:
            got = await raw(server, request_)
        except ConnectionResetError:
            got = b""  # it was not read to the end
        assert got.partition(b"\r\n")[0] == answer
        assert queries == []

    visit(test)


def test_a_connection_that_says_nothing_is_dropped() -> None:
    async def test(server: CallbackServer, queries: list[str]) -> None:
        assert await raw(server, b"GET /auth") == b""

    assert 10 <= visit(test) < 11


def test_idle_connections_do_not_hold_up_the_end() -> None:
    async def test(server: CallbackServer, queries: list[str]) -> None:
        opened = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(10)]
        idle.extend(writer for _, writer in opened)
        await raw(server, b"GET /auth/callback HTTP/1.1\r\n\r\n")

    async def close() -> None:
        for writer in idle:
            writer.close()

    idle: list[asyncio.StreamWriter] = []
    assert visit(test, close) < 1
