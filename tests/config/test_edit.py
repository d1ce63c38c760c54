from __future__ import annotations

import os
import stat
import string
import threading
import tomllib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.config.edit import (
    add_account,
    apply_edit,
    create_config,
    remove_account,
    set_enabled,
)
from codexlb_cli.config.files import replace_file
from codexlb_cli.config.load import load_settings
from codexlb_cli.config.scan import scan
from codexlb_cli.config.splice import with_table, with_value, without_table
from codexlb_cli.core.accounts import Account, CredentialRef
from codexlb_cli.errors import ConfigError

MESSY = """\
# The gateway of the team.~~

  [gateway]   # here
port=2460 # not the default
host = '127.0.0.1'
\t# a tab

# --- accounts ---

[accounts.work] # mine
  # rotate in May
  api_key_env = "WORK" # with a comment
  kind = "api_key"
# the last comment of work

# about home, above its header
[accounts . "home"]
base_url = "https://example.com/v1"
api_key_env = 'HOME_KEY'


[accounts.lab]
api_key_env = "LAB"
enabled = true   # for now

[lanes]
queue = 3
# the end""".replace("~", " ")


class Edited:
    """A config.toml in a folder, and edits of it."""

    def __init__(self, folder: Path, content: str | bytes) -> None:
        self.file = folder / "config.toml"
        self.state = folder / "state"
        self.before = content.encode() if isinstance(content, str) else content
        self.file.write_bytes(self.before)

    @property
    def after(self) -> bytes:
        return self.file.read_bytes()

    def add(self, name: str, **table: str) -> bytes:
        add_account(self.file, self.state, name, table)
        return self.after

    def enabled(self, name: str, enabled: bool) -> bytes:
        set_enabled(self.file, self.state, name, enabled=enabled)
        return self.after

    def remove(self, name: str, *, with_comments: bool = False) -> bytes:
        remove_account(self.file, self.state, name, with_comments=with_comments)
        return self.after

    def refuses(self, edit: Callable[[], object]) -> ConfigError:
        with pytest.raises(ConfigError) as caught:
            edit()
        assert self.after == self.before
        assert {path.name for path in self.file.parent.iterdir()} <= {"config.toml", "state"}
        return caught.value


