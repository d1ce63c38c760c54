"""Accounts, what is known of them, and the one predicate that says whether one may be used.

Times are seconds since the epoch (UTC). Nothing here holds a secret: a credential is named, never
carried. What a close code or an error does to an account is decided in `closes` and `failures`;
how that changes the account's state is decided here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from codexlb_cli.core.backoff import doubled
from codexlb_cli.core.windows import LONGEST_LIMIT_SECONDS, UNKNOWN, Limits

COUNTED_CLOSES = 3
COUNTED_WINDOW_SECONDS = 60.0
COUNTED_COOLDOWN_SECONDS = 30.0
FIRST_REFUSAL_SECONDS = 3.0
REFUSAL_SECONDS = 30.0
LONGEST_COOLDOWN_SECONDS = 300.0
USAGE_LIMIT = "usage_limit_reached"
"""The error of a plan whose window is used up: newer limits may lift it before its time."""

NO_WEBSOCKET_SECONDS = 600.0
"""How long an account that refused the upgrade is spoken to over HTTP before the next try."""

AccountKind = Literal["api_key", "chatgpt"]
Transport = Literal["websocket", "http"]
TransportChoice = Literal["auto", "websocket", "http"]

DEFAULT_BASE_URLS: dict[AccountKind, str] = {
    "api_key": "https://api.openai.com/v1",
    "chatgpt": "https://chatgpt.com/backend-api/codex",
}


class Availability(StrEnum):
    """What an account can be, as `accounts list` prints it."""

    READY = "ready"
    COOLING_DOWN = "cooling_down"
    LIMITED = "limited"
    FULL = "full"
    DISABLED = "disabled"
    NEEDS_LOGIN = "needs_login"


@dataclass(frozen=True, slots=True)
class CredentialRef:
    """Where an account's credential lies: an environment variable or a store; never the secret.

    Attributes:
        source: `env`, `file`, `keyring` or `login`.
        name: the variable's name, or the account's name in the store.
    """

    source: Literal["env", "file", "keyring", "login"]
    name: str


@dataclass(frozen=True, slots=True)
class Account:
    """One upstream account of the user's, as configured.

    Attributes:
        priority: which accounts get first turns before others: lower ones.
        weight: how large it is against the others; 0 for one that serves if nobody else can.
        max_turns: how many turns it takes at a time, 0 for no limit; None for what holds for all.
        models: patterns of the models that it takes; empty for all.
        not_models: patterns of those that it does not.
    """

    name: str
    kind: AccountKind = "api_key"
    base_url: str = DEFAULT_BASE_URLS["api_key"]
    enabled: bool = True
    organization: str | None = None
    project: str | None = None
    transport: TransportChoice = "auto"
    credential: CredentialRef = field(default_factory=lambda: CredentialRef("file", ""))
    priority: int = 0
    weight: float = 1.0
    max_turns: int | None = None
    models: tuple[str, ...] = ()
    not_models: tuple[str, ...] = ()

    def takes(self, model: str | None) -> bool:
        """Whether the configuration lets it serve `model`; a turn that names none goes anywhere."""
        if model is None:
            return True
        if any(fnmatchcase(model, pattern) for pattern in self.not_models):
            return False
        return not self.models or any(fnmatchcase(model, pattern) for pattern in self.models)

    @property
    def refreshable(self) -> bool:
        """Whether its credential is a login, whose token can be refreshed."""
        return self.credential.source == "login"

    @property
    def websocket_url(self) -> str:
        """The Responses WebSocket: the base URL with ws or wss, plus `/responses`."""
        return self._url({"http": "ws", "https": "wss"}, "/responses")

    @property
    def responses_url(self) -> str:
        """Where the same turns are posted: the base URL with http or https, plus `/responses`."""
        return self._url({"ws": "http", "wss": "https"}, "/responses")

    @property
    def http_url(self) -> str:
        """The base URL with http or https, without a trailing slash."""
        return self._url({"ws": "http", "wss": "https"}, "")

    def call_url(self, path: str, query: str = "") -> str:
        """Return where a call over HTTP goes: `path` after the base URL, and both queries."""
        base, _, own = self.http_url.partition("?")
        joined = "&".join(part for part in (own, query) if part)
        return f"{base}{path}" + (f"?{joined}" if joined else "")

    @property
    def usage_url(self) -> str:
        """Where a ChatGPT plan tells its usage: beside the base URL, not under it."""
        return f"{self.http_url.removesuffix('/codex')}/wham/usage"

    def _url(self, schemes: dict[str, str], suffix: str) -> str:
        parts = urlsplit(self.base_url)
        scheme = schemes.get(parts.scheme, parts.scheme)
        path = parts.path.rstrip("/") + suffix
        return urlunsplit((scheme, parts.netloc, path, parts.query, ""))


@dataclass(frozen=True, slots=True)
class AccountState:
    """What the gateway learned about an account; persisted, cleared by `accounts reset`.

    Attributes:
        cooling_until: the end of a cooldown, our own guess; None if there was none.
        cooling_reason: why, a reason code.
        cooldowns: how many cooldowns followed each other without a completed turn.
        limited_until: when the upstream said that the account may be used again.
        limited_reason: the upstream's code: `rate_limit_exceeded`, `usage_limit_reached`, ...
        login_reason: why the account must sign in again; None if it need not.
        refused_credential: a fingerprint of the credential that was refused: the account is
            forgiven when the credential is another one. Four bytes of a hash, never the secret.
        counted: times of the counted closes since the last completed turn.
        refusals: how many dials in a row were refused with 403.
        http_until: until when the account counts as one without a WebSocket; None if it never did.
        limits: its windows, rates and credits as the upstream told them last.
    """

    cooling_until: float | None = None
    cooling_reason: str | None = None
    cooldowns: int = 0
    limited_until: float | None = None
    limited_reason: str | None = None
    login_reason: str | None = None
    refused_credential: str | None = None
    counted: tuple[float, ...] = ()
    refusals: int = 0
    http_until: float | None = None
    limits: Limits = UNKNOWN


FRESH = AccountState()


@dataclass(frozen=True, slots=True)
class Standing:
    """The answer to "may this account be used now", with its reason.

    Attributes:
        state: the availability.
        reason: a reason code; None when ready.
        until: when that ends; None if only a person or the configuration can end it.
    """

    state: Availability
    reason: str | None = None
    until: float | None = None

    @property
    def usable(self) -> bool:
        """Whether a turn may be sent: cooling accounts sort last, but are never excluded."""
        return self.state in (Availability.READY, Availability.COOLING_DOWN)


def standing(
    account: Account,
    state: AccountState,
    now: float,
    *,
    credential_present: bool = True,
    full: bool = False,
) -> Standing:
    """Say whether `account` may be used at `now`. The only owner of that answer.

    Args:
        account: the account.
        state: what was learned about it.
        now: seconds since the epoch.
        credential_present: whether its credential can be read.
        full: whether as many turns are in flight there as it takes.
    """
    if not account.enabled:
        return Standing(Availability.DISABLED, "disabled")
    if not credential_present:
        return Standing(Availability.NEEDS_LOGIN, "credential_missing")
    if state.login_reason is not None:
        return Standing(Availability.NEEDS_LOGIN, state.login_reason)
    limit = limit_in_force(state, now)
    if limit is not None:
        return Standing(Availability.LIMITED, *limit)
    if full:
        return Standing(Availability.FULL, "full")
    if state.cooling_until is not None and state.cooling_until > now:
        return Standing(Availability.COOLING_DOWN, state.cooling_reason, state.cooling_until)
    return Standing(Availability.READY)


def limit_in_force(state: AccountState, now: float) -> tuple[str | None, float] | None:
    """Return why and until when an account is limited: by an error, or by what its limits say."""
    found: list[tuple[str | None, float]] = []
    if state.limited_until is not None and state.limited_until > now:
        found.append((state.limited_reason, state.limited_until))
    if (used_up := state.limits.used_up(now)) is not None:
        found.append(used_up)
    return max(found, key=lambda limit: limit[1], default=None)


def transport_in_force(account: Account, state: AccountState, now: float) -> Transport:
    """Say how `account` is spoken to at `now`. The only owner of that answer."""
    if account.transport != "auto":
        return account.transport
    return "http" if state.http_until is not None and state.http_until > now else "websocket"


class Effect(StrEnum):
    """What a close or an error does to an account."""

    NEUTRAL = "neutral"
    COUNTED = "counted"
    COOLED = "cooled"
    LIMITED = "limited"
    LOGIN = "login"
    REFUSED = "refused"
    """A dial refused with 403: cooled for 3 s the first time, 30 s the second, then doubled."""
    NO_WEBSOCKET = "no_websocket"
    """An upgrade refused because there is none: HTTP for 10 minutes. As usable as before."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One fact about an account, learned from a close code or an error.

    Attributes:
        effect: what it does to the account.
        reason: the reason code that `accounts list` shows.
        seconds: the length of a cooldown before doubling; only for `COOLED`.
        until: when a limit ends; only for `LIMITED`.
    """

    effect: Effect
    reason: str
    seconds: float = 0.0
    until: float | None = None


def apply(state: AccountState, evidence: Evidence, now: float) -> AccountState:
    """Return the account's state after `evidence`."""
    match evidence.effect:
        case Effect.NEUTRAL:
            return state
        case Effect.COUNTED:
            return _count(state, evidence.reason, now)
        case Effect.COOLED:
            return _cool(state, evidence.reason, evidence.seconds, now)
        case Effect.REFUSED:
            return _refuse(state, evidence.reason, now)
        case Effect.LIMITED:
            until = min(evidence.until or now, now + LONGEST_LIMIT_SECONDS)
            if state.limited_until is not None and state.limited_until > until:
                return state  # another window is closed for longer
            return replace(state, limited_until=until, limited_reason=evidence.reason)
        case Effect.LOGIN:
            return replace(state, login_reason=evidence.reason)
        case Effect.NO_WEBSOCKET:
            return replace(state, http_until=now + NO_WEBSOCKET_SECONDS)


