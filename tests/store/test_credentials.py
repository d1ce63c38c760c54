from __future__ import annotations

import copy
import os
import pickle
import stat
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.config.load import demo_settings
from codexlb_cli.core.accounts import Account, CredentialRef
from codexlb_cli.errors import ConfigError
from codexlb_cli.store.credentials import Credentials, DemoCredentials, key_fault
from codexlb_cli.store.secrets import Secret

LEAK = "sk-test-LEAK"
STORED = Account("work", credential=CredentialRef("file", "work"))
FROM_ENV = Account("lab", credential=CredentialRef("env", "LAB_KEY"))


def test_a_secret_does_not_show_itself() -> None:
    secret = Secret(LEAK)
    assert secret.reveal() == LEAK
    for shown in (repr(secret), str(secret), f"{secret}", f"{[secret]!r}"):
        assert LEAK not in shown
    assert secret == Secret(LEAK) != Secret("other")
    assert len({secret, Secret(LEAK)}) == 1
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        copy.copy(secret)


def test_a_stored_key_is_found_again(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path / "state", {})
    assert credentials.secret(STORED) is None
    assert credentials.problem(STORED) == "no key is stored for `work`"
    credentials.store("work", Secret("one"))
    assert credentials.secret(STORED) == Secret("one")
    assert credentials.present(STORED)
    credentials.store("home", Secret("two"))
    credentials.store("work", Secret("three"))
    other = Credentials(tmp_path / "state", {})
    assert other.secret(STORED) == Secret("three")
    assert other.forget("work")
    assert not other.forget("work")
    assert credentials.secret(STORED) is None
    assert tomllib.loads(other.file.read_text()) == {"accounts": {"home": {"api_key": "two"}}}


def test_nothing_to_forget_makes_no_file(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path / "state", {})
    assert not credentials.forget("work")
    assert not (tmp_path / "state").exists()


def test_what_else_is_in_the_file_stays(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path, {})
    credentials.store("work", Secret("one"))
    with credentials.file.open("a") as file:
        file.write('other = "kept"\n[accounts.plan]\nrefresh = "kept"\n')
    credentials.store("work", Secret("two"))
    assert tomllib.loads(credentials.file.read_text())["accounts"] == {
        "work": {"api_key": "two", "other": "kept"},
        "plan": {"refresh": "kept"},
    }


def test_file_and_folder_are_for_the_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o755)
    credentials = Credentials(folder, {})
    credentials.store("work", Secret(LEAK))
    credentials.store("work", Secret(LEAK))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(credentials.file.stat().st_mode) == 0o600
    assert {path.name for path in folder.iterdir()} == {"credentials.toml", "credentials.lock"}


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602, 0o660])
def test_a_file_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    credentials = Credentials(tmp_path, {})
    credentials.store("work", Secret(LEAK))
    assert credentials.present(STORED)
    credentials.file.chmod(mode)
    for use in (
        lambda: credentials.secret(STORED),
        lambda: credentials.problem(STORED),
        lambda: credentials.store("work", Secret("x")),
        lambda: credentials.forget("work"),
    ):
        with pytest.raises(ConfigError) as caught:
            use()
        assert str(caught.value) == f"`{credentials.file}` can be used by others (mode {mode:04o})"
        assert caught.value.hint == f"chmod 600 {credentials.file}"
    credentials.file.chmod(0o600)
    assert credentials.secret(STORED) == Secret(LEAK)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path, {})
    credentials.store("work", Secret(LEAK))
    os.chown(credentials.file, 12345, -1)
    with pytest.raises(ConfigError, match=r"belongs to another user$"):
        credentials.secret(STORED)


