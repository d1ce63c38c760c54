"""The values of the fault language: one rule per `[[upstream]]` table, checked when constructed.

`docs/scenarios.md` describes every key. Nothing here acts; `script` decides which rule fires and
`turns` and `server` carry it out.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Point = Literal["before_created", "created", "streaming", "idle"]

Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
CloseCode = Annotated[int, Field(ge=1000, le=4999)]
ErrorStatus = Annotated[int, Field(ge=300, le=599)]
HeaderValue = str | bool | int | float

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FORBIDDEN_IN_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def _check_headers(headers: dict[str, HeaderValue]) -> dict[str, HeaderValue]:
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"`{name}` is no header name")
        text = str(value)
        if _FORBIDDEN_IN_VALUE.search(text):
            raise ValueError(f"the value of `{name}` holds a control character")
        if not text.isascii():
            raise ValueError(f"the value of `{name}` must be ASCII")
    return headers


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ErrorSpec(_Value):
    """An error, as an error frame, an HTTP answer or the body of a refused handshake.

    Keys that are not named here (`plan_type`, `resets_at`) become fields of the error object.

    Attributes:
        status: the HTTP status; None sends a frame without one (500 over HTTP).
        headers: the frame's `headers`, or the HTTP answer's.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    status: ErrorStatus | None = None
    code: str | None = None
    type: str | None = None
    message: str = "Scripted error."
    param: str | None = None
    headers: dict[str, HeaderValue] = Field(default_factory=dict)

    _headers = field_validator("headers")(_check_headers)

    @property
    def body(self) -> dict[str, object]:
        """The error object, as both the envelope and the frame carry it."""
        kind = self.type
        if kind is None:
            kind = {429: "rate_limit_error", 403: "permission_error"}.get(self.status or 500)
        if kind is None:
            kind = "server_error" if (self.status or 500) >= 500 else "invalid_request_error"
        error: dict[str, object] = {
            "type": kind,
            "code": self.code,
            "message": self.message,
            "param": self.param,
        }
        return error | (self.model_extra or {})

    @property
    def label(self) -> str:
        """How the recording names it: `error 429 rate_limit_exceeded`."""
        words = ("error", self.status, self.code or self.body["type"])
        return " ".join(str(word) for word in words if word is not None)


class FailedSpec(_Value):
    """The `error` of a `response.failed`."""

    code: str = "server_error"
    message: str = "Scripted failure."


class RateWindow(_Value):
    """One window of `codex.rate_limits`."""

    used_percent: float
    window_minutes: int | None = None
    reset_at: int | None = None


class RateLimits(_Value):
    """The values of a `codex.rate_limits` event; `x-codex-*` headers over HTTP."""

    plan_type: str = "plus"
    allowed: bool = True
    limit_reached: bool = False
    primary: RateWindow | None = None
    secondary: RateWindow | None = None


class Rule(_Value):
    """What every rule has: whom it is for, and how often it acts.

    Attributes:
        account: only for this account; None for all.
        skip: how many matching occasions pass first.
        every: acts on the first of every so many occasions after that.
        times: acts so often at most; 0 for no limit.
    """

    account: str | None = None
    skip: Annotated[int, Field(ge=0)] = 0
    every: Annotated[int, Field(ge=1)] = 1
    times: Annotated[int, Field(ge=0)] = 0

    def due(self, occasion: int) -> bool:
        """Return whether the rule acts on its matching occasion number `occasion`, from 1."""
        past = occasion - self.skip - 1
        if past < 0 or past % self.every:
            return False
        return not self.times or past // self.every < self.times


def check_refusal(
    *, silence: bool, cut: bool, status: int | None, error: ErrorSpec | None, body: str | None
) -> None:
    """Check that a rule has one outcome, and that what it refuses with fits together.

    Raises:
        ValueError: it does not.
    """
    if sum((silence, cut, status is not None)) > 1:
        raise ValueError("takes one of `silence`, `cut` and `status`")
    if status is None and (error is not None or body is not None):
        raise ValueError("needs a `status` beside `error` or `body`")
    if error is not None and body is not None:
        raise ValueError("takes one of `error` and `body`")
    if error is not None and error.status is not None:
        raise ValueError("gives the status as `status`, not within `error`")


class HandshakeRule(Rule):
    """What happens to a WebSocket upgrade.

    Attributes:
        delay: seconds before the answer.
        silence: never answer; the connection stays open.
        cut: end the TCP connection without an answer.
        status: refuse with this HTTP status; None accepts.
        headers: headers of the answer, of a refusal or of the 101.
        error: the error envelope of a refusal.
        body: the body of a refusal, as it is, instead of an envelope.
    """

    on: Literal["handshake"] = "handshake"
    delay: Seconds = 0.0
    silence: bool = False
    cut: bool = False
    status: ErrorStatus | None = None
    headers: dict[str, HeaderValue] = Field(default_factory=dict)
    error: ErrorSpec | None = None
    body: str | None = None

    _headers = field_validator("headers")(_check_headers)

    @model_validator(mode="after")
    def _one_outcome(self) -> Self:
        check_refusal(
            silence=self.silence, cut=self.cut, status=self.status, error=self.error, body=self.body
        )
        return self


