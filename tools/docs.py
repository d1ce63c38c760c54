# ruff: noqa: INP001 - a script of its own
"""Writes the parts of the documentation that come from the code: tables and command reference.

Usage: python tools/docs.py [--check]

A part stands in its file between `<!-- generated: NAME -->` and `<!-- end: NAME -->`. `--check`
changes nothing; it names the files that differ from the code and exits with 1.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

from codexlb_cli.config.schema import AccountTable, CloseTable, PriceTable, must_at, scalar_keys
from codexlb_cli.core.accounts import DEFAULT_BASE_URLS
from codexlb_cli.core.chat_request import CHAT_MEMBERS
from codexlb_cli.core.client_errors import STATUSES, error_type
from codexlb_cli.core.closes import CLOSES, LIVENESS_TIMEOUT, CloseRow, ReconnectPolicy
from codexlb_cli.core.failures import ERRORS, OUR_FINDINGS, ErrorRow
from codexlb_cli.core.headers import RULES
from codexlb_cli.core.policies import POLICIES
from codexlb_cli.errors import ExitStatus
from codexlb_cli.main import app, codexlb

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"

ERROR_CASES: dict[str, str] = {
    "no_accounts": "no account is configured, enabled or has a usable key",
    "owner_unavailable": "the account that owns the conversation is disabled, gone, or its key is "
    "missing or refused",
    "upstream_unavailable": "no account could be reached, or the one replay failed or was not "
    "allowed; with Retry-After",
    "upstream_closed": "the upstream closed after `response.created`, or after a call over HTTP "
    "that is not to be done twice; with `x-should-retry: false`",
    "upstream_silent": "no event came in time on the socket that holds the previous response",
    "upstream_protocol_error": "the upstream broke its protocol; with Retry-After",
    "rate_limit_exceeded": "every account that may serve is limited for 60 s at most; with "
    "Retry-After",
    "usage_limit_reached": "every account that may serve is limited for longer; with `resets_at`",
    "request_too_large": "the body, or the frame made of it, is over `[limits]`; or the upstream "
    "closed with 1009",
    "previous_response_not_found": "the socket that held the previous response is gone; send the "
    "full input",
    "continuity_owner_conflict": "the previous response, the conversation and the files of one "
    "request lie in different accounts; nothing is sent",
    "model_unavailable": "the configuration keeps the model from every account",
    "invalid_request": "no HTTP, no JSON object, a member of the wrong type, or a chat "
    "completion that asks for what a response cannot give",
    "invalid_header": "a header name or value that cannot be sent on",
    "queue_full": "too many turns wait for an account that takes no more, for the socket that "
    "holds the previous response, or on one WebSocket; with Retry-After 1",
    "forbidden_host": "`Host` is neither a loopback name nor the configured host",
    "forbidden_origin": "`Origin` or `Sec-Fetch-Site` says that a foreign web page asks",
    "not_supported": "an endpoint or a mode that is not bridged; the message says which",
    "not_found": "no such path",
    "method_not_allowed": "the path takes another method",
    "request_timeout": "nothing more of the body came for 30 s",
    "head_too_large": "the headers are larger than 256 KiB",
    "upgrade_required": "a WebSocket upgrade with another version than 13",
    "invalid_stream_id": "over a WebSocket: a `stream_id` that is no name",
    "websocket_stream_limit_reached": "over a WebSocket: its 33rd `stream_id`",
    "response_not_found": "over a WebSocket: an event about a response that does not run there",
    "internal_error": "a bug of the gateway",
}

EXIT_CASES: dict[ExitStatus, str] = {
    ExitStatus.DONE: "done",
    ExitStatus.ANSWER_IS_NO: "ran, and the answer is no: a simulated turn is lost, "
    "a request would be refused, or nobody owns a key",
    ExitStatus.USAGE: "the command line cannot be parsed, or a value in it is out of range",
    ExitStatus.CONFIG: "the configuration is missing, broken or in the way: no such account, "
    "name taken, port in use",
    ExitStatus.SIGN_IN: "an account must sign in again, or has no usable credential",
    ExitStatus.UPSTREAM: "the upstream cannot be reached, or refuses; wins over 4",
    ExitStatus.INTERNAL: "a bug of codexlb, or stdout cannot be written",
    ExitStatus.INTERRUPTED: "Ctrl-C, after running turns have ended",
}

# Keys whose meaning the example file gives in the comment of the whole table.
KEY_MEANINGS = {
    "gateway.host": "the address to listen on",
    "gateway.port": "the port to listen on",
    "accounts.work.kind": "how it signs in: with a key, or with a ChatGPT login",
}
# The example file shows one table of each of these; their names are free.
_FREE_NAMES = {
    "reconnect.close.1011": "reconnect.close.CODE",
    'prices."gpt-5.5"': "prices.MODEL",
    "accounts.work": "accounts.NAME",
}


def header_table() -> str:
    """Return the header policy."""
    return _table(
        ("rule", "action", "names", "why", "source"),
        (
            (
                f"`{rule.rule}`",
                rule.action.value,
                ", ".join(_name(name) for name in rule.names),
                rule.reason,
                (rule.source or "").replace("\N{SECTION SIGN}", "section "),
            )
            for rule in RULES
        ),
    )


def close_table() -> str:
    """Return the close table with the built-in policy."""
    return _table(
        ("codes", "meaning", "account", "soft or none", "hard", "wait", "reason"),
        (_close_cells(row) for row in (*CLOSES, LIVENESS_TIMEOUT)),
    )


def _close_cells(row: CloseRow) -> tuple[str, ...]:
    codes = ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in row.codes)
    cooldown = f" {row.cooldown_seconds:g} s" if row.cooldown_seconds else ""
    wait = ReconnectPolicy().bound(row.wait)
    return (
        codes or "-",
        row.meaning,
        f"{row.account.value}{cooldown}",
        row.soft.value,
        row.hard.value,
        f"up to {wait:g} s" if wait else "none",
        f"`{row.reason}`",
    )


def error_table() -> str:
    """Return the error table."""
    return _table(
        ("codes", "statuses", "account", "what happens", "reason"),
        (_error_cells(row) for row in (*OUR_FINDINGS, *ERRORS)),
    )


def _error_cells(row: ErrorRow) -> tuple[str, ...]:
    every_other = row is ERRORS[-1]
    unnamed = f", {row.unnamed_seconds:g} s if unnamed" if row.unnamed_seconds else ""
    return (
        ", ".join(f"`{code}`" for code in row.codes) or ("every other" if every_other else "-"),
        ", ".join(map(str, row.statuses)) or ("every other" if every_other else "-"),
        f"{row.effect.value}{unnamed}",
        row.action,
        f"`{row.reason}`",
    )


def policy_table() -> str:
    """Return the selection policies, in the words of their functions."""
    return _table(
        ("policy", "what it does"),
        (
            (f"`{name}`", " ".join((inspect.getdoc(policy) or "").split()).rstrip("."))
            for name, policy in POLICIES.items()
        ),
    )


def code_table() -> str:
    """Return our error codes, by status."""
    return _table(
        ("code", "status", "type", "when"),
        (
            (f"`{code}`", str(status), f"`{error_type(code, status)}`", ERROR_CASES[code])
            for code, status in sorted(STATUSES.items(), key=lambda item: (item[1], item[0]))
        ),
    )


def chat_table() -> str:
    """Return what becomes of the members of a chat completion's body."""
    return _table(
        ("member", "fate", "of the Responses request", "more"),
        (
            (
                ", ".join(f"`{name}`" for name in rule.names),
                rule.fate.value,
                rule.becomes if " " in rule.becomes or not rule.becomes else f"`{rule.becomes}`",
                rule.why,
            )
            for rule in CHAT_MEMBERS
        ),
    )


