from __future__ import annotations

import json
from typing import Any

import pytest

from codexlb_cli.mock_upstream.answers import compose
from codexlb_cli.mock_upstream.requests import parse_request
from codexlb_cli.mock_upstream.rules import FailedSpec, RateLimits, RateWindow, TurnRule
from codexlb_cli.mock_upstream.stream import ResponseStream, rate_limit_headers, rate_limits_event

# What the published schema of the events requires, besides type and sequence_number.
REQUIRED = {
    "response.created": {"response"},
    "response.in_progress": {"response"},
    "response.completed": {"response"},
    "response.output_item.added": {"item", "output_index"},
    "response.output_item.done": {"item", "output_index"},
    "response.content_part.added": {"content_index", "item_id", "output_index", "part"},
    "response.content_part.done": {"content_index", "item_id", "output_index", "part"},
    "response.output_text.delta": {
        "content_index", "delta", "item_id", "logprobs", "output_index",
    },
    "response.output_text.done": {
        "content_index", "item_id", "logprobs", "output_index", "text",
    },
    "response.function_call_arguments.delta": {"delta", "item_id", "output_index"},
    "response.function_call_arguments.done": {"arguments", "item_id", "output_index"},
}  # fmt: skip


def events_of(rule: TurnRule, **fields: object) -> list[dict[str, Any]]:
    request = parse_request({"model": "mock", "input": "hi", **fields}, 400)
    stream = ResponseStream("resp_1", "work", request, compose(request, rule), created_at=7)
    events = [*stream.opening(), *stream.items(), stream.completed(rule.completed_bytes)]
    parsed = [json.loads(payload) for _, payload in events]
    assert [name for name, _ in events] == [event["type"] for event in parsed]
    return parsed


@pytest.mark.parametrize(
    ("rule", "fields"),
    [
        (TurnRule(), {}),
        (TurnRule(reasoning=True), {"stream_id": "main"}),
        (TurnRule(tool=True), {"tools": [{"type": "function", "name": "exec_command"}]}),
        (TurnRule(), {"generate": False}),
        (TurnRule(), {"include": ["reasoning.encrypted_content"], "input": 'q"\\\n é \ud800'}),
    ],
)
def test_every_event_is_whole(rule: TurnRule, fields: dict[str, object]) -> None:
    events = events_of(rule, **fields)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert {event.get("stream_id") for event in events} == {fields.get("stream_id")}
    for event in events:
        assert REQUIRED[event["type"]] <= event.keys()
    items = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    completed = events[-1]["response"]
    assert (completed["status"], completed["output"]) == ("completed", items)
    assert completed["metadata"] == {"account": "work"}
    assert {event["response"]["id"] for event in events if "response" in event} == {"resp_1"}


def test_a_normal_turn_is_a_message() -> None:
    events = events_of(TurnRule())
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created", "in_progress", "output_item.added", "content_part.added",
        "output_text.delta", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    deltas = [event["delta"] for event in events if event["type"].endswith("text.delta")]
    assert "".join(deltas) == events[7]["text"] == "You said: hi"


def test_a_warm_up_has_no_output_and_costs_nothing() -> None:
    *_, completed = events_of(TurnRule(), generate=False)
    assert completed["response"]["output"] == []
    assert completed["response"]["usage"]["total_tokens"] == 0


def test_a_compaction_is_that_item_alone_and_belongs_to_its_account() -> None:
    message = {"role": "user", "content": "hi"}
    more = {
        "include": ["reasoning.encrypted_content"],
        "tools": [{"type": "function", "name": "f"}],
    }
    events = events_of(TurnRule(tool=True), input=[message, {"type": "compaction_trigger"}], **more)
    (item,) = events[-1]["response"]["output"]
    assert item["type"] == "compaction"
    assert item["encrypted_content"].startswith("enc:work:")
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created", "in_progress", "output_item.added", "output_item.done", "completed",
    ]  # fmt: skip


def test_usage_adds_up() -> None:
    usage = events_of(TurnRule(reasoning=True), previous_response_id="resp_0")[-1]["response"][
        "usage"
    ]
    assert usage == {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 50},
        "output_tokens": 19,
        "output_tokens_details": {"reasoning_tokens": 16},
        "total_tokens": 119,
    }


def test_encrypted_content_names_its_account() -> None:
    item = events_of(TurnRule(reasoning=True))[-1]["response"]["output"][0]
    assert item["type"] == "reasoning"
    assert item["encrypted_content"].startswith("enc:work:")


def test_a_huge_completed() -> None:
    assert len(json.dumps(events_of(TurnRule(completed_bytes=100_000))[-1])) >= 100_000


def test_the_request_s_metadata_is_kept() -> None:
    *_, completed = events_of(TurnRule(), metadata={"mine": "1"})
    assert completed["response"]["metadata"] == {"mine": "1", "account": "work"}


def test_how_a_response_may_fail() -> None:
    request = parse_request({"model": "mock"}, 0)
    stream = ResponseStream("resp_1", "work", request, compose(request, TurnRule()), created_at=7)
    failed = json.loads(stream.failed(FailedSpec(code="x", message="y"))[1])
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {"code": "x", "message": "y"}
    incomplete = json.loads(stream.incomplete("max_output_tokens")[1])
    assert incomplete["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert (failed["sequence_number"], incomplete["sequence_number"]) == (0, 1)


def test_rate_limits_as_an_event_and_as_headers() -> None:
    limits = RateLimits(primary=RateWindow(used_percent=55.0, window_minutes=300, reset_at=9))
    assert json.loads(rate_limits_event(limits)[1]) == {
        "type": "codex.rate_limits",
        "plan_type": "plus",
        "rate_limits": {
            "allowed": True,
            "limit_reached": False,
            "primary": {"used_percent": 55.0, "window_minutes": 300, "reset_at": 9},
        },
    }
    assert rate_limit_headers(limits) == {
        "x-codex-primary-used-percent": "55.0",
        "x-codex-primary-window-minutes": "300",
        "x-codex-primary-reset-at": "9",
    }
