"""`codexlb serve` and `codexlb demo`: the gateway in the foreground."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codexlb_cli import __version__
from codexlb_cli.commands.context import CommandContext

if TYPE_CHECKING:
    from codexlb_cli.errors import ExitStatus
    from codexlb_cli.gateway.run import Gateway, StopSignals

DEFAULT_PORT = 2455

PortOption = Annotated[
    int | None,
    typer.Option(min=1, max=65535, metavar="N", help="The port to listen on, 2455 by default."),
]


def serve(
    ctx: typer.Context,
    *,
    host: Annotated[
        str | None, typer.Option(metavar="H", help="The loopback address to listen on.")
    ] = None,
    port: PortOption = None,
) -> None:
    """Run the gateway in the foreground; Ctrl-C lets running turns end."""
    context = CommandContext.of(ctx)
    overrides: dict[str, object] = {
        key: value
        for key, value in (("gateway.host", host), ("gateway.port", port))
        if value is not None
    }
    from codexlb_cli.gateway.run import run_event_loop

    _finish(run_event_loop(_serve(context, overrides)))


def demo(
    ctx: typer.Context,
    *,
    port: Annotated[
        int,
        typer.Option(
            min=1, max=65534, metavar="N", help="The gateway's port; the upstream's is N+1."
        ),
    ] = DEFAULT_PORT,
) -> None:
    """Run a mock upstream and the gateway with three demo accounts; needs no account or key."""
    context = CommandContext.of(ctx)
    context.demo = True
    from codexlb_cli.gateway.run import run_event_loop

    _finish(run_event_loop(_demo(context, port)))


def _finish(status: ExitStatus) -> None:
    if status:
        raise typer.Exit(int(status))


async def _serve(context: CommandContext, overrides: dict[str, object]) -> ExitStatus:
    from contextlib import AsyncExitStack

    from codexlb_cli.gateway.run import StopSignals, run_until_signal

    signals = StopSignals()
    gateway = _gateway(context, overrides, signals)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(gateway)
        context.console.answer(_serve_banner(context, gateway))
        if not gateway.services.settings.accounts:
            context.console.warning("no account is configured, so no request can be served yet")
            context.console.hint(f"{program()} accounts add work --api-key-env OPENAI_API_KEY")
        _log_header(context)
        return await run_until_signal(signals, stack, gateway, context.console.note)


async def _demo(context: CommandContext, port: int) -> ExitStatus:
    from contextlib import AsyncExitStack

    from codexlb_cli.config.load import DEMO_NAMES
    from codexlb_cli.gateway.run import StopSignals, run_until_signal
    from codexlb_cli.mock_upstream.server import MockUpstream

    overrides: dict[str, object] = {"gateway.port": port}
    signals = StopSignals()
    keys = {name: f"demo-key-{name}" for name in DEMO_NAMES}
    async with AsyncExitStack() as stack:
        upstream = MockUpstream(accounts=keys, port=port + 1)
        await stack.enter_async_context(upstream)
        gateway = _gateway(context, overrides, signals)
        await stack.enter_async_context(gateway)
        context.console.answer(_demo_banner(gateway, upstream.websocket_base_url))
        _log_header(context)
        return await run_until_signal(signals, stack, gateway, context.console.note)


def _gateway(
    context: CommandContext, overrides: dict[str, object], signals: StopSignals
) -> Gateway:
    import logging

    from codexlb_cli.gateway.run import Gateway, GatewayInputs
    from codexlb_cli.signin.refresher import Refresher
    from codexlb_cli.store.credentials import Credentials

    logging.basicConfig(format="%(message)s", level=logging.ERROR)
    # Our own outermost handler reports bugs, without the text of exceptions.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)

    credentials, state_folder = context.credentials, context.places.state_folder
    refresher = None
    if isinstance(credentials, Credentials):
        credentials.check()
        refresher = Refresher(
            credentials,
            state_folder,
            warn=context.console.warning,
            notes=credentials.place == "file",
        )
    return Gateway(
        GatewayInputs(
            load=lambda: context.load(overrides),
            credentials=credentials,
            refresh=None if refresher is None else refresher.refresh,
            state_folder=state_folder,
            write_line=context.console.note,
            warn=context.console.warning,
        ),
        hurry=signals.hurry,
    )


def _log_header(context: CommandContext) -> None:
    from codexlb_cli.gateway.request_log import HEADER

    context.console.note(HEADER)


def program() -> str:
    """Return how this program is called: `codexlb` if that on PATH is it, else its path."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m codexlb_cli"
    found = shutil.which("codexlb")
    if found is not None and called.exists() and called.samefile(found):
        return "codexlb"
    return shlex.quote(str(called.absolute()))


def _base_url(gateway: Gateway) -> str:
    host = gateway.services.settings.gateway.host
    return f"http://{f'[{host}]' if ':' in host else host}:{gateway.port}/v1"


def _ready(gateway: Gateway) -> str:
    from codexlb_cli.core.accounts import Availability

    pool = gateway.services.accounts.pool()
    ready = sum(pool.standing(a).state is Availability.READY for a in pool.accounts)
    return f"{ready} of {len(pool.accounts)} ready"


def _names(gateway: Gateway) -> str:
    return ", ".join(a.name for a in gateway.services.settings.accounts) or "none"


def _addresses(rows: list[tuple[str, str, str]]) -> str:
    width = max(len(address) for _, address, _ in rows)
    return "\n".join(f"  {n:<10} {a:<{width}}    {what}" for n, a, what in rows)


def _serve_banner(context: CommandContext, gateway: Gateway) -> str:
    head = _addresses(
        [
            ("gateway", _base_url(gateway), "for clients, HTTP with SSE or WebSocket"),
            ("accounts", _names(gateway), _ready(gateway)),
        ]
    )
    return f"""\
codexlb {__version__}

{head}
  config     {context.places.config_file or "built in"}

Connect a client: {program()} connect codex (or openai, agents, opencode, curl).
Ctrl-C stops.
"""


def _demo_banner(gateway: Gateway, upstream: str) -> str:
    base, command = _base_url(gateway), f"{program()} --demo"
    if gateway.port != DEFAULT_PORT:
        command = f"CODEXLB_GATEWAY_PORT={gateway.port} {command}"
    head = _addresses(
        [
            ("gateway", base, "for clients, HTTP with SSE or WebSocket"),
            ("upstream", upstream, "a mock of the Responses WebSocket"),
            ("accounts", _names(gateway), _ready(gateway)),
        ]
    )
    return f"""\
codexlb {__version__} demo. Everything stays on this computer; no account or key is needed.

{head}

In a second terminal:

  A streamed answer
    curl -N {base}/responses -H "content-type: application/json" \\
      -d '{{"model": "mock", "input": "hello", "stream": true}}'

  The upstream closes with 1011 before it answers; the session stays on its account
    curl -N {base}/responses -H "content-type: application/json" \\
      -H "session-id: s1" -d '{{"model": "mock-close-1011", "input": "hello", "stream": true}}'

  From Python (pip install openai)
    from openai import OpenAI
    client = OpenAI(base_url="{base}", api_key="unused")
    for event in client.responses.create(model="mock", input="hello", stream=True):
        print(event.type)

  What goes upstream, and what a reconnect would pick (sends nothing)
    {command} inspect handshake
    {command} simulate close 1011

Ctrl-C stops the gateway and the upstream.
"""
