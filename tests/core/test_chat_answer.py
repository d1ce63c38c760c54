"""Chat completions answered: the whole, the chunks, and that both say the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.core.chat_answer import chat_completion, ended_badly
from codexlb_cli.core.chat_request import ChatForm
from codexlb_cli.core.chat_stream import STREAMED_EVENTS, ChatStream
from codexlb_cli.mock_upstream.answers import Answer, ToolCall
from codexlb_cli.mock_upstream.requests import parse_request
from codexlb_cli.mock_upstream.stream import ResponseStream
from tests.core.chat_deltas import put_together

PLAIN = ChatForm()
USAGE = {
    "input_tokens": 10,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 17,
}
BASE = {
    "id": "resp_1",
    "created_at": 1700000000,
    "model": "gpt-5",
    "status": "completed",
    "service_tier": "default",
    "usage": USAGE,
}
CITATION = {"type": "url_citation", "start_index": 1, "end_index": 2, "title": "T", "url": "u"}
TOKEN = {"token": "\u00e9", "logprob": -1.5, "top_logprobs": [{"token": "e", "logprob": -2.0}]}
CHAT_TOKEN = {
    "token": "\u00e9",
    "bytes": [195, 169],
    "logprob": -1.5,
    "top_logprobs": [{"token": "e", "bytes": [101], "logprob": -2.0}],
}


def text(value: str, **more: object) -> dict[str, Any]:
    return {"type": "output_text", "text": value, "annotations": [], **more}


def message(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": list(parts)}


def call(number: int, arguments: str = "{}") -> dict[str, Any]:
    named = {"call_id": f"call_{number}", "name": f"f{number}", "arguments": arguments}
    return {"type": "function_call", **named}


def response(*output: object, **more: object) -> dict[str, Any]:
    return {**BASE, "output": list(output), **more}


def choice(*output: object, form: ChatForm = PLAIN, **more: object) -> dict[str, Any]:
    (found,) = chat_completion(response(*output, **more), [], form)["choices"]
    assert found["index"] == 0
    return dict(found)


# --- the whole ---------------------------------------------------------------------------------


def test_a_completion() -> None:
    reasoning = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "secret"}]}
    assert chat_completion(response(reasoning, message(text("Hi"))), [], PLAIN) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "gpt-5",
        "system_fingerprint": None,
        "service_tier": "default",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant", "content": "Hi", "refusal": None, "annotations": [],
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 7,
            "total_tokens": 17,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 5},
        },
    }  # fmt: skip


def test_messages_and_parts_are_one_content() -> None:
    first = message(text("One. "), {"type": "refusal", "refusal": "No."}, text("Two. "))
    told = choice(first, {"type": "web_search_call"}, message(text("Three.")))["message"]
    assert (told["content"], told["refusal"]) == ("One. Two. Three.", "No.")


def test_citations_are_counted_from_the_start_of_the_content() -> None:
    file = {"type": "file_citation", "file_id": "f"}
    cited = message(text("abc"), text("defg", annotations=[file, CITATION]))
    (found,) = choice(message(text("xx")), cited)["message"]["annotations"]
    place = {"start_index": 6, "end_index": 7, "title": "T", "url": "u"}
    assert found == {"type": "url_citation", "url_citation": place}


def test_tool_calls() -> None:
    custom = {"type": "custom_tool_call", "call_id": "call_9", "name": "c", "input": "x"}
    told = choice(call(1, '{"a":1}'), call(2), custom)
    assert told["finish_reason"] == "tool_calls"
    assert told["message"]["content"] is None
    assert told["message"]["tool_calls"] == [
        {"id": "call_1", "type": "function", "function": {"name": "f1", "arguments": '{"a":1}'}},
        {"id": "call_2", "type": "function", "function": {"name": "f2", "arguments": "{}"}},
        {"id": "call_9", "type": "custom", "custom": {"name": "c", "input": "x"}},
    ]
    assert "function_call" not in told["message"]


def test_the_deprecated_form() -> None:
    told = choice(call(1), call(2), form=ChatForm(functions=True))
    assert told["finish_reason"] == "function_call"
    assert told["message"]["function_call"] == {"name": "f1", "arguments": "{}"}
    assert "tool_calls" not in told["message"]


@pytest.mark.parametrize(
    ("output", "reason", "expected"),
    [
        ([message(text("a"))], "max_output_tokens", "length"),
        ([call(1)], "max_output_tokens", "length"),
        ([message(text("a"))], "content_filter", "content_filter"),
        ([], "interrupted", "length"),
    ],
)
def test_answers_that_were_cut_short(output: list[Any], reason: str, expected: str) -> None:
    details = {"reason": reason}
    told = choice(*output, status="incomplete", incomplete_details=details)
    assert told["finish_reason"] == expected


def test_log_probabilities_only_for_who_asked() -> None:
    said = message(text("\u00e9", logprobs=[TOKEN]))
    assert choice(said)["logprobs"] is None
    told = choice(said, form=ChatForm(logprobs=True))["logprobs"]
    assert told == {"content": [CHAT_TOKEN], "refusal": None}


def test_items_that_the_last_event_leaves_out() -> None:
    found = chat_completion(response(), [message(text("Hi")), None], PLAIN)
    assert found["choices"][0]["message"]["content"] == "Hi"


@pytest.mark.parametrize(
    ("code", "status"),
    [("server_error", 500), ("rate_limit_exceeded", 429), ("invalid_prompt", 400), (None, 500)],
)
def test_a_response_that_failed_is_an_error(code: str | None, status: int) -> None:
    error = {"code": code, "message": "No."}
    event = {"type": "response.failed", "response": {"status": "failed", "error": error}}
    found = ended_badly("response.failed", event)
    assert found is not None
    assert found[0] == status
    assert set(found[1]) == {"message", "type", "code", "param"}
    assert (found[1]["code"], found[1]["message"]) == (code, "No.")


def test_what_is_no_error() -> None:
    for kind, status in (("completed", "completed"), ("incomplete", "incomplete"), ("done", None)):
        event = {"response": {"status": status}}
        assert ended_badly(f"response.{kind}", event) is None


@pytest.mark.parametrize("number", [float("inf"), 10**400, True, "5", None])
def test_absurd_numbers_are_no_bug(number: object) -> None:
    said = message(text("a", logprobs=[{"token": "a", "logprob": number}]))
    usage = {**USAGE, "input_tokens_details": {"cached_tokens": number}}
    asked = ChatForm(logprobs=True)
    found = chat_completion(response(said, usage=usage, created_at=number), [], asked)
    json.dumps(found, allow_nan=False)


# --- the chunks --------------------------------------------------------------------------------


def deltas(chunks: list[dict[str, Any]]) -> list[tuple[Any, Any]]:
    return [(c["delta"], c["finish_reason"]) for chunk in chunks for c in chunk["choices"]]


def streamed(form: ChatForm, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All chunks of a response; the last event is the terminal one."""
    stream = ChatStream(form)
    *before, last = events
    chunks = [c for e in before if e["type"] in STREAMED_EVENTS for c in stream.event(e["type"], e)]
    return chunks + stream.finish(last["response"])


