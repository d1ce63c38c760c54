"""`codexlb serve`, and other commands that run until they are told to end, as processes."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.support.cli import Cli
from tests.support.ports import free_port

START_SECONDS = 20
LAST_LINE = "Ctrl-C stops."


@dataclass
class Program:
    """A running program and what it wrote.

    Attributes:
        out: the lines of stdout.
        err: the lines of stderr.
    """

    process: asyncio.subprocess.Process
    port: int
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _readers: list[asyncio.Task[None]] = field(default_factory=list)

    def read(self) -> None:
        """Take what it writes, from now on."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        for stream, lines in ((self.process.stdout, self.out), (self.process.stderr, self.err)):
            self._readers.append(asyncio.create_task(self._read(stream, lines)))

    async def _read(self, stream: asyncio.StreamReader, lines: list[str]) -> None:
        while line := await stream.readline():
            lines.append(line.decode().rstrip("\n"))
            self._news.set()
        self._news.set()

    async def until(self, lines: Sequence[str], text: str) -> None:
        """Return once one of `lines` holds `text`."""
        async with asyncio.timeout(START_SECONDS):
            while not any(text in line for line in lines):
                if all(reader.done() for reader in self._readers):
                    raise AssertionError(f"it ended: {self.out} {self.err}")
                self._news.clear()
                await self._news.wait()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        self.process.kill()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def exit_code(self) -> int:
        async with asyncio.timeout(START_SECONDS):
            code = await self.process.wait()
            await asyncio.gather(*self._readers)
            return code


@asynccontextmanager
async def serving(
    cli: Cli, *options: str, wrapper: Sequence[str] = (), **environ: str
) -> AsyncIterator[Program]:
    """Run `codexlb OPTIONS serve` on a free port until the context ends.

    Args:
        cli: where its folders lie.
        options: global options.
        wrapper: a command that runs it, such as one that takes a right from it.
        environ: further variables of its environment.
    """
    port = free_port()
    ready = running(cli, *options, "serve", port=port, until=LAST_LINE, wrapper=wrapper, **environ)
    async with ready as program:
        yield program


@asynccontextmanager
async def running(
    cli: Cli, *args: str, port: int, until: str, wrapper: Sequence[str] = (), **environ: str
) -> AsyncIterator[Program]:
    """Run `codexlb ARGS --port PORT` from the moment it says `until` until the context ends."""
    process = await asyncio.create_subprocess_exec(
        *wrapper, sys.executable, "-m", "codexlb_cli", *args, "--port", str(port),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=cli.environment(**environ),
        cwd=cli.home,
    )  # fmt: skip
    program = Program(process, port)
    program.read()
    try:
        await program.until(program.out, until)
        yield program
    finally:
        if process.returncode is None:
            process.kill()
        await program.exit_code()
