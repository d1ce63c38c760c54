"""`codexlb connect CLIENT`: what a client must be told; written into its file only on request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codexlb_cli.commands.context import CommandContext, JsonFlag
from codexlb_cli.commands.live import running_gateway
from codexlb_cli.config.paths import find_places
from codexlb_cli.console import escape
from codexlb_cli.core import client_settings
from codexlb_cli.core.client_settings import Address, Auth, ClientSettings, Provider, Transport
from codexlb_cli.errors import UsageError

if TYPE_CHECKING:
    from codexlb_cli.config.client_files import ClientFile, Step

CLIENTS = ("codex", "openai", "agents", "opencode", "curl")
_WITH_FILE = ("codex", "opencode")


@dataclass(frozen=True, slots=True)
class _Request:
    """What was asked for: the client, its settings, and where they would be written."""

    client: str
    address: Address
    settings: ClientSettings
    as_json: bool


def connect(
    ctx: typer.Context,
    client: Annotated[
        str,
        typer.Argument(
            metavar="CLIENT",
            help="codex, openai, agents, opencode or curl.",
            autocompletion=lambda: list(CLIENTS),
        ),
    ],
    *,
    provider: Annotated[
        Provider | None,
        typer.Option(
            help="codex, opencode: a provider of its own, or the built-in one. "
            "codex: custom by default, opencode: openai."
        ),
    ] = None,
    transport: Annotated[
        Transport | None, typer.Option(help="codex: websocket by default.")
    ] = None,
    auth: Annotated[
        Auth | None,
        typer.Option(
            help="codex: what it sends as its own credential; none by default, "
            "chatgpt with the built-in provider."
        ),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write it into the client's configuration file.")
    ] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Take back what --write has written.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Print the configuration that points a client at this gateway; --write writes it."""
    context = CommandContext.of(ctx)
    _check(client, write=write, undo=undo)
    address, runs = gateway_address(context)
    request = _Request(
        client,
        address,
        _settings(client, address, provider, transport, auth),
        as_json,
    )
    if undo:
        _undo(context, request)
        return
    if write:
        _write(context, request)
    elif as_json:
        context.console.json(_document(request, gateway_running=runs))
    else:
        context.console.answer(request.settings.text)
    if not runs:
        context.console.note("no gateway runs here yet; the address is the configured one")
        context.console.hint(start_command(context))
    if client == "opencode" and provider is not Provider.CUSTOM:
        warn_of_opencode_login(context)


def _check(client: str, *, write: bool, undo: bool) -> None:
    """Refuse what no command can do.

    Raises:
        UsageError: the client is unknown or has no file, or the options contradict each other.
    """
    if client not in CLIENTS:
        raise UsageError(
            f"`{client}` is not a client that this knows",
            hint=f"choose one of: {', '.join(CLIENTS)}",
        )
    if write and undo:
        raise UsageError("`--write` and `--undo` cannot be used together")
    if (write or undo) and client not in _WITH_FILE:
        raise UsageError(
            f"`{client}` has no configuration file to write",
            hint="codexlb run -- CMD starts a command with the variables that it reads",
        )


def gateway_address(context: CommandContext) -> tuple[Address, bool]:
    """Return where the gateway of this configuration listens, or would, and whether it runs."""
    gateway = context.settings.gateway
    running = running_gateway(context.places.state_folder)
    if running is None:
        return Address(gateway.host, gateway.port), False
    return Address(running.host, running.port), True


def start_command(context: CommandContext) -> str:
    """Return the command that starts a gateway of this configuration."""
    from codexlb_cli.commands.serve import DEFAULT_PORT

    if not context.demo:
        return "codexlb serve"
    port = context.settings.gateway.port
    return "codexlb demo" if port == DEFAULT_PORT else f"codexlb demo --port {port}"


def _settings(
    client: str,
    address: Address,
    provider: Provider | None,
    transport: Transport | None,
    auth: Auth | None,
) -> ClientSettings:
    takes = {"codex": ("provider", "transport", "auth"), "opencode": ("provider",)}
    given = {"provider": provider, "transport": transport, "auth": auth}
    for name, value in given.items():
        if value is not None and name not in takes.get(client, ()):
            raise UsageError(f"`--{name}` says nothing to `{client}`")
    match client:
        case "codex":
            return _codex(address, provider or Provider.CUSTOM, transport, auth)
        case "opencode":
            return client_settings.opencode(address, provider=provider or Provider.OPENAI)
        case "agents":
            return client_settings.agents(address)
        case "openai":
            return client_settings.openai(address)
        case _:
            return client_settings.curl(address)


def _codex(
    address: Address, provider: Provider, transport: Transport | None, auth: Auth | None
) -> ClientSettings:
    if provider is Provider.OPENAI:
        if transport is Transport.HTTP:
            raise UsageError(
                "the built-in provider of Codex always tries WebSocket first",
                hint="codexlb connect codex --transport http",
            )
        if auth is Auth.NONE:
            raise UsageError(
                "the built-in provider of Codex always sends a credential",
                hint="codexlb connect codex --auth none",
            )
        auth = auth or Auth.CHATGPT
    return client_settings.codex(
        address,
        provider=provider,
        transport=transport or Transport.WEBSOCKET,
        auth=auth or Auth.NONE,
    )


