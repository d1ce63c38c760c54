"""The exceptions that end a command, and the exit code of each.

    CodexlbError                 exit 70, our bug unless a subclass says whose fault it was
    |-- UsageError               exit 2, not parsable, or a value is out of range
    |   `-- InvalidHeader        exit 2; 400 `invalid_header` over HTTP
    |-- ConfigError              exit 3, configuration missing, broken or in the way
    |-- SignInRequired           exit 4, an account must sign in again
    `-- UpstreamError            exit 5, the upstream is unreachable or refuses

`main.main` is the only place that turns them into exit codes. Messages name the file, key and
value in backticks, have no full stop, and never hold a secret.
"""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """The exit codes that scripts may rely on."""

    DONE = 0
    ANSWER_IS_NO = 1
    USAGE = 2
    CONFIG = 3
    SIGN_IN = 4
    UPSTREAM = 5
    INTERNAL = 70
    INTERRUPTED = 130


class CodexlbError(Exception):
    """Something that ends the command with a message and, where there is one, the next command.

    Attributes:
        hint: what to do next, a command where possible; None if there is nothing to do.
        exit_status: the exit code of the process.
    """

    exit_status: ExitStatus = ExitStatus.INTERNAL

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(CodexlbError):
    """The command line cannot be parsed, or a value in it is out of range."""

    exit_status = ExitStatus.USAGE


class InvalidHeader(UsageError):
    """A header that cannot be sent: its name is no token, or its value holds a control character.

    RFC 9110 section 5.5 forbids CR, LF and NUL in field values; we refuse the other control
    characters too, HTAB apart. The value is never part of the message.
    """


class ConfigError(CodexlbError):
    """The configuration is missing, broken or in the way: no such account, port in use."""

    exit_status = ExitStatus.CONFIG


class SignInRequired(CodexlbError):
    """An account must sign in again before it can be used."""

    exit_status = ExitStatus.SIGN_IN


class UpstreamError(CodexlbError):
    """The upstream cannot be reached, or it refuses."""

    exit_status = ExitStatus.UPSTREAM
