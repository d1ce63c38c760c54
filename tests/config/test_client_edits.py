from __future__ import annotations

import copy
import tomllib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from codexlb_cli.config import jsonc
from codexlb_cli.config.client_edits import (
    CannotEdit,
    Changes,
    Format,
    Jsonc,
    NotReadable,
    Toml,
    Touched,
    changed,
    holds,
    taken_back,
)
from codexlb_cli.core.client_settings import (
    Address,
    Auth,
    ClientSettings,
    Provider,
    Transport,
    codex,
    opencode,
)
from tests.support.documents import NO_PLACE, NO_WAY_BACK, OWN_TABLE, jsonc_texts, toml_texts

ADDRESS = Address("127.0.0.1", 2455)
UNIT = ("model_providers", "codexlb")

codex_settings = st.builds(
    lambda provider, transport, auth: codex(
        ADDRESS, provider=provider, transport=transport, auth=auth
    ),
    st.sampled_from(Provider),
    st.sampled_from(Transport),
    st.sampled_from(Auth),
)
opencode_settings = st.builds(
    lambda provider: opencode(ADDRESS, provider=provider), st.sampled_from(Provider)
)


def with_changes(content: dict[str, Any], changes: Changes) -> dict[str, Any]:
    """What a content is to be, without a thought about texts."""
    content = copy.deepcopy(content)
    for (*above, key), value in changes.items():
        table = content
        for name in above:
            table = table.setdefault(name, {})
        if value is None:
            table.pop(key, None)
        elif value != {} or not isinstance(table.get(key), dict):
            table[key] = value
    return content


def key_of(line: str) -> str:
    return line.partition("=")[0].strip().strip('"')


def comments(text: str) -> list[str]:
    return [line.partition("#")[2] for line in text.splitlines() if "#" in line]


@given(toml_texts(), codex_settings)
@example(
    (OWN_TABLE, "own"),
    codex(ADDRESS, provider=Provider.CUSTOM, transport=Transport.HTTP, auth=Auth.NONE),
)
def test_toml_gets_the_intended_values_and_keeps_the_rest(
    document: tuple[str, str], settings: ClientSettings
) -> None:
    text, kind = document
    try:
        after = changed(Toml(), text, settings.changes)
    except CannotEdit:
        assert kind in NO_PLACE
        return
    assert tomllib.loads(after) == with_changes(tomllib.loads(text), settings.changes)
    assert holds(Toml(), after, settings.changes)
    assert sorted(comments(after)) == sorted(comments(text))
    assert ("\r\n" in text) <= ("\n" not in after.replace("\r\n", ""))
    keys = {path[-1] for path in settings.changes}
    kept = [line for line in text.splitlines() if line and key_of(line) not in keys]
    if "inline" not in kind:
        assert [line for line in after.splitlines() if line in kept] == kept
    assert changed(Toml(), after, settings.changes) == after


@given(toml_texts(), codex_settings, st.sampled_from(["", "\n# later\n[zz] # z\ny = 'new'\n"]))
def test_what_was_written_into_toml_is_taken_back_from_what_it_became(
    document: tuple[str, str], settings: ClientSettings, added: str
) -> None:
    text, kind = document
    try:
        now = changed(Toml(), text, settings.changes) + added
        back = taken_back(
            Toml(), now=now, before=text, written=settings.changes, unit=settings.unit
        )
    except CannotEdit:
        assert kind in NO_WAY_BACK
        return
    assert tomllib.loads(back) == {**tomllib.loads(text), **tomllib.loads(added)}
    assert sorted(comments(back)) == sorted(comments(text + added))


@given(jsonc_texts(provider=True), opencode_settings)
def test_jsonc_gets_the_intended_values_and_keeps_the_rest(
    text: str, settings: ClientSettings
) -> None:
    content = jsonc.read(text)
    try:
        after = changed(Jsonc(), text, settings.changes)
    except CannotEdit:
        assert not all_tables(content, settings.changes)
        return
    assert jsonc.read(after) == with_changes(content, settings.changes)
    assert holds(Jsonc(), after, settings.changes)
    for comment in ("// c1", "/* c2 */"):
        gone = text.count(comment) - after.count(comment)
        assert gone == 0 or replaces_a_table(content, settings.changes)
    assert changed(Jsonc(), after, settings.changes) == after


def all_tables(content: Any, changes: Changes) -> bool:
    """Whether everything on the ways to the changes is a table, or not there."""
    for *above, _ in changes:
        table = content
        for name in above:
            table = table.get(name, {})
            if not isinstance(table, dict):
                return False
    return True


