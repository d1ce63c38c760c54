"""Stored responses and conversations: which calls are taken, what they name, what is remembered.

What an account stores lies there and nowhere else; `calls` says where a call goes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs

from codexlb_cli.core.affinity import ANCHORS, Evidence, Key, read_evidence
from codexlb_cli.core.calls import is_id
from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.frames import Body, parse_body, reasoning_digests
from codexlb_cli.core.headers import Header
from codexlb_cli.core.reconnect import Strength

RESPONSE, CONVERSATION = "previous_response", "conversation"
"""The sources of the keys under which turns name the same things."""

_WHAT = {RESPONSE: "this response", CONVERSATION: "this conversation"}


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One kind of call.

    Attributes:
        method: its method.
        path: its path under the prefix.
        source: of the key that `{id}` is; None if the path names nothing.
        makes: the source of the key that the answer's `id` is; None if it makes nothing.
        forgets: whether what `{id}` names is gone afterwards.
        binds: whether its session stays with the account that served it: for what it made lies
            there, or can be read there alone.
        repeatable: whether it does no harm if it is done twice.
    """

    method: str
    path: str
    source: str | None = None
    makes: str | None = None
    forgets: bool = False
    binds: bool = False
    repeatable: bool = True


STORED: tuple[StoredRow, ...] = (
    StoredRow("POST", "/responses/input_tokens"),
    # The compacted window is encrypted for its account.
    StoredRow("POST", "/responses/compact", binds=True, repeatable=False),
    StoredRow("GET", "/responses/{id}", RESPONSE),
    StoredRow("DELETE", "/responses/{id}", RESPONSE, forgets=True),
    StoredRow("POST", "/responses/{id}/cancel", RESPONSE),
    StoredRow("GET", "/responses/{id}/input_items", RESPONSE),
    StoredRow("POST", "/conversations", makes=CONVERSATION, binds=True, repeatable=False),
    StoredRow("GET", "/conversations/{id}", CONVERSATION),
    StoredRow("POST", "/conversations/{id}", CONVERSATION),
    StoredRow("DELETE", "/conversations/{id}", CONVERSATION, forgets=True),
    StoredRow("GET", "/conversations/{id}/items", CONVERSATION),
    StoredRow("POST", "/conversations/{id}/items", CONVERSATION, repeatable=False),
    StoredRow("GET", "/conversations/{id}/items/{item_id}", CONVERSATION),
    StoredRow("DELETE", "/conversations/{id}/items/{item_id}", CONVERSATION),
)
"""Every call that is taken; the routes of the gateway are made from it."""

BACKGROUND = StoredRow("POST", "/responses", makes=RESPONSE, binds=True, repeatable=False)
"""A background response: it is made and kept in one account, over HTTP."""


@dataclass(frozen=True, slots=True)
class StoredCall:
    """A call.

    Attributes:
        row: what it does.
        id: of the response or conversation that its path names; None if it names none.
        item_id: of the item within; None if it names none.
        streams: whether the answer is asked for as a stream.
    """

    row: StoredRow
    id: str | None = None
    item_id: str | None = None
    streams: bool = False

    @property
    def method(self) -> str:
        """The method, upstream as downstream."""
        return self.row.method

    @property
    def path(self) -> str:
        """The path after an account's base URL."""
        named = self.row.path.replace("{id}", self.id or "")
        return named.replace("{item_id}", self.item_id or "")

    @property
    def repeatable(self) -> bool:
        """Whether it does no harm if it is done twice."""
        return self.row.repeatable

    @property
    def takes_body(self) -> bool:
        """Whether the client's body goes upstream."""
        return self.method == "POST"

    @property
    def works(self) -> bool:
        """Whether the account may be silent for long because it works on it."""
        return self.takes_body or self.streams

    @property
    def key(self) -> Key | None:
        """The key of what its path names; None if it names nothing."""
        return Key(self.row.source, self.id) if self.row.source and self.id else None

    @property
    def locates(self) -> bool:
        """Whether the account that nobody knows is found by reading before it is asked for this."""
        return self.key is not None and self.method != "GET"

    @property
    def looks(self) -> StoredCall:
        """The call that reads what the path names, for finding its account."""
        return StoredCall(replace(self.row, method="GET", path=_thing(self.row.path)), self.id)

    @property
    def what(self) -> str:
        """What its path names, for a person."""
        return _WHAT[self.row.source or RESPONSE]


