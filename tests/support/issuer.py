"""An issuer in a thread that refreshes tokens, each refresh token once, and can misbehave."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from codexlb_cli.store.logins import Login
from codexlb_cli.store.secrets import Secret
from tests.core.test_tokens import jwt

ACCOUNT_ID = "acc-of-plan"


@dataclass
class Issuer:
    """What the issuer knows, and what it was asked.

    Attributes:
        url: where it listens.
        now: by which tokens are issued, seconds since the epoch.
        life: how long an access token lives, in seconds.
        number: of the login that works; each refresh makes the next one.
        asked: the members of each request.
        agents: the user agent of each request.
        answer: what it answers instead: status, content type, body; None for none at all.
        hold: waited for before an answer.
        arrived: set when a request came.
    """

    now: Callable[[], float]
    life: float = 3600.0
    url: str = ""
    number: int = 0
    asked: list[dict[str, str]] = field(default_factory=list)
    agents: list[str] = field(default_factory=list)
    answer: tuple[int, str, bytes] | None = None
    silent: bool = False
    hold: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.hold.set()

    def token(self, number: int, kind: str = "access") -> str:
        now = self.now()
        auth = {"chatgpt_account_id": ACCOUNT_ID, "chatgpt_plan_type": "plus"}
        claims = {"exp": now + self.life, "iat": now, "https://api.openai.com/auth": auth}
        return jwt({**claims, "email": "a@b.c", "number": number, "kind": kind})

    def login(self, *, refreshed_at: float | None = None) -> Login:
        """Give the first login."""
        self.number = 1
        return Login(
            access_token=Secret(self.token(1)),
            refresh_token=Secret("refresh-1"),
            id_token=Secret(self.token(1, "id")),
            account_id=ACCOUNT_ID,
            refreshed_at=self.now() if refreshed_at is None else refreshed_at,
            issuer=self.url,
            client_id="a-client",
        )

    def refuses(self, code: str, status: int = 401) -> None:
        self.answer = status, "application/json", json.dumps({"error": {"code": code}}).encode()

    def post(self, members: Mapping[str, str]) -> tuple[int, str, bytes]:
        with self._lock:
            self.asked.append(dict(members))
            if self.answer is not None:
                return self.answer
            if members.get("refresh_token") != f"refresh-{self.number}":
                refusal = {"error": {"code": "refresh_token_reused", "message": "used up"}}
                return 401, "application/json", json.dumps(refusal).encode()
            self.number += 1
            given: dict[str, Any] = {
                "access_token": self.token(self.number),
                "refresh_token": f"refresh-{self.number}",
                "id_token": self.token(self.number, "id"),
            }
            return 200, "application/json", json.dumps(given).encode()


@contextmanager
def issuing(now: Callable[[], float], life: float = 3600.0) -> Iterator[Issuer]:
    """Run an issuer on a free port of loopback."""
    issuer = Issuer(now, life)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            issuer.agents.append(self.headers["user-agent"])
            issuer.arrived.set()
            issuer.hold.wait(20)
            if issuer.silent:
                self.close_connection = True
                return
            try:
                assert self.path == "/oauth/token"
                status, kind, content = issuer.post(json.loads(body))
            except (AssertionError, ValueError):
                status, kind, content = 404, "text/plain", b""
            try:
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(content)))
                self.send_header("location", f"{issuer.url}/elsewhere")
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                pass  # whoever asked was killed

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False  # joined: no thread outlives its test
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    issuer.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield issuer
    finally:
        issuer.hold.set()
        server.shutdown()
        thread.join()
        server.server_close()
