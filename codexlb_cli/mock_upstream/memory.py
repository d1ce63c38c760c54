"""Which responses and conversations an account stores: in memory, bounded, nobody else's."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from codexlb_cli.mock_upstream.rules import ErrorSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codexlb_cli.mock_upstream.background import BackgroundResponse
    from codexlb_cli.mock_upstream.stream import ResponseStream

_REMEMBERED = 10_000
_WHOLE = 500
"""Of so many responses per account, the latest, more than their id is kept."""
_LARGEST_BYTES = 1024 * 1024
"""Of a larger one, only the id."""

T = TypeVar("T")


class PerAccount(Generic[T]):
    """Things by id, each in one account; of each account the latest so many."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._things: dict[str, OrderedDict[str, T]] = {}

    def put(self, account: str, name: str, thing: T) -> None:
        """Keep a thing."""
        things = self._of(account)
        things[name] = thing
        if len(things) > self._most:
            things.popitem(last=False)

    def get(self, account: str, name: str) -> T | None:
        """Return a thing of this account; None if it has none of that id."""
        return self._of(account).get(name)

    def all(self, account: str) -> list[tuple[str, T]]:
        """Return the things of an account with their ids, the oldest first."""
        return list(self._of(account).items())

    def remove(self, account: str, name: str) -> None:
        """Forget a thing."""
        self._of(account).pop(name, None)

    def _of(self, account: str) -> OrderedDict[str, T]:
        return self._things.setdefault(account, OrderedDict())


@dataclass(slots=True)
class StoredResponse:
    """A stored response.

    Attributes:
        document: the response object, as it is now.
        items: its input, with ids, the oldest first.
        background: what makes it; None if it was made while the client waited.
    """

    document: dict[str, Any] = field(repr=False)
    items: list[dict[str, Any]] = field(repr=False)
    background: BackgroundResponse | None = None


class StoredResponses:
    """The stored responses, per account: the latest 10 000 ids, and 500 with what they hold.

    What `store: false` leaves behind is not here: its id lives on the socket that made it.
    """

    def __init__(self) -> None:
        self._ids: PerAccount[bool] = PerAccount(_REMEMBERED)
        self._whole: PerAccount[StoredResponse] = PerAccount(_WHOLE)

    def remember(self, stream: ResponseStream) -> None:
        """Store the response of a stream that is over."""
        self._ids.put(stream.account, stream.response_id, True)
        if stream.final is not None and _size(stream, stream.final) <= _LARGEST_BYTES:
            items = with_ids(stream.request.items, stream.response_id)
            self.keep(stream.account, StoredResponse(stream.final, items))

    def keep(self, account: str, response: StoredResponse) -> None:
        """Store a response."""
        name = response.document["id"]
        self._ids.put(account, name, True)
        self._whole.put(account, name, response)

    def knows(self, account: str, response_id: str) -> bool:
        """Whether this account stored that response."""
        return self._ids.get(account, response_id) is not None

    def get(self, account: str, response_id: str) -> StoredResponse | None:
        """Return a response of this account; None if it has none of that id."""
        return self._whole.get(account, response_id)

    def remove(self, account: str, response_id: str) -> None:
        """Forget a response."""
        self._ids.remove(account, response_id)
        self._whole.remove(account, response_id)


def _size(stream: ResponseStream, document: dict[str, Any]) -> int:
    """About how much a response holds: what it was asked with, says, and is filled up with."""
    said = sum(map(len, stream.answer.pieces))
    return stream.request.body_bytes + said + len(document["instructions"] or "")


@dataclass(slots=True)
class Conversation:
    """A conversation; its items have ids, the oldest comes first."""

    id: str
    created_at: int
    metadata: dict[str, Any] = field(repr=False)
    items: list[dict[str, Any]] = field(default_factory=list, repr=False)

    def document(self) -> dict[str, object]:
        """Return it as the API shows it."""
        return {
            "id": self.id,
            "object": "conversation",
            "created_at": self.created_at,
            "metadata": self.metadata,
        }

    def add(self, items: Sequence[dict[str, Any]], name: str) -> list[dict[str, Any]]:
        """Append items; `name` is what the ids of those without one are made from."""
        added = with_ids(items, name)
        self.items += added
        return added


class Conversations:
    """The conversations, per account.

    Args:
        run: what ids begin with, so that two mocks never make the same one.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._numbers = count(1)
        self._kept: PerAccount[Conversation] = PerAccount(_REMEMBERED)

    def new_id(self, prefix: str) -> str:
        """Return an id that nothing else has."""
        return f"{prefix}_{self._run}{next(self._numbers):08x}"

    def put(self, account: str, conversation: Conversation) -> None:
        """Keep a conversation."""
        self._kept.put(account, conversation.id, conversation)

    def get(self, account: str, name: str) -> Conversation | None:
        """Return a conversation of this account; None if it has none of that id."""
        return self._kept.get(account, name)

    def remove(self, account: str, name: str) -> None:
        """Forget a conversation."""
        self._kept.remove(account, name)

    def missing(self, account: str, name: str) -> ErrorSpec | None:
        """Return why a turn may not name this conversation; None if it may.

        One that this mock never made is taken for one that was made by another way.
        """
        if not name.startswith(f"conv_{self._run}") or self.get(account, name) is not None:
            return None
        return not_found(f"Conversation with id '{name[:200]}' not found.")


def not_found(message: str) -> ErrorSpec:
    """Return the error for what is not there."""
    return ErrorSpec(status=404, type="invalid_request_error", message=message)


def with_ids(items: Sequence[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Return input items as the API stores them: with ids, and text in parts."""
    suffix = name.rpartition("_")[2]
    return [_stored_item(item, f"{suffix}{number:04x}") for number, item in enumerate(items)]


def _stored_item(item: dict[str, Any], suffix: str) -> dict[str, Any]:
    if item.get("type", "message") != "message":
        return {"id": f"item_{suffix}", **item}
    content = item.get("content")
    if isinstance(content, str):
        kind = "output_text" if item.get("role") == "assistant" else "input_text"
        content = [{"type": kind, "text": content}]
    own = {"id": f"msg_{suffix}", "type": "message", "status": "completed"}
    return {**own, **item, "content": content}