def completed(state: AccountState) -> AccountState:
    """Return the state after a completed turn: it clears counts and cooldowns, not limits."""
    if not (state.counted or state.cooldowns or state.refusals or state.cooling_until):
        return state
    return replace(
        state, cooling_until=None, cooling_reason=None, cooldowns=0, counted=(), refusals=0
    )


def learned(state: AccountState, limits: Limits, now: float) -> AccountState:
    """Return the state after the upstream told limits of the account.

    A usage limit that an error reported ends where the upstream says now that none is reached.

    Args:
        state: the state.
        limits: what it told.
        now: seconds since the epoch.
    """
    state = replace(state, limits=state.limits.updated(limits))
    lifted = limits.reached is False and state.limits.used_up(now) is None
    if lifted and state.limited_reason == USAGE_LIMIT:
        return replace(state, limited_until=None, limited_reason=None)
    return state


def forgiven(state: AccountState, credential: str | None) -> AccountState:
    """Return the state without the refusal of a credential that is no longer in its place.

    Args:
        state: the account's.
        credential: the fingerprint of the credential that is there now; None if there is none.
    """
    refused = state.refused_credential
    if state.login_reason is None or None in (refused, credential) or credential == refused:
        return state
    return replace(state, login_reason=None, refused_credential=None)