def exit_table() -> str:
    """Return the exit codes."""
    return _table(("code", "meaning"), ((str(s.value), EXIT_CASES[s]) for s in ExitStatus))


def key_tables() -> str:
    """Return every configuration key, table by table, in the words of config.example.toml."""
    intros, meanings = example_words()
    meanings = {**meanings, **KEY_MEANINGS}
    variables = {(table, key) for table, key, _ in scalar_keys()}
    parts = []
    for header, path, keys in _tables():
        rows = [
            (
                f"`{key}`",
                must_at((*path, key)).be,
                default,
                f"`CODEXLB_{header}_{key}`".upper() if (header, key) in variables else "-",
                meanings[f"{header}.{key}"].rstrip("."),
            )
            for key, default in keys
        ]
        lines = [f"### `[{_FREE_NAMES.get(header, header)}]`", intros.get(header, "")]
        lines.append(_table(("key", "value", "default", "variable", "meaning"), rows))
        parts.append("\n\n".join(line for line in lines if line))
    return "\n\n".join(parts)


def _tables() -> Iterator[tuple[str, tuple[str, ...], list[tuple[str, str]]]]:
    """Yield header, path and (key, default) of every table, in the order of the example file."""
    plain: dict[str, list[tuple[str, str]]] = {}
    for table, key, default in scalar_keys():
        plain.setdefault(table, []).append((key, _toml(default)))
    for table, keys in plain.items():
        yield table, (table,), keys
        if table == "reconnect":
            yield "reconnect.close.1011", ("reconnect", "close", "1011"), _optional(CloseTable)
    yield 'prices."gpt-5.5"', ("prices", "gpt-5.5"), _optional(PriceTable)
    yield "accounts.work", ("accounts", "work"), _optional(AccountTable)


