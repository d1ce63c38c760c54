"""Files and uploads: which calls are taken, which account each goes to, and what is remembered.

A file lies in the account that it was uploaded to, and nowhere else. `calls` says where a call
goes, `file_list` how the lists of several accounts become one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from codexlb_cli.core.affinity import Key
from codexlb_cli.core.calls import CallRoute, is_id, route_known, route_unknown
from codexlb_cli.core.closes import ReconnectPolicy
from codexlb_cli.core.selection import Pool

THIS_FILE = "this file"
_NO_WAIT = ReconnectPolicy(on_account_failure="fail", wait_up_to=0.0)


class Verb(StrEnum):
    """What a call does."""

    CREATE = "create"
    LIST = "list"
    RETRIEVE = "retrieve"
    DELETE = "delete"
    CONTENT = "content"
    BEGIN = "begin"
    ADD_PART = "add_part"
    COMPLETE = "complete"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class CallRow:
    """One kind of call: its method, its path under the prefix, and what it does."""

    method: str
    path: str
    verb: Verb


CALLS: tuple[CallRow, ...] = (
    CallRow("POST", "/files", Verb.CREATE),
    CallRow("GET", "/files", Verb.LIST),
    CallRow("GET", "/files/{id}", Verb.RETRIEVE),
    CallRow("DELETE", "/files/{id}", Verb.DELETE),
    CallRow("GET", "/files/{id}/content", Verb.CONTENT),
    CallRow("POST", "/uploads", Verb.BEGIN),
    CallRow("POST", "/uploads/{id}/parts", Verb.ADD_PART),
    CallRow("POST", "/uploads/{id}/complete", Verb.COMPLETE),
    CallRow("POST", "/uploads/{id}/cancel", Verb.CANCEL),
)
"""Every call that is taken; the routes of the gateway are made from it."""

_ROWS = {row.verb: row for row in CALLS}


@dataclass(frozen=True, slots=True)
class FileCall:
    """A call.

    Attributes:
        verb: what it does.
        id: of the file or upload that it names; None if it names none.
    """

    verb: Verb
    id: str | None = None

    @property
    def method(self) -> str:
        """The method, upstream as downstream."""
        return _ROWS[self.verb].method

    @property
    def path(self) -> str:
        """The path after an account's base URL."""
        return _ROWS[self.verb].path.replace("{id}", self.id or "")

    @property
    def creates(self) -> bool:
        """Whether it makes something new, so that an account has to be chosen."""
        return self.verb in (Verb.CREATE, Verb.BEGIN)

    @property
    def repeatable(self) -> bool:
        """A file that came twice does no harm."""
        return True

    @property
    def works(self) -> bool:
        """An account does not think about files."""
        return False

    @property
    def takes_body(self) -> bool:
        """Whether the client's body goes upstream."""
        return self.method == "POST"


def file_key(name: str) -> Key:
    """Return the key of a file or an upload: turns that name a file are keyed alike."""
    return Key("file", name)


def read_call(row: CallRow, name: str | None) -> FileCall | None:
    """Return the call of a request that matched `row`; None if `name` cannot be an id."""
    if name is not None and not is_id(name):
        return None
    return FileCall(row.verb, name)


def route_list(owner: str | None, pool: Pool) -> CallRoute:
    """Say whether files can be listed from `owner` on, or from the first account if it is None."""
    if owner is None:
        return route_unknown(pool)
    return route_known(owner, pool, _NO_WAIT, pool.now, what=THIS_FILE)


def pins(call: FileCall, document: object) -> tuple[Key, ...]:
    """Return what is known to lie in the account that served a call.

    Args:
        call: the call.
        document: the decoded answer; None if it is no JSON.
    """
    found = document if isinstance(document, Mapping) else {}
    match call.verb:
        case Verb.CREATE | Verb.BEGIN:
            return _keys(found.get("id"))
        case Verb.COMPLETE:
            made = found.get("file")
            return _keys(call.id, made.get("id") if isinstance(made, Mapping) else None)
        case Verb.RETRIEVE | Verb.CONTENT | Verb.ADD_PART:
            return _keys(call.id)
        case _:
            return ()


def _keys(*names: object) -> tuple[Key, ...]:
    return tuple(file_key(n) for n in names if isinstance(n, str) and is_id(n))
