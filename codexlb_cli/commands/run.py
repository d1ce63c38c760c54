"""`codexlb run -- CMD`: a command whose clients use the gateway, by its environment."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, NoReturn

import typer

from codexlb_cli.commands.connect import gateway_address, start_command, warn_of_opencode_login
from codexlb_cli.commands.context import CommandContext
from codexlb_cli.core.client_settings import codex_overrides, environment
from codexlb_cli.errors import ConfigError, UsageError


def run(
    ctx: typer.Context,
    command: Annotated[
        list[str], typer.Argument(metavar="CMD", help="The command and its arguments.")
    ],
) -> None:
    """Start a command with the environment that points OpenAI clients at this gateway.

    The exit code is the command's own. Codex reads no variable for this: it is started with -c.
    """
    context = CommandContext.of(ctx)
    address, runs = gateway_address(context)
    if not runs:
        raise ConfigError("no gateway runs on this configuration", hint=start_command(context))
    environ = environment(address, context.environ)
    name = PurePath(command[0]).stem
    if name == "codex":
        command[1:1] = codex_overrides(address)
        context.console.note("codex reads no variable for this, so it is started with -c options")
    elif name == "opencode":
        warn_of_opencode_login(context)
    _become(command, environ)


def _become(command: list[str], environ: Mapping[str, str]) -> NoReturn:
    """Replace this process, so that signals and the exit code are the command's own."""
    path = shutil.which(command[0], path=environ.get("PATH", os.defpath))
    if path is None:
        raise UsageError(f"there is no command `{command[0]}`", hint="codexlb run --help")
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    try:
        if os.name == "posix":
            for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python, and inherited
                signal.signal(ignored, signal.SIG_DFL)
            os.execve(path, command, environ)  # noqa: S606  (no shell: that is what is wanted)
        ended = subprocess.run([path, *command[1:]], env=environ, check=False)  # noqa: S603
    except OSError as exc:
        reason = (exc.strerror or type(exc).__name__).lower()
        raise UsageError(f"cannot start `{command[0]}`: {reason}") from None
    raise SystemExit(ended.returncode)
