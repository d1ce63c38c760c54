"""What config.toml may say: one model per table, with its defaults and ranges.

`load` reads the file into these; nothing here reads files or the environment. Each key carries,
as `Must`, the words with which an error describes the values it takes.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict

from codexlb_cli.core.accounts import AccountKind, TransportChoice
from codexlb_cli.core.policies import DEFAULT_POLICY, POLICIES, PolicyName
from codexlb_cli.core.signin import CALLBACK_PORT, CLIENT_ID, ISSUER, ISSUER_MUST_BE, is_issuer

ACCOUNT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_BETA = re.compile(r"responses_websockets=[!-+\--~]+")
_HEADER_WORD = re.compile(r"[!-~]{1,256}")
_PRINTABLE = re.compile(r"[!-\[\]-~]+")
_MODEL = re.compile(r"[!-~]{1,128}")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")
_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Must:
    """What a value must be, in the words of an error message: "must be ...".

    Attributes:
        be: the words.
        echo: whether an error may show the value; False where a secret could have been pasted.
        takes: `str`, `list`, `dict`, or `float` for numbers and booleans.
    """

    be: str
    echo: bool = True
    takes: type = str


def _matching(pattern: re.Pattern[str]) -> AfterValidator:
    def check(value: str) -> str:
        if pattern.fullmatch(value) is None:
            raise ValueError("does not match")
        return value

    return AfterValidator(check)


def _loopback(host: str) -> str:
    if host.lower() == "localhost":
        return host
    address = ipaddress.ip_address(host)
    if address.version == 4 and address.is_loopback:
        return host
    if address == ipaddress.IPv6Address("::1"):
        return host
    raise ValueError("not a loopback address")


def _base_url(url: str) -> str:
    if _PRINTABLE.fullmatch(url) is None or any(mark in url for mark in "@?#"):
        raise ValueError("has characters that a base URL cannot have")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https", "ws", "wss"):
        raise ValueError("has another scheme")
    if _HOST.fullmatch(parts.hostname or "") is None or parts.port == 0:
        raise ValueError("has no usable host or port")
    return url


def _issuer(url: str) -> str:
    if not is_issuer(url):
        raise ValueError("tokens must not be sent there")
    return url


def _close_code(key: object) -> object:
    if isinstance(key, str) and re.fullmatch(r"[1-4][0-9]{3}", key):
        return int(key)
    raise ValueError("not a close code")


def _date(text: str) -> str:
    if text:
        if _DATE.fullmatch(text) is None:
            raise ValueError("not written as a date")
        date.fromisoformat(text)
    return text


Port = Annotated[int, Field(ge=1, le=65535), Must("a whole number from 1 to 65535", takes=float)]
Host = Annotated[
    str, AfterValidator(_loopback), Must("a loopback address such as `127.0.0.1` or `::1`")
]
Seconds = Annotated[
    float,
    Field(gt=0, le=_DAY),
    Must("a number of seconds, more than 0 and 86400 at most", takes=float),
]
SecondsOrZero = Annotated[
    float,
    Field(ge=0, le=_DAY),
    Must("a number of seconds, 0 or more and 86400 at most", takes=float),
]
Size = Annotated[
    int, Field(ge=1, le=2**32), Must("a whole number of bytes from 1 to 4294967296", takes=float)
]
Count = Annotated[int, Field(ge=0, le=10_000), Must("a whole number from 0 to 10000", takes=float)]
Days = Annotated[
    int, Field(ge=0, le=3650), Must("a whole number of days from 0 to 3650", takes=float)
]
Turns = Annotated[
    int, Field(ge=1, le=5_000_000), Must("a whole number from 1 to 5000000", takes=float)
]
Price = Annotated[
    float,
    Field(ge=0, le=1_000_000),
    Must("a price in USD per million tokens, 0 or more and 1000000 at most", takes=float),
]
Date = Annotated[str, AfterValidator(_date), Must("a date such as `2026-02-06`, or empty")]
ModelName = Annotated[
    str,
    _matching(_MODEL),
    Must("the name of a model: printable ASCII without spaces, 128 characters at most"),
]
Priority = Annotated[
    int, Field(ge=-1000, le=1000), Must("a whole number from -1000 to 1000", takes=float)
]
Weight = Annotated[float, Field(ge=0, le=1000), Must("a number from 0 to 1000", takes=float)]
Replays = Annotated[int, Field(ge=0, le=1), Must("0 or 1", takes=float)]
Flag = Annotated[bool, Must("true or false", takes=float)]
HeaderName = Annotated[
    str,
    Strict(),
    _matching(_TOKEN),
    AfterValidator(str.lower),
    Must("the name of a header", echo=False),
]
HeaderNames = Annotated[
    tuple[HeaderName, ...],
    Field(strict=False),
    Must("an array of header names", echo=False, takes=list),
]
Beta = Annotated[
    str,
    _matching(_BETA),
    Must("one token such as `responses_websockets=2026-02-06`", echo=False),
]
BaseUrl = Annotated[
    str,
    AfterValidator(_base_url),
    Must(
        "an http, https, ws or wss URL with a host, and without a user, query or fragment",
        echo=False,
    ),
]
HeaderWord = Annotated[
    str, _matching(_HEADER_WORD), Must("printable ASCII without spaces", echo=False)
]
ModelPattern = Annotated[
    str, Strict(), _matching(_MODEL), Must("a model's name, or a pattern such as `gpt-5*`")
]
ModelPatterns = Annotated[
    tuple[ModelPattern, ...],
    Field(strict=False),
    Must("an array of models, or patterns such as `gpt-5*`", takes=list),
]
IssuerUrl = Annotated[str, AfterValidator(_issuer), Must(ISSUER_MUST_BE, echo=False)]
VariableName = Annotated[
    str,
    _matching(VARIABLE_NAME),
    Must("the name of an environment variable, never the key itself", echo=False),
]
AccountName = Annotated[
    str,
    _matching(ACCOUNT_NAME),
    Must("a-z, 0-9, `-` and `_`, a letter or digit first, 32 characters at most"),
]
CloseCode = Annotated[
    int,
    BeforeValidator(_close_code),
    Field(ge=1000, le=4999),
    Must("a close code from 1000 to 4999"),
]


class Table(BaseModel):
    """A table of config.toml: immutable, strict about types, without unknown keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )


class GatewayTable(Table):
    """Where the gateway listens, and how."""

    host: Host = "127.0.0.1"
    port: Port = 2455
    deflate: Flag = False


class TimeoutsTable(Table):
    """How long the gateway waits, in seconds."""

    dial: Seconds = 15.0
    first_event: Seconds = 100.0
    idle: Seconds = 900.0
    before_first_event_total: Seconds = 240.0
    drain: SecondsOrZero = 30.0


class LimitsTable(Table):
    """How much the gateway takes in at once, in bytes, and how often it asks for usage limits."""

    request_bytes: Size = 134_217_728
    frame_bytes: Size = 15_728_640
    usage_poll: SecondsOrZero = 300.0


class LanesTable(Table):
    """How upstream sockets are kept, in seconds, and how many turns run and wait."""

    idle: SecondsOrZero = 300.0
    max_age: Seconds = 3300.0
    max_turns: Count = 256
    queue: Count = 8


class HeadersTable(Table):
    """What goes on the upstream handshake besides the built-in allow-list."""

    allow: HeaderNames = ()
    traceparent: Flag = False
    beta: Beta = "responses_websockets=2026-02-06"


class CloseTable(Table):
    """What differs from the built-in close table for one close code; None: nothing."""

    account: Annotated[
        Literal["neutral", "counted", "cooled"] | None,
        Must("`neutral`, `counted` or `cooled`"),
    ] = None
    soft: Annotated[
        Literal["same_account", "another_account", "give_up"] | None,
        Must("`same_account`, `another_account` or `give_up`"),
    ] = None
    hard: Annotated[Literal["owner", "give_up"] | None, Must("`owner` or `give_up`")] = None


class ReconnectTable(Table):
    """What happens after the upstream closed."""

    replays: Replays = 1
    backoff_base: SecondsOrZero = 0.25
    backoff_max: SecondsOrZero = 5.0
    replay_hosted_tools: Flag = False
    close: Annotated[
        dict[CloseCode, CloseTable],
        Must("tables such as `[reconnect.close.1011]`", echo=False, takes=dict),
    ] = Field(default_factory=dict)


class AffinityTable(Table):
    """What a session does when its account fails, and how long a turn waits for its owner."""

    session_on_account_failure: Annotated[
        Literal["move", "wait", "fail"], Must("`move`, `wait` or `fail`")
    ] = "move"
    wait_up_to: SecondsOrZero = 10.0


class UsageTable(Table):
    """What is recorded of turns, and from when the prices are."""

    keep_days: Days = 90
    keep_turns: Turns = 1_000_000
    prices_as_of: Date = ""


class PriceTable(Table):
    """What one model costs, in USD per million tokens; `cached` of None means as `input`."""

    input: Price
    cached: Price | None = None
    output: Price


class SelectionTable(Table):
    """Which account a turn gets that no account owns yet."""

    policy: Annotated[
        PolicyName,
        Must(f"{', '.join(f'`{name}`' for name in list(POLICIES)[:-1])} or `{list(POLICIES)[-1]}`"),
    ] = DEFAULT_POLICY


