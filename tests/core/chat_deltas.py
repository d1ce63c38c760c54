"""Puts the chunks of a chat completion together, as its clients do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def put_together(chunks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the choice that the chunks make up; usage chunks have no part in it."""
    message: dict[str, Any] = {"annotations": []}
    choice: dict[str, Any] = {"index": 0, "message": message, "logprobs": None}
    for chunk in chunks:
        for piece in chunk["choices"]:
            _merge(message, piece["delta"])
            if piece["logprobs"] is not None:
                told = choice["logprobs"] or {"content": [], "refusal": None}
                told["content"] += piece["logprobs"]["content"]
                choice["logprobs"] = told
            choice["finish_reason"] = piece["finish_reason"]
    return choice


def _merge(whole: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        if name == "tool_calls":
            calls = whole.setdefault(name, [])
            for piece in value:
                rest = {k: v for k, v in piece.items() if k != "index"}
                if piece["index"] == len(calls):
                    calls.append({})
                _merge(calls[piece["index"]], rest)
        elif isinstance(value, dict):
            _merge(whole.setdefault(name, {}), value)
        elif name in ("content", "refusal", "arguments", "input") and whole.get(name) is not None:
            whole[name] += value
        else:
            assert name not in whole or name in ("content", "refusal", "annotations"), name
            whole[name] = value