@pytest.fixture(params=["\n", "\r\n"], ids=["lf", "crlf"])
def newline(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def messy(folder: Path, newline: str) -> Edited:
    return Edited(folder, MESSY.replace("\n", newline))


def test_add_appends_and_changes_nothing_else(tmp_path: Path, newline: str) -> None:
    edited = messy(tmp_path, newline)
    after = edited.add("new", kind="api_key", api_key_env="NEW")
    lines = ["", "", "[accounts.new]", 'kind = "api_key"', 'api_key_env = "NEW"', ""]
    assert after == edited.before + newline.join(lines).encode()


def test_add_then_remove_gives_the_same_bytes(tmp_path: Path, newline: str) -> None:
    edited = Edited(tmp_path, MESSY.replace("\n", newline) + newline)
    edited.add("new", kind="api_key")
    assert edited.remove("new") == edited.before


def test_add_creates_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "config.toml"
    add_account(file, tmp_path / "state", "work", {"kind": "api_key"})
    assert file.read_bytes() == b'[accounts.work]\nkind = "api_key"\n'


def test_add_refuses_a_name_that_is_taken(tmp_path: Path) -> None:
    edited = messy(tmp_path, "\n")
    error = edited.refuses(lambda: edited.add("home", kind="api_key"))
    assert str(error) == "an account named `home` is in `config.toml` already"


def test_disable_adds_one_line_after_the_last_key(tmp_path: Path, newline: str) -> None:
    edited = messy(tmp_path, newline)
    last = f'  kind = "api_key"{newline}'.encode()
    expected = edited.before.replace(last, last + f"  enabled = false{newline}".encode())
    assert edited.enabled("work", False) == expected
    again = expected.replace(b"  enabled = false", b"  enabled = true")
    assert edited.enabled("work", True) == again


def test_disable_changes_a_value_that_is_there(tmp_path: Path, newline: str) -> None:
    edited = messy(tmp_path, newline)
    expected = edited.before.replace(b"enabled = true   # for now", b"enabled = false   # for now")
    assert edited.enabled("lab", False) == expected


def test_disable_without_a_last_line_feed(tmp_path: Path) -> None:
    edited = Edited(tmp_path, "[accounts.work]")
    assert edited.enabled("work", False) == b"[accounts.work]\nenabled = false\n"


def test_remove_keeps_the_comment_above_the_next_header(tmp_path: Path, newline: str) -> None:
    edited = messy(tmp_path, newline)
    error = edited.refuses(lambda: edited.remove("work"))
    assert str(error) == "`accounts.work` in `config.toml` holds a comment of yours (line 10)"
    assert error.hint is not None
    assert error.hint.startswith("codexlb accounts remove work --delete ")
    text = edited.before.decode()
    start, end = text.index("[accounts.work]"), text.index("# about home")
    assert edited.remove("work", with_comments=True).decode() == text[:start] + text[end:]


def test_remove_asks_for_a_comment_directly_above_the_header(tmp_path: Path) -> None:
    edited = messy(tmp_path, "\n")
    edited.refuses(lambda: edited.remove("home"))
    text = edited.before.decode()
    start, end = text.index("# about home"), text.index("[accounts.lab]")
    assert edited.remove("home", with_comments=True).decode() == text[:start] + text[end:]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[accounts.a]\nkind = 'api_key'\n", ""),
        ("[accounts.a]\n\n\n[lanes]\n", "[lanes]\n"),
        ("x\n\n[accounts.a]\n\n[lanes]\n", "x\n\n[lanes]\n"),
        ("x\n[accounts.a]\n\n[lanes]\n", "x\n\n[lanes]\n"),
        ("x\n\n[accounts.a]\n# of lanes\n[lanes]\n", "x\n\n# of lanes\n[lanes]\n"),
        ("x\n\n[accounts.a]\n\n# a paragraph\n\n[lanes]\n", "x\n\n# a paragraph\n\n[lanes]\n"),
        ("x\n\n[accounts.a]\n\n# the end\n", "x\n\n# the end\n"),
        ("x\n\n[accounts.a]", "x\n"),
        ("[accounts]\na.kind = 'api_key'\na.enabled = true\nb.enabled = true\n", None),
        ("accounts.a.kind = 'api_key'\naccounts.b = {}\n", "accounts.b = {}\n"),
        ("[accounts]\na = { kind = 'api_key' }\nb = {}\n", "[accounts]\nb = {}\n"),
    ],
)
def test_remove_without_comments(tmp_path: Path, before: str, after: str | None) -> None:
    gateway = "[gateway]\nport = 1\n"
    edited = Edited(tmp_path, before.replace("x\n", gateway))
    expected = "[accounts]\nb.enabled = true\n" if after is None else after
    assert edited.remove("a").decode() == expected.replace("x\n", gateway)


@pytest.mark.parametrize(
    "before",
    [
        "[accounts.a] # mine\n",
        "[accounts.a]\n# mine\nkind = 'api_key'\n",
        "[accounts.a]\nkind = 'api_key' # mine\n",
        "[accounts.a]\nkind = 'api_key'\n# mine\n",
        "[accounts.a]\nkind = 'api_key'\n# mine\n\n[lanes]\n",
        "# mine\n[accounts.a]\nkind = 'api_key'\n",
        "accounts.a.kind = 'api_key' # mine\n",
    ],
)
def test_remove_asks_before_it_deletes_a_comment(tmp_path: Path, before: str) -> None:
    edited = Edited(tmp_path, before)
    error = edited.refuses(lambda: edited.remove("a"))
    assert "holds a comment of yours (line " in str(error)
    assert b"mine" not in edited.remove("a", with_comments=True)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("accounts.a = {}\n", "accounts.a = { enabled = false }\n"),
        (
            "accounts = { a = { kind = 'api_key' }, b = {} } # x\n",
            "accounts = { a = { kind = 'api_key', enabled = false }, b = {} } # x\n",
        ),
        ("accounts = { a.kind = 'api_key' }\n", None),
        (
            "[accounts]\n  a.kind = 'api_key'\n  b.kind = 'api_key'\n",
            "[accounts]\n  a.kind = 'api_key'\n  a.enabled = false\n  b.kind = 'api_key'\n",
        ),
        (
            "accounts.a.kind = 'api_key'\n[lanes]\n",
            "accounts.a.kind = 'api_key'\naccounts.a.enabled = false\n[lanes]\n",
        ),
        ("[accounts]\na = {enabled=true}\n", "[accounts]\na = {enabled=false}\n"),
        (
            "[accounts.a]\n\n# of b\n[accounts.b]\n",
            "[accounts.a]\nenabled = false\n\n# of b\n[accounts.b]\n",
        ),
    ],
)
def test_other_ways_to_write_an_account(tmp_path: Path, before: str, after: str | None) -> None:
    edited = Edited(tmp_path, before)
    if after is None:
        error = edited.refuses(lambda: edited.enabled("a", False))
        assert "cannot change" in str(error)
        assert "enabled = false" in str(error.hint)
    else:
        assert edited.enabled("a", False).decode() == after


