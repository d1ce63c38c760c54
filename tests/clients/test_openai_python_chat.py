"""openai-python's chat completions through `codexlb serve`, where turns run as responses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from codexlb_cli.mock_upstream.rules import ErrorSpec, FailedSpec, HandshakeRule, TurnRule
from codexlb_cli.mock_upstream.running import RunningMock, running_mock
from codexlb_cli.mock_upstream.script import Script
from tests.clients.running import KEYS, ServingGateway, serving
from tests.clients.upstream import check_upstream, turns

openai = pytest.importorskip("openai", reason="needs openai-python: make test-clients")

pytestmark = [pytest.mark.clients, pytest.mark.timeout(60)]

CLIENT_KEY = "sk-client-LEAK"
USER = {"role": "user", "content": "hello"}
PIXEL = "data:image/png;base64,iVBORw0KGgo="
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "strict": True, "parameters": PARAMETERS},
}


class Report(BaseModel):
    """What a structured answer is parsed into."""

    city: str
    degrees: int


@dataclass
class Setup:
    """A client, the gateway that it talks to, and the upstream behind."""

    gateway: ServingGateway
    mock: RunningMock
    closing: ExitStack

    def client(self, **options: Any) -> Any:
        base_url = self.gateway.base_url
        client = openai.OpenAI(base_url=base_url, api_key=CLIENT_KEY, **options)
        self.closing.callback(client.close)
        return client

    def asynchronous(self) -> Any:
        return openai.AsyncOpenAI(base_url=self.gateway.base_url, api_key=CLIENT_KEY)

    def completions(self, **options: Any) -> Any:
        return self.client(**options).chat.completions

    @property
    def frames(self) -> list[Any]:
        return [frame.json for frame in self.mock.upstream.frames]

    @property
    def turns(self) -> list[tuple[str, str | None]]:
        return turns(self.mock.upstream)


Start = Callable[..., Setup]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return what runs an upstream with these rules and a gateway; all is checked at the end."""

    @contextmanager
    def run(*rules: HandshakeRule | TurnRule, **options: Any) -> Iterator[Setup]:
        script = Script(rules)
        with running_mock(script=script, accounts=KEYS, strict=True) as mock:
            with serving(tmp_path, mock.base_url, **options) as gateway, ExitStack() as closing:
                yield Setup(gateway, mock, closing)
            assert CLIENT_KEY not in gateway.log
            if mock.upstream.frames:
                check_upstream(mock.upstream, secret=CLIENT_KEY)

    with ExitStack() as stack:
        yield lambda *rules, **options: stack.enter_context(run(*rules, **options))


def test_an_answer_in_one_piece(start: Start) -> None:
    setup = start()
    raw = setup.completions().with_raw_response.create(
        model="mock", messages=[USER], reasoning_effort="low", max_completion_tokens=50, seed=1
    )
    assert (raw.headers["x-codexlb-account"], raw.headers["x-codexlb-attempts"]) == ("work", "1")
    answer = raw.parse()
    assert answer.choices[0].message.content == "You said: hello"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model) == ("chat.completion", "mock")
    usage = answer.usage
    assert usage.prompt_tokens + usage.completion_tokens == usage.total_tokens
    assert usage.prompt_tokens_details.cached_tokens == 0
    assert usage.completion_tokens_details.reasoning_tokens == 0
    (frame,) = setup.frames
    assert (frame["reasoning"], frame["max_output_tokens"]) == ({"effort": "low"}, 50)
    assert frame["store"] is False


def test_a_created_stream(start: Start) -> None:
    chunks = list(
        start().completions().create(
            model="mock", messages=[USER], stream=True, stream_options={"include_usage": True}
        )
    )  # fmt: skip
    assert chunks[0].choices[0].delta.role == "assistant"
    texts = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(texts) == "You said: hello"
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 3
    assert chunks[-2].choices[0].finish_reason == "stop"


def test_the_stream_helper(start: Start) -> None:
    completions = start().completions()
    with completions.stream(model="mock", messages=[USER], logprobs=True) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done", "logprobs.content.done"} <= set(kinds)
    assert final.choices[0].message.content == "You said: hello"
    tokens = [entry.token for entry in final.choices[0].logprobs.content]
    assert "".join(tokens) == "You said: hello"


def test_the_asynchronous_client(start: Start) -> None:
    setup = start()

    async def main() -> tuple[str, str, str]:
        async with setup.asynchronous() as client:
            completions, text = client.chat.completions, ""
            async for chunk in await completions.create(model="m", messages=[USER], stream=True):
                text += chunk.choices[0].delta.content or ""
            async with completions.stream(model="m", messages=[USER]) as stream:
                helped = (await stream.get_final_completion()).choices[0].message.content
            whole = await completions.create(model="m", messages=[USER])
        return text, helped, whole.choices[0].message.content

    assert asyncio.run(main()) == ("You said: hello",) * 3


