"""What the readers of a scenario file share: the file, its tables, and how errors speak of them.

The mock upstream reads `[[upstream]]` and `[[issuer]]`, the player all else; what a key means is
their business.
"""

from __future__ import annotations

import difflib
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from codexlb_cli.errors import ConfigError

KEYS = ("title", "config", "account", "upstream", "issuer", "request", "restart")
"""What may stand at the top of a scenario file."""

SEE = "see docs/scenarios.md"
_LARGEST_FILE_BYTES = 1024 * 1024
_MUST_BE = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a number",
    "string_type": "a string",
    "string_too_short": "a string that is not empty",
    "bool_type": "true or false",
    "tuple_type": "an array",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}

M = TypeVar("M", bound=BaseModel)


def read_scenario(file: Path) -> tuple[str, str]:
    """Return the text of a scenario file, and how errors call it; `-` is standard input.

    Raises:
        ConfigError: it cannot be read, is larger than 1 MiB, or is no UTF-8.
    """
    try:
        content = _content(file)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise ConfigError(f"cannot read the scenario `{file}`: {reason}") from None
    if len(content) > _LARGEST_FILE_BYTES:
        raise ConfigError(f"the scenario `{file}` is larger than 1 MiB")
    name = "standard input" if str(file) == "-" else file.name
    try:
        return content.decode(), name
    except UnicodeDecodeError:
        raise ConfigError(f"`{name}` is not UTF-8") from None


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """Return the tables of a scenario; `name` is how errors call it.

    Raises:
        ConfigError: it is no TOML, or has a key that means nothing to anyone.
    """
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        what = str(error) or "it is nested too deeply"
        raise ConfigError(f"`{name}` is not valid TOML: {what[:1].lower()}{what[1:]}") from None
    for key in document:
        if key not in KEYS:
            raise unknown_key(key, KEYS, f"`{name}`")
    return document


def numbered(document: Mapping[str, Any], key: str, name: str) -> Iterator[tuple[object, str]]:
    """Yield the tables of `[[key]]`, each with the words that say where it stands.

    Raises:
        ConfigError: it is no array.
    """
    tables = document.get(key, [])
    if not isinstance(tables, list):
        hint = f"write `[[{key}]]`, with double brackets"
        raise ConfigError(f"`{key}` in `{name}` must be an array of tables", hint=hint)
    for number, table in enumerate(tables, 1):
        yield table, f"`[[{key}]]` {number} of `{name}`"


def validated(model: type[M], table: object, where: str) -> M:
    """Return what a table says.

    Raises:
        ConfigError: a key is unknown, or a value is none that it can have.
    """
    if not isinstance(table, dict):
        raise ConfigError(f"{where} must be a table")
    try:
        return model.model_validate(table)
    except ValidationError as error:
        fault: Mapping[str, Any] = error.errors(include_url=False)[0]
    raise _invalid(fault, model, where)


def unknown_key(
    key: str, known: Sequence[str], where: str, *, above: Sequence[str] = ()
) -> ConfigError:
    """Return the error for a key that the table `above` within `where` does not have."""
    close = difflib.get_close_matches(key, known, n=1)
    if close:
        hint = f"did you mean `{'.'.join((*above, close[0]))}`?"
    else:
        hint = f"the keys are: {', '.join(known)}" if known else SEE
    shown = ".".join((*above, key[:60]))
    return ConfigError(f"`{shown}` in {where} is not a known key", hint=hint)


def no_such_name(key: str, name: str, known: Sequence[str], where: str) -> ConfigError:
    """Return the error for the name of an account that the scenario does not have."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean `{close[0]}`?" if close else f"the accounts are: {', '.join(known)}"
    return ConfigError(f"`{key}` in {where} names no account of the scenario: `{name}`", hint=hint)


def but(value: object) -> str:
    """Say what a value is instead, where that can be said in a few characters."""
    if value == "":
        return ""
    shown = str(value).lower() if isinstance(value, bool) else str(value)[:40]
    return f", not `{shown}`" if isinstance(value, bool | int | float | str) else ""


def _content(file: Path) -> bytes:
    if str(file) != "-":
        with file.open("rb") as stream:
            return stream.read(_LARGEST_FILE_BYTES + 1)
    if sys.stdin is None:
        raise ConfigError("cannot read the scenario `-`: standard input is closed")
    return sys.stdin.buffer.read(_LARGEST_FILE_BYTES + 1)


def _invalid(fault: Mapping[str, Any], model: type[BaseModel], where: str) -> ConfigError:
    path = tuple(str(part) for part in fault["loc"] if not isinstance(part, int))
    key = ".".join(path)
    if fault["type"] == "extra_forbidden":
        *above, last = path
        return unknown_key(last, _keys_at(model, above), where, above=above)
    if fault["type"] == "value_error":
        subject = f"`{key}` in {where}" if key else where
        return ConfigError(f"{subject}: {fault['ctx']['error']}", hint=SEE)
    if fault["type"] == "missing":
        return ConfigError(f"{where} needs `{key}`", hint=SEE)
    limits = fault.get("ctx", {})
    must = _MUST_BE.get(fault["type"])
    if "ge" in limits:
        must = f"{limits['ge']:g} or more"
    elif "le" in limits:
        must = f"{limits['le']:g} or less"
    elif "expected" in limits:
        must = str(limits["expected"]).replace("'", "`")
    message = f"`{key}` in {where} must be {must or 'something else'}{but(fault['input'])}"
    return ConfigError(message, hint=SEE)


def _keys_at(model: type[BaseModel], path: Sequence[str]) -> tuple[str, ...]:
    """Return the keys of the table that lies at `path` within a model."""
    for part in path:
        inner = _model_within(model.model_fields[part].annotation)
        if inner is None:
            return ()
        model = inner
    return tuple(model.model_fields)


def _model_within(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_within(part))), None)
