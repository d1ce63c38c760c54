"""openai-python through `codexlb serve`: streams, answers, tools, and errors as its exceptions."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.mock_upstream.rules import ErrorSpec, HandshakeRule, TurnRule
from codexlb_cli.mock_upstream.running import RunningMock, running_mock
from codexlb_cli.mock_upstream.script import Script
from tests.clients.running import KEYS, ServingGateway, demonstrating, serving
from tests.clients.upstream import check_upstream, turns

openai = pytest.importorskip("openai", reason="needs openai-python: make test-clients")

pytestmark = [pytest.mark.clients, pytest.mark.timeout(60)]

CLIENT_KEY = "sk-client-LEAK"
DONE = "response.completed"
LIMITED = ErrorSpec(
    status=429,
    code="rate_limit_exceeded",
    message="Rate limit reached.",
    headers={"retry-after": "30"},
)
WEATHER = {
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


@dataclass
class Setup:
    """A client, the gateway that it talks to, and the upstream behind."""

    gateway: ServingGateway
    mock: RunningMock

    def client(self, **options: Any) -> Any:
        return openai.OpenAI(base_url=self.gateway.base_url, api_key=CLIENT_KEY, **options)

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
            with serving(tmp_path, mock.base_url, **options) as gateway:
                yield Setup(gateway, mock)
            assert CLIENT_KEY not in gateway.log
            if mock.upstream.frames:
                check_upstream(mock.upstream, secret=CLIENT_KEY)

    with ExitStack() as stack:
        yield lambda *rules, **options: stack.enter_context(run(*rules, **options))


def test_a_created_stream(start: Start) -> None:
    setup = start()
    events = list(setup.client().responses.create(model="mock", input="hello you", stream=True))
    kinds = [event.type for event in events]
    assert (kinds[0], kinds[-1]) == ("response.created", DONE)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == events[-1].response.output_text == "You said: hello you"
    assert setup.turns == [("work", DONE)]


def test_the_stream_helper(start: Start) -> None:
    setup = start()
    with setup.client().responses.stream(model="mock", input="hello") as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text == "You said: hello"
    assert final.status == "completed"


def test_an_answer_in_one_piece(start: Start) -> None:
    setup = start()
    raw = setup.client().responses.with_raw_response.create(model="mock", input="hello")
    assert raw.headers["content-type"] == "application/json"
    assert (raw.headers["x-codexlb-account"], raw.headers["x-codexlb-attempts"]) == ("work", "1")
    assert raw.headers["x-request-id"]
    assert raw.parse().output_text == "You said: hello"


def test_a_parsed_answer(start: Start) -> None:
    from pydantic import BaseModel

    class Weather(BaseModel):
        city: str
        degrees: int

    setup = start(TurnRule(text='{"city": "Oslo", "degrees": 4}'))
    answer = setup.client().responses.parse(model="m", input="weather?", text_format=Weather)
    assert answer.output_parsed == Weather(city="Oslo", degrees=4)


def test_the_asynchronous_client(start: Start) -> None:
    setup = start()

    async def main() -> tuple[str, str]:
        base_url = setup.gateway.base_url
        async with openai.AsyncOpenAI(base_url=base_url, api_key=CLIENT_KEY) as client:
            text = ""
            async for event in await client.responses.create(
                model="mock", input="streamed", stream=True
            ):
                text += event.delta if event.type == "response.output_text.delta" else ""
            whole = await client.responses.create(model="mock", input="whole")
        return text, whole.output_text

    assert asyncio.run(main()) == ("You said: streamed", "You said: whole")


def test_parallel_streams_of_one_session_lose_no_text(start: Start) -> None:
    setup = start(TurnRule(delta_delay=0.01))
    inputs = [f"{number} " + "word " * 20 + str(number) for number in range(4)]

    async def main() -> list[str]:
        base_url = setup.gateway.base_url
        async with openai.AsyncOpenAI(base_url=base_url, api_key=CLIENT_KEY) as client:

            async def one(text: str) -> str:
                session = {"session-id": "shared"}
                async with client.responses.stream(
                    model="mock", input=text, extra_headers=session
                ) as stream:
                    answer: str = (await stream.get_final_response()).output_text
                    return answer

            return list(await asyncio.gather(*map(one, inputs)))

    assert asyncio.run(main()) == [f"You said: {text}" for text in inputs]
    assert setup.turns == [("work", DONE)] * 4


@pytest.mark.parametrize("chained", [False, True])
def test_a_tool_is_called_and_answered(start: Start, *, chained: bool) -> None:
    setup = start()
    client = setup.client()
    question: list[Any] = [{"role": "user", "content": "Weather in Oslo?"}]
    first = client.responses.create(model="mock-tool", input=question, tools=[WEATHER])
    (call,) = [item for item in first.output if item.type == "function_call"]
    assert (call.name, list(json.loads(call.arguments))) == ("weather", ["city"])
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "4 degrees"}
    if chained:
        second = client.responses.create(
            model="mock-tool", input=[result], tools=[WEATHER], previous_response_id=first.id
        )
    else:
        history = [*question, *(item.to_dict() for item in first.output), result]
        second = client.responses.create(model="mock-tool", input=history, tools=[WEATHER])
    assert second.output_text == "The tool has answered, so this turn is done."
    assert [outcome for _, outcome in setup.turns] == [DONE, DONE]
    assert not chained or len({account for account, _ in setup.turns}) == 1


def test_models(start: Start) -> None:
    names = {model.id for model in start().client().models.list()}
    assert {"mock", "mock-tool"} <= names


def test_what_connect_openai_prints_is_all_that_it_takes(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = start().gateway.cli.spawn("connect", "openai").stdout.decode()
    for name, value in re.findall(r'^export (\w+)="(.*)"$', printed, re.MULTILINE):
        monkeypatch.setenv(name, value)
    assert openai.OpenAI().responses.create(model="mock", input="hi").output_text == "You said: hi"


def test_the_python_that_the_demo_prints(tmp_path: Path) -> None:
    with demonstrating(tmp_path) as demo:
        _, _, after = demo.banner.partition("From Python (pip install openai)\n")
        program = textwrap.dedent(after.partition("\n\n")[0])
        ran = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
        )
    assert ran.stdout.splitlines()[0] == "response.created"
    assert ran.stdout.splitlines()[-1] == DONE


def test_1011_before_the_response_ends_on_the_owner(start: Start) -> None:
    # What HTTP clients send, and what must not reach the upgrade of the first and second socket.
    headers = {
        "session-id": "one",
        "OpenAI-Beta": "responses=experimental",
        "Cookie": f"key={CLIENT_KEY}",
        "Connection": "keep-alive, x-hop",
        "x-hop": "1",
        "Accept": "text/event-stream",
        "Accept-Encoding": "gzip, br",
    }
    setup = start()
    responses = setup.client(max_retries=0).responses
    for prompt in ("one", "two"):
        raw = responses.with_raw_response.create(
            model="mock-close-1011", input=prompt, stream=True, extra_headers=headers
        )
        assert (raw.headers["x-codexlb-account"], raw.headers["x-codexlb-attempts"]) == (
            "work",
            "2",
        )
        assert [event.type for event in raw.parse()][-1] == DONE
    assert setup.turns == [("work", "close 1011"), ("work", DONE)] * 2


def test_1011_without_a_session_ends_elsewhere(start: Start) -> None:
    setup = start()
    raw = setup.client(max_retries=0).responses.with_raw_response.create(
        model="mock-close-1011", input="hello"
    )
    assert (raw.headers["x-codexlb-account"], raw.headers["x-codexlb-attempts"]) == ("home", "2")
    assert setup.turns == [("work", "close 1011"), ("home", DONE)]


@pytest.mark.parametrize("session", [{}, {"session-id": "one"}])
@pytest.mark.parametrize("where", ["handshake", "turn"])
def test_a_limited_account_is_not_seen(start: Start, where: str, session: dict[str, str]) -> None:
    rule = HandshakeRule(account="work", status=429)
    setup = start(rule if where == "handshake" else TurnRule(account="work", error=LIMITED))
    client = setup.client(max_retries=0)
    for _ in range(2):
        answer = client.responses.create(model="mock", input="hello", extra_headers=session)
        assert answer.output_text == "You said: hello"
    assert [turn for turn in setup.turns if turn[1] == DONE] == [("home", DONE)] * 2


def test_a_stream_that_is_cut_off_raises(start: Start) -> None:
    setup = start(TurnRule(close=1011, when="streaming", after=1))
    stream = setup.client().responses.create(model="mock", input="hello", stream=True)
    seen = []
    with pytest.raises(openai.APIError) as raised:
        seen += [event.type for event in stream]
    assert not isinstance(raised.value, openai.APIConnectionError)
    assert (raised.value.code, raised.value.type) == ("upstream_closed", "server_error")
    assert setup.turns == [("work", "close 1011")]


def test_an_answer_that_is_cut_off_is_not_asked_for_again(start: Start) -> None:
    setup = start(TurnRule(close=1011, when="streaming", after=1))
    with pytest.raises(openai.InternalServerError) as raised:
        setup.client().responses.create(model="mock", input="hello")
    assert (raised.value.status_code, raised.value.code) == (502, "upstream_closed")
    assert setup.turns == [("work", "close 1011")]


def test_a_failed_response_is_an_answer(start: Start) -> None:
    client = start().client()
    answer = client.responses.create(model="mock-failed", input="hello")
    assert (answer.status, answer.error.code) == ("failed", "server_error")
    events = list(client.responses.create(model="mock-failed", input="hello", stream=True))
    assert events[-1].type == "response.failed"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "code", "exception"),
    [
        (400, "context_length_exceeded", "BadRequestError"),
        (404, "model_gone", "NotFoundError"),
        (422, "unprocessable", "UnprocessableEntityError"),
    ],
)
def test_an_error_of_the_request_is_the_upstreams_own(
    start: Start, status: int, code: str, exception: str, *, stream: bool
) -> None:
    error = ErrorSpec(status=status, code=code, message="Not like this.", param="input")
    setup = start(TurnRule(error=error))
    with pytest.raises(getattr(openai, exception)) as raised:
        setup.client().responses.create(model="mock", input="hello", stream=stream)
    raised_ = raised.value
    assert (raised_.status_code, raised_.code, raised_.param) == (status, code, "input")
    assert "Not like this." in raised_.message
    assert len(setup.turns) == 1


def test_bad_requests_raise_with_our_codes(start: Start) -> None:
    setup = start()
    responses = setup.client().responses
    with pytest.raises(openai.BadRequestError) as bad:
        responses.create(model="mock", input="hello", extra_headers={"x-note": "a\x01b"})
    assert bad.value.code == "invalid_header"
    with pytest.raises(openai.BadRequestError) as bad:
        responses.create(model="mock", input="x", extra_body={"stream": "yes"})
    assert (bad.value.code, bad.value.param) == ("invalid_request", "stream")
    with pytest.raises(openai.BadRequestError) as bad:
        responses.create(model="mock", input="x", store=False, previous_response_id="resp_gone")
    assert bad.value.code == "previous_response_not_found"


def test_rate_limits_of_all_accounts(start: Start) -> None:
    setup = start(TurnRule(error=LIMITED))
    with pytest.raises(openai.RateLimitError) as raised:
        setup.client(max_retries=0).responses.create(model="mock", input="hello", stream=True)
    assert (raised.value.code, raised.value.type) == ("rate_limit_exceeded", "rate_limit_error")
    assert raised.value.response.headers["retry-after"] == "30"
    refused = "error 429 rate_limit_exceeded"
    assert setup.turns == [("work", refused), ("home", refused)]


def test_a_usage_limit_of_all_accounts(start: Start) -> None:
    body = {"status": 429, "type": "usage_limit_reached", "code": "usage_limit_reached"}
    resets_at = int(time.time()) + 7200
    limit = ErrorSpec.model_validate({**body, "resets_at": resets_at})
    setup = start(TurnRule(error=limit))
    with pytest.raises(openai.RateLimitError) as raised:
        setup.client(max_retries=0).responses.create(model="mock", input="hello")
    assert raised.value.code == raised.value.type == "usage_limit_reached"
    assert raised.value.body["resets_at"] == resets_at


def test_without_accounts(start: Start) -> None:
    setup = start(accounts=())
    with pytest.raises(openai.InternalServerError) as raised:
        setup.client(max_retries=0).responses.create(model="mock", input="hello")
    assert (raised.value.status_code, raised.value.code) == (503, "no_accounts")
    assert "codexlb accounts add" in raised.value.message


def test_the_clients_own_retries_help_where_the_gateway_gave_up(start: Start) -> None:
    # The only account refuses two sockets: the first request fails, and so does its retry.
    setup = start(HandshakeRule(status=503, times=2), accounts=("work",))
    with pytest.raises(openai.InternalServerError) as raised:
        setup.client(max_retries=0).responses.create(model="mock", input="hello")
    assert (raised.value.status_code, raised.value.code) == (503, "upstream_unavailable")
    assert 1 <= int(raised.value.response.headers["retry-after"]) <= 30
    answer = setup.client().responses.create(model="mock", input="hello")
    assert answer.output_text == "You said: hello"
    assert setup.turns == [("work", DONE)]


def test_a_stream_that_is_left_frees_its_session(start: Start) -> None:
    setup = start(TurnRule(delta_delay=0.05, deltas=200, times=1))
    responses = setup.client().responses
    session = {"session-id": "one"}
    with responses.create(model="m", input="a", stream=True, extra_headers=session) as stream:
        next(iter(stream))
    setup.mock.wait_for(lambda upstream: upstream.turns[0].outcome == "client left")
    answer = responses.create(model="m", input="b", extra_headers=session)
    assert answer.output_text == "You said: b"
    assert setup.turns == [("work", "client left"), ("work", DONE)]


def _naming(*files: Any) -> list[Any]:
    parts = [{"type": "input_file", "file_id": file.id} for file in files]
    return [{"role": "user", "content": [*parts, {"type": "input_text", "text": "read"}]}]


def test_files_live_and_die_through_the_sdk(start: Start) -> None:
    files = start().client(max_retries=0).files
    content = bytes(range(256)) * 400
    made = files.create(file=("a b.bin", content), purpose="user_data")
    assert (made.object, made.bytes, made.filename) == ("file", len(content), "a b.bin")
    assert files.retrieve(made.id) == made
    assert files.content(made.id).read() == content
    assert files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        files.retrieve(made.id)


def test_an_upload_in_parts_through_the_sdk(start: Start) -> None:
    client = start().client(max_retries=0)
    content = bytes(range(256)) * 100
    done = client.uploads.upload_file_chunked(
        file=content,
        filename="a.bin",
        bytes=len(content),
        mime_type="application/octet-stream",
        purpose="user_data",
        part_size=10_000,
    )
    assert (done.status, done.file.bytes) == ("completed", len(content))
    assert client.files.content(done.file.id).read() == content


def test_turns_go_to_their_files_across_a_restart(tmp_path: Path) -> None:
    with running_mock(accounts=KEYS, strict=True) as mock:
        with serving(tmp_path, mock.base_url) as gateway:
            client = openai.OpenAI(base_url=gateway.base_url, api_key=CLIENT_KEY)
            in_work = client.files.create(file=b"one", purpose="user_data")
            client.responses.create(model="mock", input="the next account's turn")
            in_home = client.files.create(file=b"two", purpose="user_data")
        with serving(tmp_path, mock.base_url) as gateway:
            client = openai.OpenAI(base_url=gateway.base_url, api_key=CLIENT_KEY, max_retries=0)
            for file in (in_home, in_work, in_home):
                client.responses.create(model="mock", input=_naming(file))
            with pytest.raises(openai.BadRequestError) as conflict:
                client.responses.create(model="mock", input=_naming(in_work, in_home))
            assert conflict.value.code == "continuity_owner_conflict"
            assert [file.id for file in client.files.list(limit=1)] == [in_work.id, in_home.id]
        accounts = [account for account, _ in turns(mock.upstream)]
        assert accounts == ["work", "home", "work", "home"]
        assert all(CLIENT_KEY not in repr(r.headers) for r in mock.upstream.file_requests)


def test_files_of_the_asynchronous_client(start: Start) -> None:
    setup = start()

    async def main() -> bytes:
        base_url = setup.gateway.base_url
        async with openai.AsyncOpenAI(base_url=base_url, api_key=CLIENT_KEY) as client:
            made = await client.files.create(file=("a.txt", b"hello"), purpose="user_data")
            async with client.files.with_streaming_response.content(made.id) as answer:
                return b"".join([piece async for piece in answer.iter_bytes()])

    assert asyncio.run(main()) == b"hello"
