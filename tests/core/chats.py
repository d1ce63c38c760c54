"""Chat bodies and responses, for the tests of the translation between them."""

from __future__ import annotations

import json
from typing import Any

from codexlb_cli.core.chat_request import Translated, responses_body
from codexlb_cli.core.frames import create_frame, parse_body

USER = {"role": "user", "content": "hello"}
ASKED: dict[str, Any] = {"type": "message", "role": "user", "content": "hello"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}


def translated(chat: dict[str, Any]) -> Translated:
    return responses_body(parse_body(json.dumps(chat).encode()))


def responses(**chat: object) -> dict[str, Any]:
    """The members of the Responses body for a chat body, `model` and `store: false` apart."""
    body = translated({"model": "m", "messages": [USER], **chat}).body
    frame: dict[str, Any] = json.loads(create_frame(body, {}))
    assert frame.pop("type") == "response.create"
    assert frame.pop("model") == "m"
    if frame["store"] is False:
        del frame["store"]
    if frame["input"] == [ASKED]:
        del frame["input"]
    return frame


def items(*messages: object) -> Any:
    """The input items of some messages."""
    return responses(messages=list(messages))["input"]