def events_of(answer: Answer, chat_text: str = "x") -> list[dict[str, Any]]:
    request = parse_request({"model": "m", "input": chat_text}, 100)
    made = ResponseStream("resp_1", "work", request, answer, 1700000000)
    raw = [*made.opening(), *made.items(), made.completed()]
    return [json.loads(payload) for _, payload in raw]


def test_chunks_of_a_text() -> None:
    chunks = streamed(PLAIN, events_of(Answer(["a ", "b"], reasoning=True)))
    assert deltas(chunks) == [
        ({"role": "assistant", "content": "", "refusal": None}, None),
        ({"content": "a "}, None),
        ({"content": "b"}, None),
        ({}, "stop"),
    ]
    assert [chunk["id"] for chunk in chunks] == ["chatcmpl-1"] * 4
    assert {"usage"} & chunks[0].keys() == set()
    assert chunks[0] == {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "m",
        "system_fingerprint": None,
        "service_tier": "default",
        "choices": [
            {
                "index": 0,
                "delta": {"role": "assistant", "content": "", "refusal": None},
                "logprobs": None,
                "finish_reason": None,
            }
        ],
    }


def test_chunks_of_calls() -> None:
    calls = [ToolCall("f", "abcd"), ToolCall("c", "xy", custom=True)]
    chunks = streamed(PLAIN, events_of(Answer(calls=calls)))
    assert deltas(chunks) == [
        ({"role": "assistant", "content": None, "refusal": None}, None),
        (_calls(0, id="call_1", type="function", function={"name": "f", "arguments": ""}), None),
        (_calls(0, function={"arguments": "ab"}), None),
        (_calls(0, function={"arguments": "cd"}), None),
        (_calls(1, id="call_1_1", type="custom", custom={"name": "c", "input": ""}), None),
        (_calls(1, custom={"input": "x"}), None),
        (_calls(1, custom={"input": "y"}), None),
        ({}, "tool_calls"),
    ]


def _calls(index: int, **members: object) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, **members}]}


def test_chunks_of_the_deprecated_form() -> None:
    made = events_of(Answer(calls=[ToolCall("f", "abcd"), ToolCall("g", "")]))
    assert deltas(streamed(ChatForm(functions=True), made)) == [
        ({"role": "assistant", "content": None, "refusal": None}, None),
        ({"function_call": {"name": "f", "arguments": ""}}, None),
        ({"function_call": {"arguments": "ab"}}, None),
        ({"function_call": {"arguments": "cd"}}, None),
        ({}, "function_call"),
    ]


def test_the_usage_chunk() -> None:
    chunks = streamed(ChatForm(include_usage=True), events_of(Answer(["a"])))
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * 3
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 1


def test_citations_come_in_one_chunk_before_the_last() -> None:
    said = message(text("ab"), text("cd", annotations=[CITATION, CITATION]))
    done = {"type": "response.output_item.done", "output_index": 0, "item": said}
    last = {"response": response(said)}
    found = deltas(streamed(PLAIN, [done, last]))
    assert [len(delta["annotations"]) for delta, _ in found if "annotations" in delta] == [2]
    assert found[-2][0]["annotations"] == choice(said)["message"]["annotations"]
    assert found[-1] == ({}, "stop")


