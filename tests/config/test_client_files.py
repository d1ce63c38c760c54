from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.config.client_edits import Jsonc, Toml
from codexlb_cli.config.client_files import ClientFile, carry_out, plan_undo, plan_write
from codexlb_cli.core.client_settings import (
    Address,
    Auth,
    ClientSettings,
    Provider,
    Transport,
    codex,
    opencode,
)
from codexlb_cli.errors import ConfigError
from tests.support.documents import jsonc_texts, toml_texts

ADDRESS = Address("127.0.0.1", 2455)
MINE = b'# mine\nmodel_provider = "other" # c\n\n[features]\nx = true\n'


def settings(
    *, port: int = 2455, provider: Provider = Provider.CUSTOM, auth: Auth = Auth.NONE
) -> ClientSettings:
    address = Address("127.0.0.1", port)
    return codex(address, provider=provider, transport=Transport.HTTP, auth=auth)


class Home:
    """A folder with a client's file, and writes into it."""

    def __init__(self, folder: Path, content: bytes | None = None, *, json: bool = False) -> None:
        self.folder = folder / "client"
        self.file = ClientFile(
            client="codex",
            path=self.folder / ("opencode.json" if json else "config.toml"),
            form=Jsonc() if json else Toml(),
            records=folder / "records",
            undo="undo",
        )
        if content is not None:
            self.folder.mkdir()
            self.file.path.write_bytes(content)

    @property
    def content(self) -> bytes | None:
        return self.file.path.read_bytes() if self.file.path.exists() else None

    @property
    def files(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()} if self.folder.exists() else set()

    def write(self, wanted: ClientSettings | None = None) -> Path | None:
        return carry_out(self.file, plan_write(self.file, wanted or settings()))

    def undo(self) -> Path | None:
        step = plan_undo(self.file)
        assert step is not None
        return carry_out(self.file, step)

    def refuses(self, attempt: Callable[[], object]) -> ConfigError:
        before, files = self.content, self.files
        with pytest.raises(ConfigError) as caught:
            attempt()
        assert (self.content, self.files) == (before, files)
        return caught.value


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_backup_is_kept_and_undo_puts_it_back(tmp_path: Path, mode: int) -> None:
    home = Home(tmp_path, MINE)
    home.file.path.chmod(mode)
    backup = home.write()
    assert backup == home.folder / "config.toml.codexlb-backup"
    assert backup.read_bytes() == MINE
    assert {stat.S_IMODE(path.stat().st_mode) for path in home.folder.iterdir()} == {mode}
    assert home.undo() is None
    assert (home.content, home.files) == (MINE, {"config.toml"})
    assert stat.S_IMODE(home.file.path.stat().st_mode) == mode
    assert plan_undo(home.file) is None


def test_a_file_that_was_made_goes_with_its_folders(tmp_path: Path) -> None:
    home = Home(tmp_path / "a" / "b")
    assert home.write() is None
    assert home.content is not None
    assert home.content.startswith(b'model_provider = "codexlb"\n\n[model_providers.codexlb]\n')
    assert stat.S_IMODE(home.file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.folder.stat().st_mode) == 0o700
    home.undo()
    assert not home.folder.exists()


