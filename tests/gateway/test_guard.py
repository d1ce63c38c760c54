"""Who may speak to the gateway."""

from __future__ import annotations

import pytest

from codexlb_cli.gateway.guard import Guard

GUARD = Guard("127.0.0.1", 2455)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:2455", "localhost:2455", "LOCALHOST", "[::1]:2455", "127.0.0.2", "127.0.0.1:80"],
)
def test_loopback_hosts_pass(host: str) -> None:
    assert GUARD.refuse([("Host", host)]) is None


@pytest.mark.parametrize(
    "host",
    [
        "example.com", "127.0.0.1.example.com", "localhost.example.com:2455", "10.0.0.1", "",
        "user@127.0.0.1", "127.0.0.1:notaport", "127.0.0.1/x", "[::1", "0.0.0.0",
    ],
)  # fmt: skip
def test_other_hosts_are_refused(host: str) -> None:
    error = GUARD.refuse([("host", host)])
    assert error is not None
    assert (error.status, error.code) == (403, "forbidden_host")


def test_a_missing_or_second_host_is_refused() -> None:
    for hosts in ([], [("Host", "127.0.0.1"), ("Host", "127.0.0.1")]):
        error = GUARD.refuse(hosts)
        assert error is not None
        assert error.code == "forbidden_host"


@pytest.mark.parametrize("origin", ["http://127.0.0.1:2455", "http://localhost:2455"])
def test_our_own_origin_passes(origin: str) -> None:
    assert GUARD.refuse([("host", "127.0.0.1:2455"), ("Origin", origin)]) is None


@pytest.mark.parametrize(
    "origin",
    [
        "http://example.com", "https://chatgpt.com", "null", "http://127.0.0.1:3000",
        "http://localhost", "chrome-extension://abc", "file://", "http://127.0.0.1:2455.evil.com",
        "http://evil.com:2455", "",
    ],
)  # fmt: skip
def test_foreign_origins_are_refused(origin: str) -> None:
    error = GUARD.refuse([("host", "127.0.0.1:2455"), ("Origin", origin)])
    assert error is not None
    assert (error.status, error.code) == (403, "forbidden_origin")


def test_a_cross_site_fetch_is_refused_and_what_node_sends_is_not() -> None:
    host = ("host", "127.0.0.1:2455")
    assert GUARD.refuse([host, ("sec-fetch-mode", "cors")]) is None
    assert GUARD.refuse([host, ("sec-fetch-site", "same-origin")]) is None
    error = GUARD.refuse([host, ("Sec-Fetch-Site", "cross-site")])
    assert error is not None
    assert error.code == "forbidden_origin"
