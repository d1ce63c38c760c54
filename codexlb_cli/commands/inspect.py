"""`codexlb inspect`: what the gateway would send, and the rules by which it decides."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from codexlb_cli.commands.context import CommandContext, JsonFlag
from codexlb_cli.commands.offline import offline_choice
from codexlb_cli.console import OutputClosed, escape
from codexlb_cli.errors import ExitStatus, UsageError
from codexlb_cli.inspect.clients import NAMES

if TYPE_CHECKING:
    from codexlb_cli.core.accounts import Account
    from codexlb_cli.core.affinity import Key
    from codexlb_cli.core.headers import Header
    from codexlb_cli.inspect.requests import ClientRequest

app = typer.Typer(help="Show what the gateway would send, and why; nothing is sent.")


@app.command()
def handshake(
    ctx: typer.Context,
    *,
    header: Annotated[
        list[str] | None,
        typer.Option("-H", metavar="'NAME: VALUE'", help="A client header; may be repeated."),
    ] = None,
    client: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"A recorded client: {', '.join(NAMES)}."),
    ] = None,
    headers: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A raw HTTP request head or JSON; - reads stdin."),
    ] = None,
    account: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The account; default: that of an unkeyed request."),
    ] = None,
    as_json: JsonFlag = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Print the request head as it goes on the wire.")
    ] = False,
) -> None:
    """Show what the upstream WebSocket handshake would carry, and why."""
    from codexlb_cli.config.policies import header_options
    from codexlb_cli.inspect.handshake import document, inspected, text, wire

    if as_json and raw:
        raise UsageError("`--json` and `--raw` cannot be used together")
    context = CommandContext.of(ctx)
    inbound, source = _client_headers(header or [], client, headers)
    chosen, account_id = _account(context, account)
    built = inspected(chosen, inbound, header_options(context.settings), account_id)
    if as_json:
        context.console.json(document(built))
    elif raw:
        _answer_bytes(context, wire(built))
    else:
        context.console.answer(text(built, source))


def _client_headers(
    options: list[str], client: str | None, file: str | None
) -> tuple[tuple[Header, ...], str]:
    """Return the client headers, and where they come from in words."""
    from codexlb_cli.inspect.clients import EXAMPLE, recorded
    from codexlb_cli.inspect.inputs import from_content, from_options, read

    given = {"-H": options or None, "--client": client, "--headers": file}
    names = [f"`{name}`" for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise UsageError(f"{' and '.join(names)} cannot be used together")
    if options:
        return from_options(options), f"{len(options)} from -H"
    if client is not None:
        found = recorded(client)
        return found.headers, f"recorded client {client} ({found.description})"
    if file is not None:
        return from_content(read(file)), "standard input" if file == "-" else file
    return EXAMPLE, "built-in example (yours: -H, --headers, --client)"


def _account(context: CommandContext, name: str | None) -> tuple[Account, str | None]:
    """Return the account to show, and what stands for its account id.

    If it could not be dialled from here, stderr says so.
    """
    from codexlb_cli.inspect.handshake import PLACEHOLDER

    offline, chosen = offline_choice(context, name)
    if chosen is None:
        context.console.note(f"no accounts yet, so `{PLACEHOLDER.name}` stands for one")
        context.console.hint("codexlb accounts add work --api-key-env OPENAI_API_KEY")
        return PLACEHOLDER, None
    if chosen in offline.problems:
        context.console.warning(
            f"{offline.problems[chosen]}, so `{chosen}` could not be dialled from here"
        )
    found = context.settings.account(chosen)
    return found, offline.account_id(found)


def _answer_bytes(context: CommandContext, head: bytes) -> None:
    """Write a request head to stdout: byte for byte, but to a terminal only what is printable."""
    if sys.stdout is None or sys.stdout.isatty():
        printable = escape(head.decode("latin-1").replace("\r\n", "\n"), lines=True)
        context.console.answer(printable.removesuffix("\n"))
        return
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(head)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise OutputClosed from None
    except OSError as exc:
        raise OutputClosed(exc.strerror) from None


@app.command()
def route(
    ctx: typer.Context,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="A JSON body, raw HTTP, or a recorded exchange; - reads stdin."
        ),
    ],
    *,
    header: Annotated[
        list[str] | None,
        typer.Option("-H", metavar="'NAME: VALUE'", help="A further header; may be repeated."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what the gateway would do with a request; exit 1 if it would refuse it."""
    from codexlb_cli.inspect.inputs import from_options
    from codexlb_cli.inspect.route import document, routed
    from codexlb_cli.inspect.route_text import text
    from codexlb_cli.store.owner_rows import recall

    context = CommandContext.of(ctx)
    offline, _ = offline_choice(context, None)
    request = _client_request(file, context.settings.limits.request_bytes)
    request = replace(request, headers=(*request.headers, *from_options(header or [])))

    def remembered(
        keys: Sequence[Key], digests: Sequence[str]
    ) -> tuple[dict[Key, str], dict[str, str]]:
        folder, warn = context.places.state_folder, context.console.warning
        return recall(folder, keys, digests, offline.pool.now, warn)

    found = routed(request, context.settings, offline, remembered)
    if as_json:
        context.console.json(document(found))
    else:
        context.console.answer(text(found, "standard input" if file == "-" else file))
    name = found.account
    if name is not None and name in offline.problems:
        context.console.warning(
            f"{offline.problems[name]}, so `{name}` could not be dialled from here"
        )
    if found.error is not None:
        raise typer.Exit(ExitStatus.ANSWER_IS_NO)


def _client_request(file: str, request_bytes: int) -> ClientRequest:
    """Read a request; of one that is too large, no more than shows that it is."""
    from codexlb_cli.inspect.inputs import LONGEST_INPUT_BYTES, read_some
    from codexlb_cli.inspect.requests import ClientRequest, read_client_request

    most = request_bytes + LONGEST_INPUT_BYTES
    content = read_some(file, most + 1)
    return ClientRequest((), content) if len(content) > most else read_client_request(content)


@app.command()
def rules(ctx: typer.Context, as_json: JsonFlag = False) -> None:
    """Print the header, close and error tables by which the gateway decides."""
    from codexlb_cli.config.policies import header_options, reconnect_policy
    from codexlb_cli.inspect.rules import document, text

    context = CommandContext.of(ctx)
    settings = context.settings
    options, policy = header_options(settings), reconnect_policy(settings)
    if as_json:
        context.console.json(document(options, policy))
    else:
        context.console.answer(text(options, policy))
