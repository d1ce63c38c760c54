"""Drives litellm: `responses` and `completion`, bridged to the Responses API by the library."""

from __future__ import annotations

import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from reporting import Seen, Task, run

litellm.suppress_debug_info = True
TOOL = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}


def _asked(task: Task, **more: Any) -> dict[str, Any]:
    asked = {"model": "openai/gpt-4.1", "input": "hello you", "num_retries": 0, "max_retries": 0}
    return asked | {"api_base": task.base_url, "api_key": task.key} | more


def _text(response: Any) -> str:
    parts = [part for item in response.output for part in getattr(item, "content", None) or []]
    return "".join(part.text for part in parts)


def responses(task: Task, seen: Seen) -> None:
    answer = litellm.responses(**_asked(task))
    seen.update(text=_text(answer), status=answer.status, model=answer.model)


async def aresponses(task: Task, seen: Seen) -> None:
    answer = await litellm.aresponses(**_asked(task))
    seen.update(text=_text(answer), status=answer.status)


def stream(task: Task, seen: Seen) -> None:
    seen["events"] = []
    for event in litellm.responses(**_asked(task, stream=True)):
        text = getattr(event, "delta", None) or getattr(event, "message", None)
        seen["events"].append([str(getattr(event.type, "value", event.type)), text])


def calls(task: Task, seen: Seen) -> None:
    question: list[Any] = [{"role": "user", "content": "Weather in Oslo?"}]
    model = {"model": "openai/gpt-4.1-mini", "tools": [TOOL]}
    first = litellm.responses(**_asked(task, input=question, **model))
    (call,) = [item for item in first.output if item.type == "function_call"]
    seen["call"] = {"name": call.name, "arguments": call.arguments, "id": call.call_id}
    called = {
        "type": "function_call",
        "call_id": call.call_id,
        "name": call.name,
        "arguments": call.arguments,
    }
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "4 degrees"}
    second = litellm.responses(**_asked(task, input=[*question, called, result], **model))
    seen["text"] = _text(second)


def bridged(task: Task, seen: Seen) -> None:
    """Chat completions that the library turns into a Responses request."""
    answer = litellm.completion(
        model="openai/responses/gpt-4.1",
        messages=[{"role": "user", "content": "hello you"}],
        api_base=task.base_url,
        api_key=task.key,
        max_retries=0,
        num_retries=0,
    )
    seen["text"] = answer.choices[0].message.content
    seen["finish_reason"] = answer.choices[0].finish_reason


if __name__ == "__main__":
    run("litellm", responses, aresponses, stream, calls, bridged)
