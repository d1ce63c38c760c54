"""Request bodies: bounded, and decoded."""

from __future__ import annotations

import asyncio
import gzip
import os
import sys
import zlib
from collections.abc import Callable, MutableMapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.gateway.bodies import BodyError, ClientGone, decode_body, read_body

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
}
LIMIT = 1 << 20


@given(st.binary(max_size=5_000), st.lists(st.sampled_from(sorted(ENCODERS)), max_size=3))
def test_any_encodings_in_a_row_are_undone(data: bytes, names: list[str]) -> None:
    encoded = data
    for name in names:
        encoded = ENCODERS[name](encoded)
    assert decode_body(encoded, [", ".join(names)], LIMIT) == data
    assert decode_body(encoded, names, LIMIT) == data


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_several_members_are_one_body(name: str) -> None:
    encode = ENCODERS[name]
    assert decode_body(encode(b"ab") + encode(b"cd"), [name], LIMIT) == b"abcd"


@pytest.mark.parametrize("name", ["gzip", "deflate", "zstd"])
def test_a_bomb_is_stopped_at_the_limit(name: str) -> None:
    bomb = ENCODERS[name](bytes(50 * LIMIT))
    assert len(bomb) < LIMIT
    with pytest.raises(BodyError) as caught:
        decode_body(bomb, [name], LIMIT)
    assert caught.value.error.code == "request_too_large"


@pytest.mark.parametrize("name", ["gzip", "deflate", "zstd"])
@pytest.mark.parametrize("damage", ["empty", "cut", "garbage", "tail"])
def test_broken_data_is_refused(name: str, damage: str) -> None:
    whole = ENCODERS[name](b"hello world" * 100)
    data = {
        "empty": b"",
        "cut": whole[:-5],
        "garbage": b"hello",
        "tail": whole + b"rest",
    }[damage]
    with pytest.raises(BodyError) as caught:
        decode_body(data, [name], LIMIT)
    assert caught.value.error.code == "invalid_request"


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(BodyError) as caught:
        decode_body(b"", ["br"], LIMIT)
    assert caught.value.error.code == "invalid_request"


def _read(messages: list[MutableMapping[str, Any]], limit: int) -> bytes:
    waiting = iter(messages)

    async def receive() -> MutableMapping[str, Any]:
        return next(waiting)

    return asyncio.run(read_body(receive, limit))


def _piece(body: bytes, *, more: bool) -> MutableMapping[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_pieces_are_joined_up_to_the_limit() -> None:
    assert _read([_piece(b"ab", more=True), _piece(b"cd", more=False)], 4) == b"abcd"
    with pytest.raises(BodyError):
        _read([_piece(b"ab", more=True), _piece(b"cd", more=True)], 3)


def test_a_client_that_leaves_is_no_error_of_ours() -> None:
    with pytest.raises(ClientGone):
        _read([_piece(b"ab", more=True), {"type": "http.disconnect"}], 4)


@pytest.mark.parametrize("name", ["gzip", "deflate", "zstd"])
def test_the_work_grows_with_the_body_and_not_with_its_square(name: str) -> None:
    """Each byte goes into the decoder once: what was left over is not copied again and again."""
    data = os.urandom(3 << 20)
    assert decode_body(ENCODERS[name](data), [name], len(data)) == data