def test_a_folder_that_somebody_else_uses_stays(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.write()
    (home.folder / "auth.json").write_bytes(b"{}")
    home.undo()
    assert home.files == {"auth.json"}


def test_what_somebody_added_to_a_file_that_was_made_stays(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.write()
    with home.file.path.open("ab") as opened:
        opened.write(b"\n# mine\n[a]\nb = 1\n")
    home.undo()
    assert home.content == b"# mine\n[a]\nb = 1\n"


def test_what_was_changed_since_stays_and_the_backup_too(tmp_path: Path) -> None:
    home = Home(tmp_path, MINE)
    backup = home.write()
    now = home.content
    assert now is not None
    home.file.path.write_bytes(now.replace(b"x = true", b"x = false # mine"))
    assert home.undo() == backup
    assert home.content == MINE.replace(b"x = true", b"x = false # mine")
    assert home.files == {"config.toml", "config.toml.codexlb-backup"}


def test_undo_refuses_where_what_was_written_was_changed(tmp_path: Path) -> None:
    home = Home(tmp_path, MINE)
    backup = home.write()
    home.file.path.write_bytes((home.content or b"").replace(b"2455", b"2500"))
    error = home.refuses(home.undo)
    assert str(error) == (
        f"`{home.file.path}` stays as it is: "
        "`model_providers.codexlb.base_url` was changed by hand since"
    )
    assert error.hint == f"take it back by hand; what it held before lies in {backup}"


def test_undo_refuses_without_the_backup_or_the_file(tmp_path: Path) -> None:
    home = Home(tmp_path, MINE)
    backup = home.write()
    assert backup is not None
    backup.rename(tmp_path / "elsewhere")
    assert "is gone" in str(home.refuses(home.undo))
    (tmp_path / "elsewhere").rename(backup)
    home.file.path.unlink()
    assert home.refuses(home.undo).hint == f"what it held before lies in {backup}"


def test_undo_of_a_file_that_was_made_and_deleted(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.write()
    home.file.path.unlink()
    home.undo()
    assert plan_undo(home.file) is None
    assert not home.folder.exists()


@pytest.mark.parametrize("content", [None, MINE])
def test_writing_again_changes_nothing(tmp_path: Path, content: bytes | None) -> None:
    home = Home(tmp_path, content)
    home.write()
    files = home.files
    step = plan_write(home.file, settings())
    assert step.changes_nothing
    home.file.path.write_bytes((home.content or b"") + b"[later]\n")
    assert plan_write(home.file, settings()).changes_nothing
    assert home.files == files


def test_nothing_is_done_to_a_file_that_says_so_by_itself(tmp_path: Path) -> None:
    other = Home(tmp_path / "o")
    other.write()
    home = Home(tmp_path, other.content)
    assert plan_write(home.file, settings()).changes_nothing
    assert plan_undo(home.file) is None


@pytest.mark.parametrize("content", [None, MINE])
def test_another_variant_replaces_the_first_and_undo_takes_back_both(
    tmp_path: Path, content: bytes | None
) -> None:
    home = Home(tmp_path, content)
    home.write(settings(port=2500, auth=Auth.API_KEY))
    home.write(settings(provider=Provider.OPENAI))
    assert b"model_providers" not in (home.content or b"")
    home.undo()
    assert (home.content, home.folder.exists()) == (content, content is not None)


def test_another_variant_after_an_edit_by_hand_keeps_the_edit(tmp_path: Path) -> None:
    home = Home(tmp_path, MINE)
    home.write()
    with home.file.path.open("ab") as opened:
        opened.write(b"\n[later]\ny = 1\n")
    home.write(settings(provider=Provider.OPENAI))
    assert len(home.files) == 2
    home.undo()
    assert home.content == MINE + b"\n[later]\ny = 1\n"
    assert home.files == {"config.toml"}


def test_what_was_spoilt_by_hand_can_be_written_anew(tmp_path: Path) -> None:
    home = Home(tmp_path, MINE)
    home.write()
    spoilt = (home.content or b"").replace(b"2455", b"2500")
    home.file.path.write_bytes(spoilt)
    home.write()
    assert b"2455" in (home.content or b"")
    assert home.files == {
        "config.toml",
        "config.toml.codexlb-backup",  # what it held before anything was written
        "config.toml.codexlb-backup-2",
    }
    home.undo()
    assert home.content == spoilt


def test_a_backup_never_replaces_a_file(tmp_path: Path) -> None:
    home = Home(tmp_path, MINE)
    (home.folder / "config.toml.codexlb-backup").write_bytes(b"mine")
    backup = home.write()
    assert backup == home.folder / "config.toml.codexlb-backup-2"
    assert (home.folder / "config.toml.codexlb-backup").read_bytes() == b"mine"


def test_a_link_is_followed_and_stays_one(tmp_path: Path) -> None:
    home = Home(tmp_path)
    repository = tmp_path / "dotfiles"
    repository.mkdir()
    (repository / "codex.toml").write_bytes(MINE)
    home.folder.mkdir()
    home.file.path.symlink_to("../dotfiles/codex.toml")
    home.write()
    assert home.file.path.is_symlink()
    assert (repository / "codex.toml").read_bytes() != MINE
    assert [path.name for path in repository.iterdir()] == ["codex.toml"]
    home.undo()
    assert home.file.path.is_symlink()
    assert (repository / "codex.toml").read_bytes() == MINE


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_read_only_file_stays(tmp_path: Path) -> None:
    home = Home(tmp_path, MINE)
    home.file.path.chmod(0o400)
    assert str(home.refuses(home.write)).endswith(": it is read-only")


def test_an_edit_by_hand_in_between_wins(tmp_path: Path) -> None:
    home = Home(tmp_path, MINE)
    step = plan_write(home.file, settings())
    home.file.path.write_bytes(b"# by hand\n")
    error = home.refuses(lambda: carry_out(home.file, step))
    assert "was changed by somebody else meanwhile" in str(error)
    assert plan_undo(home.file) is None


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.folder.mkdir()
    home.file.path.mkdir()  # a folder in its place
    with pytest.raises(ConfigError, match=r"^cannot read "):
        home.write()
    nowhere = replace(home.file, path=tmp_path / "a file" / "config.toml")
    (tmp_path / "a file").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"^cannot (read|write) "):
        carry_out(nowhere, plan_write(nowhere, settings()))
    assert plan_undo(nowhere) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = \n", "is broken, so it stays as it is: invalid value (line 1)"),
        (b"a = 1\n\xff", "is not UTF-8"),
        (b"model_providers = 'sk-LEAK'\n", "stays as it is: `model_providers` is no table there"),
    ],
)
def test_a_file_without_a_place_stays(tmp_path: Path, content: bytes, message: str) -> None:
    home = Home(tmp_path, content)
    error = home.refuses(home.write)
    assert str(error) == f"`{home.file.path}` {message}"
    assert "LEAK" not in f"{error}{error.hint}"