def test_what_cannot_be_added_is_shown_to_paste(tmp_path: Path) -> None:
    edited = Edited(tmp_path, "accounts = { a = {} }\n")
    error = edited.refuses(lambda: edited.add("b", kind="api_key", api_key_env="B"))
    assert str(error) == "`config.toml` is written in a way that this command cannot change"
    assert error.hint is not None
    assert error.hint.endswith('\n\n[accounts.b]\nkind = "api_key"\napi_key_env = "B"')


def test_what_cannot_be_removed_is_left(tmp_path: Path) -> None:
    edited = Edited(tmp_path, "accounts = { a = {} }\n")
    edited.refuses(lambda: edited.remove("a"))


@pytest.mark.parametrize(
    "content", [b"[gateway\n", b"\xff", b"[gateway]\nprot = 1\n", b"[accounts.A]\n"]
)
def test_a_broken_file_is_left_untouched(tmp_path: Path, content: bytes) -> None:
    edited = Edited(tmp_path, content)
    edited.refuses(lambda: edited.add("new", kind="api_key"))
    edited.refuses(lambda: edited.enabled("new", False))
    edited.refuses(lambda: edited.remove("new"))


@pytest.mark.parametrize("name", ["ghost", "wrok"])
def test_an_account_that_went_meanwhile(tmp_path: Path, name: str) -> None:
    edited = messy(tmp_path, "\n")
    for error in (
        edited.refuses(lambda: edited.enabled(name, False)),
        edited.refuses(lambda: edited.remove(name)),
    ):
        assert str(error) == f"no account named `{name}` in `config.toml`"


@pytest.mark.parametrize("by_hand", [b"# by hand\n", None])
def test_an_edit_by_hand_in_between_wins(tmp_path: Path, by_hand: bytes | None) -> None:
    edited = messy(tmp_path, "\n")

    def change(found: object) -> str:
        if by_hand is None:
            edited.file.unlink()
        else:
            edited.file.write_bytes(by_hand)
        return "[lanes]\nqueue = 3\n"

    def intended(content: dict[str, Any]) -> None:
        content.clear()
        content["lanes"] = {"queue": 3}

    with pytest.raises(ConfigError):
        apply_edit(edited.file, edited.state, change=change, intended=intended, by_hand="")
    if by_hand is None:
        assert not edited.file.exists()
    else:
        assert edited.after == by_hand


