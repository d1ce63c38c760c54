"""A client's whole request as a person has it: a JSON body, raw HTTP, or a recorded exchange."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from codexlb_cli.core.frames import Body, InvalidBodyError, parse_body
from codexlb_cli.core.headers import Header
from codexlb_cli.core.requests import CHAT_PATH, TURN_PATHS
from codexlb_cli.errors import UsageError
from codexlb_cli.inspect.inputs import BYTE_ORDER_MARK, REQUEST_LINE, from_content

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_FORMS = "give a JSON body, a raw HTTP request, or a recorded exchange with `request`"


@dataclass(frozen=True, slots=True, repr=False)
class ClientRequest:
    """A request of a client.

    Attributes:
        headers: its header lines, values decoded as ISO-8859-1.
        body: its body, without a content coding.
        chat: whether it asks for a chat completion rather than a response.
    """

    headers: tuple[Header, ...]
    body: bytes
    chat: bool = False


def read_client_request(content: bytes) -> ClientRequest:
    """Read a request.

    The body of a raw request is all that follows its head: a length that an edit made wrong does
    no harm.

    Raises:
        InvalidHeader: a header cannot be sent.
        UsageError: it is no request, no turn is asked for there, or the body is coded.
    """
    content = content.removeprefix(BYTE_ORDER_MARK).lstrip()
    if content[:1] == b"{":
        return _from_json(content)
    first_line = content.partition(b"\n")[0].decode("latin-1").strip()
    if not REQUEST_LINE.fullmatch(first_line):
        raise UsageError("this is no request", hint=_FORMS)
    return _from_http(content, first_line)


def _from_http(content: bytes, first_line: str) -> ClientRequest:
    parts = _HEAD_END.split(content, maxsplit=1)
    headers = from_content(parts[0])
    path = _path_of_turn(first_line)
    for name, value in headers:
        coded = value.strip(" \t").lower() not in ("", "identity")
        if name.lower() in ("transfer-encoding", "content-encoding") and coded:
            raise UsageError(
                f"the body is coded: `{name}`", hint="give the body as it is before its coding"
            )
    return ClientRequest(headers, parts[1] if len(parts) > 1 else b"", path == CHAT_PATH)


def _path_of_turn(request_line: str) -> str:
    method, target = request_line.split(" ")[:2]
    path = target.partition("?")[0]
    if method != "POST" or path not in TURN_PATHS:
        paths = " or ".join(f"`POST {path}`" for path in sorted(TURN_PATHS, reverse=True))
        raise UsageError(f"no turn is asked for by `{method} {path}`", hint=f"a turn is {paths}")
    return path


def _from_json(content: bytes) -> ClientRequest:
    try:
        document = parse_body(content)
    except InvalidBodyError as exc:
        raise UsageError(str(exc).replace("the request body", "the JSON"), hint=_FORMS) from None
    exchange = _exchange(document)
    if exchange is None:
        # A body alone tells its API by where the conversation stands.
        chat = document.get("messages") is not None and document.get("input") is None
        return ClientRequest((), content, chat)
    request_line = exchange.get("request_line")
    if not isinstance(request_line, str):
        request_line = f"{exchange.get('method')} {exchange.get('target')} HTTP/1.1"
    path = _path_of_turn(request_line)
    headers = from_content(json.dumps(exchange.get("headers", [])).encode())
    body = exchange.get("body")
    text = (
        body
        if isinstance(body, str)
        else json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    )
    return ClientRequest(headers, text.encode("utf-8", "surrogatepass"), path == CHAT_PATH)


def _exchange(document: Body) -> Mapping[str, Any] | None:
    """Return the request of a recorded exchange, or of the first turn of a recording."""
    if isinstance(document.get("exchanges"), list):
        requests = [_request(e) for e in document.get("exchanges") if isinstance(e, dict)]
        found = next((r for r in requests if r is not None and _is_turn(r)), None)
        if found is None:
            raise UsageError("no turn is asked for over HTTP in this recording", hint=_FORMS)
        return found
    return _request({name: member.value for name, member in document.members.items()})


def _request(exchange: Mapping[str, Any]) -> Mapping[str, Any] | None:
    request = exchange.get("request")
    if isinstance(request, dict) and "headers" in request:
        return request
    return exchange if {"request_line", "headers", "body"} <= set(exchange) else None


def _is_turn(request: Mapping[str, Any]) -> bool:
    line = request.get("request_line") or f"{request.get('method')} {request.get('target')}"
    method, _, target = str(line).partition(" ")
    path = re.split(r"[? ]", target)[0]
    return method == "POST" and path in TURN_PATHS
