"""A running gateway with real sockets on both sides: a mock upstream and raw HTTP clients."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from codexlb_cli.config.load import load_settings
from codexlb_cli.gateway.logins import Refresh
from codexlb_cli.gateway.run import Gateway, GatewayInputs
from codexlb_cli.gateway.server import listen
from codexlb_cli.mock_upstream.script import AnyRule, Script
from codexlb_cli.mock_upstream.server import MockUpstream
from codexlb_cli.store.credentials import Credentials
from tests.support.cli import Cli
from tests.support.client import (
    ANSWER_SECONDS,
    Answer,
    Exchange,
    Header,
    connection,
    request,
    request_head,
)

NAMES = ("work", "home", "spare")
RESPONSES = "/v1/responses"
TEST_SECONDS = 40


def key_of(name: str) -> str:
    return f"sk-test-{name}"


@dataclass
class Clock:
    """A clock that stands still until it is told to go on."""

    at: float = field(default_factory=time.time)

    def __call__(self) -> float:
        return self.at

    def advance(self, seconds: float) -> None:
        self.at += seconds


@dataclass
class Stage:
    """What a test plays on.

    Attributes:
        folder: the person's home: configuration and state lie in it.
        urls: the base URL of each account.
        lines: the request log.
        warnings: what the person was warned of.
    """

    mock: MockUpstream
    folder: Path
    urls: Mapping[str, str]
    clock: Clock = field(default_factory=Clock)
    environ: dict[str, str] = field(default_factory=dict)
    draws: float = 0.0
    keepalive_seconds: float = 15.0
    refresh: Refresh | None = None
    answer_seconds: float = ANSWER_SECONDS
    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    gateway: Gateway = field(init=False)

    @property
    def cli(self) -> Cli:
        """The program with the same configuration and state."""
        return Cli(self.folder)

    async def command(self, *args: str) -> subprocess.CompletedProcess[bytes]:
        """Run the program as a process of its own, beside the gateway."""
        return await asyncio.to_thread(self.cli.spawn, *args, stdin=b"", **self.environ)

    @property
    def config_file(self) -> Path:
        return self.cli.config_file

    @property
    def state_folder(self) -> Path:
        return self.cli.state_folder

    @property
    def port(self) -> int:
        return self.gateway.port

    @property
    def dialled(self) -> list[str]:
        """The accounts of the upgrades, in order."""
        return [handshake.account or "nobody" for handshake in self.mock.handshakes]

    @property
    def sent(self) -> list[str]:
        """The accounts that were sent a `response.create`, in order."""
        return [turn.account for turn in self.mock.turns]

    @property
    def frames(self) -> list[Any]:
        return [frame.json for frame in self.mock.frames]

    def handshake(self, number: int) -> dict[str, list[str]]:
        """The header lines of an upgrade by lower-case name."""
        found: dict[str, list[str]] = {}
        for name, value in self.mock.handshakes[number].headers:
            found.setdefault(name.lower(), []).append(value)
        return found

    def configure(self, more: str = "", accounts: Mapping[str, str] | None = None) -> None:
        """Write config.toml: the accounts, further lines of each, and whatever else."""
        parts = [more]
        for name, url in self.urls.items():
            own = (accounts or {}).get(name, "")
            parts.append(
                f'[accounts.{name}]\nbase_url = "{url}"\n'
                f'api_key_env = "{name.upper()}_KEY"\n{own}\n'
            )
        self.cli.configure("\n".join(parts))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Gateway]:
        """Run a gateway on this folder; another one may follow it."""
        inputs = GatewayInputs(
            load=lambda: load_settings(self.config_file, environ=self.environ),
            credentials=Credentials(self.state_folder, self.environ),
            state_folder=self.state_folder,
            write_line=self.lines.append,
            warn=self.warnings.append,
            now=self.clock,
            draw=lambda: self.draws,
            monotonic=self.clock,
            keepalive_seconds=self.keepalive_seconds,
            refresh=self.refresh,
        )
        async with Gateway(inputs, listener=listen("127.0.0.1", 0)) as gateway:
            self.gateway = gateway
            yield gateway

    async def turn(
        self, *, headers: Sequence[Header] = (), path: str = RESPONSES, **members: object
    ) -> Answer:
        """Send a turn, streamed unless `stream` says otherwise, and read the whole answer."""
        return await self.post(turn_body(members), headers=headers, path=path)

    async def post(
        self, body: bytes, *, headers: Sequence[Header] = (), path: str = RESPONSES
    ) -> Answer:
        lines, within = _framed(headers, body), self.answer_seconds
        return await request(self.port, "POST", path, lines, body, within)

    async def get(self, path: str, headers: Sequence[Header] = ()) -> Answer:
        return await request(self.port, "GET", path, [*headers, ("Connection", "close")])

    @asynccontextmanager
    async def streaming(
        self, *, headers: Sequence[Header] = (), path: str = RESPONSES, **members: object
    ) -> AsyncIterator[Exchange]:
        """Send a turn, and let the test read its answer."""
        body = turn_body(members)
        async with connection(self.port, self.answer_seconds) as exchange:
            lines = [("Host", f"127.0.0.1:{self.port}"), *_framed(headers, body)]
            await exchange.send(request_head("POST", path, lines) + body)
            yield exchange


def turn_body(members: Mapping[str, object]) -> bytes:
    return json.dumps({"model": "mock", "input": "hello", "stream": True, **members}).encode()


def _framed(headers: Sequence[Header], body: bytes) -> list[Header]:
    named = {name.lower() for name, _ in headers}
    own = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]
    return [*headers, *(line for line in own if line[0].lower() not in named)]


Test = Callable[[Stage], Awaitable[None]]


async def play(
    test: Test,
    folder: Path,
    *rules: AnyRule,
    names: Sequence[str] = NAMES,
    more: str = "",
    accounts: Mapping[str, str] | None = None,
    urls: Mapping[str, str] | None = None,
    strict: bool = True,
    draws: float = 0.0,
    keys: Mapping[str, str] | None = None,
    serve: bool = True,
    script: Script | None = None,
    clock: Clock | None = None,
    seconds: float = TEST_SECONDS,
    answer_seconds: float = ANSWER_SECONDS,
) -> None:
    """Play a test against a gateway with these accounts, at a mock upstream with these rules.

    Args:
        test: the test.
        folder: a folder of its own.
        rules: what the upstream does.
        names: the accounts, in configuration order.
        more: further tables of config.toml.
        accounts: further lines of the tables of accounts.
        urls: base URLs of accounts that do not lie at the mock.
        strict: whether the mock refuses upgrades that are not clean.
        draws: the chance: 0 waits for no back-off, 1 for the whole.
        keys: keys of accounts that are not to be made up.
        serve: whether the gateway runs; else the test calls `serving` itself.
        script: what the upstream does, instead of `rules`.
        clock: the gateway's clock; None for one that stands still.
        seconds: how long the test may take, by the loop's clock.
        answer_seconds: how long an answer may take, by the loop's clock.
    """
    known = {name: (keys or {}).get(name, key_of(name)) for name in names}
    mock = MockUpstream(
        script=script or Script(rules),
        accounts=known,
        strict=strict,
        clock=asyncio.get_running_loop().time,
    )
    async with asyncio.timeout(seconds), mock:
        where = {name: (urls or {}).get(name, mock.base_url) for name in names}
        stage = Stage(
            mock, folder, where, clock or Clock(), draws=draws, answer_seconds=answer_seconds
        )
        stage.environ = {f"{name.upper()}_KEY": key for name, key in known.items()}
        stage.configure(more, accounts)
        if not serve:
            await test(stage)
            return
        async with stage.serving():
            await test(stage)


def run(test: Test, folder: Path, *rules: AnyRule, **options: Any) -> None:
    """Run one test; see `play`."""
    asyncio.run(play(test, folder, *rules, **options))


Wait = Callable[[Coroutine[Any, Any, Any]], Any]


@contextmanager
def staged(folder: Path, *rules: AnyRule, **options: Any) -> Iterator[tuple[Stage, Wait]]:
    """Keep a stage for code that is not async, with the function that runs a coroutine on it."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        ready: asyncio.Future[Stage] = loop.create_future()
        over = asyncio.Event()

        async def test(stage: Stage) -> None:
            ready.set_result(stage)
            await over.wait()

        async def begin() -> Stage:
            await asyncio.wait((playing, ready), return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                await playing  # raises why
            return ready.result()

        async def end() -> None:
            over.set()
            await playing

        playing = loop.create_task(play(test, folder, *rules, **options))
        yield runner.run(begin()), runner.run
        runner.run(end())


Case = TypeVar("Case")


def run_each(
    cases: Mapping[str, Case],
    one: Callable[[Case, Path], Awaitable[None]],
    folder: Path,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """Run the cases at once, each in a folder of its own; failures name their case.

    A gateway needs a moment to stop, and many can do so together.
    """

    async def labelled(label: str, number: int) -> None:
        own = folder / str(number)
        own.mkdir()
        try:
            await one(cases[label], own)
        except Exception as exc:
            exc.add_note(f"case: {label}")
            raise

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for number, label in enumerate(cases):
                group.create_task(labelled(label, number))

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that refuses connections, and that nobody else gets meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def session(key: str) -> list[Header]:
    return [("session-id", key)]
