"""`codexlb mock-upstream`: the mock of the Responses upstream in the foreground."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codexlb_cli.commands.context import CommandContext
from codexlb_cli.config.load import DEMO_UPSTREAM_PORT

if TYPE_CHECKING:
    from codexlb_cli.mock_upstream.recording import Turn
    from codexlb_cli.mock_upstream.server import MockUpstream


def mock_upstream(
    ctx: typer.Context,
    *,
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, metavar="N", help="The port to listen on; 0 for any free one."
        ),
    ] = DEMO_UPSTREAM_PORT,
    scenario: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Rules for what goes wrong; see docs/scenarios.md."),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Close with 1011 where a handshake carried headers of an HTTP request."
        ),
    ] = False,
) -> None:
    """Run a mock of the Responses upstream, WebSocket and HTTP, on loopback.

    The model of a turn says what happens; other names behave as `mock`:

    \b
      mock             a normal answer
      mock-close-CODE  closes with CODE before response.created, on every other turn
      mock-429         error 429 rate_limit_exceeded, retry-after 7, on every other turn
      mock-silent      accepts the turn and never answers
      mock-slow        150 ms between deltas
      mock-tool        calls a tool first, and answers once it has the output
      mock-failed      response.failed, server_error

    Every API key is an account of its own; demo-key-NAME is the account NAME.

    GET /_mock/recording shows what was received.
    """  # noqa: D301  (the backspace tells the help to keep the lines below it)
    import asyncio

    from codexlb_cli.mock_upstream.scenario import load_scenario
    from codexlb_cli.mock_upstream.script import Script
    from codexlb_cli.mock_upstream.server import MockUpstream

    context = CommandContext.of(ctx)
    script = Script() if scenario is None else load_scenario(scenario)
    upstream = MockUpstream(
        script=script,
        strict=strict,
        port=port,
        on_turn=lambda turn: context.console.note(_line(turn)),
    )
    status = asyncio.run(_run(context, upstream, scenario))
    if status:
        raise typer.Exit(status)


async def _run(context: CommandContext, upstream: MockUpstream, scenario: Path | None) -> int:
    """Serve until a signal comes; return the exit code."""
    import asyncio
    import signal

    from codexlb_cli.errors import ExitStatus

    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[int] = loop.create_future()

    def stop(status: ExitStatus) -> None:
        if not stopped.done():
            stopped.set_result(status)

    async with upstream:
        for number, status in (
            (signal.SIGINT, ExitStatus.INTERRUPTED),
            (signal.SIGTERM, ExitStatus.DONE),
        ):
            try:
                loop.add_signal_handler(number, stop, status)
            except NotImplementedError:
                # Windows has none; there Ctrl-C arrives as KeyboardInterrupt.
                break
        context.console.answer(_banner(upstream, scenario))
        return await stopped


def _banner(upstream: MockUpstream, scenario: Path | None) -> str:
    from codexlb_cli.console import escape
    from codexlb_cli.mock_upstream.script import SHORTCUTS

    root = upstream.base_url.removesuffix("/v1")
    width = max(len(name) for name in SHORTCUTS)
    models = "\n".join(f"    {name:{width}}  {what}" for name, what in SHORTCUTS.items())
    return f"""\
A mock of the Responses upstream. Nothing leaves this computer.

  http       {upstream.base_url}
  websocket  {upstream.websocket_base_url}
  accounts   every API key is one: demo-key-NAME is NAME, others account-1, account-2, ...
  scenario   {escape(str(scenario)) if scenario else "none"}
  issuer     {root}
  recording  {root}/_mock/recording

  MODELS, instead of a scenario
{models}

Ctrl-C stops it."""


def _line(turn: Turn) -> str:
    clock = time.strftime("%H:%M:%S")
    kind = "warm-up " if turn.warm_up else ""
    return (
        f"{clock}  {turn.transport:<9}  {turn.account:<10}  socket {turn.socket:<3}  "
        f"{kind}{turn.model[:60]}: {turn.outcome}"
    )
