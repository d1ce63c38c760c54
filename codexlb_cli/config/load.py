"""config.toml, the environment and the command line -> one immutable value.

Precedence: command line, `CODEXLB_<TABLE>_<KEY>` variable, file, default. Loading changes no file.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from codexlb_cli.config import schema
from codexlb_cli.config.faults import (
    DEFAULT,
    KeyPath,
    Origin,
    invalid,
    look_at,
    no_such_account,
    not_toml,
    origin_of,
)
from codexlb_cli.config.scan import Scan, scan
from codexlb_cli.core.accounts import DEFAULT_BASE_URLS, Account, CredentialRef
from codexlb_cli.errors import ConfigError

DEMO_NAMES = ("work", "home", "spare")
DEMO_UPSTREAM_PORT = 2456


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the user configured, with the defaults filled in.

    Attributes:
        accounts: the accounts, in the order of the file.
        config_file: the file that was read, whether or not it exists; None for the demo.
        origins: where each key's value comes from; a key that is missing here has its default.
    """

    gateway: schema.GatewayTable
    timeouts: schema.TimeoutsTable
    limits: schema.LimitsTable
    lanes: schema.LanesTable
    headers: schema.HeadersTable
    reconnect: schema.ReconnectTable
    affinity: schema.AffinityTable
    selection: schema.SelectionTable
    signin: schema.SigninTable
    accounts: tuple[Account, ...]
    usage: schema.UsageTable = field(default_factory=schema.UsageTable)
    prices: Mapping[str, schema.PriceTable] = field(default_factory=dict)
    credentials: schema.CredentialsTable = field(default_factory=schema.CredentialsTable)
    config_file: Path | None = None
    origins: Mapping[KeyPath, Origin] = field(default_factory=dict)

    def origin(self, path: KeyPath) -> Origin:
        """Return where the value of a key comes from."""
        return self.origins.get(path, DEFAULT)

    def account(self, name: str) -> Account:
        """Return the account of that name.

        Raises:
            ConfigError: there is none.
        """
        for account in self.accounts:
            if account.name == name:
                return account
        raise no_such_account(name, [account.name for account in self.accounts], self.config_file)


@dataclass(frozen=True, slots=True)
class Parsed:
    """A config.toml that is valid TOML: what it says, and where."""

    content: dict[str, Any]
    scan: Scan


def load_settings(
    config_file: Path,
    *,
    environ: Mapping[str, str],
    overrides: Mapping[str, object] | None = None,
) -> Settings:
    """Read the configuration; a missing file means the defaults and no accounts.

    Args:
        config_file: the user's config.toml.
        environ: the environment.
        overrides: values of the command line by dotted key, such as `gateway.port`.

    Raises:
        ConfigError: the file or a variable is broken; the message says where and how.
        UsageError: an override is out of range.
    """
    content = read_config(config_file)
    parsed = Parsed({}, Scan("")) if content is None else parse_config(config_file, content)
    return _settings(parsed, config_file, environ, overrides or {})


def demo_settings(
    *,
    environ: Mapping[str, str],
    overrides: Mapping[str, object] | None = None,
) -> Settings:
    """Return the built-in demo configuration: three accounts at a mock upstream on loopback.

    The upstream listens on the port after the gateway's.
    """
    nothing = Parsed({}, Scan(""))
    port = _settings(nothing, None, environ, overrides or {}).gateway.port
    url = f"ws://127.0.0.1:{port + 1}/v1"
    accounts = {name: {"kind": "api_key", "base_url": url} for name in DEMO_NAMES}
    return _settings(Parsed({"accounts": accounts}, Scan("")), None, environ, overrides or {})


