"""A stand-in for chatgpt.com: what Codex asks there, with a login, before it asks a provider."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.core.test_tokens import jwt

ACCOUNT = "11111111-2222-3333-4444-555555555555"
_NOTHING = "NO_CONSTRAINT"
_CLAIMS = {
    "chatgpt_plan_type": "plus",
    "chatgpt_user_id": "user-1",
    "chatgpt_account_id": ACCOUNT,
}


@dataclass
class ChatGpt:
    """A running one.

    Attributes:
        base_url: its `chatgpt_base_url`; Codex takes nothing but https.
        certificate: what a client must trust.
        asked: the paths that it was asked for.
    """

    base_url: str
    certificate: Path
    asked: list[str] = field(default_factory=list)


def login(secret: str) -> str:
    """Return an auth.json with a made-up, unsigned ChatGPT login; `secret` is in its token."""
    claims = {
        "email": "ada@example.com",
        "exp": 4_000_000_000,
        "https://api.openai.com/auth": _CLAIMS,
        "jti": secret,
    }
    token = jwt(claims) + "c2ln"  # Codex takes no token without a third part
    tokens = {
        "id_token": token,
        "access_token": token,
        "refresh_token": secret,
        "account_id": ACCOUNT,
    }
    return json.dumps(
        {
            "auth_mode": "chatgpt",
            "OPENAI_API_KEY": None,
            "tokens": tokens,
            "last_refresh": "2026-01-01T00:00:00Z",
        }
    )


@contextmanager
def chatgpt(folder: Path) -> Iterator[ChatGpt]:
    """Run one on loopback, with a certificate of its own."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    found = ChatGpt("", certificate)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path.partition("?")[0])
            check = self.path.endswith("/wham/accounts/check")
            self._answer(200 if check else 404, _accounts() if check else {})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self._answer(404, {})

        def _answer(self, status: int, document: object) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        found.base_url = f"https://localhost:{server.server_port}/backend-api"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


def _accounts() -> object:
    account = {
        "id": ACCOUNT,
        "name": None,
        "plan_type": "plus",
        "structure": "personal",
        "profile_picture_url": None,
        "workspace_backend_origin": _NOTHING,
        "account_routing_override": _NOTHING,
    }
    return {
        "accounts": [account],
        "account_ordering": [ACCOUNT],
        "default_account_id": ACCOUNT,
    }
