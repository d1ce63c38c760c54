"""`codexlb connect CLIENT`: what to write into a client's configuration; nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from codexlb_cli.commands.context import CommandContext, JsonFlag
from codexlb_cli.errors import UsageError


def connect(
    ctx: typer.Context,
    client: Annotated[str, typer.Argument(metavar="CLIENT", help="codex, openai or curl.")],
    *,
    as_json: JsonFlag = False,
) -> None:
    """Print the configuration that points a client at this gateway; nothing is written."""
    context = CommandContext.of(ctx)
    write = CLIENTS.get(client)
    if write is None:
        raise UsageError(
            f"`{client}` is not a client that this knows",
            hint=f"choose one of: {', '.join(CLIENTS)}",
        )
    gateway = context.settings.gateway
    host = f"[{gateway.host}]" if ":" in gateway.host else gateway.host
    base_url = f"http://{host}:{gateway.port}/v1"
    text = write(base_url)
    if as_json:
        context.console.json(
            {
                "schema": "codexlb.connect/1",
                "client": client,
                "base_url": base_url,
                "configuration": text,
            }
        )
    else:
        context.console.answer(text)


def _codex(base_url: str) -> str:
    # A provider that is named "OpenAI" makes Codex compress its requests and ask an account
    # server first; with `requires_openai_auth` it would use the login of its own.
    return f"""\
# For ~/.codex/config.toml. This line must stand above the first [table] of the file:
model_provider = "codexlb"

# This may stand anywhere below:
[model_providers.codexlb]
name = "codexlb"
base_url = "{base_url}"
wire_api = "responses"
# No env_key: the gateway needs no key on this computer.
# Leave chatgpt_base_url as it is; it is not for a gateway."""


def _openai(base_url: str) -> str:
    return f"""\
# For a shell; the OpenAI SDKs for Python and Node read these. The key is required, but not used.
export OPENAI_BASE_URL="{base_url}"
export OPENAI_API_KEY="unused"

# Or in Python:
#   client = OpenAI(base_url="{base_url}", api_key="unused")"""


def _curl(base_url: str) -> str:
    return f"""\
curl -N {base_url}/responses -H "content-type: application/json" \\
  -d '{{"model": "gpt-5.5", "input": "hello", "stream": true}}'"""


CLIENTS: dict[str, Callable[[str], str]] = {"codex": _codex, "openai": _openai, "curl": _curl}