def _count(state: AccountState, reason: str, now: float) -> AccountState:
    recent = (*(t for t in state.counted if now - t < COUNTED_WINDOW_SECONDS), now)
    if len(recent) < COUNTED_CLOSES:
        return replace(state, counted=recent)
    return _cool(replace(state, counted=()), reason, COUNTED_COOLDOWN_SECONDS, now)


def _refuse(state: AccountState, reason: str, now: float) -> AccountState:
    repetitions = max(state.refusals - 1, 0) if _cooling(state, now) else state.refusals
    length = FIRST_REFUSAL_SECONDS
    if repetitions > 0:
        length = doubled(REFUSAL_SECONDS, repetitions - 1, LONGEST_COOLDOWN_SECONDS)
    return replace(_cool_until(state, reason, now + length), refusals=repetitions + 1)


def _cooling(state: AccountState, now: float) -> bool:
    # Parallel turns that fail together are one failure: only a cooldown that follows an ended
    # one is a repetition.
    return state.cooling_until is not None and state.cooling_until > now


def _cool(state: AccountState, reason: str, seconds: float, now: float) -> AccountState:
    repetitions = max(state.cooldowns - 1, 0) if _cooling(state, now) else state.cooldowns
    length = doubled(seconds, repetitions, LONGEST_COOLDOWN_SECONDS)
    cooled = _cool_until(state, reason, now + length)
    return replace(cooled, cooldowns=repetitions + 1)


def _cool_until(state: AccountState, reason: str, until: float) -> AccountState:
    if state.cooling_until is not None and state.cooling_until > until:
        return state
    return replace(state, cooling_until=until, cooling_reason=reason)
