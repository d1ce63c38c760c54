"""How the upstream behaves in scenarios of more than one client."""

from __future__ import annotations

import time
from typing import Any

from codexlb_cli.mock_upstream.rules import ErrorSpec, TurnRule

DONE = "response.completed"
UNAVAILABLE = "upstream_unavailable"

MOMENT = 1  # how long, in seconds, a client may have to wait at most by `retry-after`


def error(status: int, code: str | None, **more: Any) -> TurnRule:
    """Return a rule by which every turn is refused."""
    spec = {"status": status, "code": code, "message": f"Refused with {status}."}
    return TurnRule(error=ErrorSpec.model_validate(spec | more))


USAGE_LIMIT = error(
    429,
    "usage_limit_reached",
    type="usage_limit_reached",
    message="The usage limit has been reached.",
    plan_type="plus",
    resets_at=int(time.time()) + 7200,
)
CUT_BEFORE = TurnRule(close=1011, times=1)
CUT_WITHIN = TurnRule(close=1011, when="streaming", after=1, times=1)
