"""One model list out of those of several accounts, and what turns say of it.

There are two forms: the list of the API (`{"object": "list", "data": [{"id", ...}]}`), and the
catalogue that Codex asks for with `client_version` (`{"models": [{"slug", ...}]}`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from codexlb_cli.core.accounts import Account, Availability
from codexlb_cli.core.calls import refusal
from codexlb_cli.core.client_errors import (
    ClientError,
    Shortage,
    nobody_can_serve,
    upstream_unavailable,
)
from codexlb_cli.core.events import passed_on
from codexlb_cli.core.frames import Member, split_items, split_members
from codexlb_cli.core.http_request import error_in
from codexlb_cli.core.selection import Pool

MODELS_ETAG_HEADER = "x-models-etag"
"""The ETag of the current catalogue, as turns tell it: Codex asks for the catalogue again when it
is another one than that which its own came with."""

_SILENT = (Availability.DISABLED, Availability.NEEDS_LOGIN)


@dataclass(frozen=True, slots=True)
class Form:
    """How a model list is written.

    Attributes:
        members: the member that holds the models.
        key: the member of a model that names it.
    """

    members: str
    key: str


LIST = Form("data", "id")
CATALOGUE = Form("models", "slug")


@dataclass(frozen=True, slots=True)
class Answered:
    """What one account answered to a question for models.

    Attributes:
        account: whom it was asked of.
        status: the HTTP status.
        body: as it came.
        etag: of the body; None if none was told.
        content_type: of the body; None if none was told.
    """

    account: Account
    status: int
    body: bytes = field(repr=False)
    etag: str | None = None
    content_type: str | None = None


Said = Literal["contributed", "failed", "refused", "other_form"]


@dataclass(frozen=True, slots=True)
class ModelList:
    """What a client is answered.

    Attributes:
        status: the HTTP status.
        body: the bytes.
        etag: of the body; None if there is none.
        content_type: of the body.
        accounts: whose entries it has, in configuration order.
        said: what became of each account's answer, by name.
    """

    status: int
    body: bytes = field(repr=False)
    etag: str | None
    content_type: str | None
    accounts: tuple[str, ...]
    said: Mapping[str, Said] = field(default_factory=dict)


def asked_for_models(pool: Pool) -> list[Account]:
    """Return the accounts that are asked for their models, in configuration order.

    A limited, full or cooling account is asked, too: that says nothing of its models, and a list
    that shrank with every limit would send Codex for a new catalogue each time.
    """
    return [a for a in pool.accounts if pool.standing(a).state not in _SILENT]


def merge(answers: Sequence[Answered], form: Form) -> ModelList | None:
    """Make one list of the answers; None if none of them can be passed on.

    The entry of the first account that has a model wins, and every entry is kept byte for byte.
    Models that an account's configuration keeps from it are not taken from its list. Where that
    leaves just the first account's entries, its body and ETag are passed on as they are. Where
    nobody contributes, the first answer that a client can read is: a list of the other form, or a
    refusal with 400 or 404.

    Args:
        answers: in configuration order; an account that could not be asked has none.
        form: what the client asked for.
    """
    lists = [(answer, _entries(answer, form)) for answer in answers]
    said = {answer.account.name: _said(answer, found) for answer, found in lists}
    contributed = [(answer, found) for answer, found in lists if found is not None]
    if not contributed:
        told = next((a for a in answers if said[a.account.name] != "failed"), None)
        return None if told is None else _as_it_is(told, said)
    merged: dict[tuple[bool, str], tuple[str, str]] = {}
    for answer, found in contributed:
        for name, raw in found:
            if answer.account.takes(name):
                key = (name is not None, raw if name is None else name)
                merged.setdefault(key, (answer.account.name, raw))
    first, own = contributed[0]
    names = tuple(dict.fromkeys(name for name, _ in merged.values())) or (first.account.name,)
    entries = [raw for _, raw in merged.values()]
    if entries == [raw for _, raw in own]:
        return replace(_as_it_is(first, said), accounts=names)
    body = _with_entries(first.body, form, entries)
    digest = hashlib.blake2b(body, digest_size=12).hexdigest()
    return ModelList(200, body, f'"codexlb-{digest}"', "application/json", names, said)


def first_that_has(answers: Sequence[Answered | None]) -> ModelList | None:
    """Return one model, of the first account that has it; None if that cannot be told.

    Args:
        answers: in configuration order; None of an account that could not be asked. Only if all
            of them say that there is no such model, that is the answer.
    """
    told = [answer for answer in answers if answer is not None]
    said: dict[str, Said] = {a.account.name: "contributed" for a in told if a.status < 300}
    found = next((a for a in told if a.status < 300), None)
    if found is not None:
        return _as_it_is(found, said)
    if len(told) < len(answers) or any(answer.status not in _REFUSALS for answer in told):
        return None
    return _as_it_is(told[0], said) if told else None


def nobody_tells(pool: Pool, failed: str) -> ClientError:
    """Return the error where no answer can be passed on.

    Args:
        pool: the accounts.
        failed: what went wrong, where some account is usable.
    """
    if any(pool.usable(account.name) for account in pool.accounts):
        return upstream_unavailable(failed)
    return nobody_can_serve(Shortage([account.name for account in pool.accounts]), pool)


@dataclass(frozen=True, slots=True)
class CatalogueEtags:
    """Which ETag a client's catalogue has, for what accounts tell with their turns.

    An account tells the ETag of its own catalogue. A client whose catalogue was put together by
    the gateway has another one, and would ask again after every turn.

    Attributes:
        handed_out: the ETag that went to clients, by account and its own ETag.
        contributed: the accounts that told an ETag with the newest catalogue; None before one.
    """

    handed_out: Mapping[tuple[str, str], str] = field(default_factory=dict)
    contributed: frozenset[str] | None = None

    def after(self, answers: Sequence[Answered], outcome: ModelList) -> CatalogueEtags:
        """Return what holds once a client was answered with `outcome`, made of `answers`."""
        told = [(a.account.name, a.etag) for a in answers]
        merged = [pair for pair in told if outcome.said.get(pair[0]) == "contributed"]
        etags = [(name, etag) for name, etag in merged if etag is not None]
        if outcome.etag is None:
            return CatalogueEtags(self.handed_out, frozenset())
        known = {**self.handed_out, **dict.fromkeys(etags, outcome.etag)}
        newest = dict(list(known.items())[-_MOST_ETAGS:])
        return CatalogueEtags(newest, frozenset(name for name, _ in etags))

    def told(self, account: str, etag: str) -> str | None:
        """Return what a client is told, when a turn of `account` comes with `etag`.

        An ETag that is new sends clients for a new catalogue, which is what it is for. That of an
        account whose catalogue is no part of theirs must not.

        Returns:
            The ETag; None if clients are told none.
        """
        known = self.handed_out.get((account, etag))
        if known is not None or self.contributed is None:
            return known or etag
        return etag if account in self.contributed else None


_MOST_ETAGS = 200
_REFUSALS = frozenset({400, 404})


def _said(answer: Answered, found: object) -> Said:
    if found is not None:
        return "contributed"
    if answer.status in _REFUSALS:
        return "refused"
    return "other_form" if answer.status < 300 and _members(answer.body) is not None else "failed"


def _entries(answer: Answered, form: Form) -> list[tuple[str | None, str]] | None:
    """Return name and text of each model; None if the answer is no list of this form."""
    members = _members(answer.body) if answer.status < 300 else None
    held = members.get(form.members) if members is not None else None
    if held is None or not isinstance(held.value, list):
        return None
    return [(_name(item.value, form), item.raw) for item in split_items(held.raw)]


def _members(body: bytes) -> dict[str, Member] | None:
    try:
        return split_members(body.decode())
    except (ValueError, RecursionError):
        return None


def _name(value: object, form: Form) -> str | None:
    name = value.get(form.key) if isinstance(value, dict) else None
    return name if isinstance(name, str) else None


def _with_entries(body: bytes, form: Form, entries: Sequence[str]) -> bytes:
    """Return the object `body` with other models, and all else as it is."""
    members = {name: member.raw for name, member in split_members(body.decode()).items()}
    members[form.members] = f"[{','.join(entries)}]"
    return f"{{{','.join(f'{json.dumps(n)}:{raw}' for n, raw in members.items())}}}".encode()


def _as_it_is(answer: Answered, said: Mapping[str, Said]) -> ModelList:
    """Return an account's answer byte for byte; of a refusal what it says, as every error."""
    names = (answer.account.name,)
    if answer.status >= 300:
        failure = refusal(answer.status, {"error": error_in(answer.body)}, {}, now=0.0)
        status, _, envelope = passed_on(failure)
        body = json.dumps(envelope).encode()
        return ModelList(status, body, None, "application/json", names, said)
    return ModelList(answer.status, answer.body, answer.etag, answer.content_type, names, said)
