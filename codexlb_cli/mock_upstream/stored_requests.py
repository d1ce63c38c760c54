"""What the calls about stored responses and conversations answer, and those that store nothing."""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from codexlb_cli.mock_upstream.file_requests import Reply, json_reply, read_object
from codexlb_cli.mock_upstream.memory import Conversation, not_found, with_ids
from codexlb_cli.mock_upstream.requests import RefusedError, invalid_request, parse_request

if TYPE_CHECKING:
    from codexlb_cli.mock_upstream.background import BackgroundResponse
    from codexlb_cli.mock_upstream.memory import StoredResponse
    from codexlb_cli.mock_upstream.state import UpstreamState
    from codexlb_cli.mock_upstream.wire import Head

_SIMPLE = ("conversations", "embeddings", "moderations", "vector_stores", "audio")
_MOST_LISTED = 100
_CATEGORIES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit",
    "illicit/violent", "self-harm", "self-harm/instructions", "self-harm/intent", "sexual",
    "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip


@dataclass(slots=True)
class Followed:
    """An answer that is a stream: the events of a response after a sequence number."""

    response: BackgroundResponse = field(repr=False)
    after: int


def api_segments(path: str) -> list[str] | None:
    """Return the parts of a path from what it is about on; None if nothing here answers it."""
    segments = path.strip("/").split("/")
    for at, segment in enumerate(segments):
        if segment in _SIMPLE or (segment == "responses" and len(segments) > at + 1):
            return segments[at:]
    return None


