"""The frame: what goes out as it came in, what is left out, and which bodies are refused."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codexlb_cli.core.frames import (
    TERMINAL_EVENTS,
    Body,
    InvalidBodyError,
    create_frame,
    has_side_effects,
    is_response_event,
    parse_body,
    parse_event,
    reasoning_digest,
    reasoning_digests,
    split_members,
)

STRIPPED = {"type", "stream", "background", "background_options", "stream_id"}


def frame(text: str, **moved: str) -> str:
    return create_frame(parse_body(text.encode()), moved)


def body(value: dict[str, Any]) -> Body:
    return parse_body(json.dumps(value).encode())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", '{"type":"response.create"}'),
        (' \n{ "model" : "m" , "x":1 }\r\n', '{"type":"response.create","model":"m","x":1}'),
        (
            (
                '{"stream":true,"b":1,"background":false,"background_options":{},"a":2,'
                '"stream_id":"s","type":"response.create"}'
            ),
            '{"type":"response.create","b":1,"a":2}',
        ),
        (
            '{"t":1e5,"u":1.0,"v":0.1000,"w":-0,"x":123456789012345678901234567890,"y":1E+2}',
            (
                '{"type":"response.create","t":1e5,"u":1.0,"v":0.1000,"w":-0,'
                '"x":123456789012345678901234567890,"y":1E+2}'
            ),
        ),
        (
            '{"input":"\\u00e9\u20ac\\/\\ud83d\\ude00","n":[ 1 ,\t2 ],"z":null}',
            (
                '{"type":"response.create","input":"\\u00e9\u20ac\\/\\ud83d\\ude00",'
                '"n":[ 1 ,\t2 ],"z":null}'
            ),
        ),
        ('{"stream_options":{"a":1}}', '{"type":"response.create","stream_options":{"a":1}}'),
    ],
)
def test_the_frame_is_the_body_without_what_is_only_for_http(text: str, expected: str) -> None:
    assert frame(text) == expected


def test_of_a_repeated_member_the_last_counts() -> None:
    out = frame('{"a":1,"b":2,"a":3,"stream":true,"stream":false}')
    assert json.loads(out) == {"type": "response.create", "a": 3, "b": 2}
    assert out.count('"a"') == 1
    assert "stream" not in out


# --- arbitrary bodies ------------------------------------------------------------------------

spaces = st.text(" \t\n\r", max_size=2)
numbers = st.one_of(
    st.integers(-(10**30), 10**30).map(str),
    st.sampled_from(["1e5", "1.0", "1E+2", "-0", "-0.0", "0.10", "1e400", "-1e-400", "12.50e-3"]),
)


@st.composite
def strings(draw: st.DrawFn) -> str:
    """Draw a JSON string with characters written as they are or escaped."""
    parts = []
    for character in draw(st.text(max_size=5)):
        if draw(st.booleans()):
            parts.append(json.dumps(character)[1:-1])
        else:
            parts.append(json.dumps(character, ensure_ascii=False)[1:-1])
    parts += draw(
        st.lists(st.sampled_from(["\\/", "\\u0041", "\\ud800", "\\n", "\\\\"]), max_size=2)
    )
    text = '"' + "".join(parts) + '"'
    return text.encode(errors="replace").decode()


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    names = st.one_of(strings(), st.sampled_from([f'"{n}"' for n in (*STRIPPED, "input", "a")]))
    items = draw(st.lists(st.tuples(names, inner), max_size=4))
    parts = [f"{draw(spaces)}{n}{draw(spaces)}:{draw(spaces)}{v}{draw(spaces)}" for n, v in items]
    return "{" + (",".join(parts) or draw(spaces)) + "}"


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    items = draw(st.lists(inner, max_size=3))
    parts = [f"{draw(spaces)}{v}{draw(spaces)}" for v in items]
    return "[" + (",".join(parts) or draw(spaces)) + "]"


json_texts = st.recursive(
    st.one_of(st.sampled_from(["true", "false", "null"]), numbers, strings()),
    lambda inner: objects(inner) | arrays(inner),
    max_leaves=8,
)


@given(objects(json_texts), spaces, spaces)
@settings(max_examples=300)
def test_members_keep_their_raw_text_and_order(text: str, before: str, after: str) -> None:
    parsed = parse_body((before + text + after).encode())
    assert {n: m.value for n, m in parsed.members.items()} == json.loads(text)
    out = create_frame(parsed, {})
    expected = {"type": "response.create"} | {
        n: v for n, v in json.loads(text).items() if n not in STRIPPED
    }
    assert json.loads(out) == expected
    assert list(json.loads(out)) == list(expected)
    kept = [(n, m.raw) for n, m in parsed.members.items() if n not in STRIPPED]
    assert [(n, m.raw) for n, m in split_members(out).items()] == [
        ("type", '"response.create"'),
        *kept,
    ]
    for _, raw in kept:
        assert raw in text
        assert raw == raw.strip(" \t\n\r")
    out.encode()


@given(
    objects(json_texts), st.dictionaries(st.sampled_from("abxyz"), st.text('ab"\\é'), max_size=3)
)
def test_moved_headers_join_client_metadata(metadata: str, moved: dict[str, str]) -> None:
    own = split_members(metadata)
    out = frame(f'{{"model":"m","client_metadata":{metadata},"z":1}}', **moved)
    assert json.loads(out)["client_metadata"] == {**moved, **json.loads(metadata)}
    members = split_members(split_members(out)["client_metadata"].raw)
    assert {n: members[n].raw for n in own} == {n: m.raw for n, m in own.items()}
    assert {n: m.raw for n, m in split_members(out).items() if n in ("model", "z")} == {
        "model": '"m"', "z": "1",
    }  # fmt: skip
    assert "Infinity" not in out
    out.encode()


def test_client_metadata_is_made_if_the_body_has_none() -> None:
    assert frame('{"model":"m"}', x="1") == (
        '{"type":"response.create","model":"m","client_metadata":{"x":"1"}}'
    )
    null = json.loads(frame('{"client_metadata":null}', x="1"))
    assert null["client_metadata"] == {"x": "1"}
    assert json.loads(frame('{"client_metadata":{}}', x="1"))["client_metadata"] == {"x": "1"}


def test_client_metadata_of_a_wrong_type_is_the_upstreams_to_refuse() -> None:
    assert json.loads(frame('{"client_metadata":"s"}', x="1"))["client_metadata"] == "s"


def test_client_metadata_without_moved_headers_is_untouched() -> None:
    assert frame('{"client_metadata": { "a" : 1.0 }}') == (
        '{"type":"response.create","client_metadata":{ "a" : 1.0 }}'
    )


# --- bodies that are refused -----------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"", b" ", b"[]", b"null", b"1", b'"a"', b"{", b"}", b"{}x", b"{}{}", b'{"a"}', b'{"a":}',
        b'{"a":1,}', b'{,}', b"{a:1}", b"{'a':1}", b'{"a":1 "b":2}', b'{"a":01}', b'{"a":NaN}',
        b'{"a":Infinity}', b'{"a":-Infinity}', b'{"a":"\x01"}', b'{"a":"\xff"}', b"\xff\xfe{}",
        b'{"a":+1}', b'{"a":.5}', b'{"a":tru}', b'{"a":"b}', b"\xef\xbb\xbf{}", b'{"a"=1}',
        b'{"a":[}', b"{}\x00", b'{1:2}', b'{"a":' + b"1" * 5000 + b"}",
    ],
)  # fmt: skip
def test_invalid_bodies(data: bytes) -> None:
    with pytest.raises(InvalidBodyError) as refused:
        parse_body(data)
    assert refused.value.code == "invalid_request"
    assert refused.value.param is None


def test_a_body_that_is_nested_too_deeply() -> None:
    with pytest.raises(InvalidBodyError, match="deep"):
        parse_body(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}")


@given(st.binary(max_size=40) | st.text('{}[]",:1e+-truefalsn \\u', max_size=30).map(str.encode))
def test_a_body_is_parsed_as_json_or_refused(data: bytes) -> None:
    try:
        expected = json.loads(data.decode())
    except ValueError:
        expected = None
    if isinstance(expected, dict) and "NaN" not in str(data) and "Inf" not in str(data):
        assert {n: m.value for n, m in parse_body(data).members.items()} == expected
    elif not isinstance(expected, dict):
        with pytest.raises(InvalidBodyError):
            parse_body(data)


def test_an_error_does_not_quote_the_body() -> None:
    with pytest.raises(InvalidBodyError) as refused:
        parse_body(b'{"input": "sk-test-LEAK" "x"}')
    assert "LEAK" not in str(refused.value)
    assert re.search(r"line 1, column \d+", str(refused.value))


def test_texts_and_flags() -> None:
    parsed = body({"s": "x", "e": "", "n": None, "i": 1, "t": True, "f": False})
    assert [parsed.text(n) for n in ("s", "e", "n", "gone")] == ["x", None, None, None]
    assert [parsed.flag(n) for n in ("t", "f", "n", "gone")] == [True, False, False, False]
    for read, name in (
        (parsed.text, "i"),
        (parsed.text, "t"),
        (parsed.flag, "i"),
        (parsed.flag, "s"),
    ):
        with pytest.raises(InvalidBodyError) as refused:
            read(name)
        assert refused.value.param == name


def test_bodies_are_not_shown_in_logs() -> None:
    assert "LEAK" not in repr(body({"input": "LEAK"}))


# --- hosted tools and encrypted reasoning ----------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        ({"type": "mcp", "server_label": "x"}, True),
        ({"type": "code_interpreter", "container": {"type": "auto"}}, True),
        ({"type": "computer_use_preview"}, True),
        ({"type": "computer"}, True),
        ({"type": "shell", "environment": {"type": "container_auto"}}, True),
        ({"type": "shell", "environment": {"type": "local"}}, False),
        ({"type": "local_shell"}, False),
        ({"type": "function", "name": "mcp"}, False),
        ({"type": "custom", "name": "shell"}, False),
        ({"type": "web_search"}, False),
        ({"type": "file_search"}, False),
        ({"type": "namespace", "tools": [{"type": "function"}]}, False),
        ({"type": "namespace", "tools": [{"type": "namespace", "tools": [{"type": "mcp"}]}]}, True),
        ({"type": 1}, False),
        ({}, False),
    ],
)  # fmt: skip
def test_tools_with_side_effects(tool: dict[str, Any], expected: bool) -> None:
    harmless = {"type": "function", "name": "f"}
    assert has_side_effects(body({"tools": [harmless, tool]})) is expected
    added = {"input": [{"type": "additional_tools", "tools": [tool]}]}
    assert has_side_effects(body(added)) is expected
    assert has_side_effects(body({"input": [{"type": "message", "tools": [tool]}]})) is False


@pytest.mark.parametrize("tools", [None, "mcp", {"type": "mcp"}, [None, "mcp", ["mcp"]]])
def test_tools_of_a_wrong_shape_have_no_side_effects(tools: object) -> None:
    assert has_side_effects(body({"tools": tools, "input": tools})) is False


REASONING = '{"type":"reasoning","id":"rs_1","summary":[ ],"encrypted_content":"abc"}'
OPEN = '{"summary":[],"type":"reasoning","encrypted_content":null}'
MESSAGE = '{"type": "message","content":[{"type":"output_text","text":"a, ] b"}],"n":1.0}'


FOREIGN = '{"type":"reasoning","id":"rs_2","summary":[],"encrypted_content":"xyz"}'


def test_unreadable_reasoning_is_dropped_whole_and_nothing_else() -> None:
    text = (
        f'{{"x":1e5,"input":[ {FOREIGN} , {MESSAGE},{REASONING},{FOREIGN},{OPEN}, 5 ],'
        '"y":"reasoning"}'
    )
    parsed = parse_body(text.encode())
    foreign, own, again = reasoning_digests(parsed)
    assert foreign == again != own
    assert create_frame(parsed, {}, unreadable=[foreign]) == (
        f'{{"type":"response.create","x":1e5,"input":[{MESSAGE},{REASONING},{OPEN},5],'
        '"y":"reasoning"}'
    )
    assert f"[ {FOREIGN} , {MESSAGE},{REASONING}" in create_frame(parsed, {})


@pytest.mark.parametrize("value", ['"text"', "[]", "[ ]", "null", f"[{MESSAGE}]", f"[{OPEN}]"])
def test_inputs_without_encrypted_reasoning_stay(value: str) -> None:
    parsed = parse_body(f'{{"input":{value}}}'.encode())
    assert reasoning_digests(parsed) == []
    out = json.loads(create_frame(parsed, {}, unreadable=["00"]))
    assert out["input"] == json.loads(value)


@given(st.lists(json_texts | st.sampled_from([REASONING, MESSAGE]), max_size=6), spaces)
def test_dropping_reasoning_touches_nothing_else(items: list[str], space: str) -> None:
    text = '{"input":[' + f"{space},{space}".join(items) + "]}"
    digests = {reasoning_digest(json.loads(REASONING)) or ""}
    out = create_frame(parse_body(text.encode()), {}, unreadable=digests)
    assert out == (
        '{"type":"response.create","input":[' + ",".join(i for i in items if i != REASONING) + "]}"
    )


# --- events ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"type":"response.created","response":{}}', "response.created"),
        ('{ "type" : "response.created" }', "response.created"),
        ('{"sequence_number":1,"type":"response.completed"}', "response.completed"),
        ('{"item":{"type":"message"},"type":"response.done"}', "response.done"),
        ('{"type":"response\\u002ecreated"}', "response.created"),
        ('{"type":"a\\"b"}', 'a"b'),
        ('{"typ\\u0065":"error"}', "error"),
        ('{"type":""}', ""),
        ('{"type":1}', ""),
        ('{"type":null}', ""),
        ("{}", ""),
    ],
)  # fmt: skip
def test_the_type_of_an_event(text: str, expected: str) -> None:
    assert parse_event(text)[0] == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "type",
        '"type"',
        "1",
        "[]",
        '{ "type":"a"',
        "[" * 200_000,
        '{"a":' + "1" * 5000 + "}",
    ],
)
def test_frames_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whichever it is, the protocol is broken
        parse_event(text)


@given(st.dictionaries(st.text(max_size=5) | st.just("type"), st.text(max_size=8), max_size=4))
def test_the_type_is_read_from_any_spelling(event: dict[str, str]) -> None:
    for text in (
        json.dumps(event),
        json.dumps(event, separators=(",", ":")),
        json.dumps(event, separators=(",", ":"), ensure_ascii=False),
    ):
        assert parse_event(text)[0] == event.get("type", "")


@pytest.mark.parametrize(
    ("kind", "counts"),
    [
        ("response.created", True),
        ("response.output_text.delta", True),
        ("response.completed", True),
        ("response.failed", True),
        ("response.metadata", False),
        ("codex.rate_limits", False),
        ("codex.response.created", False),
        ("keepalive", False),
        ("responses.created", False),
        ("response", False),
        ("", False),
        ("error", False),
    ],
)
def test_telemetry_and_unknown_types_never_count(kind: str, counts: bool) -> None:
    assert is_response_event(kind) is counts


def test_terminal_events() -> None:
    assert {
        "response.completed", "response.failed", "response.incomplete", "error",
    } <= TERMINAL_EVENTS  # fmt: skip
    assert not TERMINAL_EVENTS & {"response.created", "response.in_progress", "response.metadata"}
