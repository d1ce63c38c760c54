"""A person at a terminal, played by a test, and an issuer that answers as told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import httpx2

from codexlb_cli.mock_upstream.grants import GrantStore, Person
from codexlb_cli.signin.issuer import IssuerClient, issuer_http
from codexlb_cli.signin.terminal import Terminal

ISSUER = "https://issuer.example"
NOW = 1_790_000_000.0

Answer = Callable[[httpx2.Request], httpx2.Response]


@dataclass
class FakePerson:
    """What is said to a person, and what they type."""

    said: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    typed: asyncio.Queue[str | None] = field(default_factory=asyncio.Queue)

    @property
    def terminal(self) -> Terminal:
        return Terminal(self.said.append, self.warned.append, self.opened.append, self.typed.get)


def issuer_client(answer: Answer, *, now: Callable[[], float] = lambda: NOW) -> IssuerClient:
    """Return a client whose requests `answer` answers, without a socket."""
    http = issuer_http(httpx2.MockTransport(answer))
    return IssuerClient(http, ISSUER, "app", now)


def tokens(**other: object) -> dict[str, object]:
    """Return what a token endpoint answers."""
    store = GrantStore("t")
    issued = store.issue(store.grant(Person("ada"), "app"), issuer=ISSUER, now=NOW)
    return issued.document() | other


def answers(by_path: Mapping[str, list[httpx2.Response]]) -> tuple[Answer, list[httpx2.Request]]:
    """Return an issuer that gives these answers in turn, the last one again and again."""
    asked: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        left = by_path[request.url.path]
        found = left.pop(0) if len(left) > 1 else left[0]
        return httpx2.Response(found.status_code, headers=found.headers, content=found.content)

    return answer, asked
