from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.config.jsonc import NotJson, find, parse, read, with_member, without_member
from tests.support.documents import jsonc_texts

MESSY = """\
{
    // mine
    "a": 1, /* one */ // and more
    "b": {"x": [1, 2,], "y": "// no comment"},
    "c": {
        // nothing yet
    },
    "d": {}, // the last
}
"""


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        (MESSY, {"a": 1, "b": {"x": [1, 2], "y": "// no comment"}, "c": {}, "d": {}}),
        ("/**/[1,/**/]// end", [1]),
        ('{"a,}": ",]"}', {"a,}": ",]"}),
        ('"a\\"//"', 'a"//'),
    ],
)
def test_comments_and_trailing_commas_mean_nothing(text: str, meaning: object) -> None:
    assert read(text) == meaning


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{,}", 1),
        ("[,]", 1),
        ("[1,,]", 1),
        ('{"a":,}', 1),
        ("{\n'a': 1}", 2),
        ('{"a": 1\n"b": 2}', 2),
        ("{ /* open", 1),
        ('{"a": NaN}', 1),
        ('{"a": 1, "a": 2}', 1),
        ("\ufeff{}", 1),
        ("", 1),
        ("[" * 100_000, 1),
    ],
)
def test_what_is_no_json(text: str, line: int) -> None:
    with pytest.raises(NotJson) as caught:
        read(text)
    assert caught.value.line == line


@pytest.mark.parametrize(
    ("before", "path", "after"),
    [
        ("{}", "a", '{\n  "a": 0\n}'),
        ("{ }\n", "a.b", '{\n  "a": {\n    "b": 0\n  }\n}\n'),
        ('{"a": 1}', "b", '{"a": 1, "b": 0}'),
        ('{"a": {"b": 1,}}', "a.c.d", '{"a": {"b": 1, "c": { "d": 0 },}}'),
        ('{\n\t"a": 1\n}', "b", '{\n\t"a": 1,\n\t"b": 0\n}'),
        ('{\n  "a": 1 // one\n}', "b", '{\n  "a": 1, // one\n  "b": 0\n}'),
        ('{\n  "a": 1, // one\n}', "b", '{\n  "a": 1, // one\n  "b": 0,\n}'),
        ('{\n  "a": 1 /* two\n lines */\n}', "b", '{\n  "a": 1,\n  "b": 0 /* two\n lines */\n}'),
        ('{\n  "a": 1 }', "b", '{\n  "a": 1,\n  "b": 0 }'),
        ("{\n  // mine\n}", "a", '{\n  // mine\n  "a": 0\n}'),
        ('{\r\n  "a": {}\r\n}', "a.b", '{\r\n  "a": {\r\n    "b": 0\r\n  }\r\n}'),
        ('{"a": 5 /* five */}', "a", '{"a": 0 /* five */}'),
        ('{"a": 5}', "a.b", '{"a": 5}'),
    ],
)
def test_a_member_is_set_and_nothing_else(before: str, path: str, after: str) -> None:
    assert with_member(before, tuple(path.split(".")), "0") == after


@pytest.mark.parametrize(
    ("before", "path", "after"),
    [
        ('{"a": 1}', "a", "{}"),
        ('{"a": 1, "b": 2}', "a", '{ "b": 2}'),
        ('{"a": 1, "b": 2}', "b", '{"a": 1 }'),
        ('{"a": 1, "b": 2,}', "b", '{"a": 1, }'),
        ('{\n  "a": 1, // one\n  "b": 2\n}', "b", '{\n  "a": 1 // one\n}'),
        ('{\n  "a": 1, // one\n  "b": 2\n}', "a", '{\n   // one\n  "b": 2\n}'),
        ('{"a": {"b": 1}}', "a.b", '{"a": {}}'),
        ('{"a": 1}', "b", '{"a": 1}'),
        ('{"a": 1}', "a.b", '{"a": 1}'),
    ],
)
def test_a_member_is_deleted_and_nothing_else(before: str, path: str, after: str) -> None:
    assert without_member(before, tuple(path.split("."))) == after


@given(jsonc_texts(), st.lists(st.sampled_from("abp"), min_size=1, max_size=3))
def test_a_new_member_comes_and_goes(text: str, keys: list[str]) -> None:
    path = ("new", *keys)
    longer = with_member(text, path, '"x"')
    content = read(text)
    assert read(longer) == {**content, "new": json.loads(nested(keys))}
    node = find(parse(longer), path)
    assert node is not None
    assert longer[node.start : node.end] == '"x"'
    assert read(without_member(longer, ("new",))) == content
    for comment in ("// c1", "/* c2 */"):
        assert longer.count(comment) == text.count(comment)


def nested(keys: list[str]) -> str:
    return '"x"' if not keys else f'{{"{keys[0]}": {nested(keys[1:])}}}'
