"""What `inspect handshake` prints, held against what an upstream received."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from codexlb_cli.config.policies import header_options
from codexlb_cli.inspect.handshake import document, inspected, wire
from codexlb_cli.inspect.inputs import from_content
from codexlb_cli.mock_upstream.recording import ApiRequest, Handshake
from tests.support.client import Header, request_head
from tests.support.gateway import Stage, key_of

NEW = "(new for every socket)"
FRESH = {
    "Sec-WebSocket-Key": re.compile(r"[A-Za-z0-9+/]{22}=="),
    "content-length": re.compile(r"[0-9]+"),
    "x-client-request-id": re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
}

HOME = {"home": 'organization = "org-of-home"\nproject = "proj_of_home"'}
"""Further lines of the configuration: an account that differs in more than its key."""
OF_HOME = {"openai-organization": "org-of-home", "openai-project": "proj_of_home"}


def assert_same(stage: Stage, headers: Sequence[Header], received: Handshake) -> None:
    """The printed head is the received one, line by line, secrets and varying lines apart."""
    assert received.account is not None
    settings = stage.gateway.services.settings
    account = settings.account(received.account)
    inbound = from_content(request_head("POST", "/v1/responses", headers))
    built = inspected(account, inbound, header_options(settings))
    shown = json.loads(json.dumps(document(built)))["headers"]
    assert_lines(shown, received)
    secrets = _secrets(account.name)
    expected = [received.request_line]
    for name, value in received.headers:
        hidden = NEW if name in FRESH else secrets.get(name, (value, value))[1]
        expected.append(f"{name}: {hidden}")
    assert wire(built) == ("\r\n".join(expected) + "\r\n\r\n").encode("latin-1")
    assert received.violations == ()


def assert_lines(shown: list[dict[str, Any]], received: Handshake | ApiRequest) -> None:
    """The lines of the JSON document are the received ones."""
    assert received.account is not None
    secrets = _secrets(received.account)
    assert [line["name"] for line in shown] == [name for name, _ in received.headers]
    for line, (name, value) in zip(shown, received.headers, strict=True):
        if line["varies"]:
            assert line["value"] == NEW
            assert FRESH[name].fullmatch(value)
        elif line["rule"] == "account_credential":
            assert (value, line["value"]) == secrets[name]
        else:
            assert line["value"] == _text(value)


def _secrets(account: str) -> dict[str, tuple[str, str]]:
    """The account's own lines: what is sent, and what is printed of it."""
    own = {"authorization": (f"Bearer {key_of(account)}", "Bearer ***")}
    if account == "home":
        own |= {name: (value, "***") for name, value in OF_HOME.items()}
    return own


def _text(value: str) -> str:
    """A value as its sender meant it: UTF-8 where it is, else ISO-8859-1."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        return value


def sendable(headers: Sequence[Header], body: bytes) -> list[Header]:
    """Return a client's lines as an HTTP request with this body can have them."""
    dropped = {"upgrade", "content-length", "content-encoding", "transfer-encoding", "host"}
    kept = [(name, value) for name, value in headers if name.lower() not in dropped]
    return [("Host", "127.0.0.1"), *kept, ("Content-Length", str(len(body)))]