def read_config(config_file: Path) -> bytes | None:
    """Return the bytes of the file; None if there is no such file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return config_file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        reason = (exc.strerror or type(exc).__name__).lower()
        raise ConfigError(f"cannot read `{config_file}`: {reason}") from None


def parse_config(config_file: Path, content: bytes) -> Parsed:
    """Read TOML.

    Raises:
        ConfigError: it is not UTF-8 or not TOML.
    """
    name = config_file.name
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise ConfigError(f"`{name}` is not UTF-8", hint=look_at(config_file, line)) from None
    if text.startswith("\ufeff"):
        raise ConfigError(
            f"`{name}` begins with a byte order mark, which TOML does not allow",
            hint=f"save {config_file} as UTF-8 without one",
        )
    try:
        return Parsed(tomllib.loads(text), scan(text))
    except (ValueError, RecursionError) as exc:
        raise not_toml(config_file, text, exc) from None


def check_content(config_file: Path, parsed: Parsed) -> schema.Document:
    """Validate what a file says, by itself.

    Raises:
        ConfigError: a key is unknown or a value is wrong.
    """
    return _validated(parsed.content, config_file, _file_origins(parsed, config_file))


def _settings(
    parsed: Parsed,
    config_file: Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, object],
) -> Settings:
    origins = _file_origins(parsed, config_file)
    content = {key: _copied(value) for key, value in parsed.content.items()}
    for path, value, origin in (*_from_environment(environ), *_from_flags(overrides)):
        table = content.setdefault(path[0], {})
        if isinstance(table, dict):  # else the file is wrong, and validation says so
            table[path[1]] = value
            origins[path] = origin
    document = _validated(content, config_file, origins)
    kept = document.credentials.store
    accounts = tuple(_account(name, table, kept) for name, table in document.accounts.items())
    return Settings(
        gateway=document.gateway,
        timeouts=document.timeouts,
        limits=document.limits,
        lanes=document.lanes,
        headers=document.headers,
        reconnect=document.reconnect,
        affinity=document.affinity,
        selection=document.selection,
        signin=document.signin,
        credentials=document.credentials,
        accounts=accounts,
        usage=document.usage,
        prices=document.prices,
        config_file=config_file,
        origins=origins,
    )


def _copied(value: object) -> object:
    return dict(value) if isinstance(value, dict) else value


def _account(name: str, table: schema.AccountTable, kept: Literal["file", "keyring"]) -> Account:
    if table.api_key_env is not None:
        credential = CredentialRef("env", table.api_key_env)
    else:
        credential = CredentialRef("login" if table.kind == "chatgpt" else kept, name)
    return Account(
        name=name,
        kind=table.kind,
        base_url=table.base_url or DEFAULT_BASE_URLS[table.kind],
        enabled=table.enabled,
        organization=table.organization,
        project=table.project,
        transport=table.transport,
        credential=credential,
        priority=table.priority,
        weight=table.weight,
        max_turns=table.max_turns,
        models=table.models,
        not_models=table.not_models,
    )


def _file_origins(parsed: Parsed, config_file: Path | None) -> dict[KeyPath, Origin]:
    if config_file is None:
        leaves = _leaves(parsed.content, ())
        return {path: Origin("demo") for path in leaves}
    lines = parsed.scan.lines()
    return {path: Origin("file", config_file.name, line) for path, line in lines.items()}


def _leaves(value: Mapping[str, Any], above: KeyPath) -> Iterator[KeyPath]:
    for key, below in value.items():
        if isinstance(below, dict):
            yield from _leaves(below, (*above, key))
        else:
            yield (*above, key)


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[KeyPath, object, Origin]]:
    known = {f"CODEXLB_{t}_{k}".upper(): (t, k, default) for t, k, default in schema.scalar_keys()}
    tables = tuple({f"CODEXLB_{t}_".upper() for t, _, _ in schema.scalar_keys()})
    for variable in sorted(name for name in environ if name.startswith(tables)):
        if variable not in known:
            close = difflib.get_close_matches(variable, known, n=1)
            hint = f"did you mean `{close[0]}`?" if close else None
            raise ConfigError(f"the variable `{variable}` names no key", hint=hint)
        table, key, default = known[variable]
        if environ[variable].strip():
            value = _typed(environ[variable].strip(), default)
            yield (table, key), value, Origin("env", variable)


def _typed(text: str, default: object) -> object:
    """Read a variable as the type of the key's default; a text that is not of it stays a text."""
    if isinstance(default, tuple):
        return [item.strip() for item in text.split(",") if item.strip()]
    if isinstance(default, bool):
        return {"true": True, "false": False}.get(text.lower(), text)
    if isinstance(default, int | float):
        try:
            return type(default)(text)
        except ValueError:
            return text
    return text


def _from_flags(overrides: Mapping[str, object]) -> Iterator[tuple[KeyPath, object, Origin]]:
    for dotted, value in overrides.items():
        table, _, key = dotted.partition(".")
        yield (table, key), value, Origin("flag", "--" + key.replace("_", "-"))


def _validated(
    content: Mapping[str, object], config_file: Path | None, origins: Mapping[KeyPath, Origin]
) -> schema.Document:
    try:
        return schema.Document.model_validate(content)
    except ValidationError as exc:
        faults = [
            (tuple(str(part) for part in fault["loc"]), fault["type"], fault["input"])
            for fault in exc.errors(include_url=False, include_context=False)
        ]
    path, kind, value = min(faults, key=lambda fault: origin_of(fault[0], origins).line or 0)
    raise invalid(path, kind, value, config_file, origin_of(path, origins))