class TurnRule(Rule):
    """What happens to a turn: its pace and shape, and at most one fault.

    Attributes:
        on: `turn`, or `warmup` for a `response.create` with `generate: false`.
        model: only for this model; None for all.
        when: where the fault happens; None for the usual place of its kind.
        after: with `streaming`, after so many deltas.
        delay: seconds before the first event.
        delta_delay: seconds before each delta.
        fault_delay: seconds between that place and the fault.
        close: the close code; 1005 for an empty close frame, 1006 for a cut TCP connection.
        reason: the close reason.
        error: an error frame, or an HTTP error.
        failed: `response.failed` instead of what would have followed.
        incomplete: `response.incomplete` with this reason.
        silence: no further event; the connection stays open.
        pong: whether pings are answered during the silence.
        send: text frames, sent as they are.
        binary: one binary frame.
        text: the answer; None for an echo of the input.
        deltas: the number of deltas.
        delta_bytes: the length of each delta's text.
        completed_bytes: the least size of `response.completed`.
        tool: answer with a call of this tool, or of the first suitable one.
        arguments: the JSON arguments of that call, or a custom tool's input; None makes some up.
        calls: how many such calls, in parallel.
        refusal: the model refuses, in these words.
        reasoning: put a reasoning item with encrypted content first.
        metadata: headers of a `response.metadata` event; HTTP headers over HTTP.
        rate_limits: a `codex.rate_limits` event; HTTP headers over HTTP.
    """

    on: Literal["turn", "warmup"] = "turn"
    model: str | None = None
    when: Point | None = None
    after: Annotated[int, Field(ge=1)] | None = None
    delay: Seconds = 0.0
    delta_delay: Seconds = 0.0
    fault_delay: Seconds = 0.0
    close: CloseCode | None = None
    reason: str = ""
    error: ErrorSpec | None = None
    failed: FailedSpec | None = None
    incomplete: str | None = None
    silence: bool = False
    pong: bool = True
    send: Annotated[tuple[str, ...], Field(strict=False)] = ()
    binary: bool = False
    text: str | None = None
    deltas: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    delta_bytes: Annotated[int, Field(ge=1, le=2**20)] | None = None
    completed_bytes: Annotated[int, Field(ge=0, le=2**26)] = 0
    tool: bool | str = False
    arguments: str | None = None
    calls: Annotated[int, Field(ge=1, le=16)] = 1
    refusal: str | None = None
    reasoning: bool = False
    metadata: dict[str, HeaderValue] = Field(default_factory=dict)
    rate_limits: RateLimits | None = None

    _headers = field_validator("metadata")(_check_headers)

    @field_validator("reason")
    @classmethod
    def _short_reason(cls, reason: str) -> str:
        # RFC 6455 section 5.5: a control frame holds 125 bytes, two of them the code.
        if len(reason.encode()) > 123:
            raise ValueError("must be at most 123 bytes")
        return reason

    @model_validator(mode="after")
    def _one_fault(self) -> Self:
        endings = sum(x is not None for x in (self.error, self.failed, self.incomplete))
        if endings > 1:
            raise ValueError("takes one of `error`, `failed` and `incomplete`")
        if self.silence and (endings or self.close is not None):
            raise ValueError("ends in `silence` or in another fault, not both")
        if self.when is not None and not self.has_fault:
            raise ValueError("has a `when` but no fault")
        if self.after is not None and self.when != "streaming":
            raise ValueError('needs `when = "streaming"` beside `after`')
        if self.when == "idle" and (self.failed is not None or self.incomplete is not None):
            raise ValueError("cannot end a response that is over (`idle`)")
        if self.reason and self.close in {None, 1005, 1006}:
            raise ValueError("has a `reason` but no close frame that could carry it")
        if not self.pong and not self.silence:
            raise ValueError("needs `silence = true` beside `pong`")
        if self.arguments is not None and not self.tool:
            raise ValueError("needs `tool` beside `arguments`")
        if self.calls > 1 and not self.tool:
            raise ValueError("needs `tool` beside `calls`")
        if self.refusal is not None and (self.tool or self.text is not None):
            raise ValueError("answers with a `refusal`, or with `text` or a `tool`")
        return self

    @property
    def has_fault(self) -> bool:
        """Whether anything happens at `point`."""
        return self.ends_turn or bool(self.send) or self.binary

    @property
    def ends_turn(self) -> bool:
        """Whether nothing of the turn follows its fault."""
        endings = (self.error, self.failed, self.incomplete, self.close)
        return self.silence or any(ending is not None for ending in endings)

    @property
    def point(self) -> Point | None:
        """Where the fault happens; None if there is none."""
        if self.when is not None or not self.has_fault:
            return self.when
        return "created" if self.failed or self.incomplete is not None else "before_created"


class ModelsRule(Rule):
    """What an account answers to `GET .../models`.

    Attributes:
        delay: seconds before the answer.
        silence: never answer; the connection stays open.
        cut: end the TCP connection without an answer.
        status: refuse with this HTTP status.
        error: the error envelope of a refusal.
        body: the body of a refusal, as it is, instead of an envelope.
        models: the names of the account's models; None for the mock's usual ones.
        etag: the `ETag` of its lists; None for none.
        catalogue: whether it has the catalogue that Codex asks for, or lists its models as ever.
    """

    on: Literal["models"] = "models"
    delay: Seconds = 0.0
    silence: bool = False
    cut: bool = False
    status: ErrorStatus | None = None
    error: ErrorSpec | None = None
    body: str | None = None
    models: Annotated[tuple[str, ...], Field(strict=False)] | None = None
    etag: str | None = None
    catalogue: bool = True

    @field_validator("etag")
    @classmethod
    def _an_etag(cls, etag: str | None) -> str | None:
        _check_headers({} if etag is None else {"etag": etag})
        return etag

    @model_validator(mode="after")
    def _one_outcome(self) -> Self:
        check_refusal(
            silence=self.silence, cut=self.cut, status=self.status, error=self.error, body=self.body
        )
        return self


NORMAL_TURN = TurnRule()
NORMAL_HANDSHAKE = HandshakeRule()
NORMAL_MODELS = ModelsRule()