def _write(context: CommandContext, request: _Request) -> None:
    from codexlb_cli.config.client_files import carry_out, plan_write

    file, *_ = _files(context, request.client)
    step = plan_write(file, request.settings)
    if request.client == "codex":
        _warn_of_profile(context, file, step)
    if step.changes_nothing:
        _answer(context, request, file, step, None)
        context.console.note(f"{file.path} says so already; nothing is to be done")
        return
    backup = carry_out(file, step)
    _answer(context, request, file, step, backup)
    kept = f"; what it held before is in {backup}" if backup else ""
    context.console.note(f"wrote {file.path}{kept}")
    context.console.hint(file.undo)


def _undo(context: CommandContext, request: _Request) -> None:
    from codexlb_cli.config.client_files import Step, carry_out, plan_undo

    files = _files(context, request.client)
    file = next((file for file in files if file.record.exists()), files[0])
    step = plan_undo(file)
    if step is None:
        _answer(context, request, file, Step(None, None), None)
        context.console.note(f"nothing was written into {file.path}, so nothing is to be undone")
        return
    backup = carry_out(file, step)
    _answer(context, request, file, step, backup)
    kept = f"; what it held when that was written is in {backup}" if backup else ""
    context.console.note(
        f"deleted {file.path}" if step.after is None else f"put {file.path} back{kept}"
    )


def _answer(
    context: CommandContext,
    request: _Request,
    file: ClientFile,
    step: Step,
    backup: Path | None,
) -> None:
    """Print what was changed: the lines, or one document."""
    diff = _diff(request, file, step)
    if request.as_json:
        more = {
            "file": str(file.path),
            "changed": not step.changes_nothing,
            "backup": None if backup is None else str(backup),
            "diff": diff,
        }
        context.console.json(_document(request, **more))
    elif diff:
        context.console.answer(diff)


def _diff(request: _Request, file: ClientFile, step: Step) -> str:
    from codexlb_cli.config.client_diff import unified_diff

    if step.changes_nothing:
        return ""
    before, after = (
        None if content is None else content.decode("utf-8-sig")
        for content in (step.now, step.after)
    )
    changes = [request.settings.changes, step.changes]
    if step.earlier is not None:
        changes.append(step.earlier.changes)
    ours = [value for some in changes for value in some.values()]
    return escape(unified_diff(file.form, str(file.path), before, after, ours=ours), lines=True)


def _document(request: _Request, **more: object) -> dict[str, object]:
    return {
        "schema": "codexlb.connect/1",
        "client": request.client,
        "base_url": request.address.base_url,
        "configuration": request.settings.text,
        **more,
    }


def _files(context: CommandContext, client: str) -> list[ClientFile]:
    """Return the files that the client may read; it is the first one that counts.

    What was written is known to every configuration of this program.
    """
    from codexlb_cli.config.client_edits import Jsonc, Toml
    from codexlb_cli.config.client_files import ClientFile

    codex = client == "codex"
    paths = [codex_config(context.environ)] if codex else opencode_configs(context.environ)
    return [
        ClientFile(
            client=client,
            path=path,
            form=Toml() if codex else Jsonc(),
            records=find_places({}).state_folder / "clients",
            undo=f"codexlb connect {client} --undo",
        )
        for path in paths
    ]


def codex_config(environ: Mapping[str, str]) -> Path:
    """Return where the Codex CLI reads its configuration."""
    from codexlb_cli.commands.signin import codex_auth_file

    return codex_auth_file(environ).with_name("config.toml")


def opencode_configs(environ: Mapping[str, str]) -> list[Path]:
    """Return the files of opencode, the one that counts first; neither need exist."""
    if named := environ.get("OPENCODE_CONFIG"):
        return [Path(named).expanduser()]
    base = environ.get("XDG_CONFIG_HOME")
    folder = (Path(base) if base else Path.home() / ".config") / "opencode"
    files = [folder / "opencode.jsonc", folder / "opencode.json"]
    return files if files[0].exists() else files[::-1]


def _warn_of_profile(context: CommandContext, file: ClientFile, step: Step) -> None:
    """Say so if a profile that Codex uses by default chooses another provider."""
    content = file.form.read((step.after or b"").decode("utf-8-sig"))
    profiles, name = content.get("profiles"), content.get("profile")
    profile: Any = profiles.get(name) if isinstance(profiles, dict) and name else None
    chosen = profile.get("model_provider") if isinstance(profile, dict) else None
    if chosen is not None and chosen != content.get("model_provider"):
        context.console.warning(
            f"the profile `{name}` in {file.path} chooses another `model_provider`, which wins"
        )


def warn_of_opencode_login(context: CommandContext) -> None:
    """Say so if opencode is signed in with ChatGPT: that login goes past every base URL."""
    if _opencode_signed_in(context.environ):
        context.console.warning(
            "opencode is signed in to OpenAI with ChatGPT, which goes past this gateway; "
            "`opencode auth logout` ends that, and so does "
            "`codexlb connect opencode --provider custom`"
        )


def _opencode_signed_in(environ: Mapping[str, str]) -> bool:
    """Whether opencode holds a ChatGPT login."""
    import json

    base = environ.get("XDG_DATA_HOME")
    folder = Path(base) if base else Path.home() / ".local" / "share"
    try:
        logins = json.loads((folder / "opencode" / "auth.json").read_bytes())
        return bool(logins["openai"]["type"] == "oauth")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