def test_a_file_made_by_hand_in_between_wins(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"

    def change(found: object) -> str:
        file.write_bytes(b"# by hand\n")
        return "[lanes]\n"

    with pytest.raises(ConfigError, match=r"exists already$"):
        apply_edit(
            file,
            tmp_path / "state",
            change=change,
            intended=lambda content: content.update(lanes={}),
            by_hand="",
        )
    assert file.read_bytes() == b"# by hand\n"


def test_edits_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    edited = messy(tmp_path, "\n")
    names = [f"n{number}" for number in range(8)]
    threads = [threading.Thread(target=edited.add, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert edited.after.startswith(edited.before)
    assert set(tomllib.loads(edited.after.decode())["accounts"]) == {"work", "home", "lab", *names}


def test_the_mode_is_kept_and_a_link_is_followed(tmp_path: Path) -> None:
    edited = messy(tmp_path, "\n")
    real = tmp_path / "dotfiles" / "real.toml"
    real.parent.mkdir()
    edited.file.rename(real)
    real.chmod(0o640)
    edited.file.symlink_to("dotfiles/real.toml")
    edited.add("new")
    assert edited.file.is_symlink()
    assert real.read_bytes() == edited.after != edited.before
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert list(real.parent.iterdir()) == [real]


def test_an_edit_that_changes_nothing_writes_nothing(tmp_path: Path) -> None:
    edited = messy(tmp_path, "\n")
    before = edited.file.stat()
    edited.enabled("lab", True)
    assert edited.file.stat().st_ino == before.st_ino


def test_a_file_is_created_only_where_there_is_none(tmp_path: Path) -> None:
    create_config(tmp_path / "new" / "config.toml", b"# x\n")
    with pytest.raises(ConfigError, match=r"exists already$"):
        create_config(tmp_path / "new" / "config.toml", b"")
    assert (tmp_path / "new" / "config.toml").read_bytes() == b"# x\n"
    with pytest.raises(ConfigError, match=r"^cannot write "):
        create_config(tmp_path / "new" / "config.toml" / "below", b"")


names = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,31}", fullmatch=True)
urls = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["http", "https", "ws", "wss"]),
    st.from_regex(r"[a-z0-9]{1,9}(\.[a-z]{2,5})?", fullmatch=True) | st.just("[::1]"),
    st.integers(1, 65535).map(":{}".format) | st.just(""),
    st.text(string.ascii_letters + string.digits + "/-._~!$&'()*+,;=:%\"", max_size=12).map(
        "/{}".format
    ),
)


@given(names, urls, st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True) | st.none())
def test_what_is_added_is_what_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, name: str, url: str, variable: str | None
) -> None:
    folder = tmp_path_factory.mktemp("edit")
    edited = Edited(folder, "[gateway]\nport = 9\n")
    table = {"kind": "api_key", "base_url": url}
    edited.add(name, **table, **({"api_key_env": variable} if variable else {}))
    credential = CredentialRef("env", variable) if variable else CredentialRef("file", name)
    expected = Account(name, "api_key", url, credential=credential)
    assert load_settings(edited.file, environ={}).accounts == (expected,)
    assert edited.enabled(name, False).count(b"\n") > 0
    assert load_settings(edited.file, environ={}).accounts[0].enabled is False
    assert edited.remove(name) == edited.before


gaps = st.sampled_from(["", "\n", "\n\n", "#\n", "\n#\n", "#\n\n", "  # \n\n\n", "#\n\n#\n"])


@given(st.lists(st.tuples(gaps, gaps), min_size=1, max_size=4), gaps, st.data())
def test_removing_one_table_leaves_the_others(
    layout: list[tuple[str, str]], end: str, data: st.DataObject
) -> None:
    text = "".join(
        f"{above}[accounts.a{number}]\n{inside}api_key_env = 'K{number}'\n"
        for number, (above, inside) in enumerate(layout)
    )
    pieces = (text + end).split("#")
    text = pieces[0] + "".join(f"# {number}.{piece}" for number, piece in enumerate(pieces[1:]))
    gone = data.draw(st.integers(0, len(layout) - 1))
    after = without_table(scan(text), ("accounts", f"a{gone}"), with_comments=True)
    own = (f"[accounts.a{gone}]", f"api_key_env = 'K{gone}'")

    lines, left = text.splitlines(), after.splitlines()
    others = [line for line in lines if "#" not in line and line and line not in own]
    assert [line for line in left if "#" not in line and line] == others
    for block in text.split("\n\n"):
        if not any(line in own for line in block.splitlines()):
            assert all(line in left for line in block.splitlines() if line)
    for above, line in pairwise(lines):
        if "#" in above and line.startswith("[") and line not in own:
            assert above in left
        if "#" in above and line in own:
            assert above not in left


def test_a_document_without_a_place_for_the_change_comes_back() -> None:
    assert with_value(scan("x = 1\n"), ("accounts", "a"), "enabled", "true") == "x = 1\n"
    assert without_table(scan("x = 1\n"), ("accounts", "a"), with_comments=False) == "x = 1\n"
    assert with_table("", ["[a]"]) == "[a]\n"
    assert with_table("x\r\n\r\n", ["[a]"]) == "x\r\n\r\n[a]\r\n"


def test_a_device_or_a_pipe_is_never_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "config.toml"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="not a regular file"):
        replace_file(pipe, b"x", mode=0o600)
    assert pipe.is_fifo()
