"""Drives langchain-openai: `ChatOpenAI` over the Responses API and over chat completions."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from reporting import Seen, Task, run


class Weather(BaseModel):
    """The weather somewhere."""

    city: str
    degrees: int


@tool
def weather(city: str) -> str:
    """Tell the weather."""
    return f"4 degrees in {city}"


def _model(task: Task, **more: Any) -> ChatOpenAI:
    options = {"model": "mock", "use_responses_api": True, "max_retries": 0} | more
    return ChatOpenAI(base_url=task.base_url, api_key=task.key, **options)


def _shown(message: Any) -> Seen:
    return {
        "content": message.content,
        "calls": message.tool_calls,
        "usage": message.usage_metadata and sorted(message.usage_metadata),
        "status": message.response_metadata.get("status"),
        "id": message.id if str(message.id).startswith("resp_") else None,
    }


def invoke(task: Task, seen: Seen) -> None:
    seen["message"] = _shown(_model(task).invoke("hello you"))


async def ainvoke(task: Task, seen: Seen) -> None:
    seen["message"] = _shown(await _model(task).ainvoke("hello you"))


def stream(task: Task, seen: Seen) -> None:
    seen["chunks"], whole = [], None
    for chunk in _model(task).stream("hello you"):
        seen["chunks"].append(chunk.content)
        whole = chunk if whole is None else whole + chunk
    seen["text"] = whole.text if whole is not None else None


async def astream(task: Task, seen: Seen) -> None:
    seen["chunks"] = []
    async for chunk in _model(task).astream("hello you"):
        seen["chunks"].append(chunk.content)


def structured(task: Task, seen: Seen) -> None:
    answer = _model(task).with_structured_output(Weather).invoke("weather?")
    seen["parsed"] = answer.model_dump() if isinstance(answer, Weather) else answer


def calls(task: Task, seen: Seen) -> None:
    model = _model(task, model="mock-tool").bind_tools([weather])
    history: list[Any] = [HumanMessage("Weather in Oslo?")]
    history.append(model.invoke(history))
    seen["called"] = _shown(history[-1])
    history += [
        ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])
        for call in history[-1].tool_calls
    ]
    seen["answered"] = _shown(model.invoke(history))


def continued(task: Task, seen: Seen) -> None:
    model = _model(task, use_previous_response_id=True)
    history: list[Any] = [HumanMessage("hello you")]
    history.append(model.invoke(history))
    history.append(HumanMessage("again"))
    seen["message"] = _shown(model.invoke(history))


if __name__ == "__main__":
    run("langchain-openai", invoke, ainvoke, stream, astream, structured, calls, continued)
