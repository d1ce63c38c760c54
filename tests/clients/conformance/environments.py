"""Where the clients lie, which versions they are pinned to, and what drives them."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent
PINS = HERE.parent / "pins"
FOLDER = os.environ.get("CLIENTS", "")
"""The folder of the environments; `make test-clients` makes them and says so."""


@dataclass(frozen=True)
class Client:
    """A client in an environment of its own.

    Attributes:
        name: of its environment, and of its file of pins.
        title: how the table calls it.
        package: what is pinned, by its name in the registry.
        driver: the program that does what a scenario says.
    """

    name: str
    title: str
    package: str
    driver: str

    @property
    def version(self) -> str:
        """The version that it is pinned to."""
        node = PINS / f"{self.name}.json"
        if node.exists():
            return str(json.loads(node.read_text())["dependencies"][self.package])
        text = (PINS / f"{self.name}.txt").read_text()
        found = re.search(rf"^{re.escape(self.package)}(?:\[\w+\])?==(\S+)$", text, re.MULTILINE)
        assert found, f"{self.name} is not pinned"
        return found[1]

    def command(self) -> list[str]:
        """Return what runs its driver."""
        driver = str(HERE / "drivers" / self.driver)
        folder = Path(FOLDER) / self.name
        if self.driver.endswith(".mjs"):
            return ["node", driver]
        if self.name == "codex":
            return [sys.executable, driver]
        return [str(folder / "bin" / "python"), driver]

    def environment(self) -> dict[str, str]:
        """Return what its driver needs to find it."""
        folder = Path(FOLDER) / self.name
        found = {"PATH": os.environ["PATH"], "CLIENT_FOLDER": str(folder)}
        if self.name == "codex":
            program = folder / "node_modules" / ".bin" / "codex"
            return found | {"CODEX_CLI": str(program), "PYTHONPATH": str(ROOT)}
        return found


CLIENTS = {
    client.name: client
    for client in (
        Client("codex", "Codex CLI", "@openai/codex", "codex_cli.py"),
        Client("openai-python", "openai-python", "openai", "openai_sdk.py"),
        Client("openai-node", "openai-node", "openai", "openai_sdk.mjs"),
        Client("openai-agents", "openai-agents", "openai-agents", "agents_sdk.py"),
        Client("langchain-openai", "langchain-openai", "langchain-openai", "langchain_sdk.py"),
        Client("ai-sdk", "AI SDK", "ai", "ai_sdk.mjs"),
        Client("litellm", "litellm", "litellm", "litellm_sdk.py"),
    )
}
"""By name, in the order of the table."""