def _optional(model: type[CloseTable | PriceTable | AccountTable]) -> list[tuple[str, str]]:
    keys = [
        (key, "-" if field.is_required() else _toml(field.default))
        for key, field in model.model_fields.items()
    ]
    urls = ", ".join(f"`{url}` for {kind}" for kind, url in DEFAULT_BASE_URLS.items())
    return [(key, urls if key == "base_url" else default) for key, default in keys]


def _toml(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return f"`{str(value).lower()}`"
        case int() | float():
            return f"`{value:.12g}`"
        case tuple():
            return "`[]`" if not value else f"`{list(value)}`"
        case _:
            return f'`"{value}"`'


def example_words() -> tuple[dict[str, str], dict[str, str]]:
    """Return what config.example.toml says of each table, and of each key, as `table.key`."""
    intros: dict[str, str] = {}
    meanings: dict[str, str] = {}
    header, names = "", [""]
    for line in (ROOT / "config.example.toml").read_text("utf-8").splitlines():
        if match := re.fullmatch(r'(?:# )?\[([a-z0-9_."-]+)\]', line):
            header, names = match[1], [""]
        elif match := re.fullmatch(r"# ((?:[a-z_]+, )*[a-z_]+): (.+)", line):
            names = match[1].split(", ")
            for name in names:
                meanings[f"{header}.{name}"] = match[2]
        elif re.fullmatch(r"(?:# )?[a-z_]+ = .+", line):
            names = []
        elif header and line.startswith("# "):
            for name in names:
                words, key = (meanings, f"{header}.{name}") if name else (intros, header)
                words[key] = f"{words[key]} {line[2:]}" if key in words else line[2:]
    return intros, meanings


def command_reference() -> str:
    """Return every command with its arguments and options, in the words of `--help`."""
    parts = [_options_table(codexlb)]
    for name, callback in commands():
        parts.append(f"### codexlb {name}")
        parts.append(f"```\ncodexlb {name}{_synopsis(callback)}\n```")
        parts.append(_help(callback))
        if options := _options_table(callback):
            parts.append(options)
    return "\n\n".join(part for part in parts if part)


def commands() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield name and function of every command: first the plain ones, then the groups'."""
    yield from _commands_of(app, "")
    for group in app.registered_groups:
        if group.typer_instance is not None and group.name:
            yield from _commands_of(group.typer_instance, f"{group.name} ")


def _commands_of(group: typer.Typer, prefix: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    for command in group.registered_commands:
        if command.callback is not None and not command.hidden:
            name = command.name or command.callback.__name__.replace("_", "-")
            yield prefix + name, command.callback


def parameters(
    callback: Callable[..., Any],
) -> Iterator[tuple[str, Any, ArgumentInfo | OptionInfo, object]]:
    """Yield name, type, declaration and default of what a command takes."""
    hints = get_type_hints(callback, include_extras=True)
    for name, parameter in inspect.signature(callback).parameters.items():
        for declared in get_args(hints[name])[1:]:
            if isinstance(declared, ArgumentInfo | OptionInfo):
                yield name, get_args(hints[name])[0], declared, parameter.default


def spelled(name: str, declared: OptionInfo) -> tuple[str, ...]:
    """Return the spellings of an option: `-q`, `--quiet`."""
    # In `Annotated`, the first spelling stands where a default would.
    first = (declared.default,) if isinstance(declared.default, str) else ()
    return (*first, *(declared.param_decls or ())) or (f"--{name.replace('_', '-')}",)


def _synopsis(callback: Callable[..., Any]) -> str:
    words = [d.metavar or "" for _, _, d, _ in parameters(callback) if isinstance(d, ArgumentInfo)]
    options = any(isinstance(d, OptionInfo) for _, _, d, _ in parameters(callback))
    return "".join(f" {word}" for word in [*words, *(["[OPTIONS]"] if options else [])])


def _options_table(callback: Callable[..., Any]) -> str:
    rows = []
    for name, kind, declared, default in parameters(callback):
        words = [(declared.help or "").rstrip(".")]
        if isinstance(declared, ArgumentInfo):
            spelling = f"`{declared.metavar}`"
        else:
            value = _value_of(kind, declared)
            spelling = ", ".join(f"`{word}{value}`" for word in spelled(name, declared))
            if default is not None and default is not False:
                words.append(f"default: {default.value if isinstance(default, Enum) else default}")
        rows.append((spelling, "; ".join(words)))
    return _table(("option", "meaning"), rows) if rows else ""


def _value_of(kind: Any, declared: OptionInfo) -> str:
    if declared.metavar:
        return f" {declared.metavar}"
    for choice in (kind, *get_args(kind)):
        if isinstance(choice, type) and issubclass(choice, Enum):
            return f" {'|'.join(member.value for member in choice)}"
    takes_none = kind is bool or get_origin(kind) is bool
    return "" if takes_none else f" {getattr(kind, '__name__', 'VALUE').upper()}"


def _help(callback: Callable[..., Any]) -> str:
    """Return a command's help text; what Typer prints as it stands becomes a code block."""
    paragraphs = inspect.cleandoc(callback.__doc__ or "").split("\n\n")
    return "\n\n".join(
        "```\n" + inspect.cleandoc(text.replace("\b\n", "")) + "\n```"
        if text.startswith("\b")
        else " ".join(text.split())
        for text in paragraphs
    )


def _name(name: str) -> str:
    return name if name.startswith("(") else f"`{name}`"


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [tuple(headers), tuple("---" for _ in headers), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


PARTS: Mapping[str, tuple[Path, Callable[[], str]]] = {
    "headers": (DOCS / "headers.md", header_table),
    "policies": (DOCS / "continuity.md", policy_table),
    "closes": (DOCS / "continuity.md", close_table),
    "errors": (DOCS / "continuity.md", error_table),
    "codes": (DOCS / "http.md", code_table),
    "chat": (DOCS / "chat.md", chat_table),
    "keys": (DOCS / "configuration.md", key_tables),
    "commands": (DOCS / "cli.md", command_reference),
    "exit-codes": (DOCS / "cli.md", exit_table),
}
"""The file and the maker of each generated part."""


def renewed(file: Path) -> str:
    """Return the text of a documentation file with its generated parts as the code has them.

    Raises:
        ValueError: the file lacks the markers of a part.
    """
    text = file.read_text("utf-8")
    for name, (home, make) in PARTS.items():
        if home != file:
            continue
        begin, end = f"<!-- generated: {name} -->\n", f"<!-- end: {name} -->"
        before, found, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not (found and found_end):
            raise ValueError(f"{file.name} lacks the markers of the part `{name}`")
        text = f"{before}{begin}\n{make()}\n\n{end}{after}"
    return text


def stale() -> list[Path]:
    """Return the documentation files that differ from the code."""
    files = sorted({file for file, _ in PARTS.values()})
    return [file for file in files if renewed(file) != file.read_text("utf-8")]


def main(argv: Sequence[str]) -> int:
    """Write the generated parts, or check them."""
    check = list(argv) == ["--check"]
    for file in stale():
        if not check:
            file.write_text(renewed(file), "utf-8")
        sys.stderr.write(f"{file.relative_to(ROOT)} {'differs' if check else 'written'}\n")
    return 1 if check and stale() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
