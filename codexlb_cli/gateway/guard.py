"""Who may speak to the gateway: programs on this machine, not web pages.

CORS does not protect a loopback server from a web page; Host and Origin checks do (DNS rebinding,
RFC 6455 section 10.2). Node clients send `sec-fetch-mode: cors`, so only Origin and
Sec-Fetch-Site count as a browser's word.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.headers import Header

_FOREIGN_SITE = "cross-site"


class Guard:
    """Decides from Host, Origin and Sec-Fetch-Site.

    Args:
        host: the configured host.
        port: the port that the gateway listens on.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host.lower()
        self._port = port

    def refuse(self, headers: Iterable[Header]) -> ClientError | None:
        """Return why a request is refused; None if it may pass."""
        hosts = []
        for name, value in headers:
            lower = name.lower()
            if lower == "host":
                hosts.append(value)
            elif lower == "origin" and not self._own_origin(value):
                return ClientError(
                    "forbidden_origin", "requests from other web origins are refused"
                )
            elif lower == "sec-fetch-site" and value.strip().lower() == _FOREIGN_SITE:
                return ClientError("forbidden_origin", "requests from other web sites are refused")
        if len(hosts) != 1 or not self._own_host(hosts[0]):
            return ClientError(
                "forbidden_host", "this gateway answers to loopback names and its configured host"
            )
        return None

    def _own_host(self, authority: str) -> bool:
        try:
            parts = urlsplit(f"//{authority.strip()}")
            name = (parts.hostname or "").lower()
            _ = parts.port  # raises if it is no port
        except ValueError:
            return False
        if parts.username is not None or parts.path or parts.query or parts.fragment:
            return False
        return name in ("localhost", self._host) or _is_loopback(name)

    def _own_origin(self, origin: str) -> bool:
        try:
            parts = urlsplit(origin.strip())
            port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
        except ValueError:
            return False
        same_port = port == self._port and parts.scheme in ("http", "https")
        return same_port and self._own_host(parts.netloc)


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
