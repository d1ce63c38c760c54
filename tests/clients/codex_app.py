"""The Codex CLI's app server: the core of its interface, which shows status and models.

It speaks JSON-RPC in lines over stdin and stdout.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.clients.codex import CODEX
from tests.core.test_tokens import jwt

ACCOUNT_ID = "acct-of-the-client"
REFRESH_TOKEN = "rt-client-LEAK"
_STOP_SECONDS = 20


@dataclass
class CodexApp:
    """A running app server.

    Attributes:
        notices: what it told without being asked, in order.
    """

    process: subprocess.Popen[str]
    folder: Path
    notices: list[dict[str, Any]] = field(default_factory=list)
    calls: int = 0
    thread: str = ""

    def call(self, method: str, **params: object) -> dict[str, Any]:
        """Return the answer to a request."""
        self.calls += 1
        self._write({"id": self.calls, "method": method, "params": params})
        answer = next(m for m in self.messages() if m.get("id") == self.calls)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def turn(self, text: str, *, model: str = "mock") -> str:
        """Say something, in one thread all the time; return how the turn ended."""
        if not self.thread:
            work = str(self.folder / "work")
            self.thread = self.call("thread/start", model=model, cwd=work)["thread"]["id"]
        self.call("turn/start", threadId=self.thread, input=[{"type": "text", "text": text}])
        over = next(m for m in self.messages() if m.get("method") == "turn/completed")
        return str(over["params"]["turn"]["status"])

    def begin(self) -> None:
        """Introduce the client."""
        client = {"name": "codexlb-tests", "title": None, "version": "0.0.1"}
        self.call("initialize", clientInfo=client)
        self._write({"method": "initialized"})

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield what it says from now on, and keep it in `notices`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            message = json.loads(line)
            self.notices.append(message)
            yield message
        raise AssertionError(f"Codex has ended; see {self.folder / 'stderr'}")

    def _write(self, message: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()


@contextmanager
def codex_app(folder: Path, base_url: str, *, websocket: bool = False) -> Iterator[CodexApp]:
    """Run a person's app server, signed in to ChatGPT, all of whose requests go to a gateway.

    Args:
        folder: an empty folder for its home and its work.
        base_url: `http://127.0.0.1:PORT` of the gateway, or of a relay to it.
        websocket: whether turns go over a WebSocket.
    """
    for name in ("home", "codex", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "codex" / "config.toml").write_text(_configuration(base_url, websocket))
    (folder / "codex" / "auth.json").write_text(json.dumps(_login()))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "CODEX_HOME": str(folder / "codex"),
    }
    with app_server(folder, environment) as app:
        yield app


@contextmanager
def app_server(folder: Path, environment: Mapping[str, str]) -> Iterator[CodexApp]:
    """Run an app server while the context lasts.

    Args:
        folder: has the folder `work` in it, where it works.
        environment: names a home with its configuration.
    """
    with (
        (folder / "stderr").open("w") as stderr,
        subprocess.Popen(
            [CODEX, "app-server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment,
            cwd=folder / "work",
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        app = CodexApp(process, folder)
        try:
            app.begin()
            yield app
            process.stdin.close()
            process.wait(_STOP_SECONDS)
        finally:
            process.kill()


def token() -> str:
    """Return an unsigned token of a person on a `plus` plan."""
    claims = {
        "exp": time.time() + 86_400,
        "email": "user@example.com",
        "https://api.openai.com/auth": {
            "chatgpt_plan_type": "plus",
            "chatgpt_user_id": "user-of-the-client",
            "chatgpt_account_id": ACCOUNT_ID,
        },
    }
    return jwt(claims) + "LEAK"  # Codex takes no token without something for a signature


def _login() -> dict[str, object]:
    tokens = {name: token() for name in ("id_token", "access_token")}
    return {
        "auth_mode": "chatgpt",
        "OPENAI_API_KEY": None,
        "tokens": {**tokens, "refresh_token": REFRESH_TOKEN, "account_id": ACCOUNT_ID},
        "last_refresh": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _configuration(base_url: str, websocket: bool) -> str:
    return f"""\
model_provider = "codexlb"
chatgpt_base_url = "{base_url}/backend-api"
check_for_update_on_startup = false

[model_providers.codexlb]
name = "codexlb"
base_url = "{base_url}/backend-api/codex"
wire_api = "responses"
requires_openai_auth = true
supports_websockets = {str(websocket).lower()}
"""