def test_a_parsed_answer(start: Start) -> None:
    setup = start()
    completions = setup.completions()
    answer = completions.parse(model="m", messages=[USER], response_format=Report)
    assert answer.choices[0].message.parsed == Report(city="mock", degrees=1)
    with completions.stream(model="m", messages=[USER], response_format=Report) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == Report(city="mock", degrees=1)
    told = setup.frames[0]["text"]["format"]
    assert (told["type"], told["name"], told["strict"]) == ("json_schema", "Report", True)


def test_a_refusal(start: Start) -> None:
    completions = start(TurnRule(refusal="I will not.")).completions()
    answer = completions.parse(model="m", messages=[USER], response_format=Report)
    message = answer.choices[0].message
    assert (message.parsed, message.refusal) == (None, "I will not.")
    with completions.stream(model="m", messages=[USER]) as stream:
        deltas = [event.delta for event in stream if event.type == "refusal.delta"]
    assert "".join(deltas) == "I will not."


@pytest.mark.parametrize("helped", [False, True])
def test_tools_are_called_and_answered(start: Start, *, helped: bool) -> None:
    setup = start(TurnRule(tool="weather", calls=2))
    completions = setup.completions()
    if helped:
        with completions.stream(model="m", messages=[USER], tools=[WEATHER]) as stream:
            kinds = [event.type for event in stream]
            first = stream.get_final_completion()
        assert kinds.count("tool_calls.function.arguments.done") == 2
    else:
        first = completions.create(model="m", messages=[USER], tools=[WEATHER])
    choice = first.choices[0]
    assert choice.finish_reason == "tool_calls"
    calls = choice.message.tool_calls
    assert [json.loads(call.function.arguments) for call in calls] == [{"city": "mock"}] * 2
    results = [{"role": "tool", "tool_call_id": call.id, "content": "4"} for call in calls]
    history = [USER, choice.message, *results]
    second = completions.create(model="m", messages=history, tools=[WEATHER])
    assert second.choices[0].message.content == "The tool has answered, so this turn is done."
    sent = [item["type"] for item in setup.frames[1]["input"]]
    assert sent == ["message", *["function_call"] * 2, *["function_call_output"] * 2]


def test_functions_of_the_deprecated_form(start: Start) -> None:
    completions = start(TurnRule(tool="weather")).completions()
    functions = [{"name": "weather", "parameters": PARAMETERS}]
    first = completions.create(model="m", messages=[USER], functions=functions)
    message = first.choices[0].message
    assert (first.choices[0].finish_reason, message.tool_calls) == ("function_call", None)
    assert message.function_call.name == "weather"
    history = [USER, message, {"role": "function", "name": "weather", "content": "4"}]
    second = completions.create(model="m", messages=history, functions=functions)
    assert second.choices[0].message.content == "The tool has answered, so this turn is done."


def test_images_and_files(start: Start) -> None:
    setup = start()
    file = setup.client().files.create(file=b"one", purpose="user_data")
    content = [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "high"}},
        {"type": "file", "file": {"file_id": file.id}},
    ]
    answer = setup.completions().create(model="m", messages=[{"role": "user", "content": content}])
    assert answer.choices[0].message.content == "You said: look"
    assert setup.frames[0]["input"][0]["content"] == [
        {"type": "input_text", "text": "look"},
        {"type": "input_image", "image_url": PIXEL, "detail": "high"},
        {"type": "input_file", "file_id": file.id},
    ]


def test_the_answer_has_the_fields_of_the_sdk(start: Start) -> None:
    """Every field has the type that the SDK declares; its own models take anything."""
    types = import_module("openai.types.chat")
    completions = start(TurnRule(tool="weather", times=2)).completions()
    for _ in range(2):
        raw = completions.with_raw_response.create(model="m", messages=[USER], tools=[WEATHER])
        TypeAdapter(types.ChatCompletion).validate_python(json.loads(raw.content), strict=False)
        for chunk in completions.create(model="m", messages=[USER], tools=[WEATHER], stream=True):
            TypeAdapter(types.ChatCompletionChunk).validate_python(chunk.to_dict(), strict=False)