def test_the_lines_to_paste_are_shown_where_there_is_no_place(tmp_path: Path) -> None:
    error = (home := Home(tmp_path, b"model_providers = 3\n")).refuses(home.write)
    assert error.hint == f"edit it yourself:\n\n{settings().text}"


def test_no_text_of_the_file_is_remembered(tmp_path: Path) -> None:
    home = Home(tmp_path, b'{"provider": {"openai": {"options": {"apiKey": "LEAK"}}}}', json=True)
    home.write(opencode(ADDRESS, provider=Provider.OPENAI))
    assert b"LEAK" not in home.file.record.read_bytes()
    assert stat.S_IMODE(home.file.record.stat().st_mode) == 0o600


@pytest.mark.parametrize("record", [b"", b"{}", b"[]", b'{"schema": "codexlb.client_file/1"}'])
def test_a_broken_memory_counts_as_none(tmp_path: Path, record: bytes) -> None:
    home = Home(tmp_path, MINE)
    home.write()
    home.file.record.write_bytes(record)
    assert plan_undo(home.file) is None


@given(toml_texts(), st.sampled_from(Provider), st.sampled_from(Auth))
def test_write_and_undo_give_the_same_bytes_in_toml(
    tmp_path_factory: pytest.TempPathFactory,
    document: tuple[str, str],
    provider: Provider,
    auth: Auth,
) -> None:
    text, kind = document
    check_round_trip(
        Home(tmp_path_factory.mktemp("toml"), text.encode()),
        settings(provider=provider, auth=auth),
        refuses=kind == "broken" and provider is Provider.CUSTOM,
    )


@given(jsonc_texts(provider=True), st.sampled_from(Provider))
def test_write_and_undo_give_the_same_bytes_in_jsonc(
    tmp_path_factory: pytest.TempPathFactory, text: str, provider: Provider
) -> None:
    home = Home(tmp_path_factory.mktemp("jsonc"), text.encode(), json=True)
    check_round_trip(home, opencode(ADDRESS, provider=provider))


def check_round_trip(home: Home, wanted: ClientSettings, *, refuses: bool | None = None) -> None:
    before = home.content
    error = None
    try:
        home.write(wanted)
    except ConfigError as exc:
        error = exc
    if error is not None:
        assert refuses is not False
        assert "LEAK" not in f"{error}{error.hint}"
        assert home.content == before
        return
    assert not refuses
    if home.content == before:
        assert plan_undo(home.file) is None
        return
    home.undo()
    assert home.content == before
    assert len(home.files) == 1


@pytest.mark.parametrize("later", [b"", b"\n# mine\n"])
def test_a_byte_order_mark_stays(tmp_path: Path, later: bytes) -> None:
    home = Home(tmp_path, codecs.BOM_UTF8 + MINE)
    home.write()
    assert home.content is not None
    assert home.content.startswith(codecs.BOM_UTF8 + b"# mine")
    assert home.content.count(codecs.BOM_UTF8) == 1
    home.file.path.write_bytes(home.content + later)
    home.undo()
    assert (home.content or b"").startswith(codecs.BOM_UTF8 + MINE)
    assert (home.content or b"").count(codecs.BOM_UTF8) == 1
