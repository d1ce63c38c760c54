"""What HTTP clients read from headers, collected from events and from the upstream's 101."""

from __future__ import annotations

from collections.abc import Mapping

from codexlb_cli.core.frames import METADATA_EVENT, RATE_LIMITS_EVENT
from codexlb_cli.core.handshake import client_headers, header_text
from codexlb_cli.core.headers import TURN_STATE_HEADER, Header
from codexlb_cli.core.limits import limits_among, rate_limit_headers
from codexlb_cli.core.models import MODELS_ETAG_HEADER
from codexlb_cli.core.readings import from_event
from codexlb_cli.gateway.services import Services
from codexlb_cli.gateway.sockets import Socket


class Head:
    """The part of the response head that the upstream decides."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._from_events: dict[str, str] = {}

    def telemetry(self, kind: str, event: Mapping[str, object], account: str) -> None:
        """Take an event that is not forwarded: limits, the model, the turn state."""
        if kind == RATE_LIMITS_EVENT:
            told = from_event(event, self._services.now())
            self._services.accounts.limits_seen(account, rate_limit_headers(event), told)
        elif kind == METADATA_EVENT:
            headers = event.get("headers")
            if isinstance(headers, Mapping):
                self._metadata(headers, account)

    def headers(self, socket: Socket) -> list[Header]:
        """Return the headers for a response that `socket` serves; the newest value wins."""
        upstream = dict(client_headers(socket.response_headers))
        limits = self._services.accounts.limit_headers(socket.account)
        return self._with_own_etag({**upstream, **limits, **self._from_events}, socket.account)

    def _with_own_etag(self, told: dict[str, str], account: str) -> list[Header]:
        """Return the headers with the ETag of the catalogue that clients have from us."""
        etag = told.pop(MODELS_ETAG_HEADER, None)
        known = None
        if etag is not None:
            known = self._services.accounts.catalogue_etags.told(account, etag)
        return [*told.items(), *([(MODELS_ETAG_HEADER, known)] if known is not None else [])]

    def _metadata(self, headers: Mapping[str, object], account: str) -> None:
        told = client_headers(headers.items())
        self._from_events.update(told)
        self._services.accounts.limits_seen(account, limits_among(told))
        for name, value in headers.items():
            state = header_text(value) if name.lower() == TURN_STATE_HEADER else None
            if state:
                self._services.keys.turn_state_given(state, account)
                self._from_events[TURN_STATE_HEADER] = state
