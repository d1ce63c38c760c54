"""The files of several accounts as one list: one account after the other, as configured.

A cursor is the id of a file, as at the upstream; the account that has the file goes on with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from codexlb_cli.core.calls import is_id
from codexlb_cli.core.client_errors import ClientError

MOST_LISTED = 10_000
"""The most files on one page, and the default, as at the upstream."""


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What a client wants to see.

    Attributes:
        limit: the most files.
        after: the file that its last page ended with; None for the first page.
        others: every other parameter, passed on as it is.
    """

    limit: int = MOST_LISTED
    after: str | None = None
    others: tuple[tuple[str, str], ...] = ()


def read_query(query: str) -> ListQuery | ClientError:
    """Read a query string; the error says what the client got wrong."""
    pairs = parse_qsl(query, keep_blank_values=True, errors="replace")
    named = dict(pairs)
    text = named.get("limit") or str(MOST_LISTED)
    limit = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not 1 <= limit <= MOST_LISTED:
        message = f"`limit` must be a number from 1 to {MOST_LISTED}"
        return ClientError("invalid_request", message, param="limit")
    after = named.get("after") or None
    if after is not None and not is_id(after):
        return ClientError("invalid_request", "`after` must be the id of a file", param="after")
    others = tuple((n, v) for n, v in pairs if n not in ("limit", "after"))
    return ListQuery(limit, after, others)


@dataclass(frozen=True, slots=True)
class Ask:
    """The next page to ask for: of which account, after which file, how many at most."""

    account: str
    after: str | None
    limit: int

    def query(self, others: Sequence[tuple[str, str]]) -> str:
        """Return the query string."""
        cursor = [("after", self.after)] if self.after else []
        return urlencode([*others, *cursor, ("limit", str(self.limit))])


class FileList:
    """One page, put together from the pages of accounts.

    Args:
        query: what the client wants to see.
        accounts: the usable accounts, in configuration order.
        owner: the account that has the file `query.after`; None for the first page.

    Attributes:
        ask: the next page to ask for; None once this one is complete.
        sources: the accounts whose files stand on it.
    """

    def __init__(self, query: ListQuery, accounts: Sequence[str], owner: str | None) -> None:
        self.ask: Ask | None = None
        self.sources: list[str] = []
        self._limit = query.limit
        self._accounts = list(accounts)
        self._later = list(accounts)
        if owner is not None:
            self._later = self._later[self._later.index(owner) :]
        self._files: list[Mapping[str, Any]] = []
        self._more = False
        self._next_account(query.after)

    def ids(self, document: object) -> list[str]:
        """Return the ids of an account's page, so that their owners can be looked up."""
        return [_id(f) for f in _files(document)]

    def take(self, document: object, owner_of: Callable[[str], str | None]) -> list[str]:
        """Take the page that was asked for.

        A file that another of these accounts is known to have stands on that one's page: two keys
        of one organisation see the same files.

        Args:
            document: the decoded answer; anything that is no list counts as empty.
            owner_of: which account is known to have a file.

        Returns:
            The files that lie in this account, to be remembered.
        """
        ask = self.ask
        assert ask is not None, "a page was asked for"
        files = _files(document)
        own = [f for f in files if self._belongs(owner_of(_id(f)), ask.account)]
        room = self._limit - len(self._files)
        self._files += own[:room]
        if own and ask.account not in self.sources:
            self.sources.append(ask.account)
        last = _id(files[-1]) if files else None
        more = _has_more(document) and last not in (None, ask.after)
        if len(own) > room or (more and len(self._files) == self._limit):
            self._end(more=True)
        elif more:  # full of files that stand elsewhere, or shorter than it might have been
            self.ask = Ask(ask.account, last, MOST_LISTED)
        else:
            self._next_account(None)
        return [_id(f) for f in own]

    def document(self) -> dict[str, object]:
        """Return the page as a client reads it."""
        ids = [_id(f) for f in self._files]
        return {
            "object": "list",
            "data": self._files,
            "first_id": ids[0] if ids else None,
            "last_id": ids[-1] if ids else None,
            "has_more": self._more,
        }

    def _belongs(self, owner: str | None, account: str) -> bool:
        return owner in (None, account) or owner not in self._accounts

    def _next_account(self, after: str | None) -> None:
        room = self._limit - len(self._files)
        if not self._later or room == 0:
            self._end(more=bool(self._later))
            return
        self.ask = Ask(self._later.pop(0), after, room)

    def _end(self, *, more: bool) -> None:
        self.ask, self._more = None, more


def _files(document: object) -> list[Mapping[str, Any]]:
    data = document.get("data") if isinstance(document, Mapping) else None
    return [f for f in data if is_id(_id(f))] if isinstance(data, list) else []


def _has_more(document: object) -> bool:
    return isinstance(document, Mapping) and document.get("has_more") is True


def _id(file: object) -> str:
    """Return the id of an entry; "" if it has none."""
    name = file.get("id") if isinstance(file, Mapping) else None
    return name if isinstance(name, str) else ""
