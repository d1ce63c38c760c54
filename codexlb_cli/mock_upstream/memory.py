"""Which responses an account remembers."""

from __future__ import annotations

from collections import OrderedDict

_REMEMBERED = 10_000


class StoredResponses:
    """The ids of the stored responses, per account; of each account the latest 10 000.

    What `store: false` leaves behind is not here: its id lives on the socket that made it.
    """

    def __init__(self) -> None:
        self._ids: dict[str, OrderedDict[str, None]] = {}

    def remember(self, account: str, response_id: str) -> None:
        """Store a response."""
        ids = self._ids.setdefault(account, OrderedDict())
        ids[response_id] = None
        if len(ids) > _REMEMBERED:
            ids.popitem(last=False)

    def knows(self, account: str, response_id: str) -> bool:
        """Whether this account stored that response."""
        return response_id in self._ids.get(account, ())
