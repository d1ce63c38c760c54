"""Scenario files, all but their `[[upstream]]` tables: who asks what, and what is expected of it.

The mock upstream reads its own part of the same file; `docs/scenarios.md` describes every key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from codexlb_cli.config import schema
from codexlb_cli.config.load import Settings
from codexlb_cli.config.scenario_toml import (
    SEE,
    but,
    no_such_name,
    numbered,
    parse_toml,
    unknown_key,
    validated,
)
from codexlb_cli.core.accounts import Account, Availability
from codexlb_cli.core.headers import check_header
from codexlb_cli.core.reconnect import Strength
from codexlb_cli.errors import ConfigError, InvalidHeader

STARTS_AT = 1_767_225_600.0
"""The time when the scenario's clock shows 0: 2026-01-01T00:00:00Z, in seconds since the epoch."""

BASE_URL = "wss://upstream.invalid/v1"
"""Where the accounts of a scenario lie: nowhere (RFC 2606 section 2)."""

CONFIG_TABLES = tuple(
    key for key in schema.Document.model_fields if key not in {"accounts", "gateway"}
)


def _reference(value: object) -> object:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    if isinstance(value, str) and value:
        return value
    raise ValueError("must be the number of an earlier request, or the id of a response")


Seconds = Annotated[float, Field(ge=0, le=86_400 * 366, allow_inf_nan=False)]
Number = Annotated[int, Field(ge=1)]
Numbers = Annotated[tuple[Number, ...], Field(strict=False)]
Text = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[str, ...], Field(strict=False)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class AccountExpectation(_Table):
    """How an account stands at the end.

    Attributes:
        reason: None if any will do.
    """

    state: Annotated[Availability, Field(strict=False)]
    reason: str | None = None


class AccountTable(_Table):
    """One `[[account]]`; their order is that of the configuration."""

    name: str
    enabled: bool = True
    transport: Literal["auto", "websocket", "http"] = "auto"
    expect: AccountExpectation | None = None

    @field_validator("name")
    @classmethod
    def _account_name(cls, name: str) -> str:
        if not schema.ACCOUNT_NAME.fullmatch(name):
            raise ValueError(
                "must be a-z, 0-9, `-` and `_`, a letter or digit first, 32 characters at most"
            )
        return name


class RequestExpectation(_Table):
    """What becomes of a request; None is not looked at.

    Attributes:
        status: the HTTP status.
        outcome: the type of the terminal event, the code of the error, or `client left`.
        account: the account that `x-codexlb-account` names.
        attempts: how often it was sent upstream.
        affinity: the turn's affinity.
        dialled: the accounts of the upgrades, in order.
        sent: the accounts that were sent the `response.create` or the POST, in order.
        retry_after: the header of that name, in seconds.
        at_least: the least time from its start to its end, in seconds.
        at_most: the longest time.
    """

    status: Annotated[int, Field(ge=100, le=599)] | None = None
    outcome: Text | None = None
    account: str | None = None
    attempts: Annotated[int, Field(ge=0)] | None = None
    affinity: Annotated[Strength, Field(strict=False)] | None = None
    dialled: Names | None = None
    sent: Names | None = None
    retry_after: Annotated[int, Field(ge=0)] | None = None
    at_least: Seconds | None = None
    at_most: Seconds | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if (self.at_least or 0.0) > (float("inf") if self.at_most is None else self.at_most):
            raise ValueError("has an `at_least` above its `at_most`")
        return self

    def accounts(self) -> Iterator[tuple[str, str]]:
        """Yield every account that is named, after the key that names it."""
        if self.account is not None:
            yield "account", self.account
        for key, names in (("dialled", self.dialled), ("sent", self.sent)):
            yield from ((key, name) for name in names or ())


class RequestTable(_Table):
    """One `[[request]]`: a `POST /v1/responses`.

    Attributes:
        at: when it is sent, on the scenario's clock; None: as soon as the one before has ended.
        session: the header session-id.
        cache_key: `prompt_cache_key`.
        conversation: the body's `conversation`.
        file: the id of an `input_file` in the input.
        continues: the number of an earlier request, whose response it continues, or an id.
        history: earlier requests whose input and output come first in the input.
        store: as in the body; None leaves it out.
        tools: hosted tools, by their type.
        leave: the client leaves after so many seconds; None: it stays.
    """

    at: Seconds | None = None
    session: Text | None = None
    cache_key: Text | None = None
    conversation: Text | None = None
    file: Text | None = None
    continues: Annotated[int | str | None, BeforeValidator(_reference)] = None
    history: Numbers = ()
    store: bool | None = None
    model: Text = "mock"
    input: str = "hello"
    stream: bool = True
    tools: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    headers: dict[str, str] = Field(default_factory=dict)
    leave: Seconds | None = None
    expect: RequestExpectation = RequestExpectation()

    @field_validator("headers")
    @classmethod
    def _headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            try:
                check_header(name, value)
            except InvalidHeader as exc:
                raise ValueError(str(exc)) from None
        return headers

    @field_validator("session")
    @classmethod
    def _session(cls, session: str | None) -> str | None:
        cls._headers({"session-id": session or ""})
        return session

    @property
    def earlier(self) -> dict[str, tuple[int, ...]]:
        """The requests that it refers to, by key; it cannot start before they have ended."""
        continued = (self.continues,) if isinstance(self.continues, int) else ()
        return {"continues": continued, "history": self.history}


