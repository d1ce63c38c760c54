"""Drives openai-python: both clients, over HTTP and over its WebSocket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
from pydantic import BaseModel
from reporting import Seen, Task, described, run

TERMINAL = {"response.completed", "response.failed", "response.incomplete", "error"}
TOOL = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


class Weather(BaseModel):
    city: str
    degrees: int


def _options(task: Task) -> dict[str, Any]:
    options = {"base_url": task.base_url, "api_key": task.key}
    return options | task.options.get("client", {})


def _sync(task: Task, seen: Seen) -> openai.OpenAI:
    seen["requests"] = 0

    def count(request: object) -> None:
        seen["requests"] += 1

    http = openai.DefaultHttpxClient(event_hooks={"request": [count]})
    return openai.OpenAI(http_client=http, **_options(task))


def _async(task: Task, seen: Seen) -> openai.AsyncOpenAI:
    seen["requests"] = 0

    async def count(request: object) -> None:
        seen["requests"] += 1

    http = openai.DefaultAsyncHttpxClient(event_hooks={"request": [count]})
    return openai.AsyncOpenAI(http_client=http, **_options(task))


def _asked(task: Task, **more: Any) -> dict[str, Any]:
    return {"model": "mock", "input": "hello you"} | task.options.get("create", {}) | more


# HTTP, one after the other


def create(task: Task, seen: Seen) -> None:
    raw = _sync(task, seen).responses.with_raw_response.create(**_asked(task))
    seen["content_type"] = raw.headers["content-type"]
    answer: Any = raw.parse()
    seen.update(response=answer.to_dict(), text=answer.output_text)


def stream(task: Task, seen: Seen) -> None:
    seen["events"] = []
    for event in _sync(task, seen).responses.create(**_asked(task, stream=True)):
        seen["events"].append(event.to_dict())


def stream_helper(task: Task, seen: Seen) -> None:
    seen["events"] = []
    with _sync(task, seen).responses.stream(**_asked(task)) as events:
        for event in events:
            seen["events"].append(event.type)
        seen["text"] = events.get_final_response().output_text


def parse(task: Task, seen: Seen) -> None:
    answer = _sync(task, seen).responses.parse(**_asked(task), text_format=Weather)
    seen["parsed"] = answer.output_parsed.model_dump() if answer.output_parsed else None


def leave(task: Task, seen: Seen) -> None:
    responses = _sync(task, seen).responses
    with responses.create(**_asked(task, stream=True)) as events:
        seen["first"] = next(iter(events)).type
    seen["text"] = responses.create(**_asked(task, input="again")).output_text


def tool(task: Task, seen: Seen) -> None:
    client = _sync(task, seen)
    question: list[Any] = [{"role": "user", "content": "Weather in Oslo?"}]
    first = client.responses.create(model="mock-tool", input=question, tools=[TOOL])
    seen["calls"] = [item.to_dict() for item in first.output]
    (call,) = [item for item in first.output if item.type == "function_call"]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "4 degrees"}
    if task.options.get("chained"):
        asked: dict[str, Any] = {"input": [result], "previous_response_id": first.id}
    else:
        asked = {"input": [*question, *seen["calls"], result]}
    second = client.responses.create(model="mock-tool", tools=[TOOL], **asked)
    seen["text"] = second.output_text


# HTTP, asynchronous


async def async_create(task: Task, seen: Seen) -> None:
    raw = await _async(task, seen).responses.with_raw_response.create(**_asked(task))
    seen["content_type"] = raw.headers["content-type"]
    answer: Any = raw.parse()
    seen.update(response=answer.to_dict(), text=answer.output_text)


async def async_stream(task: Task, seen: Seen) -> None:
    seen["events"] = []
    async for event in await _async(task, seen).responses.create(**_asked(task, stream=True)):
        seen["events"].append(event.to_dict())


async def async_stream_helper(task: Task, seen: Seen) -> None:
    seen["events"] = []
    async with _async(task, seen).responses.stream(**_asked(task)) as events:
        async for event in events:
            seen["events"].append(event.type)
        seen["text"] = (await events.get_final_response()).output_text


async def async_parse(task: Task, seen: Seen) -> None:
    answer = await _async(task, seen).responses.parse(**_asked(task), text_format=Weather)
    seen["parsed"] = answer.output_parsed.model_dump() if answer.output_parsed else None


# WebSocket: several turns on one connection


def websocket(task: Task, seen: Seen) -> None:
    seen["turns"] = []
    with _sync(task, seen).responses.connect(**_reconnecting(task, seen)) as connection:
        for number, asked in enumerate(task.options["turns"]):
            _chain(asked, seen)
            turn: Seen = {"events": []}
            seen["turns"].append(turn)
            try:
                connection.response.create(**asked["create"])
                for event in connection:
                    turn["events"].append(event.to_dict())
                    if event.type in TERMINAL:
                        break
                    if event.type == asked.get("interrupt_at") and "interrupted" not in turn:
                        turn["interrupted"] = True
                        connection.send(_interrupt(turn))
            except Exception as error:  # noqa: BLE001 - what the turn ended with
                turn["error"] = _closed(error)
            _summed_up(turn, number)


async def async_websocket(task: Task, seen: Seen) -> None:
    seen["turns"] = []
    async with _async(task, seen).responses.connect(**_reconnecting(task, seen)) as connection:
        for number, asked in enumerate(task.options["turns"]):
            _chain(asked, seen)
            turn: Seen = {"events": []}
            seen["turns"].append(turn)
            try:
                await connection.response.create(**asked["create"])
                async for event in connection:
                    turn["events"].append(event.to_dict())
                    if event.type in TERMINAL:
                        break
            except Exception as error:  # noqa: BLE001 - what the turn ended with
                turn["error"] = _closed(error)
            _summed_up(turn, number)


def _reconnecting(task: Task, seen: Seen) -> dict[str, Any]:
    if not task.options.get("reconnects"):
        return {}
    seen["reconnects"] = []

    def note(event: Any) -> None:
        seen["reconnects"].append({"attempt": event.attempt, "code": event.close_code})

    return {"on_reconnecting": note, "initial_delay": 0.05}


def _chain(asked: Seen, seen: Seen) -> None:
    if asked.get("chained"):
        last = seen["turns"][-1]["events"][-1]["response"]["id"]
        asked["create"]["previous_response_id"] = last


def _interrupt(turn: Seen) -> Any:
    response_id = turn["events"][0]["response"]["id"]
    return {
        "type": "response.interrupt",
        "response_id": response_id,
        "mode": "discard_partial_items",
    }


def _closed(error: Exception) -> Seen:
    received = getattr(error, "rcvd", None)
    return described(error) | {"close_code": received and received.code}


def _summed_up(turn: Seen, number: int) -> None:
    deltas = [e["delta"] for e in turn["events"] if e["type"] == "response.output_text.delta"]
    turn["text"] = "".join(deltas)
    if turn.get("interrupted"):
        # How many deltas there were before the interrupt is a matter of chance.
        turn["text"] = ""
        kinds = [event["type"] for event in turn["events"]]
        last = turn["events"][-1].get("response", {})
        turn["events"] = [*kinds[:2], kinds[-1], last.get("incomplete_details")]


ACTIONS: tuple[Callable[[Task, Seen], Any], ...] = (
    *(create, stream, stream_helper, parse, leave, tool, websocket),
    *(async_create, async_stream, async_stream_helper, async_parse, async_websocket),
)

if __name__ == "__main__":
    run("openai", *ACTIONS)
