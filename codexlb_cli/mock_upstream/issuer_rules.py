"""What happens to a request to the mock's issuer: one rule per `[[issuer]]` table."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from codexlb_cli.config.schema import ACCOUNT_NAME
from codexlb_cli.mock_upstream.rules import ErrorSpec, RateLimits, Rule, Seconds, check_refusal

IssuerEndpoint = Literal["authorize", "token", "refresh", "usercode", "device", "revoke", "usage"]
TokenName = Literal["id_token", "access_token", "refresh_token", "exp"]

_TIMES = 10.0**9


class IssuerRule(Rule):
    """What happens to a request to the issuer, and whom it signs in.

    `account` is whose tokens are asked with (`token`, `refresh`, `revoke`, `usage`).

    Attributes:
        on: the endpoint; `token` redeems a code, `refresh` a refresh token.
        delay: seconds before the answer.
        acts: whether what was asked is done, before a fault keeps its answer back.
        silence: never answer; the connection stays open.
        cut: end the TCP connection without an answer.
        status: answer with this HTTP status.
        error: the error object of that answer.
        body: the body of that answer, as it is; HTML if it begins with `<`.
        deny: the person says no (`authorize`, `device`).
        person: the account that signs in (`authorize`, `usercode`).
        plan: the plan of that account.
        interval: seconds between two polls, as the device flow says it: a string (`usercode`).
        polls: approve by itself at the poll after so many (`usercode`).
        expires_in: the life of the access token in seconds; negative for one that is over.
        malformed: make an access token that is no JWT (`token`, `refresh`).
        without: what the tokens lack; `exp` is the access token's claim (`token`, `refresh`).
        rate_limits: the windows of the account (`usage`).
    """

    on: IssuerEndpoint
    delay: Seconds = 0.0
    acts: bool = False
    silence: bool = False
    cut: bool = False
    status: Annotated[int, Field(ge=200, le=599)] | None = None
    error: ErrorSpec | None = None
    body: str | None = None
    deny: bool = False
    person: str | None = None
    plan: str | None = None
    interval: str | None = None
    polls: Annotated[int, Field(ge=0)] | None = None
    expires_in: Annotated[float, Field(ge=-_TIMES, le=_TIMES, allow_inf_nan=False)] | None = None
    malformed: bool = False
    without: Annotated[tuple[TokenName, ...], Field(strict=False)] = ()
    rate_limits: RateLimits | None = None

    @field_validator("person")
    @classmethod
    def _a_name(cls, person: str | None) -> str | None:
        if person is not None and not ACCOUNT_NAME.fullmatch(person):
            raise ValueError("must be the name of an account")
        return person

    @model_validator(mode="after")
    def _one_outcome(self) -> Self:
        check_refusal(
            silence=self.silence, cut=self.cut, status=self.status, error=self.error, body=self.body
        )
        if self.acts and not self.faulty:
            raise ValueError("needs `silence`, `cut` or `status` beside `acts`")
        return self

    @property
    def faulty(self) -> bool:
        """Whether the answer is not the issuer's own."""
        return self.silence or self.cut or self.status is not None


NORMAL_ISSUER: dict[str, IssuerRule] = {
    on: IssuerRule(on=on)
    for on in ("authorize", "token", "refresh", "usercode", "device", "revoke", "usage")
}
