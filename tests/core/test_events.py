"""Events and errors that the gateway writes itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.events import (
    client_status,
    error_object,
    is_codex,
    our_error,
    passed_on,
    terminal_event,
    whole_response,
)
from codexlb_cli.core.failures import parse

ERROR = our_error(ClientError("upstream_closed", "gone"))


@pytest.mark.parametrize(
    ("name", "value", "codex"),
    [
        ("originator", "codex_exec", True),
        ("Originator", "codex_cli_rs", True),
        ("User-Agent", "codex_exec/0.169.0 (Debian)", True),
        ("user-agent", "OpenAI/Python 3.54.0", False),
        ("x-note", "codex", False),
    ],
)
def test_codex_is_known_by_its_name(name: str, value: str, codex: bool) -> None:
    assert is_codex([("accept", "*/*"), (name, value)]) is codex


def test_the_superset_form_carries_the_number_on() -> None:
    kind, text = terminal_event(ERROR, {"sequence_number": 7}, codex=False)
    assert (kind, json.loads(text)) == (
        "error",
        {
            "type": "error",
            "sequence_number": 8,
            "code": "upstream_closed",
            "message": "gone",
            "param": None,
            "error": {
                "type": "server_error",
                "code": "upstream_closed",
                "message": "gone",
                "param": None,
            },
        },
    )


def test_codex_gets_a_failure_that_it_retries_with_the_same_id() -> None:
    last = {"sequence_number": 7, "response_id": "resp_1"}
    kind, text = terminal_event(ERROR, last, codex=True)
    event = json.loads(text)
    assert kind == event["type"] == "response.failed"
    assert (event["sequence_number"], event["response"]["id"]) == (8, "resp_1")
    assert event["response"]["status"] == "failed"
    assert event["response"]["error"] == {"code": "server_error", "message": "gone"}


@pytest.mark.parametrize(
    ("status", "passed"),
    [(400, 400), (404, 404), (503, 503), (401, 502), (200, 1), (999, 1), (None, 1), (True, 1)],
)
def test_the_status_of_an_error_that_is_passed_on(status: object, passed: int) -> None:
    assert client_status(status, 1) == passed


@pytest.mark.parametrize(
    ("response", "done", "whole"),
    [
        ('{"a" : 1.50,"output":[]}', ['{"item":{"n" : 1}}'], '{"a":1.50,"output":[{"n" : 1}]}'),
        ('{"id":"r"}', ['{"item":2}', '{"item":1,"output_index":0}'], '{"id":"r","output":[1,2]}'),
        ('{"output":[],"b":null}', ['{"output_index":0}'], '{"output":[],"b":null}'),
        ('{ "output" : [ 7 ] }', ['{"item":1}'], '{ "output" : [ 7 ] }'),
        ('{ "output" : [] }', [], '{ "output" : [] }'),
        ("5", ['{"item":1}'], "5"),
    ],
)
def test_items_that_the_last_event_leaves_out_are_put_back(
    response: str, done: list[str], whole: str
) -> None:
    assert whole_response(f'{{"type":"response.completed","response":{response}}}', done) == whole
    assert whole_response("{}", done) == "{}"


@given(
    st.none() | st.integers(),
    st.recursive(
        st.none() | st.text() | st.integers() | st.floats(), lambda x: st.dictionaries(st.text(), x)
    ),
    st.dictionaries(st.sampled_from(["retry-after", "x-codex-a", "set-cookie"]), st.text()),
)
def test_whatever_is_passed_on_can_be_sent(status: Any, body: Any, headers: Any) -> None:
    failure = parse(status, body, headers, 0.0, handshake=False)
    sent, lines, envelope = passed_on(failure)
    assert 400 <= sent <= 599
    assert sent != 401
    for name, value in lines:
        assert name != "set-cookie"
        assert (name + value).isprintable()
    json.dumps(envelope, allow_nan=False).encode()
    assert isinstance(envelope["error"], dict)
    assert isinstance(envelope["error"]["message"], str)
    assert {"message", "type", "code", "param"} <= set(error_object({}, None))