@pytest.mark.parametrize(
    "content",
    [
        b"[accounts.work\n",
        b'api_key = "sk-test-LEAK\n',
        b"\xff sk-test-LEAK",
        b"accounts = 'sk-test-LEAK'\n",
        b"accounts = ['sk-test-LEAK']\n",
        b"[accounts]\nwork = 'sk-test-LEAK'\n",
        b"[accounts.work]\napi_key = ['sk-test-LEAK']\n",
    ],
)
def test_a_broken_file_is_reported_and_never_overwritten(tmp_path: Path, content: bytes) -> None:
    credentials = Credentials(tmp_path, {})
    credentials.file.write_bytes(content)
    credentials.file.chmod(0o600)
    for use in (
        lambda: credentials.secret(STORED),
        lambda: credentials.store("work", Secret("x")),
        lambda: credentials.forget("work"),
    ):
        with pytest.raises(ConfigError, match=r"is broken$") as caught:
            use()
        assert LEAK not in f"{caught.value!r} {caught.value.hint} {caught.value.__cause__!r}"
        assert credentials.file.read_bytes() == content


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path, {})
    credentials.file.mkdir()
    with pytest.raises(ConfigError, match=r"^cannot read "):
        credentials.present(STORED)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^cannot write "):
        Credentials(tmp_path / "file" / "state", {}).store("work", Secret("x"))


@pytest.mark.parametrize(
    ("value", "key", "problem"),
    [
        (None, None, "`LAB_KEY` is not set in this shell"),
        ("", None, "`LAB_KEY` is empty"),
        (" \n", None, "`LAB_KEY` is empty"),
        ("k", "k", None),
        ("k\n", "k", None),
    ],
)
def test_keys_of_variables(
    tmp_path: Path, value: str | None, key: str | None, problem: str | None
) -> None:
    credentials = Credentials(tmp_path, {} if value is None else {"LAB_KEY": value})
    assert credentials.secret(FROM_ENV) == (None if key is None else Secret(key))
    assert credentials.problem(FROM_ENV) == problem
    assert credentials.present(FROM_ENV) is (problem is None)


@pytest.mark.parametrize("key", ["sk-test\x00LEAK", "sk-test LEAK", "sk-t\u00e4st", "a\r\nb: c"])
def test_a_key_that_no_header_can_carry_is_refused(tmp_path: Path, key: str) -> None:
    credentials = Credentials(tmp_path, {"LAB_KEY": key})
    with pytest.raises(ConfigError) as caught:
        credentials.secret(FROM_ENV)
    assert str(caught.value).startswith("`LAB_KEY` cannot be sent: it has blanks, control char")
    assert not credentials.present(FROM_ENV)
    with pytest.raises(ConfigError, match=r"^the key for `work` cannot be sent"):
        credentials.store("work", Secret(key))
    assert not credentials.file.exists()


@given(st.text())
def test_a_sound_key_is_visible_ascii(text: str) -> None:
    sound = key_fault(text) is None
    assert sound == (text != "" and all("!" <= character <= "~" for character in text))
    assert not text.strip() or len(text) < 12 or text not in str(key_fault(text))


def test_an_account_that_must_sign_in_has_no_key(tmp_path: Path) -> None:
    plan = Account("plan", kind="chatgpt", credential=CredentialRef("login", "plan"))
    credentials = Credentials(tmp_path, {})
    assert credentials.secret(plan) is None
    assert credentials.problem(plan) == "`plan` is not signed in"


def test_the_repr_shows_neither_keys_nor_environment(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path, {"LAB_KEY": LEAK})
    credentials.store("work", Secret(LEAK))
    credentials.secret(STORED)
    assert LEAK not in repr(credentials)


def test_the_demo_has_its_keys_built_in() -> None:
    credentials = DemoCredentials()
    for account in demo_settings(environ={}).accounts:
        assert credentials.secret(account) == Secret(f"demo-key-{account.name}")
        assert credentials.problem(account) is None
        assert credentials.present(account)
    assert credentials.secret(FROM_ENV) is None
    assert credentials.problem(FROM_ENV) == "`lab` is no demo account"
    assert not credentials.present(FROM_ENV)
