"""Drives openai-agents: runs over HTTP, and a session over its WebSocket."""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

os.environ["OPENAI_AGENTS_DISABLE_TRACING"] = "1"

from agents import (
    Agent,
    ModelSettings,
    OpenAIProvider,
    RunConfig,
    Runner,
    function_tool,
    responses_websocket_session,
)
from openai import AsyncOpenAI
from reporting import Seen, Task, described, run


@function_tool
def weather(city: str) -> str:
    """Tell the weather."""
    return f"4 degrees in {city}"


class _Http:
    """Runs with a provider of one client, like a session over a WebSocket."""

    def __init__(self, task: Task) -> None:
        client = AsyncOpenAI(base_url=task.base_url, api_key=task.key, max_retries=0)
        self._config = RunConfig(model_provider=OpenAIProvider(openai_client=client))

    async def run(self, agent: Agent[Any], asked: Any, **more: Any) -> Any:
        return await Runner.run(agent, asked, run_config=self._config, **more)

    def run_streamed(self, agent: Agent[Any], asked: Any, **more: Any) -> Any:
        return Runner.run_streamed(agent, asked, run_config=self._config, **more)


def _session(task: Task) -> AbstractAsyncContextManager[Any]:
    if task.transport == "WebSocket":
        return responses_websocket_session(api_key=task.key, base_url=task.base_url)

    @asynccontextmanager
    async def http() -> Any:
        yield _Http(task)

    return http()


def _agent(task: Task) -> Agent[Any]:
    settings = ModelSettings(store=task.options.get("store"))
    tools: list[Any] = [weather] if task.options.get("tool") else []
    model = "mock-tool" if tools else "mock"
    return Agent("tester", model=model, tools=tools, model_settings=settings)


async def turns(task: Task, seen: Seen) -> None:
    """Run an agent several times, each run with the items of those before."""
    seen["runs"] = []
    async with _session(task) as session:
        history: list[Any] = []
        for prompt in task.options["prompts"]:
            said: Seen = {}
            seen["runs"].append(said)
            try:
                asked = [*history, {"role": "user", "content": prompt}]
                result = await session.run(_agent(task), asked)
                history = result.to_input_list()
                said["text"] = result.final_output
                said["items"] = [type(item).__name__ for item in result.new_items]
            except Exception as error:  # noqa: BLE001 - what this run ended with
                said["error"] = described(error)


async def chained(task: Task, seen: Seen) -> None:
    """Run an agent several times, each run with the id of the response before."""
    seen["texts"] = []
    async with _session(task) as session:
        last = None
        for prompt in task.options["prompts"]:
            result = await session.run(_agent(task), prompt, previous_response_id=last)
            last = result.last_response_id
            seen["texts"].append(result.final_output)


async def streamed(task: Task, seen: Seen) -> None:
    """Run an agent and take its events."""
    seen["events"] = []
    async with _session(task) as session:
        result = session.run_streamed(_agent(task), "hello you")
        async for event in result.stream_events():
            data = getattr(event, "data", None)
            seen["events"].append(data.to_dict() if data is not None else event.type)
        seen["text"] = result.final_output


if __name__ == "__main__":
    run("openai-agents", turns, chained, streamed)
