"""Chat completions asked for: what becomes of members, messages and parts, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from codexlb_cli.core.chat_request import CHAT_MEMBERS, ChatForm, Fate, responses_body
from codexlb_cli.core.frames import InvalidBodyError, create_frame, parse_body
from codexlb_cli.core.requests import read_request
from tests.core.chats import ASKED, CALL, USER, items, responses, translated

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION = {"name": "weather", "description": "Tells it.", "parameters": PARAMETERS}
FLAT = {"type": "function", **FUNCTION, "strict": False}
GRAMMAR = {"syntax": "lark", "definition": "start: /a/"}
PLACE = {"city": "Oslo", "country": "NO"}


# --- members -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chat", "expected"),
    [
        ({"max_completion_tokens": 5}, {"max_output_tokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": None}, {"max_output_tokens": 5}),
        ({"reasoning_effort": "high"}, {"reasoning": {"effort": "high"}}),
        ({"reasoning_effort": None, "verbosity": None, "response_format": None}, {}),
        (
            {"verbosity": "low", "response_format": {"type": "json_object"}},
            {"text": {"verbosity": "low", "format": {"type": "json_object"}}},
        ),
        ({"response_format": {"type": "text"}}, {"text": {"format": {"type": "text"}}}),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "w", "strict": True, "schema": PARAMETERS},
                }
            },
            {
                "text": {
                    "format": {
                        "type": "json_schema", "name": "w", "strict": True, "schema": PARAMETERS,
                    }
                }
            },
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "w"}}},
            {"text": {"format": {"type": "json_schema", "name": "w", "schema": {}}}},
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "w", "schema": None, "strict": None},
                }
            },
            {"text": {"format": {"type": "json_schema", "name": "w", "schema": {}}}},
        ),
        (
            {"logprobs": True, "top_logprobs": 3},
            {"include": ["message.output_text.logprobs"], "top_logprobs": 3},
        ),
        ({"logprobs": False}, {}),
        ({"store": True}, {"store": True}),
        ({"store": None}, {}),
        ({"stream_options": {"include_usage": True}}, {}),
        (
            {"stream_options": {"include_usage": True, "include_obfuscation": False}},
            {"stream_options": {"include_obfuscation": False}},
        ),
        ({"tools": [{"type": "function", "function": FUNCTION}]}, {"tools": [FLAT]}),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]},
            {
                "tools": [
                    {
                        "type": "function", "name": "f", "strict": True,
                        "parameters": {"type": "object", "properties": {}},
                    }
                ]
            },
        ),
        (
            {"functions": [FUNCTION], "function_call": {"name": "weather"}},
            {
                "tools": [FLAT],
                "tool_choice": {"type": "function", "name": "weather"},
                "parallel_tool_calls": False,
            },
        ),
        (
            {"functions": [FUNCTION], "function_call": "none"},
            {"tools": [FLAT], "tool_choice": "none", "parallel_tool_calls": False},
        ),
        (
            {
                "tools": [
                    {"type": "custom", "custom": {"name": "a"}},
                    {"type": "custom", "custom": {"name": "b", "format": {"type": "text"}}},
                    {
                        "type": "custom",
                        "custom": {"name": "c", "format": {"type": "grammar", "grammar": GRAMMAR}},
                    },
                ]
            },
            {
                "tools": [
                    {"type": "custom", "name": "a"},
                    {"type": "custom", "name": "b", "format": {"type": "text"}},
                    {"type": "custom", "name": "c", "format": {"type": "grammar", **GRAMMAR}},
                ]
            },
        ),
        (
            {"tools": [{"type": "image_generation", "size": "auto"}]},
            {"tools": [{"type": "image_generation", "size": "auto"}]},
        ),
        ({"tools": []}, {"tools": []}),
        ({"tools": None}, {}),
        ({"web_search_options": {}}, {"tools": [{"type": "web_search"}]}),
        (
            {
                "tools": [{"type": "function", "function": FUNCTION}],
                "web_search_options": {
                    "search_context_size": "low",
                    "user_location": {"type": "approximate", "approximate": PLACE},
                },
            },
            {
                "tools": [
                    FLAT,
                    {
                        "type": "web_search",
                        "search_context_size": "low",
                        "user_location": {"type": "approximate", **PLACE},
                    },
                ]
            },
        ),
        *(
            ({"tool_choice": given}, {"tool_choice": flat})
            for given, flat in (
                ("required", "required"),
                (
                    {"type": "function", "function": {"name": "f"}},
                    {"type": "function", "name": "f"},
                ),
                ({"type": "custom", "custom": {"name": "c"}}, {"type": "custom", "name": "c"}),
                ({"type": "web_search"}, {"type": "web_search"}),
                (
                    {
                        "type": "allowed_tools",
                        "allowed_tools": {
                            "mode": "auto",
                            "tools": [{"type": "function", "function": {"name": "f"}}],
                        },
                    },
                    {
                        "type": "allowed_tools",
                        "mode": "auto",
                        "tools": [{"type": "function", "name": "f"}],
                    },
                ),
            )
        ),
    ],
)  # fmt: skip
def test_members_that_are_translated(chat: dict[str, Any], expected: dict[str, Any]) -> None:
    assert responses(**chat) == expected


def test_other_members_go_on_byte_for_byte() -> None:
    kept = (
        '"temperature":1.10,"top_p":1E-1,"metadata":{ "a" : "\\u00e9" },"user":"u",'
        '"prompt_cache_key":"k","prompt_cache_retention":"24h","service_tier":"flex",'
        '"safety_identifier":"s","parallel_tool_calls":false,"moderation":null,"new":[1.0]'
    )
    tokens = '"max_completion_tokens":1e2'
    chat = f'{{"model":"m","messages":[{json.dumps(USER)}],{kept},"stream":true,{tokens}}}'
    body = responses_body(parse_body(chat.encode())).body
    asked = json.dumps([ASKED], separators=(",", ":"))
    start = f'{{"type":"response.create","model":"m","input":{asked},'
    assert create_frame(body, {}) == f'{start}{kept},"max_output_tokens":1e2,"store":false}}'


@pytest.mark.parametrize(
    "harmless",
    [
        {"n": 1}, {"n": None}, {"stop": None}, {"stop": []}, {"frequency_penalty": 0},
        {"presence_penalty": 0.0}, {"logit_bias": {}}, {"modalities": ["text"]}, {"audio": None},
        {"seed": 7}, {"prediction": {"type": "content", "content": "x"}},
    ],
)  # fmt: skip
def test_members_that_say_nothing_are_left_out(harmless: dict[str, Any]) -> None:
    assert responses(**harmless) == {}
    assert translated({"messages": [USER], "user": "u", **harmless}).left_out == tuple(harmless)


@pytest.mark.parametrize(
    "refused",
    [
        {"n": 2}, {"n": "1"}, {"stop": "\n"}, {"stop": ["a"]}, {"frequency_penalty": 0.5},
        {"presence_penalty": -1}, {"logit_bias": {"50256": -100}},
        {"modalities": ["text", "audio"]}, {"audio": {"voice": "alloy", "format": "mp3"}},
    ],
)  # fmt: skip
def test_members_that_a_response_cannot_obey_are_refused(refused: dict[str, Any]) -> None:
    with pytest.raises(InvalidBodyError) as raised:
        responses(**refused)
    (name,) = refused
    assert (raised.value.code, raised.value.param) == ("invalid_request", name)
    assert f"`{name}`" in str(raised.value)


@pytest.mark.parametrize(
    ("chat", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": []}, "messages"),
        ({"store": "yes"}, "store"),
        ({"logprobs": 1}, "logprobs"),
        ({"stream": "yes"}, "stream"),
        ({"model": 4}, "model"),
        ({"prompt_cache_key": 4}, "prompt_cache_key"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_completion_tokens"),
        ({"max_tokens": 1, "max_output_tokens": 1}, "max_output_tokens"),
        ({"input": "hi"}, "input"),
        ({"reasoning": {}, "reasoning_effort": "low"}, "reasoning"),
        ({"text": {}, "verbosity": "low"}, "text"),
        ({"include": [], "logprobs": True}, "include"),
        ({"tools": [], "functions": []}, "functions"),
        ({"tool_choice": "auto", "function_call": "auto"}, "function_call"),
        ({"tool_choice": 4}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools"),
        ({"function_call": {}}, "function_call.name"),
        ({"tools": {}}, "tools"),
        ({"tools": [4]}, "tools[0]"),
        ({"tools": [{}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "name": "flat"}]}, "tools[0].function"),
        ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0].custom.name"),
        ({"functions": [{}]}, "functions[0].name"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"web_search_options": []}, "web_search_options"),
        (
            {"web_search_options": {"user_location": {"type": "approximate"}}},
            "web_search_options.user_location.approximate",
        ),
        ({"stream_options": True}, "stream_options"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ],
)
def test_malformed_bodies_name_the_member(chat: dict[str, Any], param: str) -> None:
    body = json.dumps({"model": "m", "messages": [USER], **chat}).encode()
    with pytest.raises(InvalidBodyError) as raised:
        read_request([], body, chat=True)
    assert (raised.value.code, raised.value.param) == ("invalid_request", param)


def test_background_is_not_supported_here_either() -> None:
    body = json.dumps({"model": "m", "messages": [USER], "background": True}).encode()
    with pytest.raises(InvalidBodyError) as raised:
        read_request([], body, chat=True)
    assert raised.value.code == "not_supported"
    assert "`/v1/responses`" in str(raised.value)  # there they are, over HTTP as this is


def test_every_member_of_the_table_has_its_fate() -> None:
    for rule in CHAT_MEMBERS:
        for name in rule.names:
            kept = {"model": "m", "messages": [USER], name: None}
            if rule.fate is Fate.UNCHANGED:
                assert name in translated(kept).body.members
            elif name != "messages":
                assert set(translated(kept).body.members) <= {
                    "model", "input", "store", "tools", "parallel_tool_calls",
                }  # fmt: skip


def test_the_form_of_the_answer() -> None:
    def form(**chat: object) -> ChatForm:
        return translated({"messages": [USER], **chat}).form

    assert form() == ChatForm()
    assert form(stream_options={"include_usage": True}) == ChatForm(include_usage=True)
    assert form(stream_options={"include_usage": False}, tools=[]) == ChatForm()
    assert form(logprobs=True) == ChatForm(logprobs=True)
    assert form(functions=[{"name": "f"}]) == ChatForm(functions=True)


# --- messages ----------------------------------------------------------------------------------


def test_texts_keep_role_and_order() -> None:
    roles = ["system", "developer", "user", "assistant", "user"]
    messages = [{"role": role, "content": f"{n} \u00e9"} for n, role in enumerate(roles)]
    assert items(*messages) == [{"type": "message", **message} for message in messages]


def test_parts_of_a_user() -> None:
    data_url = "data:image/png;base64,AAAA"
    content = [
        {"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}},
        {"type": "image_url", "image_url": {"url": data_url}},
        {"type": "image_url", "image_url": {"url": "https://a/b.png", "detail": "low"}},
        {"type": "file", "file": {"file_id": "file_1"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": data_url, "file_id": None}},
    ]
    (item,) = items({"role": "user", "content": content})
    assert item["content"] == [
        {"type": "input_text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}},
        {"type": "input_image", "image_url": data_url, "detail": "auto"},
        {"type": "input_image", "image_url": "https://a/b.png", "detail": "low"},
        {"type": "input_file", "file_id": "file_1"},
        {"type": "input_file", "filename": "a.pdf", "file_data": data_url},
    ]


def test_a_file_binds_the_turn_to_its_account() -> None:
    content = [{"type": "file", "file": {"file_id": "file_1"}}]
    body = json.dumps({"messages": [{"role": "user", "content": content}]}).encode()
    evidence = read_request([], body, chat=True).evidence
    assert [(key.source, key.value) for key in evidence.keys] == [("file", "file_1")]
    assert not evidence.portable


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ({"content": ""}, ""),
        ({"content": []}, ""),
        ({"content": "a", "tool_calls": []}, "a"),
        ({"content": [{"type": "text", "text": "a"}]}, [{"type": "output_text", "text": "a"}]),
        (
            {"content": [{"type": "refusal", "refusal": "no"}]},
            [{"type": "refusal", "refusal": "no"}],
        ),
        ({"content": None, "refusal": "no"}, [{"type": "refusal", "refusal": "no"}]),
        (
            {"content": "a", "refusal": "no"},
            [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "no"}],
        ),
        # What an SDK's own answer carries when it is sent back.
        ({"content": "a", "refusal": None, "audio": None, "annotations": []}, "a"),
    ],
)
def test_what_an_assistant_said(message: dict[str, Any], content: object) -> None:
    item = {"type": "message", "role": "assistant", "content": content}
    assert items({"role": "assistant", **message}) == [item]


def test_calls_and_their_outputs() -> None:
    custom = {"id": "call_2", "type": "custom", "custom": {"name": "c", "input": "x"}}
    untyped = {"id": "call_3", "function": {"name": "f", "arguments": '{"a": 1.0}'}}
    found = items(
        {"role": "assistant", "content": "Wait.", "tool_calls": [CALL, custom]},
        {"role": "tool", "tool_call_id": "call_2", "content": "out"},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "4"}]},
        {"role": "assistant", "content": None, "tool_calls": [untyped]},
        {"role": "tool", "tool_call_id": "call_3", "content": None},
    )
    assert found == [
        {"type": "message", "role": "assistant", "content": "Wait."},
        {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "call_2", "name": "c", "input": "x"},
        {"type": "custom_tool_call_output", "call_id": "call_2", "output": "out"},
        {
            "type": "function_call_output",
            "call_id": "call_1",
            "output": [{"type": "input_text", "text": "4"}],
        },
        {"type": "function_call", "call_id": "call_3", "name": "f", "arguments": '{"a": 1.0}'},
        {"type": "function_call_output", "call_id": "call_3", "output": ""},
    ]


def test_calls_of_the_deprecated_form_are_paired_by_name() -> None:
    found = items(
        *(
            message
            for number in (1, 2)
            for message in (
                {
                    "role": "assistant",
                    "content": None,
                    "function_call": {"name": "f", "arguments": f"{{{number}}}"},
                },
                {"role": "function", "name": "f", "content": f"out {number}"},
            )
        )
    )
    assert [item["type"] for item in found] == ["function_call", "function_call_output"] * 2
    assert [item["call_id"] for item in found[::2]] == [item["call_id"] for item in found[1::2]]
    assert found[0]["call_id"] != found[2]["call_id"]
    assert [item["output"] for item in found[1::2]] == ["out 1", "out 2"]


def test_names_that_tell_nobody_apart_are_left_out() -> None:
    named = {**USER, "name": "ann"}
    assert items(named, {"role": "assistant", "content": "x", "name": "bot"}, named) == [
        ASKED, {"type": "message", "role": "assistant", "content": "x"}, ASKED,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (4, "messages[1]"),
        ({}, "messages[1].role"),
        ({"role": "critic", "content": "x"}, "messages[1].role"),
        ({"role": "user"}, "messages[1].content"),
        ({"role": "user", "content": 4}, "messages[1].content"),
        ({"role": "user", "content": [4]}, "messages[1].content[0]"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[1].content[0].text"),
        ({"role": "user", "content": [{"type": "video"}]}, "messages[1].content[0].type"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": "https://a"}]},
            "messages[1].content[0].image_url",
        ),
        ({"role": "user", "content": [{"type": "file"}]}, "messages[1].content[0].file"),
        (
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]},
            "messages[1].content[0]",
        ),
        ({"role": "user", "content": "x", "name": "bob"}, "messages[1].name"),
        ({"role": "assistant"}, "messages[1].content"),
        ({"role": "assistant", "tool_calls": []}, "messages[1].content"),
        ({"role": "assistant", "content": {}}, "messages[1].content"),
        ({"role": "assistant", "content": "x", "audio": {"id": "a"}}, "messages[1].audio"),
        ({"role": "assistant", "content": "x", "refusal": 4}, "messages[1].refusal"),
        (
            {"role": "assistant", "content": [{"type": "image_url"}]},
            "messages[1].content[0].type",
        ),
        ({"role": "assistant", "tool_calls": {}}, "messages[1].tool_calls"),
        ({"role": "assistant", "tool_calls": [{}]}, "messages[1].tool_calls[0].id"),
        (
            {"role": "assistant", "tool_calls": [{"id": "a", "type": "other"}]},
            "messages[1].tool_calls[0].type",
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f"}}]},
            "messages[1].tool_calls[0].function.arguments",
        ),
        ({"role": "assistant", "function_call": {}}, "messages[1].function_call.name"),
        ({"role": "tool", "content": "x"}, "messages[1].tool_call_id"),
        ({"role": "tool", "tool_call_id": "a", "content": 4}, "messages[1].content"),
        ({"role": "function", "name": "f", "content": "x"}, "messages[1].name"),
    ],
)
def test_malformed_messages_name_the_place(message: object, param: str) -> None:
    with pytest.raises(InvalidBodyError) as raised:
        items(USER, message)
    assert (raised.value.code, raised.value.param) == ("invalid_request", param)


# --- what JSON can hold ------------------------------------------------------------------------


def test_half_a_surrogate_pair_goes_on() -> None:
    chat = b'{"messages":[{"role":"user","content":"a\\ud800\xc3\xa9"}]}'
    frame = create_frame(responses_body(parse_body(chat)).body, {})
    assert "a\\ud800\\u00e9" in frame
    frame.encode()


@pytest.mark.parametrize("value", ["1e999", "[" * 985 + "]" * 985])
def test_what_cannot_be_written_again_is_refused(value: str) -> None:
    function = f'{{"name":"f","parameters":{{"a":{value}}}}}'
    tools = f'[{{"type":"function","function":{function}}}]'
    chat = f'{{"messages":[{json.dumps(USER)}],"tools":{tools}}}'
    with pytest.raises(InvalidBodyError) as raised:
        responses_body(parse_body(chat.encode()))
    assert raised.value.code == "invalid_request"
