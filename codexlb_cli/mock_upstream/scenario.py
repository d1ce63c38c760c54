"""Scenario files: TOML -> a script, or an error that says where and how."""

from __future__ import annotations

import difflib
import tomllib
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from codexlb_cli.errors import ConfigError
from codexlb_cli.mock_upstream.rules import HandshakeRule, TurnRule
from codexlb_cli.mock_upstream.script import Script

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

RESERVED = ("request", "expect")
"""Tables for other readers of the same file; they mean nothing to the mock."""

_KINDS: dict[str, type[HandshakeRule | TurnRule]] = {
    "handshake": HandshakeRule,
    "turn": TurnRule,
    "warmup": TurnRule,
}
_LARGEST_FILE_BYTES = 1024 * 1024
_MUST_BE = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a number",
    "string_type": "a string",
    "bool_type": "true or false",
    "tuple_type": "an array of strings",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}


def load_scenario(file: Path) -> Script:
    """Read a scenario file.

    Raises:
        ConfigError: it cannot be read, is no TOML, or says something that no rule can mean.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(_LARGEST_FILE_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise ConfigError(f"cannot read the scenario `{file}`: {reason}") from None
    if len(content) > _LARGEST_FILE_BYTES:
        raise ConfigError(f"the scenario `{file}` is larger than 1 MiB")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"`{file.name}` is not UTF-8") from None
    return parse_scenario(text, file.name)


def parse_scenario(text: str, name: str) -> Script:
    """Read a scenario; `name` is how errors call it.

    Raises:
        ConfigError: it is no TOML, or says something that no rule can mean.
    """
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        what = str(error) or "it is nested too deeply"
        raise ConfigError(f"`{name}` is not valid TOML: {what[:1].lower()}{what[1:]}") from None
    for key in document:
        if key != "upstream" and key not in RESERVED:
            raise _unknown(key, ("upstream", *RESERVED), f"`{name}`")
    tables = document.get("upstream", [])
    if not isinstance(tables, list):
        hint = "write `[[upstream]]`, with double brackets"
        raise ConfigError(f"`upstream` in `{name}` must be an array of tables", hint=hint)
    return Script(
        tuple(
            _rule(table, f"`[[upstream]]` {number} of `{name}`")
            for number, table in enumerate(tables, 1)
        )
    )


def _rule(table: object, where: str) -> HandshakeRule | TurnRule:
    if not isinstance(table, dict):
        raise ConfigError(f"{where} must be a table")
    on = table.get("on")
    kind = _KINDS.get(on) if isinstance(on, str) else None
    if kind is None:
        choices = "`handshake`, `turn` or `warmup`"
        but = "" if on is None else f", not `{str(on)[:40]}`"
        raise ConfigError(f"`on` in {where} must be {choices}{but}", hint="see docs/scenarios.md")
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        fault: Mapping[str, Any] = error.errors(include_url=False)[0]
    raise _invalid(fault, kind, where)


def _invalid(
    fault: Mapping[str, Any], kind: type[HandshakeRule | TurnRule], where: str
) -> ConfigError:
    key = ".".join(str(part) for part in fault["loc"] if not isinstance(part, int))
    if fault["type"] == "extra_forbidden":
        return _unknown(key, tuple(kind.model_fields), where)
    if fault["type"] == "value_error":
        subject = f"`{key}` in {where}" if key else where
        return ConfigError(f"{subject}: {fault['ctx']['error']}", hint="see docs/scenarios.md")
    limits = fault.get("ctx", {})
    must = _MUST_BE.get(fault["type"])
    if "ge" in limits:
        must = f"{limits['ge']} or more"
    elif "le" in limits:
        must = f"{limits['le']} or less"
    elif "expected" in limits:
        must = str(limits["expected"]).replace("'", "`")
    value = fault["input"]
    shown = str(value).lower() if isinstance(value, bool) else str(value)[:40]
    but = f", not `{shown}`" if isinstance(value, bool | int | float | str) else ""
    message = f"`{key}` in {where} must be {must or 'something else'}{but}"
    return ConfigError(message, hint="see docs/scenarios.md")


def _unknown(key: str, known: tuple[str, ...], where: str) -> ConfigError:
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean `{close[0]}`?" if close else f"the keys are: {', '.join(known)}"
    return ConfigError(f"`{key[:60]}` in {where} is not a known key", hint=hint)
