"""The headers of calls for files and uploads: two allow-lists, one per direction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.handshake import (
    HandshakeInputs,
    account_lines,
    client_headers,
    header_text,
)
from codexlb_cli.core.headers import Header, check_header, connection_nominated

_FORWARDED = ("content-type", "accept", "user-agent")
_ANSWERED = ("content-type",)
_ANSWERED_CONTENT = (
    "content-length", "content-disposition", "content-encoding", "openai-poll-after-ms",
)  # fmt: skip


def request_headers(inputs: HandshakeInputs, request_id: str, *, with_body: bool) -> list[Header]:
    """Return every header line that a call carries upstream, but for `Host` and the framing.

    An allow-list: of the client's own lines the media types and its user agent, nothing else.

    Args:
        inputs: what heads are built from.
        request_id: the value of `x-client-request-id`.
        with_body: whether the client's body goes along.

    Raises:
        InvalidHeader: the client sent a header that cannot be forwarded or dropped safely.
    """
    for name, value in inputs.inbound:
        check_header(name, value)
    nominated = connection_nominated(inputs.inbound)
    sent: dict[str, str] = {}
    for name, value in inputs.inbound:
        lower = name.lower()
        if lower in _FORWARDED and lower not in nominated:
            sent.setdefault(lower, value)
    if not with_body:
        sent.pop("content-type", None)
    sent.setdefault("user-agent", inputs.user_agent)
    return [
        *((line.name, line.value) for line in account_lines(inputs)),
        *sent.items(),
        ("accept-encoding", "identity"),  # ids are read from the answers
        ("x-client-request-id", request_id),
    ]


def answer_headers(upstream: Iterable[Header], *, content: bool) -> list[Header]:
    """Return the headers of an account's answer that the client sees.

    Args:
        upstream: of the answer.
        content: whether the answer is relayed byte for byte, as a file's content is.
    """
    lines = list(upstream)
    names = {*_ANSWERED, *_ANSWERED_CONTENT} if content else {*_ANSWERED}
    if any(name.lower() == "transfer-encoding" for name, _ in lines):
        names.discard("content-length")  # it says nothing beside it (RFC 9112 section 6.3)
    kept = {n.lower(): v for n, v in lines if n.lower() in names and header_text(v) is not None}
    return [*kept.items(), *client_headers(lines)]


def body_error(inbound: Sequence[Header], limit: int) -> ClientError | None:
    """Return why the body of an upload is refused before it is read; None if it may be read.

    Args:
        inbound: the client's header lines.
        limit: the most bytes that are taken.
    """
    for name, value in inbound:
        lower, text = name.lower(), value.strip(" \t").lower()
        if lower == "content-encoding" and text not in ("", "identity"):
            return ClientError("invalid_request", "the body of an upload must not be encoded")
        if lower == "content-length" and text.isdecimal() and int(text) > limit:
            return ClientError("request_too_large", f"the body is larger than {limit} bytes")
    return None
