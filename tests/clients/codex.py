"""The real Codex CLI, with a home of its own and the configuration that `connect codex` prints."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.clients.running import ServingGateway

CODEX = os.environ.get("CODEX_CLI", "")
"""Where the CLI lies; `make test-codex` installs it and says so."""

_TURN_SECONDS = 50
_OPTIONS = (
    *("--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"),
    *("-c", "check_for_update_on_startup=false", "-c", "analytics.enabled=false"),
)

# Codex does not know the mock's models, and says so; that is not about the gateway.
_ABOUT_MODELS = ("Model metadata for", "This session was recorded with model")


@dataclass(frozen=True)
class Turn:
    """What `codex exec --json` left behind.

    Attributes:
        code: the exit code.
        events: what it printed.
        stderr: what it said besides.
    """

    code: int
    events: list[dict[str, Any]]
    stderr: str = field(repr=False)

    def items(self, kind: str) -> list[dict[str, Any]]:
        """Return the completed items of one type."""
        completed = (e["item"] for e in self.events if e["type"] == "item.completed")
        return [item for item in completed if item["type"] == kind]

    @property
    def texts(self) -> list[str]:
        """What the model said."""
        return [item["text"] for item in self.items("agent_message")]

    @property
    def complaints(self) -> list[str]:
        """The errors and warnings that a person sees."""
        said = [item["message"] for item in self.items("error")]
        said += [event["message"] for event in self.events if event["type"] == "error"]
        return [text for text in said if not text.startswith(_ABOUT_MODELS)]


CLIENT_KEY = "sk-client-LEAK"
"""The key of a person whose Codex sends one; it must go nowhere."""


class Codex:
    """A person's Codex, connected to a gateway.

    Args:
        folder: an empty folder for its home and its work.
        gateway: what `connect codex` is asked about.
        provider: further lines for the provider's table, below those that are printed.
        via: the base URL of a relay to the gateway, instead of the printed one.
        options: those of `connect codex`.
        environ: further variables of the CLI.
    """

    def __init__(
        self,
        folder: Path,
        gateway: ServingGateway,
        *,
        provider: str = "",
        via: str | None = None,
        options: Sequence[str] = ("--transport", "http"),
        environ: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._folder = folder
        self._options = options
        self._environ = environ
        for name in ("home", "codex", "work"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.connect(gateway, provider=provider, via=via)

    def connect(
        self, gateway: ServingGateway, *, provider: str = "", via: str | None = None
    ) -> None:
        """Make its configuration of what `codexlb connect codex` prints."""
        printed = gateway.cli.spawn("connect", "codex", *self._options)
        assert (printed.returncode, printed.stderr) == (0, b"")
        text = printed.stdout.decode()
        assert gateway.base_url.removesuffix("/v1") in text
        if via is not None:
            text = text.replace(gateway.base_url, via)
        self.config_file.write_text(text + provider)

    @property
    def config_file(self) -> Path:
        """Where its configuration lies."""
        return self._folder / "codex" / "config.toml"

    def exec(self, prompt: str, *, model: str = "mock") -> Turn:
        """Begin a session."""
        return self._run(model, prompt)

    def resume(self, prompt: str, *, model: str = "mock") -> Turn:
        """Continue the latest session, in a new process."""
        return self._run(model, "resume", "--last", prompt)

    def recorded(self, kind: str) -> list[dict[str, Any]]:
        """Return the payloads of one type in the files of its sessions."""
        files = sorted((self._folder / "codex" / "sessions").rglob("*.jsonl"))
        lines = (json.loads(line) for file in files for line in file.read_text().splitlines())
        payloads = (line["payload"] for line in lines if isinstance(line.get("payload"), dict))
        return [payload for payload in payloads if payload.get("type") == kind]

    def _run(self, model: str, *prompt: str) -> Turn:
        ran = subprocess.run(
            [CODEX, "exec", *_OPTIONS, "-m", model, *prompt],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self._folder / "home"),
                "CODEX_HOME": str(self._folder / "codex"),
                "CODEX_CLIENT_KEY": CLIENT_KEY,
                **self._environ,
            },
            cwd=self._folder / "work",
            timeout=_TURN_SECONDS,
            check=False,
        )
        events = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith(b"{")]
        return Turn(ran.returncode, events, ran.stderr.decode())