def read_stored(row: StoredRow, params: Mapping[str, Any], query: str = "") -> StoredCall | None:
    """Return the call of a request that matched `row`.

    Args:
        row: the row.
        params: the ids of its path, `id` and `item_id`, decoded.
        query: of its target.

    Returns:
        None if one of them cannot be an id.
    """
    name, item = params.get("id"), params.get("item_id")
    if any(given is not None and not is_id(given) for given in (name, item)):
        return None
    return StoredCall(row, name, item, streams=parse_qs(query).get("stream") == ["true"])


def no_such(call: StoredCall) -> ClientError:
    """Say that nobody stores a response, in the words of the API."""
    return ClientError("not_found", f"Response with id '{call.id}' not found.")


@dataclass(frozen=True, slots=True, repr=False)
class Named:
    """What a call names.

    Attributes:
        body: the parsed body; empty where it has none.
        evidence: the affinity evidence: what the path names first, then what the body and the
            headers do. Where the path names something, only what lies in an account counts.
        portable: whether the call may move with its session.
    """

    body: Body
    evidence: Evidence
    portable: bool


def read_named(call: StoredCall, headers: Sequence[Header], data: bytes) -> Named:
    """Read what a call names.

    Args:
        call: the call.
        headers: the client's header lines.
        data: its body, decoded; empty if it has none.

    Raises:
        InvalidBodyError: the body is no JSON object, or a member is not as it must be.
    """
    body = parse_body(data) if data else Body({})
    evidence = read_evidence(headers, _with_items_as_input(body))
    if call.key is not None:
        anchors = tuple(k for k in evidence.keys if k.source in ANCHORS and k != call.key)
        evidence = replace(evidence, keys=(call.key, *anchors))
    return Named(body, evidence, is_portable(evidence, body))


def is_portable(evidence: Evidence, body: Body) -> bool:
    """Whether a body that is sent as it is may go to another account than its session's.

    Unlike a turn's, its encrypted reasoning stays in it, and only its account can read that.
    """
    return evidence.portable and not reasoning_digests(body)


def _with_items_as_input(body: Body) -> Body:
    """A conversation's items name files just as a turn's input does."""
    if "items" not in body.members or "input" in body.members:
        return body
    return Body({**body.members, "input": body.members["items"]})


def pins(call: StoredCall, evidence: Evidence, document: object) -> tuple[Key, ...]:
    """Return what is known to lie in the account that served a call.

    Args:
        call: the call.
        evidence: what it named.
        document: the decoded answer; None if it is none, or was not looked at.
    """
    if call.row.forgets:
        return ()
    named = [k for k in evidence.keys if k.source in ANCHORS]
    if call.row.binds:
        named += [k for k in evidence.stored if k.strength is Strength.HARD]
    made = made_key(call.row, document)
    return tuple(dict.fromkeys([*named, made] if made is not None else named))


def made_key(row: StoredRow, document: object) -> Key | None:
    """Return the key of what an answer says was made; None if it says nothing of the kind."""
    name = document.get("id") if isinstance(document, Mapping) else None
    if row.makes is None or not isinstance(name, str) or not is_id(name):
        return None
    return Key(row.makes, name)


def response_within(event: str) -> object:
    """Return the response that a server-sent event tells of; None if it tells of none."""
    try:
        document = json.loads(event)
    except (ValueError, RecursionError):
        return None
    return document.get("response") if isinstance(document, dict) else None


def _thing(path: str) -> str:
    """Return the path of what `{id}` names, without what comes after."""
    return path[: path.index("{id}") + len("{id}")]
