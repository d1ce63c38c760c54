"""Signing in with the program as a process, and the person's part in it played by the test."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2

from codexlb_cli.core.accounts import Account, CredentialRef
from codexlb_cli.mock_upstream.grants import Tokens
from codexlb_cli.mock_upstream.server import MockUpstream
from codexlb_cli.store.credentials import Credentials
from codexlb_cli.store.logins import Login
from codexlb_cli.store.secrets import Secret
from tests.support.cli import Cli
from tests.support.ports import free_port
from tests.support.serving import Program

CLIENT_ID = "app-test"


@dataclass
class Signing:
    """A program that signs somebody in."""

    cli: Cli
    program: Program

    async def url(self) -> str:
        """The page that the program names."""
        await self.program.until(self.program.err, "http://127.0.0.1:")
        return next(line for line in self.program.err if line.startswith("http://127.0.0.1:"))

    async def user_code(self) -> str:
        await self.program.until(self.program.err, "MOCK-")
        return next(line.strip() for line in self.program.err if "MOCK-" in line)

    async def type(self, line: str) -> None:
        assert self.program.process.stdin is not None
        self.program.process.stdin.write(line.encode() + b"\n")
        await self.program.process.stdin.drain()

    async def ended(self) -> tuple[int, list[str], str]:
        """The exit code, stdout, and stderr as one text."""
        code = await self.program.exit_code()
        return code, self.program.out, "\n".join(self.program.err)


def variables(mock: MockUpstream, port: int | None = None) -> dict[str, str]:
    return {
        "CODEXLB_SIGNIN_ISSUER": mock.issuer_url,
        "CODEXLB_SIGNIN_CLIENT_ID": CLIENT_ID,
        "CODEXLB_SIGNIN_CALLBACK_PORT": str(port or free_port()),
        # Most of these accounts have the real base URL, where a test has nothing to ask.
        "CODEXLB_LIMITS_USAGE_POLL": "0",
    }


@asynccontextmanager
async def signing(cli: Cli, *args: str, **environ: str) -> AsyncIterator[Signing]:
    """Run `codexlb ARGS` with a pipe as stdin until the context ends."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "codexlb_cli", *args),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=cli.environment(**environ),
        cwd=cli.home,
    )
    program = Program(process, 0)
    program.read()
    try:
        yield Signing(cli, program)
    finally:
        if process.returncode is None:
            process.kill()
        await program.exit_code()
        if process.stdin is not None:
            process.stdin.close()


def browser() -> httpx2.AsyncClient:
    """A browser that follows no redirect by itself."""
    return httpx2.AsyncClient(trust_env=False, timeout=20)


async def approve(http: httpx2.AsyncClient, url: str) -> str:
    """Press the button on the issuer's page; return where that leads."""
    page = await http.get(url)
    assert page.status_code == 200, page.text
    found = re.search(r'name="request" value="([^"]+)"', page.text)
    assert found is not None
    issuer = urlsplit(url)
    done = await http.post(
        f"{issuer.scheme}://{issuer.netloc}/oauth/authorize", data={"request": found[1]}
    )
    assert done.status_code == 302, done.text
    return done.headers["location"]


async def sign_in(http: httpx2.AsyncClient, url: str) -> httpx2.Response:
    """Press the button and go where that leads; return the last page."""
    return await http.get(await approve(http, url))


def state_of(url: str) -> str:
    return parse_qs(urlsplit(url).query)["state"][0]


def stored(cli: Cli, name: str) -> Login | None:
    """The login that is kept for an account."""
    return Credentials(cli.state_folder, {}).login(name)


def credentials_of(cli: Cli, name: str) -> Secret | None:
    account = Account(name, kind="chatgpt", base_url="x", credential=CredentialRef("login", name))
    return Credentials(cli.state_folder, {}).secret(account)


def nothing_is_kept(cli: Cli, name: str = "work") -> bool:
    """Whether neither an account nor a login of this name is there."""
    listed = cli.run("accounts", "list", "--json")
    names = [account["name"] for account in json.loads(listed.out)["accounts"]]
    return stored(cli, name) is None and name not in names


def auth_json(folder: Path, tokens: Tokens, **other: Any) -> Path:
    """Write an `auth.json` as the Codex CLI does."""
    file = folder / "auth.json"
    document = {
        "auth_mode": "chatgpt",
        "OPENAI_API_KEY": None,
        "tokens": {
            "id_token": tokens.id_token,
            "access_token": tokens.access_token,
            "refresh_token": tokens.refresh_token,
            "account_id": tokens.person.account_id,
        },
        "last_refresh": "2026-01-01T00:00:00.000000000Z",
    }
    file.write_text(json.dumps(document | other))
    file.chmod(0o600)
    return file
