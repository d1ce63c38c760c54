from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.mock_upstream.requests import RefusedError, parse_request

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["model", "input", "tools", "stream_id", "include", "metadata", "generate", "store", "stream"]
)


@given(
    JSON
    | st.dictionaries(KEYS, JSON)
    | st.dictionaries(KEYS, JSON).map(lambda d: {**d, "model": "m"})
)
def test_any_json_is_read_or_refused(body: object) -> None:
    with contextlib.suppress(RefusedError):
        request = parse_request(body, 0)
        request.last_user_text()
        request.answers_a_tool_call()
        request.foreign_encrypted_content("work")
        list(request.tool_definitions())


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ([], None),
        ({}, "missing_required_parameter"),
        ({"model": ""}, "missing_required_parameter"),
        ({"model": "m", "input": 1}, "invalid_type"),
        ({"model": "m", "input": ["x"]}, "invalid_type"),
        ({"model": "m", "stream": "yes"}, "invalid_type"),
        ({"model": "m", "stream_id": ""}, "invalid_stream_id"),
        ({"model": "m", "stream_id": "a b"}, "invalid_stream_id"),
        ({"model": "m", "stream_id": "a" * 257}, "invalid_stream_id"),
    ],
)
def test_what_is_refused(body: object, code: str | None) -> None:
    with pytest.raises(RefusedError) as caught:
        parse_request(body, 0)
    assert caught.value.error.code == code


@pytest.mark.parametrize(
    ("content", "foreign"),
    [("enc:home:rs_1", True), ("enc:work:rs_1", False), ("gAAAA", False), (None, False)],
)
def test_encrypted_content_belongs_to_an_account(content: str | None, foreign: bool) -> None:
    body = {"model": "m", "input": [{"type": "reasoning", "encrypted_content": content}]}
    assert parse_request(body, 0).foreign_encrypted_content("work") is foreign