def test_the_request_has_the_fields_of_the_sdk(start: Start) -> None:
    """What goes upstream is what the SDK declares for `responses.create`."""
    params = import_module("openai.types.responses.response_create_params")
    setup = start()
    call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {"role": "assistant", "content": "b", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "4"}]},
    ]
    setup.completions().create(
        model="m",
        messages=messages,
        tools=[WEATHER, {"type": "custom", "custom": {"name": "c", "format": {"type": "text"}}}],
        tool_choice={
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "auto",
                "tools": [{"type": "function", "function": {"name": "weather"}}],
            },
        },
        response_format={
            "type": "json_schema", "json_schema": {"name": "r", "schema": PARAMETERS},
        },
        verbosity="low",
        reasoning_effort="none",
        logprobs=True,
        top_logprobs=2,
        web_search_options={"search_context_size": "low"},
    )  # fmt: skip
    frame = {name: value for name, value in setup.frames[0].items() if name != "type"}
    TypeAdapter(params.ResponseCreateParamsNonStreaming).validate_python(frame)


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (TurnRule(close=1011, when="streaming", after=2), "upstream_closed"),
        (TurnRule(failed=FailedSpec(), when="streaming", after=2), "server_error"),
    ],
)
@pytest.mark.parametrize("helped", [False, True])
def test_a_stream_that_breaks_raises_once(
    start: Start, rule: TurnRule, code: str, *, helped: bool
) -> None:
    setup = start(rule)
    completions = setup.completions()
    seen: list[str | None] = []

    def read() -> None:
        if helped:
            with completions.stream(model="m", messages=[USER]) as stream:
                seen.extend(event.delta for event in stream if event.type == "content.delta")
        else:
            chunks = completions.create(model="m", messages=[USER], stream=True)
            seen.extend(chunk.choices[0].delta.content for chunk in chunks)

    with pytest.raises(openai.APIError) as raised:
        read()
    assert not isinstance(raised.value, openai.APIConnectionError)
    assert (raised.value.code, raised.value.type) == (code, "server_error")
    assert "".join(text or "" for text in seen) == "You said: "
    assert len(setup.turns) == 1


@pytest.mark.parametrize(
    ("reason", "exception"),
    [
        ("max_output_tokens", "LengthFinishReasonError"),
        ("content_filter", "ContentFilterFinishReasonError"),
    ],
)
def test_a_parsed_answer_that_was_cut_short(start: Start, reason: str, exception: str) -> None:
    completions = start(TurnRule(incomplete=reason, when="streaming")).completions()
    with pytest.raises(getattr(openai, exception)):
        completions.parse(model="m", messages=[USER], response_format=Report)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "code", "exception"),
    [
        (400, "context_length_exceeded", "BadRequestError"),
        (404, "model_gone", "NotFoundError"),
        (409, "conflict", "ConflictError"),
        (422, "unprocessable", "UnprocessableEntityError"),
        (429, "rate_limit_exceeded", "RateLimitError"),
        (500, "server_error", "InternalServerError"),
    ],
)
def test_errors_before_the_first_event(
    start: Start, status: int, code: str, exception: str, *, stream: bool
) -> None:
    setup = start(TurnRule(error=ErrorSpec(status=status, code=code, message="Not like this.")))
    completions = setup.completions(max_retries=0)
    with pytest.raises(getattr(openai, exception)) as raised:
        completions.create(model="m", messages=[USER], stream=stream)
    if status < 429:
        assert (raised.value.status_code, raised.value.code) == (status, code)
        assert len(setup.turns) == 1


def test_errors_of_the_gateway(start: Start) -> None:
    completions = start().completions(max_retries=0)
    with pytest.raises(openai.BadRequestError) as bad:
        completions.create(model="m", messages=[USER], n=2)
    assert (bad.value.code, bad.value.param) == ("invalid_request", "n")
    with pytest.raises(openai.BadRequestError) as bad:
        completions.create(model="m", messages=[{"role": "user", "content": None}])
    assert (bad.value.code, bad.value.param) == ("invalid_request", "messages[0].content")
    with pytest.raises(openai.InternalServerError) as stored:
        completions.retrieve("chatcmpl-1")
    assert (stored.value.status_code, stored.value.code) == (501, "not_supported")


def test_without_accounts(start: Start) -> None:
    completions = start(accounts=()).completions(max_retries=0)
    with pytest.raises(openai.InternalServerError) as raised:
        completions.create(model="m", messages=[USER])
    assert (raised.value.status_code, raised.value.code) == (503, "no_accounts")


def test_a_session_stays_on_its_account(start: Start) -> None:
    setup = start(TurnRule(close=1011, times=1))
    raw = setup.completions(max_retries=0).with_raw_response.create(
        model="m", messages=[USER], extra_headers={"session-id": "one"}
    )
    assert (raw.headers["x-codexlb-account"], raw.headers["x-codexlb-attempts"]) == ("work", "2")
    assert [account for account, _ in setup.turns] == ["work", "work"]
