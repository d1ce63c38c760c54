"""The frame that goes upstream is the client's own body, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import Stage, run, session


def test_values_are_kept_as_the_client_wrote_them(tmp_path: Path) -> None:
    members = [
        '"zeta": 1.0',
        '"model":"mock"',
        '"temperature" :1.10',
        '"tiny":1e-7 ,"large":1E+400',
        '"big":123456789012345678901234567890',
        '"negative":-0',
        r'"said":"\u00e9\ud83d\ude00 \/ é 😀"',
        r'"lone":"\ud800"',
        '"input":[ {"role" : "user",\n"content":"hello"} ]',
        '"unknown":{"b":[1,2.50,null,true],"a":{}}',
        '"empty":""',
        '"alpha":null',
    ]
    body = "{\n  " + ",\n  ".join(members) + "\n}"

    async def test(stage: Stage) -> None:
        assert (await stage.post(body.encode())).status == 200
        frame = stage.mock.frames[0].text
        assert frame == (
            '{"type":"response.create","zeta":1.0,"model":"mock","temperature":1.10,"tiny":1e-7,'
            '"large":1E+400,"big":123456789012345678901234567890,"negative":-0,'
            r'"said":"\u00e9\ud83d\ude00 \/ é 😀",'
            r'"lone":"\ud800",'
            '"input":[ {"role" : "user",\n"content":"hello"} ],'
            '"unknown":{"b":[1,2.50,null,true],"a":{}},"empty":"","alpha":null}'
        )

    run(test, tmp_path)


def test_members_that_exist_for_http_alone_are_left_out(tmp_path: Path) -> None:
    body = {
        "stream": True,
        "model": "mock",
        "background": False,
        "background_options": {"a": 1},
        "stream_id": "one",
        "type": "something.else",
        "stream_options": {"include_obfuscation": False},
        "store": False,
        "generate": True,
        "input": "hello",
    }

    async def test(stage: Stage) -> None:
        answer = await stage.post(json.dumps(body).encode())
        assert answer.types[-1] == "response.completed"
        assert list(stage.frames[0].items()) == [
            ("type", "response.create"),
            ("model", "mock"),
            ("stream_options", {"include_obfuscation": False}),
            ("store", False),
            ("generate", True),
            ("input", "hello"),
        ]

    run(test, tmp_path)


def test_the_last_of_a_name_wins_as_with_any_json_reader(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        body = b'{"model":"a","stream":false,"model":"mock","stream":true,"input":"hello"}'
        assert (await stage.post(body)).types[-1] == "response.completed"
        assert stage.frames[0] == {"type": "response.create", "model": "mock", "input": "hello"}

    run(test, tmp_path)


ENCRYPTED = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "enc:work:x"}
MESSAGE = {"role": "user", "content": "hello"}


def test_encrypted_reasoning_stays_with_its_account(tmp_path: Path) -> None:
    """A session that moves loses it: another account could not read it."""
    body = [ENCRYPTED, MESSAGE, {"type": "reasoning", "id": "rs_2", "summary": []}]

    async def test(stage: Stage) -> None:
        first = await stage.turn(headers=session("s"), include=["reasoning.encrypted_content"])
        assert first.header("x-codexlb-account") == "work"
        stays = await stage.turn(headers=session("s"), input=body)
        assert (stays.status, stage.frames[-1]["input"]) == (200, body)
        del stage.environ["WORK_KEY"]
        moved = await stage.turn(headers=session("s"), input=body)
        assert (moved.status, moved.header("x-codexlb-account")) == (200, "home")
        assert stage.frames[-1]["input"] == body[1:]
        assert any("reasoning" in line and "dropped" in line for line in stage.lines)

    run(test, tmp_path)


PINNED: dict[str, dict[str, Any]] = {
    "previous_response_id": {"previous_response_id": "resp_1"},
    "conversation": {"conversation": "conv_1"},
    "conversation object": {"conversation": {"id": "conv_1"}},
    "item reference": {"input": [{"type": "item_reference", "id": "msg_1"}]},
    "file": {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file_1"}]}]},
    "compaction": {"input": [{"type": "compaction", "encrypted_content": "x"}]},
}


@pytest.mark.parametrize("what", PINNED)
def test_a_turn_that_lives_in_its_account_cannot_move(tmp_path: Path, what: str) -> None:
    async def test(stage: Stage) -> None:
        assert (await stage.turn(headers=session("s"))).header("x-codexlb-account") == "work"
        del stage.environ["WORK_KEY"]
        answer = await stage.turn(headers=session("s"), **PINNED[what])
        assert (answer.status, answer.error["code"]) == (503, "owner_unavailable")
        assert "`work`" in answer.error["message"]
        assert answer.header("retry-after") is None
        assert stage.sent == ["work"]

    run(test, tmp_path)
