"""What every command is handed: where things lie, the settings, the keys and the console."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from codexlb_cli.config.load import (
    Settings,
    demo_settings,
    load_settings,
)
from codexlb_cli.config.paths import Places, find_places
from codexlb_cli.console import Console
from codexlb_cli.errors import ConfigError, UsageError
from codexlb_cli.store.credentials import Credentials, CredentialSource, DemoCredentials

Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of the account.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@dataclass(slots=True)
class CommandContext:
    """The global options, and what follows from them.

    Attributes:
        console: where to write.
        environ: the environment.
        config: `--config`.
        demo: `--demo`.
    """

    console: Console = field(default_factory=Console)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    config: Path | None = None
    demo: bool = False
    _settings: Settings | None = field(default=None, repr=False)
    _credentials: CredentialSource | None = field(default=None, repr=False)

    @classmethod
    def of(cls, ctx: typer.Context) -> CommandContext:
        """Return the context of the running command."""
        found = ctx.find_object(cls)
        if found is None:
            raise TypeError("main() hands every command a CommandContext")
        return found

    @property
    def places(self) -> Places:
        """Where the configuration and the state lie.

        Raises:
            UsageError: `--demo` and `--config` contradict each other.
        """
        if self.config is not None and not self.config.name:
            raise UsageError("`--config` names no file")
        if self.demo and self.config is not None:
            raise UsageError("`--demo` and `--config` cannot be used together")
        return find_places(self.environ, config=self.config, demo=self.demo)

    @property
    def config_file(self) -> Path:
        """The user's config.toml, for commands that need the file.

        Raises:
            ConfigError: this is the demo, whose configuration is built in.
        """
        file = self.places.config_file
        if file is None:
            raise ConfigError(
                "the demo configuration is built in: there is no file to read or change",
                hint="leave out `--demo` for your own",
            )
        return file

    @property
    def settings(self) -> Settings:
        """The configuration, read once.

        Raises:
            ConfigError: it is broken.
        """
        if self._settings is None:
            self._settings = self.load()
            places = self.places
            if places.chosen and places.config_file and not places.config_file.exists():
                self.console.warning(f"`{places.config_file}` does not exist; defaults apply")
        return self._settings

    @property
    def credentials(self) -> CredentialSource:
        """The accounts' keys."""
        if self._credentials is None:
            self._credentials = DemoCredentials() if self.demo else self.stored_credentials
        return self._credentials

    @property
    def stored_credentials(self) -> Credentials:
        """The keys that can be changed: those of the user's own accounts.

        Raises:
            ConfigError: the configuration, which says where they are kept, is broken.
        """
        place = self.settings.credentials.store
        return Credentials(self.places.state_folder, self.environ, place)

    def load(self, overrides: Mapping[str, object] | None = None) -> Settings:
        """Read the configuration anew, with values of the command line such as `gateway.port`.

        Args:
            overrides: values by dotted key, which win over everything else.

        Raises:
            ConfigError: the file or a variable is broken.
            UsageError: an override is out of range.
        """
        file = self.places.config_file
        if file is None:
            return demo_settings(environ=self.environ, overrides=overrides)
        return load_settings(file, environ=self.environ, overrides=overrides)
