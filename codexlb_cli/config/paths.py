"""Where the configuration and the state of this program lie."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import platformdirs

import codexlb_cli

CONFIG_VARIABLE = "CODEXLB_CONFIG"
EXAMPLE = "config.example.toml"


@dataclass(frozen=True, slots=True)
class Places:
    """The files of one configuration.

    Attributes:
        config_file: the user's config.toml, absolute; it need not exist. None for the built-in
            demo configuration.
        state_folder: what must survive a restart; it need not exist.
        chosen: whether the user named the file (`--config`, `CODEXLB_CONFIG`).
    """

    config_file: Path | None
    state_folder: Path
    chosen: bool = False

    @property
    def demo(self) -> bool:
        """Whether this is the built-in demo configuration."""
        return self.config_file is None


def find_places(
    environ: Mapping[str, str], *, config: Path | None = None, demo: bool = False
) -> Places:
    """Say where things lie: `--config`, else `CODEXLB_CONFIG`, else the user's config folder.

    Each other file than the default one has a state folder of its own, found again by the path
    that its links lead to; so has the demo.
    """
    state = platformdirs.user_data_path("codexlb", appauthor=False)
    if demo:
        return Places(None, state / "demo")
    default = platformdirs.user_config_path("codexlb", appauthor=False) / "config.toml"
    chosen = config or _from_environment(environ)
    if chosen is None:
        return Places(default, state)
    file = chosen.expanduser().absolute()
    target = _target(file)
    if target == _target(default):
        return Places(file, state, chosen=True)
    digest = hashlib.sha256(str(target).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return Places(file, state / "configs" / digest, chosen=True)


def example_config() -> bytes:
    """Return config.example.toml: the packaged one, or that of the source checkout."""
    packaged = resources.files(codexlb_cli).joinpath(EXAMPLE)
    if packaged.is_file():
        return packaged.read_bytes()
    return (Path(codexlb_cli.__file__).parent.parent / EXAMPLE).read_bytes()


def _from_environment(environ: Mapping[str, str]) -> Path | None:
    named = environ.get(CONFIG_VARIABLE)
    return Path(named) if named else None


def _target(file: Path) -> Path:
    try:
        return file.resolve()
    except (OSError, RuntimeError):  # a loop of links; reading it says so
        return file
