"""Where a value of the configuration comes from, and the errors that say what is wrong with it.

Values are shown only where nobody could have pasted a secret.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from codexlb_cli.config import schema
from codexlb_cli.errors import CodexlbError, ConfigError, UsageError

KeyPath = tuple[str, ...]
CHECK = "codexlb config check"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from.

    Attributes:
        source: `default`, `file`, `env`, `flag`, or `demo` for the built-in demo configuration.
        name: the variable, the option or the name of the file; None where there is none.
        line: the line of the file, from 1.
    """

    source: Literal["default", "file", "env", "flag", "demo"]
    name: str | None = None
    line: int | None = None


DEFAULT = Origin("default")


def origin_of(path: KeyPath, origins: Mapping[KeyPath, Origin]) -> Origin:
    """Return the origin of `path`, or of the nearest table above it that has one."""
    for length in range(len(path), 0, -1):
        if path[:length] in origins:
            return origins[path[:length]]
    return DEFAULT


def invalid(
    path: KeyPath, kind: str, value: object, config_file: Path | None, origin: Origin
) -> CodexlbError:
    """Return the error for a key that the schema refused.

    Args:
        path: the key; `[key]` at its end says that the name before it is at fault.
        kind: pydantic's name of the fault.
        value: the value at fault.
        config_file: the file that was read; None for the demo configuration.
        origin: where the value comes from.
    """
    must = schema.must_at(path)
    if origin.source in ("env", "flag"):
        text = replace(must, takes=str)  # a variable is a string, whatever it stands for
        message = f"`{origin.name}` must be {must.be}{_but(value, text)}"
        return UsageError(message) if origin.source == "flag" else ConfigError(message)
    where = f"`{config_file.name}`" if config_file else "the demo configuration"
    look = look_at(config_file, origin.line) if config_file else ""
    if kind == "extra_forbidden":
        hint = "; ".join(part for part in (_did_you_mean(path), look) if part)
        return ConfigError(f"`{dotted(path)}` in {where} is not a known key", hint=hint)
    if path[-1] == "[key]":
        what = f"the name in `{dotted(path[:-1])}` in {where}"
        return ConfigError(f"{what} must be {must.be}", hint=look)
    if must.takes is dict and isinstance(value, list):
        look = f"write `[{dotted(path)}]`, with single brackets; {look}"
    subject = path[:2] if path[0] == "headers" else path  # without the place in the list
    message = f"`{dotted(subject)}` in {where} must be {must.be}{_but(value, must)}"
    return ConfigError(message, hint=look)


_TUPLE = re.compile(r"\('[^()]*\)")
_QUOTED = re.compile(r"'([^']*)'")


def not_toml(config_file: Path, text: str, exc: Exception) -> ConfigError:
    """Return the error for a file that tomllib refused with `exc`."""
    what, place, line = str(exc), "", None
    if isinstance(exc, RecursionError):
        what = "it is nested too deeply"
    elif found := _TOML_PLACE.fullmatch(what):
        what = found[1]
        line = int(found[2]) if found[2] else text.count("\n") + 1
        place = f" (line {line}, column {found[3]})" if found[2] else f" (line {line}, its end)"
    # tomllib names tables as Python tuples.
    what = _TUPLE.sub(lambda path: f"`{'.'.join(_QUOTED.findall(path[0]))}`", what)
    message = f"`{config_file.name}` is not valid TOML: {what[:1].lower()}{what[1:]}{place}"
    return ConfigError(message, hint=look_at(config_file, line))


def no_such_account(name: str, names: Sequence[str], config_file: Path | None) -> ConfigError:
    """Return the error for a name that none of the accounts has."""
    where = f"in `{config_file.name}`" if config_file else "in the demo configuration"
    shown = json.dumps(name)[1:-1]
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        hint = f"did you mean `{close[0]}`?"
    elif names:
        hint = f"the accounts are: {', '.join(names)}"
    elif schema.ACCOUNT_NAME.fullmatch(name):
        hint = f"codexlb accounts add {name} --api-key-env OPENAI_API_KEY"
    else:
        hint = "codexlb accounts add work --api-key-env OPENAI_API_KEY"
    return ConfigError(f"no account named `{shown}` {where}", hint=hint)


def look_at(config_file: Path, line: int | None) -> str:
    """Return the hint for a fault in the file: where to look, and what to run then."""
    where = f"line {line} of {config_file}" if line else str(config_file)
    return f"see {where}, then: {CHECK}"


def dotted(path: KeyPath) -> str:
    """Write a path as TOML does: `accounts.work.kind`, with quotes where a key needs them."""
    return ".".join(
        part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else json.dumps(part) for part in path
    )


_TOML_PLACE = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)
_KINDS: tuple[tuple[type, str], ...] = (
    (str, "a string"),
    (list, "an array"),
    (dict, "a table"),
)


def _but(value: object, must: schema.Must) -> str:
    """Say what the value is instead; the value itself only where it cannot be a secret."""
    if isinstance(value, bool):
        return f", not {str(value).lower()}"
    if isinstance(value, int | float):
        return f", not {value}"
    if isinstance(value, str) and must.echo:
        text = json.dumps(value[:40])
        return f", not `{text[1:-1] if must.takes is str else text}`"
    for kind, words in _KINDS:
        if isinstance(value, kind) and must.takes is not kind:
            return f", not {words}"
    return ""


def _did_you_mean(path: KeyPath) -> str | None:
    *above, key = path
    if above and above[0] == "accounts" and re.search("key|token|secret|password", key):
        return "name a variable with `api_key_env`; keys do not belong in this file"
    close = difflib.get_close_matches(key, schema.keys_at(tuple(above)), n=1)
    if close:
        return f"did you mean `{dotted((*above, close[0]))}`?"
    elsewhere = [f"{t}.{k}" for t, k, _ in schema.scalar_keys() if k == key]
    return f"did you mean `{elsewhere[0]}`?" if elsewhere else None
