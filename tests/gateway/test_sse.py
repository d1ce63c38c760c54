"""Reading server-sent events: the same events, however the bytes were cut."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.gateway.sse import SseDecoder

LARGEST = 1_000


def decoded(pieces: Iterable[bytes], largest: int = LARGEST) -> tuple[list[str], str | None]:
    decoder = SseDecoder(largest)
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return events, decoder.fault


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", ["a"]),
        (b"data:a\r\n\r\ndata:b\r\rdata:c\n\n", ["a", "b", "c"]),
        (b"event: x\nid: 1\nretry: 2\ndata: a\nother: y\nlone\n\n", ["a"]),
        (b"data: a\ndata: b\ndata\ndata:  c\n\n", ["a\nb\n\n c"]),
        (b": comment\n\n:\n\ndata: a\n: within\n\n", ["a"]),
        (b"\xef\xbb\xbfdata: a\n\n", ["a"]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", ["b"]),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", ["a"]),
        (b"data: a\n\ndata: [DONE]\n\n", ["a"]),
        (b"data:\n\ndata\n\nevent: x\n\n\n\n", []),
        (b"data: a\n\ndata: b\n", ["a"]),
        (b"data: a\n\ndata: b", ["a"]),
        (b" data: a\n\nDATA: b\n\ndata : c\n\n", []),
        (b"data: a: b\n\n", ["a: b"]),
        ("data: \u20ac\u2028\x85\n\n".encode(), ["\u20ac\u2028\x85"]),
        (b"\r\n\r\ndata: a\r\n\r\n", ["a"]),
        (b"data: \x00\n\n", ["\x00"]),
        (b"", []),
    ],
)
def test_events(stream: bytes, events: list[str]) -> None:
    assert decoded([stream]) == (events, None)
    assert decoded(stream[at : at + 1] for at in range(len(stream))) == (events, None)


def test_what_is_no_utf_8_ends_the_stream() -> None:
    stream = b"data: a\n\ndata: \xff\n\ndata: b\n\n"
    assert decoded([stream]) == (["a"], "not UTF-8")
    assert decoded([stream, b"data: c\n\n"]) == (["a"], "not UTF-8")


@pytest.mark.parametrize(
    "endless",
    [b"data: " + b"x" * 2_000, b"data: x\n" * 500, b":" + b"x" * 2_000, b"data\n" * 2_000],
)
def test_what_grows_for_ever_ends_the_stream(endless: bytes) -> None:
    stream = b"data: a\n\n" + endless
    assert decoded([stream]) == (["a"], "event too large")
    assert decoded(stream[at : at + 7] for at in range(0, len(stream), 7)) == (
        ["a"],
        "event too large",
    )


def test_the_largest_event() -> None:
    line = b"data: " + b"x" * (LARGEST - 6)
    assert decoded([line + b"\n\n"])[1] is None
    assert decoded([line + b"x\n\n"]) == ([], "event too large")
    assert decoded([b"data: a\n\n" * LARGEST])[1] is None
    assert decoded([b": comment\n" * LARGEST])[1] is None


def test_bytes_cut_in_a_character() -> None:
    stream = "data: \U0001f600\n\n".encode()
    for at in range(len(stream)):
        assert decoded([stream[:at], stream[at:]]) == (["\U0001f600"], None)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"))
BLOCKS = st.lists(
    st.one_of(
        st.builds("data:{}".format, TEXT),
        st.builds("data: {}".format, TEXT),
        st.builds(":{}".format, TEXT),
        st.builds("event: {}".format, TEXT),
        st.sampled_from(["", "data", "data: [DONE]", "id: 1"]),
        TEXT,
    )
)
ENDS = st.sampled_from(["\n", "\r", "\r\n"])


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    lines = draw(BLOCKS)
    stream = "".join(line + draw(ENDS) for line in lines).encode()
    return draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + stream + draw(st.just(b"") | st.binary())


@given(streams(), st.lists(st.integers(0, 300)), st.sampled_from([20, LARGEST, 10**9]))
def test_any_cutting_gives_the_same_events(stream: bytes, cuts: list[int], largest: int) -> None:
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[a:b] for a, b in pairwise(places)]
    assert b"".join(pieces) == stream
    whole = decoded([stream], largest)
    assert decoded(pieces, largest) == whole
    assert decoded((stream[at : at + 1] for at in range(len(stream))), largest) == whole


@given(st.lists(TEXT.filter(lambda text: text not in ("", "[DONE]"))), ENDS)
def test_what_was_written_is_read(texts: list[str], end: str) -> None:
    stream = "".join(f"data: {text}{end}{end}" for text in texts).encode()
    assert decoded([stream], 10**9) == (texts, None)
