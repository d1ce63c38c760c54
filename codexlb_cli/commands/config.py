"""`codexlb config`: what is configured, where it comes from, and whether it is sound."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import typer

from codexlb_cli.commands.context import CommandContext, JsonFlag
from codexlb_cli.config.faults import KeyPath, Origin, dotted
from codexlb_cli.config.load import Settings, read_config
from codexlb_cli.config.schema import Document
from codexlb_cli.console import escape, table
from codexlb_cli.errors import ConfigError

app = typer.Typer(help="Show and check the configuration.")


@app.command()
def show(ctx: typer.Context, as_json: JsonFlag = False) -> None:
    """List every key with its value and where that comes from."""
    context = CommandContext.of(ctx)
    values = list(_values(context.settings))
    if as_json:
        entries = [
            {
                "key": dotted(path),
                "value": value,
                "source": origin.source,
                "name": origin.name,
                "line": origin.line,
            }
            for path, value, origin in values
        ]
        document = {**_where(context), "values": entries}
        context.console.json({"schema": "codexlb.config.show/1", **document})
        return
    rows = [(dotted(path), json.dumps(value), _source(origin)) for path, value, origin in values]
    context.console.answer(table(("KEY", "VALUE", "SOURCE"), rows))


@app.command("path")
def print_path(ctx: typer.Context) -> None:
    """Print where config.toml lies, or would lie."""
    context = CommandContext.of(ctx)
    path = str(context.config_file)
    # Scripts open what is printed here, so only what a terminal might obey is escaped.
    context.console.answer(path if path.isprintable() else escape(path))


@app.command()
def check(ctx: typer.Context, as_json: JsonFlag = False) -> None:
    """Say whether the configuration is sound; exit 3 if not."""
    context = CommandContext.of(ctx)
    places = context.places
    if places.config_file is not None and read_config(places.config_file) is None:
        raise ConfigError(f"there is no `{places.config_file}`", hint="codexlb init")
    names = [account.name for account in context.settings.accounts]
    if as_json:
        document = {**_where(context), "valid": True, "accounts": names}
        context.console.json({"schema": "codexlb.config.check/1", **document})
        return
    what = escape(str(places.config_file or "the demo configuration"))
    count = f"{len(names)} account{'' if len(names) == 1 else 's'}"
    context.console.answer(f"{what} is sound: {count}")


def _where(context: CommandContext) -> dict[str, Any]:
    places = context.places
    return {
        "config_file": None if places.config_file is None else str(places.config_file),
        "state_folder": str(places.state_folder),
    }


def _values(settings: Settings) -> Iterator[tuple[KeyPath, object, Origin]]:
    """Yield every key that has a value, in the order of the schema."""
    for name in Document.model_fields:
        if name not in ("accounts", "prices"):
            dumped = getattr(settings, name).model_dump(mode="json", exclude_none=True)
            yield from _leaves(dumped, (name,), settings)
    for model, price in settings.prices.items():
        yield from _leaves(price.model_dump(exclude_none=True), ("prices", model), settings)
    for account in settings.accounts:
        env = account.credential.name if account.credential.source == "env" else None
        keys = {
            "kind": account.kind,
            "base_url": account.base_url,
            "enabled": account.enabled,
            "organization": account.organization,
            "project": account.project,
            "api_key_env": env,
            "transport": account.transport,
            "priority": account.priority,
            "weight": account.weight,
            "max_turns": account.max_turns,
            "models": list(account.models),
            "not_models": list(account.not_models),
        }
        given = {key: value for key, value in keys.items() if value is not None}
        yield from _leaves(given, ("accounts", account.name), settings)


def _leaves(
    content: dict[str, Any], above: KeyPath, settings: Settings
) -> Iterator[tuple[KeyPath, object, Origin]]:
    for key, value in content.items():
        path = (*above, str(key))
        if isinstance(value, dict):
            yield from _leaves(value, path, settings)
        else:
            yield path, value, settings.origin(path)


def _source(origin: Origin) -> str:
    match origin.source:
        case "file":
            return f"{origin.name}:{origin.line}"
        case "env" | "flag":
            return f"{origin.source} {origin.name}"
        case source:
            return source
