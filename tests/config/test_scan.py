from __future__ import annotations

import tomllib
from typing import Any

import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.config.scan import scan

MESSY = '''\
# first
a = 1 # "not a string
"quoted key" = """
[not.a.header]
# not a comment ""\\""""
'lit' = \'\'\'
x = 1\'\'\'
 [ "dotted" . 'table' . x ]   # a header
list = [ 1, # one
  [ "]", ']' ], { b = "}", c.d = [ {} ] }
]
when = 1979-05-27 07:32:00Z
deep.er = { one = { two = 2 }, three = """3""" }
[[array]]
k = 0x1F
[[array]]
"\\u006b2" = inf
'''


def at(document: dict[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = document
    for part in path:
        value = value[-1] if isinstance(value, list) else value
        value = value[part]
    return value


def test_every_value_is_found_where_it_stands() -> None:
    document = tomllib.loads(MESSY)
    found = scan(MESSY)
    values = {e.path: MESSY[e.value : e.end] for e in found.entries if e.value is not None}
    assert set(values) == {
        ("a",),
        ("quoted key",),
        ("lit",),
        ("dotted", "table", "x", "list"),
        ("dotted", "table", "x", "list", "b"),
        ("dotted", "table", "x", "list", "c", "d"),
        ("dotted", "table", "x", "when"),
        ("dotted", "table", "x", "deep", "er"),
        ("dotted", "table", "x", "deep", "er", "one"),
        ("dotted", "table", "x", "deep", "er", "one", "two"),
        ("dotted", "table", "x", "deep", "er", "three"),
        ("array", "k"),
        ("array", "k2"),
    }
    for path, text in values.items():
        if "list" not in path[:-1] and "array" not in path:
            assert tomllib.loads(f"v = {text}")["v"] == at(document, path)
    headers = [MESSY[e.start : e.end] for e in found.entries if e.value is None]
    assert headers == ["[ \"dotted\" . 'table' . x ]", "[[array]]", "[[array]]"]
    assert [MESSY[comment:].partition("\n")[0] for comment in found.comments] == [
        "# first",
        '# "not a string',
        "# a header",
        "# one",
    ]


def test_lines_are_those_of_the_first_place() -> None:
    lines = scan(MESSY).lines()
    assert lines["a",] == 2
    assert lines["lit",] == 6
    assert lines["dotted",] == lines["dotted", "table", "x"] == 8
    assert lines["dotted", "table", "x", "deep", "er", "one", "two"] == 13
    assert lines["array",] == 14


scalars = st.one_of(
    st.integers(-(2**60), 2**60),
    st.booleans(),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\x85")),
    st.datetimes(),
    st.dates(),
)
documents = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=8),
    st.recursive(
        scalars,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(st.text("ab.# \"'[]={}", max_size=4), inner, max_size=3),
        ),
        max_leaves=12,
    ),
    max_size=4,
)


@given(documents, st.booleans())
def test_values_of_arbitrary_documents(document: dict[str, Any], windows: bool) -> None:
    text = tomlkit.dumps(document)
    text = text.replace("\n", "\r\n") if windows else text
    try:
        read = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # tomlkit wrote no TOML
    for entry in scan(text).entries:
        if entry.value is None:
            continue
        value: Any = read
        for part in entry.path:
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None and not isinstance(value, list):
            assert tomllib.loads(f"v = {text[entry.value : entry.end]}")["v"] == value