def replaces_a_table(content: Any, changes: Changes) -> bool:
    for path in changes:
        table = content
        for name in path:
            table = table.get(name) if isinstance(table, dict) else None
        if isinstance(table, dict | list):
            return True
    return False


@given(jsonc_texts(provider=True), opencode_settings)
def test_what_was_written_into_jsonc_is_taken_back_from_what_it_became(
    text: str, settings: ClientSettings
) -> None:
    content = jsonc.read(text)
    try:
        now = changed(Jsonc(), text, settings.changes)
        now = jsonc.with_member(now, ("added", "later"), "[1]")
        back = taken_back(
            Jsonc(), now=now, before=text, written=settings.changes, unit=settings.unit
        )
    except CannotEdit:
        changes = settings.changes
        assert not all_tables(content, changes) or replaces_a_table(content, changes)
        return
    assert jsonc.read(back) == {**content, "added": {"later": [1]}}


WRITTEN = codex(ADDRESS, provider=Provider.CUSTOM, transport=Transport.HTTP, auth=Auth.NONE)


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        (":2455", ":2500", (*UNIT, "base_url")),
        ('model_provider = "codexlb"', 'model_provider = "mine"', ("model_provider",)),
        ("wire_api", "request_max_retries = 2\nwire_api", UNIT),
        ("wire_api", 'env_key = "MY_KEY"\nwire_api', UNIT),
    ],
)
def test_what_was_changed_by_hand_is_left(old: str, new: str, path: tuple[str, ...]) -> None:
    now = changed(Toml(), "", WRITTEN.changes).replace(old, new, 1)
    with pytest.raises(Touched) as caught:
        taken_back(Toml(), now=now, before="", written=WRITTEN.changes, unit=UNIT)
    assert caught.value.path == path


def test_what_was_taken_back_by_hand_is_no_hindrance() -> None:
    before = 'model_provider = "other"\n'
    now = changed(Toml(), before, WRITTEN.changes)
    now = now.replace('model_provider = "codexlb"\n', before)
    back = taken_back(Toml(), now=now, before=before, written=WRITTEN.changes, unit=UNIT)
    assert back == before


def test_a_comment_in_what_was_written_is_not_deleted() -> None:
    now = changed(Toml(), "", WRITTEN.changes).replace("wire_api", "# mine\nwire_api")
    with pytest.raises(CannotEdit, match=r"^a comment of yours stands there$"):
        taken_back(Toml(), now=now, before="", written=WRITTEN.changes, unit=UNIT)


def test_the_old_value_comes_back_as_it_was_written() -> None:
    before = "model_provider='''\nmine''' # c\n"
    now = changed(Toml(), before, WRITTEN.changes) + "\n# later\n"
    back = taken_back(Toml(), now=now, before=before, written=WRITTEN.changes, unit=UNIT)
    assert back == before + "\n# later\n"


@pytest.mark.parametrize(
    ("form", "text", "line"),
    [
        (Toml(), "a = 1\nb = \n", 2),
        (Toml(), "a = 1\nb", None),
        (Toml(), "a = [" + "[" * 100_000, None),
        (Jsonc(), '{\n"a" 1}', 2),
        (Jsonc(), "[1]", None),
    ],
)
def test_what_is_not_of_its_format(form: Format, text: str, line: int | None) -> None:
    with pytest.raises(NotReadable) as caught:
        changed(form, text, {("x",): "y"})
    assert caught.value.line == line


def test_a_table_that_is_there_is_left_with_what_it_holds() -> None:
    text = '{"provider": {"codexlb": {"models": {"gpt-5.5": {"name": "mine"}}}}}'
    wanted = opencode(ADDRESS, provider=Provider.CUSTOM)
    after = changed(Jsonc(), text, wanted.changes)
    assert '"gpt-5.5": {"name": "mine"}' in after
    assert holds(Jsonc(), after, wanted.changes)
    back = taken_back(
        Jsonc(), now=after + "\n", before=text, written=wanted.changes, unit=wanted.unit
    )
    assert jsonc.read(back) == jsonc.read(text)
    empty = changed(Jsonc(), "{}", wanted.changes)
    with pytest.raises(Touched):
        taken_back(
            Jsonc(),
            now=empty.replace('"gpt-5.5": {}', '"gpt-5.5": {"name": "mine"}'),
            before="{}",
            written=wanted.changes,
            unit=wanted.unit,
        )


@pytest.mark.parametrize("text", ["", "\n", " \r\n"])
def test_an_empty_file_of_opencode_becomes_an_object(text: str) -> None:
    assert changed(Jsonc(), text, {("a", "b"): "c"}) == '{\n  "a": {\n    "b": "c"\n  }\n}\n'