def test_what_deltas_left_out_comes_when_the_part_is_done() -> None:
    where = {"output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": response()},
        {"type": "response.output_text.delta", **where, "delta": "abc", "logprobs": [TOKEN]},
        {
            "type": "response.output_text.done", **where, "text": "abcdef",
            "logprobs": [TOKEN, TOKEN],
        },
        {"type": "response.output_item.added", "output_index": 1, "item": call(1, "")},
        {"type": "response.output_item.done", "output_index": 1, "item": call(1, '{"a":1}')},
        {"response": response(message(text("abcdef")), call(1, '{"a":1}'))},
    ]  # fmt: skip
    chunks = streamed(ChatForm(logprobs=True), events)
    told = put_together(chunks)
    assert told["message"]["content"] == "abcdef"
    assert told["message"]["tool_calls"][0]["function"]["arguments"] == '{"a":1}'
    assert told["logprobs"]["content"] == [CHAT_TOKEN] * 2


def test_a_stream_whose_last_event_alone_tells_the_answer() -> None:
    last = {"response": response(message(text("Hi")), call(1))}
    told = put_together(streamed(PLAIN, [last]))
    assert (told["message"]["content"], told["finish_reason"]) == ("Hi", "tool_calls")


def test_a_call_that_only_the_last_event_tells() -> None:
    """A client that hears of no call stops, where one that does not stream goes on."""
    done = {"type": "response.output_item.done", "output_index": 1, "item": call(1)}
    said = {"type": "response.output_text.delta", "output_index": 0, "delta": "Hi"}
    last = {"response": response(message(text("Hi")), call(1), call(2))}
    told = put_together(streamed(PLAIN, [said, done, last]))
    whole = chat_completion(last["response"], [], PLAIN)["choices"][0]
    assert told["message"]["tool_calls"] == whole["message"]["tool_calls"]
    assert (told["message"]["content"], told["finish_reason"]) == ("Hi", "tool_calls")


def test_an_answer_without_items() -> None:
    assert deltas(streamed(PLAIN, [{"response": response()}])) == [
        ({"role": "assistant", "content": "", "refusal": None}, None),
        ({}, "stop"),
    ]
    assert choice()["message"]["content"] == ""


# --- properties --------------------------------------------------------------------------------

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
answers = st.one_of(
    st.builds(Answer, st.lists(words, max_size=5), reasoning=st.booleans(), logprobs=st.booleans()),
    st.builds(Answer, refusal=words),
    st.builds(
        Answer,
        calls=st.lists(st.builds(ToolCall, words, words, st.booleans()), min_size=1, max_size=4),
    ),
)
forms = st.builds(ChatForm, st.booleans(), st.booleans(), st.booleans())


@given(answers, forms)
def test_the_chunks_put_together_are_the_completion(answer: Answer, form: ChatForm) -> None:
    events = events_of(answer)
    chunks = streamed(form, events)
    whole = chat_completion(events[-1]["response"], [], form)
    (said,) = whole["choices"]
    told = put_together(chunks)
    assert told == said
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    ends = [c["finish_reason"] for chunk in chunks for c in chunk["choices"]]
    assert ends == [None] * (len(ends) - 1) + [said["finish_reason"]]
    assert (chunks[-1].get("usage") == whole["usage"]) is form.include_usage
    heads = [{k: v for k, v in chunk.items() if k not in ("choices", "usage")} for chunk in chunks]
    assert all(head == heads[0] for head in heads)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            [
                "type", "text", "content", "output", "call_id", "name", "arguments", "annotations",
                "logprobs", "token", "usage", "input_tokens_details", "input_tokens", "created_at",
                "start_index", "output_index", "content_index", "item", "delta", "error", "code",
            ]
        ),
        inner
        | st.sampled_from(["message", "output_text", "function_call", "url_citation", "refusal"]),
        max_size=6,
    ),
    max_leaves=20,
)  # fmt: skip
events = st.dictionaries(
    st.sampled_from(["item", "delta", "text", "output_index", "content_index", "logprobs"]),
    anything,
)


@given(
    st.lists(st.tuples(st.sampled_from(sorted(STREAMED_EVENTS)), events), max_size=8),
    st.dictionaries(st.sampled_from(["output", "usage", "created_at", "id", "status"]), anything),
    forms,
)
def test_whatever_an_upstream_sends_there_is_one_end(
    before: list[tuple[str, dict[str, Any]]], last: dict[str, Any], form: ChatForm
) -> None:
    stream = ChatStream(form)
    chunks = [chunk for kind, event in before for chunk in stream.event(kind, event)]
    chunks += stream.finish(last)
    ends = [c["finish_reason"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]
    assert len(ends) == 1
    json.dumps([chunks, chat_completion(last, [event.get("item") for _, event in before], form)])
    ended_badly("response.failed", {"response": last})
