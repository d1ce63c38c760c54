"""What the CLI asks of its vendor before it takes a ChatGPT login: an HTTPS service of our own."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass(frozen=True)
class Service:
    """A running service.

    Attributes:
        base_url: for `chatgpt_base_url`.
        certificate: the authority that the CLI is to trust.
    """

    base_url: str
    certificate: Path


@contextmanager
def serving_accounts_check(account_id: str, *, needed: bool) -> Iterator[Service | None]:
    """Run the service while the context lasts; None where it is not needed.

    With the provider name `OpenAI` a turn dies unless `GET /wham/accounts/check` lists the
    login's account and the service is HTTPS.
    """
    if not needed:
        yield None
        return
    certificate, key = Path.cwd() / "ca.pem", Path.cwd() / "ca.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", str(key), "-out", str(certificate), "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    entry = {
        "id": account_id,
        "name": None,
        "plan_type": "plus",
        "structure": "personal",
        "profile_picture_url": None,
        "workspace_backend_origin": "NO_CONSTRAINT",
        "account_routing_override": "NO_CONSTRAINT",
    }
    checked = {
        "accounts": [entry],
        "account_ordering": [account_id],
        "default_account_id": account_id,
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path.startswith("/backend-api/wham/accounts/check")
            body = json.dumps(checked if found else {"detail": "Not Found"}).encode()
            self.send_response(200 if found else 404)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *args: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield Service(f"https://127.0.0.1:{server.server_address[1]}/backend-api", certificate)
        server.shutdown()
        thread.join()