class StoredRequests:
    """The requests of one account.

    Args:
        state: what all connections share.
        account: whose key the request carries.
        now: seconds since the epoch.
    """

    def __init__(self, state: UpstreamState, account: str, now: int) -> None:
        self._state = state
        self._account = account
        self._now = now

    def answer(self, head: Head, segments: list[str], body: bytes) -> Reply | Followed:
        """Answer a request.

        Raises:
            RefusedError: there is no such thing or endpoint, or the request is malformed.
        """
        query = parse_qs(head.target.partition("?")[2])
        match segments:
            case ["responses", *rest]:
                return self._responses(head.method, rest, query, body)
            case ["conversations", *rest]:
                return json_reply(self._conversations(head.method, rest, query, body))
            case ["embeddings"] if head.method == "POST":
                return json_reply(_embeddings(read_object(body)))
            case ["moderations"] if head.method == "POST":
                return json_reply(self._moderations(read_object(body)))
            case ["vector_stores", *rest]:
                return json_reply(self._vector_stores(head.method, rest, body))
            case ["audio", "speech"] if head.method == "POST":
                spoken = str(read_object(body).get("input"))
                return Reply(spoken.encode() * 1000, "audio/mpeg")
        raise _no_endpoint(head.method, segments)

    # Responses

    def _responses(
        self, method: str, rest: list[str], query: dict[str, list[str]], body: bytes
    ) -> Reply | Followed:
        match method, rest:
            case "POST", ["input_tokens"]:
                self._checked(body)
                return json_reply(
                    {"object": "response.input_tokens", "input_tokens": len(body) // 4}
                )
            case "POST", ["compact"]:
                return json_reply(self._compact(body))
            case "GET", [name]:
                return self._retrieve(self._response(name), query)
            case "DELETE", [name]:
                self._response(name)
                self._state.stored.remove(self._account, name)
                return json_reply({"id": name, "object": "response", "deleted": True})
            case "POST", [name, "cancel"]:
                response = self._response(name)
                if response.background is None:
                    raise invalid_request("Cannot cancel a synchronous response.")
                response.background.cancel()
                return json_reply(response.document)
            case "GET", [name, "input_items"]:
                return json_reply(_page(self._response(name).items, query))
        raise _no_endpoint(method, ["responses", *rest])

    def _response(self, name: str) -> StoredResponse:
        response = self._state.stored.get(self._account, name)
        if response is None:
            raise RefusedError(not_found(f"Response with id '{name[:200]}' not found."))
        return response

    def _retrieve(self, response: StoredResponse, query: dict[str, list[str]]) -> Reply | Followed:
        if query.get("stream") != ["true"]:
            return json_reply(response.document)
        if response.background is None:
            raise invalid_request("Only background responses can be streamed again.")
        after = query.get("starting_after", ["-1"])[0]
        try:
            return Followed(response.background, int(after))
        except ValueError:
            raise invalid_request("Invalid 'starting_after'.", param="starting_after") from None

    def _checked(self, body: bytes) -> dict[str, Any]:
        document = read_object(body)
        request = parse_request(document, len(body))
        self._state.check(self._account, request, None)
        return document

    def _compact(self, body: bytes) -> dict[str, object]:
        document = self._checked(body)
        items = parse_request(document, len(body)).items
        name = self._state.conversations.new_id("cmp")
        kept = with_ids([item for item in items if item.get("role") == "user"], name)
        blob = {
            "id": name,
            "type": "compaction",
            "encrypted_content": f"enc:{self._account}:{name}",
        }
        return {
            "id": self._state.conversations.new_id("resp"),
            "object": "response.compaction",
            "created_at": self._now,
            "output": [*kept, blob],
            "usage": {
                "input_tokens": len(body) // 4,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": 16,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": len(body) // 4 + 16,
            },
        }

    # Conversations

    def _conversations(
        self, method: str, rest: list[str], query: dict[str, list[str]], body: bytes
    ) -> object:
        match method, rest:
            case "POST", []:
                return self._create(read_object(body) if body else {})
            case "GET", [name]:
                return self._conversation(name).document()
            case "POST", [name]:
                found = self._conversation(name)
                found.metadata = read_object(body).get("metadata") or {}
                return found.document()
            case "DELETE", [name]:
                self._conversation(name)
                self._state.conversations.remove(self._account, name)
                return {"id": name, "object": "conversation.deleted", "deleted": True}
            case "GET", [name, "items"]:
                return _page(self._conversation(name).items, query)
            case "POST", [name, "items"]:
                return self._add(self._conversation(name), read_object(body))
            case "GET", [name, "items", item]:
                return _item(self._conversation(name), item)
            case "DELETE", [name, "items", item]:
                found = self._conversation(name)
                found.items.remove(_item(found, item))
                return found.document()
        raise _no_endpoint(method, ["conversations", *rest])

    def _conversation(self, name: str) -> Conversation:
        found = self._state.conversations.get(self._account, name)
        if found is None:
            raise RefusedError(not_found(f"Conversation with id '{name[:200]}' not found."))
        return found

    def _create(self, asked: dict[str, Any]) -> dict[str, object]:
        kept = self._state.conversations
        made = Conversation(kept.new_id("conv"), self._now, asked.get("metadata") or {})
        if asked.get("items"):
            self._add(made, asked)
        kept.put(self._account, made)
        return made.document()

    def _add(self, conversation: Conversation, asked: dict[str, Any]) -> dict[str, object]:
        items = asked.get("items")
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise invalid_request("Invalid type for 'items'.", code="invalid_type", param="items")
        self._state.check_files(self._account, items)
        added = conversation.add(items, self._state.conversations.new_id("item"))
        return _listed(added, more=False)

    # What stores no response

    def _moderations(self, asked: dict[str, Any]) -> dict[str, object]:
        text = asked.get("input")
        texts = text if isinstance(text, list) else [text]
        result = {
            "flagged": False,
            "categories": dict.fromkeys(_CATEGORIES, False),
            "category_scores": dict.fromkeys(_CATEGORIES, 0.01),
            "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
        }
        name = self._state.conversations.new_id("modr")
        return {"id": name, "model": "mock-moderation", "results": [result for _ in texts]}

    def _vector_stores(self, method: str, rest: list[str], body: bytes) -> object:
        kept, account = self._state.vector_stores, self._account
        if (method, rest) == ("POST", []):
            asked = read_object(body)
            store: dict[str, Any] = {
                "id": self._state.conversations.new_id("vs"),
                "object": "vector_store",
                "created_at": self._now,
                "name": asked.get("name"),
                "status": "completed",
                "usage_bytes": 0,
                "file_counts": dict.fromkeys(
                    ("in_progress", "completed", "failed", "cancelled", "total"), 0
                ),
                "last_active_at": self._now,
                "metadata": asked.get("metadata") or {},
            }
            kept.put(account, store["id"], store)
            return store
        if (method, rest) == ("GET", []):
            return _listed([store for _, store in kept.all(account)], more=False)
        found = kept.get(account, rest[0]) if len(rest) == 1 else None
        if found is None or method not in {"GET", "HEAD", "DELETE"}:
            raise RefusedError(not_found(f"No such vector store: {'/'.join(rest)[:200]}"))
        if method == "DELETE":
            kept.remove(account, rest[0])
            return {"id": rest[0], "object": "vector_store.deleted", "deleted": True}
        return found


def _embeddings(asked: dict[str, Any]) -> dict[str, object]:
    text = asked.get("input")
    texts = text if isinstance(text, list) else [text]
    vectors = [[float(len(str(one))), 0.5, -0.25] for one in texts]
    packed = asked.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": n, "embedding": _packed(v) if packed else v}
        for n, v in enumerate(vectors)
    ]
    tokens = sum(len(str(one)) for one in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": asked.get("model"), "usage": usage}


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _item(conversation: Conversation, name: str) -> dict[str, Any]:
    for item in conversation.items:
        if item["id"] == name:
            return item
    raise RefusedError(not_found(f"Item with id '{name[:200]}' not found."))


def _page(items: list[dict[str, Any]], query: dict[str, list[str]]) -> dict[str, object]:
    ordered = list(items) if query.get("order") == ["asc"] else items[::-1]
    if after := query.get("after"):
        ids = [item["id"] for item in ordered]
        ordered = ordered[ids.index(after[0]) + 1 :] if after[0] in ids else []
    text = query.get("limit", ["20"])[0]
    limit = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= limit <= _MOST_LISTED:
        raise invalid_request("Invalid 'limit'.", code="integer_out_of_range", param="limit")
    return _listed(ordered[:limit], more=len(ordered) > limit)


def _listed(items: list[dict[str, Any]], *, more: bool) -> dict[str, object]:
    return {
        "object": "list",
        "data": items,
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": more,
    }


def _no_endpoint(method: str, segments: list[str]) -> RefusedError:
    return RefusedError(not_found(f"Invalid URL ({method} {'/'.join(segments)[:200]})"))