class RestartTable(_Table):
    """One `[[restart]]`: the gateway is killed, and started again with what it had stored.

    Attributes:
        at: when, on the scenario's clock.
        after: when that request has ended, before any other is sent.
    """

    at: Seconds | None = None
    after: Number | None = None

    @model_validator(mode="after")
    def _one_time(self) -> Self:
        if (self.at is None) == (self.after is None):
            raise ValueError("takes one of `at` and `after`")
        return self


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a scenario file says, apart from what the upstream does.

    Attributes:
        title: one line.
        config: the tables of config.toml, with the defaults filled in.
        accounts: in configuration order, at least one.
        requests: request N is the element N - 1.
    """

    title: str
    config: schema.Document
    accounts: tuple[AccountTable, ...]
    requests: tuple[RequestTable, ...]
    restarts: tuple[RestartTable, ...]

    def settings(self) -> Settings:
        """Return the configuration that the gateway of this scenario runs with."""
        config = self.config
        return Settings(
            gateway=config.gateway,
            timeouts=config.timeouts,
            limits=config.limits,
            lanes=config.lanes,
            headers=config.headers,
            reconnect=config.reconnect,
            affinity=config.affinity,
            selection=config.selection,
            signin=config.signin,
            accounts=tuple(
                Account(
                    table.name,
                    base_url=BASE_URL,
                    enabled=table.enabled,
                    transport=table.transport,
                )
                for table in self.accounts
            ),
        )


def parse_scenario_file(text: str, name: str) -> Scenario:
    """Read a scenario; `name` is how errors call it, and its title if it has none.

    Raises:
        ConfigError: it is no TOML, or says something that cannot be played.
    """
    document = parse_toml(text, name)
    title = document.get("title", name)
    if not isinstance(title, str):
        raise ConfigError(f"`title` in `{name}` must be a string{but(title)}", hint=SEE)
    accounts = _accounts(document, name)
    return Scenario(
        title=title,
        config=_config(document.get("config", {}), name),
        accounts=accounts,
        requests=tuple(_requests(document, name, [account.name for account in accounts])),
        restarts=tuple(_restarts(document, name)),
    )


def _accounts(document: Mapping[str, Any], name: str) -> tuple[AccountTable, ...]:
    accounts: dict[str, AccountTable] = {}
    for table, where in numbered(document, "account", name):
        account = validated(AccountTable, table, where)
        if account.name in accounts:
            raise ConfigError(f"`name` in {where} is taken: `{account.name}`", hint=SEE)
        accounts[account.name] = account
    if not accounts:
        raise ConfigError(f"`{name}` has no account", hint='add: [[account]] name = "work"')
    return tuple(accounts.values())


def _requests(
    document: Mapping[str, Any], name: str, accounts: Sequence[str]
) -> Iterator[RequestTable]:
    for number, (table, where) in enumerate(numbered(document, "request", name), 1):
        request = validated(RequestTable, table, where)
        for key, numbers in request.earlier.items():
            late = [other for other in numbers if other >= number]
            if late:
                what = f"the number of an earlier request, not `{late[0]}`"
                raise ConfigError(f"`{key}` in {where} must be {what}", hint=SEE)
        for key, account in request.expect.accounts():
            if account not in accounts:
                raise no_such_name(f"expect.{key}", account, accounts, where)
        yield request


def _restarts(document: Mapping[str, Any], name: str) -> Iterator[RestartTable]:
    requests = len(document.get("request", []))
    for table, where in numbered(document, "restart", name):
        restart = validated(RestartTable, table, where)
        if restart.after is not None and restart.after > requests:
            raise ConfigError(
                f"`after` in {where} must be the number of a request, not `{restart.after}`",
                hint=f"the last request is {requests}",
            )
        yield restart


def _config(tables: object, name: str) -> schema.Document:
    where = f"`{name}`"
    if not isinstance(tables, dict):
        hint = "write tables such as `[config.reconnect]`"
        raise ConfigError(f"`config` in {where} must be a table{but(tables)}", hint=hint)
    for key in tables:
        if key not in CONFIG_TABLES:
            raise unknown_key(key, CONFIG_TABLES, where, above=["config"])
    try:
        return schema.Document.model_validate(tables)
    except ValidationError as error:
        fault: Mapping[str, Any] = error.errors(include_url=False)[0]
    path = tuple(str(part) for part in fault["loc"])
    key = ".".join(("config", *(part for part in path if part != "[key]")))
    if fault["type"] == "extra_forbidden":
        *above, last = path
        known = schema.keys_at(tuple(above))
        raise unknown_key(last, known, where, above=["config", *above])
    must = schema.must_at(path)
    shown = but(fault["input"]) if must.echo else ""
    raise ConfigError(f"`{key}` in {where} must be {must.be}{shown}", hint=SEE)