class SigninTable(Table):
    """Where `accounts add` and `accounts login` sign people in."""

    issuer: IssuerUrl = ISSUER
    client_id: HeaderWord = CLIENT_ID
    callback_port: Port = CALLBACK_PORT


class CredentialsTable(Table):
    """Where the keys and logins of the accounts are kept."""

    store: Annotated[Literal["file", "keyring"], Must("`file` or `keyring`")] = "file"


class AccountTable(Table):
    """One account; a `base_url` of None means the default of its kind."""

    kind: Annotated[AccountKind, Must("`api_key` or `chatgpt`")] = "api_key"
    base_url: BaseUrl | None = None
    enabled: Flag = True
    organization: HeaderWord | None = None
    project: HeaderWord | None = None
    api_key_env: VariableName | None = None
    transport: Annotated[TransportChoice, Must("`auto`, `websocket` or `http`")] = "auto"
    priority: Priority = 0
    weight: Weight = 1.0
    max_turns: Count | None = None
    models: ModelPatterns = ()
    not_models: ModelPatterns = ()


class Document(Table):
    """The whole of config.toml."""

    gateway: GatewayTable = GatewayTable()
    timeouts: TimeoutsTable = TimeoutsTable()
    limits: LimitsTable = LimitsTable()
    lanes: LanesTable = LanesTable()
    headers: HeadersTable = HeadersTable()
    reconnect: ReconnectTable = ReconnectTable()
    affinity: AffinityTable = AffinityTable()
    usage: UsageTable = UsageTable()
    prices: Annotated[
        dict[ModelName, PriceTable],
        Must('tables such as `[prices."gpt-5.5"]`', echo=False, takes=dict),
    ] = Field(default_factory=dict)
    selection: SelectionTable = SelectionTable()
    signin: SigninTable = SigninTable()
    credentials: CredentialsTable = CredentialsTable()
    accounts: Annotated[
        dict[AccountName, AccountTable],
        Must("tables such as `[accounts.work]`", echo=False, takes=dict),
    ] = Field(default_factory=dict)


@cache
def scalar_keys() -> tuple[tuple[str, str, Any], ...]:
    """Return table, key and default of every key that is no table: what a variable may set."""
    return tuple(
        (table, key, field.default)
        for table, model in _TABLES.items()
        for key, field in model.model_fields.items()
        if field.default_factory is None
    )


def must_at(path: tuple[str, ...]) -> Must:
    """Return what the value at `path` must be; a last part `[key]` asks about the key itself."""
    return _musts().get(_pattern(path), Must("a table", echo=False, takes=dict))


def keys_at(path: tuple[str, ...]) -> tuple[str, ...]:
    """Return the keys that the table at `path` may have; none where the names are free."""
    above = _pattern(path)
    below = (known for known in _musts() if len(known) == len(above) + 1)
    keys = (known[-1] for known in below if known[:-1] == above)
    return tuple(key for key in keys if key not in ("*", "[key]"))


_TABLES: dict[str, type[Table]] = {
    "gateway": GatewayTable,
    "timeouts": TimeoutsTable,
    "limits": LimitsTable,
    "lanes": LanesTable,
    "headers": HeadersTable,
    "reconnect": ReconnectTable,
    "affinity": AffinityTable,
    "usage": UsageTable,
    "selection": SelectionTable,
    "signin": SigninTable,
    "credentials": CredentialsTable,
}


def _pattern(path: tuple[str, ...]) -> tuple[str, ...]:
    """Put `*` where a name is free: the name of an account, a close code, a place in a list."""
    known: tuple[str, ...] = ()
    for part in path:
        known = (*known, part) if (*known, part) in _musts() else (*known, "*")
    return known


@cache
def _musts() -> dict[tuple[str, ...], Must]:
    found: dict[tuple[str, ...], Must] = {}
    _collect(Document, (), found)
    return found


def _collect(annotation: Any, path: tuple[str, ...], found: dict[tuple[str, ...], Must]) -> None:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        for must in inner[1:]:
            if isinstance(must, Must):
                found.setdefault(path, must)
        _collect(inner[0], path, found)
    elif isinstance(annotation, type) and issubclass(annotation, Table):
        found.setdefault(path, Must("a table", echo=False, takes=dict))
        hints = get_type_hints(annotation, include_extras=True)
        for key in annotation.model_fields:
            _collect(hints[key], (*path, key), found)
    elif origin is dict:
        _collect(inner[0], (*path, "*", "[key]"), found)
        _collect(inner[1], (*path, "*"), found)
    elif origin is tuple:
        _collect(inner[0], (*path, "*"), found)
    else:
        for choice in inner if origin is not Literal else ():
            _collect(choice, path, found)
