"""`codexlb init`: write config.toml from the packaged example, byte for byte."""

from __future__ import annotations

import typer

from codexlb_cli.commands.context import CommandContext


def init(ctx: typer.Context) -> None:
    """Write config.toml, with every key, its default and its meaning."""
    from codexlb_cli.config.edit import create_config
    from codexlb_cli.config.paths import example_config

    context = CommandContext.of(ctx)
    file = context.config_file
    create_config(file, example_config())
    context.console.note(f"wrote {file}")
    context.console.hint("codexlb accounts add work --api-key-env OPENAI_API_KEY")
