"""Client headers in every form that a person may write them."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from codexlb_cli.errors import CodexlbError, InvalidHeader, UsageError
from codexlb_cli.inspect.inputs import (
    LONGEST_INPUT_BYTES,
    as_text,
    from_content,
    from_options,
    read,
)

THREE = (("Host", "a.example"), ("X-Foo", "one"), ("x-foo", "two"))


@pytest.mark.parametrize(
    "content",
    [
        b"Host: a.example\r\nX-Foo: one\r\nx-foo: two\r\n\r\n",
        b"Host: a.example\r\nX-Foo: one\r\nx-foo: two\r\n",
        b"Host: a.example\nX-Foo: one\nx-foo: two",
        b"POST /v1/responses HTTP/1.1\r\nHost: a.example\r\nX-Foo: one\r\nx-foo: two\r\n\r\n{}",
        b"\r\n\nGET / HTTP/1.1\nHost: a.example\nX-Foo: one\r\nx-foo: two\n\nnot: a header",
        b"GET http://a.example/ HTTP/2\nHost:a.example\nX-Foo:\t one \t\nx-foo: two",
        b"\xef\xbb\xbfHost: a.example\nX-Foo: one\nx-foo: two",
        b'[["Host", "a.example"], ["X-Foo", "one"], ["x-foo", "two"]]',
        b"""[{"name": "Host", "value": "a.example"}, {"value": "one", "name": "X-Foo"},
             {"name": "x-foo", "value": "two", "comment": ""}]""",
        b' \n{"Host": "a.example", "X-Foo": "one", "x-foo": "two"}',
        b'\xef\xbb\xbf{"Host": ["a.example"], "X-Foo": ["one"], "x-foo": "two"}',
        b'[["Host", "a.example"], {"name": "X-Foo", "value": " one "}, ["x-foo", "two"]]',
    ],
)
def test_heads_and_json_read_alike(content: bytes) -> None:
    assert from_content(content) == THREE


def test_options_read_like_a_head() -> None:
    assert from_options(["Host: a.example", "X-Foo:one", "x-foo:  two "]) == THREE


def test_an_object_keeps_names_that_come_twice_and_lists_of_values() -> None:
    content = b'{"x": ["1", "2"], "y": [], "x": "3"}'
    assert from_content(content) == (("x", "1"), ("x", "2"), ("x", "3"))


@pytest.mark.parametrize(
    "content", [b"", b"\r\n", b"\n\n", b"GET / HTTP/1.1\r\n\r\n", b"[]", b"{}"]
)
def test_no_headers_are_headers(content: bytes) -> None:
    assert from_content(content) == ()


def test_values_may_be_empty_and_hold_colons_and_tabs() -> None:
    assert from_options(["a:", "b: c:d", "e: f\tg"]) == (("a", ""), ("b", "c:d"), ("e", "f\tg"))


def test_text_is_utf_8_on_the_wire() -> None:
    ((_, value),) = from_options(["x: caf\u00e9"])
    assert value.encode("latin-1") == "caf\u00e9".encode()
    assert from_content("x: caf\u00e9".encode()) == (("x", value),)
    assert from_content(b'[["x", "caf\\u00e9"]]') == (("x", value),)
    assert as_text(value) == "caf\u00e9"


def test_bytes_that_are_not_utf_8_survive() -> None:
    ((_, value),) = from_content(b"x: caf\xe9")
    assert value.encode("latin-1") == b"caf\xe9"
    assert as_text(value) == "caf\u00e9"
    assert from_options(["x: caf\udce9"]) == (("x", value),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"sk-LEAK", "line 1 of the headers has no colon"),
        (b"GET / HTTP/1.1\nHost: a\nsk-LEAK\n", "line 3 of the headers has no colon"),
        (b"HTTP/1.1 200 OK\r\n", "line 1 of the headers has no colon"),
        (b"a: b\r\n sk-LEAK: folded\r\n", "line 2 of the headers begins with a blank"),
        (b"a: b\r\n\tsk-LEAK\r\n", "line 2 of the headers begins with a blank"),
        (b": sk-LEAK", "line 1 of the headers does not begin with the name of a header"),
        (b":method: sk-LEAK", "line 1 of the headers does not begin with the name of a header"),
        (b"Host : sk-LEAK", "line 1 of the headers does not begin with the name of a header"),
        (b"sk-LEAK x: y", "line 1 of the headers does not begin with the name of a header"),
        (b"n\xc3\xa4me: sk-LEAK", "line 1 of the headers does not begin with the name of a header"),
        (b"a: sk-LEAK\x00", "the value of header `a` holds a control character"),
        (b"a: sk-LEAK\rb: c\n", "the value of header `a` holds a control character"),
        (b"a: sk-LEAK\r\r\n", "the value of header `a` holds a control character"),
        (b"a: sk-LEAK\x1b[31m", "the value of header `a` holds a control character"),
        (b"a: sk-LEAK\x7f", "the value of header `a` holds a control character"),
        (b'[["a", "sk-LEAK\\r\\nb: c"]]', "the value of header `a` holds a control character"),
        (b'{"a\\n": "sk-LEAK"}', "entry 1 of the headers does not begin with the name of a header"),
        (b'[["a", "sk-LEAK\\ud800"]]', "entry 1 of the headers has a value that is not Unicode"),
    ],
)
def test_what_cannot_be_sent_is_refused_without_showing_it(content: bytes, message: str) -> None:
    with pytest.raises(InvalidHeader) as caught:
        from_content(content)
    assert str(caught.value) == message
    assert "LEAK" not in str(caught.value.hint)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[", "the headers begin like JSON but are not"),
        (b'{"a": "sk-LEAK"', "the headers begin like JSON but are not"),
        (b'{"a": "\xff"}', "the headers begin like JSON but are not"),
        (b"[" * 100_000, "the headers begin like JSON but are not"),
        (b"[1]", "entry 1 of the headers is no pair"),
        (b'[["a", "b"], ["a"]]', "entry 2 of the headers is no pair"),
        (b'[["a", "b", "sk-LEAK"]]', "entry 1 of the headers is no pair"),
        (b'["a: sk-LEAK"]', "entry 1 of the headers is no pair"),
        (b'[["a", 1]]', "entry 1 of the headers is not a name and a value that are texts"),
        (b'{"a": 1}', "entry 1 of the headers is not a name and a value that are texts"),
        (b'{"a": null}', "entry 1 of the headers is not a name and a value that are texts"),
        (b'{"a": {"b": "c"}}', "entry 1 of the headers is not a name and a value that are texts"),
        (b'{"a": [["b"]]}', "entry 1 of the headers is not a name and a value that are texts"),
        (b'[{"name": "a"}]', "entry 1 of the headers is not a name and a value that are texts"),
        (b'{"headers": [["a", "b"]]}', "entry 1 of the headers is not a name and a value that are"),
    ],
)
def test_json_of_another_form_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        from_content(content)
    assert str(caught.value).startswith(message)
    assert "LEAK" not in f"{caught.value}{caught.value.hint}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["sk-LEAK"], "`-H` has no colon"),
        ([""], "`-H` has no colon"),
        (["a: b", "sk-LEAK"], "`-H` number 2 has no colon"),
        ([" a: sk-LEAK"], "`-H` begins with a blank"),
        (["a b: sk-LEAK"], "`-H` does not begin with the name of a header"),
        (["a: sk-LEAK\r\nb: c"], "the value of header `a` holds a control character"),
        (["a: sk-LEAK\n"], "the value of header `a` holds a control character"),
        (["a: \ud800"], "`-H` is not UTF-8"),
    ],
)
def test_a_bad_option_is_refused_without_showing_it(options: list[str], message: str) -> None:
    with pytest.raises(InvalidHeader) as caught:
        from_options(options)
    assert str(caught.value) == message
    assert "LEAK" not in str(caught.value.hint)


def test_files_and_standard_input_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "head.txt"
    file.write_bytes(b"a: b")
    assert read(str(file)) == b"a: b"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"c: d")))
    assert read("-") == b"c: d"


def test_what_cannot_be_read_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="no such file or directory"):
        read(str(tmp_path / "none"))
    with pytest.raises(UsageError, match="is a directory"):
        read(str(tmp_path))
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UsageError, match="standard input is closed"):
        read("-")


def test_a_file_that_is_no_head_is_not_read_to_its_end(tmp_path: Path) -> None:
    file = tmp_path / "big"
    file.write_bytes(b"a: " + b"b" * LONGEST_INPUT_BYTES)
    with pytest.raises(CodexlbError, match="larger than 1 MiB"):
        read(str(file))
