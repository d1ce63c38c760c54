"""Logins as they are stored: in the file or in a keyring, whole, and never shown."""

from __future__ import annotations

import json
import stat
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.core.accounts import Account, CredentialRef
from codexlb_cli.errors import ConfigError
from codexlb_cli.store.credentials import Credentials, signed_in_as
from codexlb_cli.store.logins import (
    CLIENT_ID,
    ISSUER,
    Login,
    is_login_document,
    login_document,
    read_login,
)
from codexlb_cli.store.secrets import Secret
from codexlb_cli.store.system_keyring import AGAIN_SECONDS, SystemKeyring, system_backend
from tests.core.pools import NOW
from tests.core.test_tokens import AUTH, jwt

LEAK = "token-LEAK"
PLAN = Account("plan", kind="chatgpt", credential=CredentialRef("login", "plan"))
KEYED = Account("work", credential=CredentialRef("keyring", "work"))


def a_login(number: int = 1, **claims: object) -> Login:
    payload = {"exp": NOW + 3600, "email": "a@b.c", "https://api.openai.com/auth": AUTH, **claims}
    return Login(
        access_token=Secret(jwt({**payload, "number": number})),
        refresh_token=Secret(f"refresh-{LEAK}-{number}"),
        id_token=Secret(jwt(payload)),
        account_id="acc-1",
        refreshed_at=NOW,
    )


class NoKeyringError(Exception):
    """As the library calls it where there is no backend."""


class FakeKeyring:
    """A keyring in memory that can be made to fail."""

    def __init__(self) -> None:
        self.secrets: dict[tuple[str, str], str] = {}
        self.asked = 0
        self.failure: Exception | None = None

    def get_password(self, service_name: str, username: str) -> str | None:
        self._ask()
        return self.secrets.get((service_name, username))

    def set_password(self, service_name: str, username: str, password: str) -> None:
        self._ask()
        self.secrets[service_name, username] = password

    def delete_password(self, service_name: str, username: str) -> None:
        self._ask()
        del self.secrets[service_name, username]

    def _ask(self) -> None:
        self.asked += 1
        if self.failure is not None:
            raise self.failure


def test_a_login_is_found_again(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path, {})
    assert credentials.login("plan") is None
    assert credentials.problem(PLAN) == "`plan` is not signed in"
    login = a_login()
    assert credentials.store_login("plan", login)
    other = Credentials(tmp_path, {})
    assert other.login("plan") == login
    assert other.secret(PLAN) == login.access_token
    assert other.present(PLAN)
    assert signed_in_as(PLAN, other) == "acc-1"
    assert stat.S_IMODE(other.file.stat().st_mode) == 0o600
    assert other.forget("plan")
    assert credentials.login("plan") is None


def test_what_lies_beside_a_login_stays(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path, {})
    credentials.store("plan", Secret("a-key"))
    credentials.store_login("plan", a_login())
    with credentials.file.open("a") as file:  # its last table is the login
        file.write('login_owner_id = "kept"\n')
    credentials.store_login("plan", replace(a_login(2), id_token=None, account_id=None))
    entry = tomllib.loads(credentials.file.read_text())["accounts"]["plan"]
    assert entry["api_key"] == "a-key"
    assert entry["login"] == {
        "access_token": a_login(2).access_token.reveal(),
        "refresh_token": f"refresh-{LEAK}-2",
        "refreshed_at": NOW,
        "issuer": ISSUER,
        "client_id": CLIENT_ID,
        "login_owner_id": "kept",
    }


def test_a_login_that_was_replaced_meanwhile_is_not_written_over(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path, {})
    old, new, refreshed = a_login(1), a_login(2), a_login(3)
    assert not credentials.store_login("plan", refreshed, instead_of=old)
    assert credentials.login("plan") is None
    credentials.store_login("plan", old)
    Credentials(tmp_path, {}).store_login("plan", new)
    assert not credentials.store_login("plan", refreshed, instead_of=old)
    assert credentials.login("plan") == new
    assert credentials.store_login("plan", refreshed, instead_of=new)
    assert credentials.login("plan") == refreshed


@pytest.mark.parametrize(
    ("login", "what"),
    [
        (replace(a_login(), access_token=Secret("a b")), "access token cannot be sent: it has"),
        (replace(a_login(), access_token=Secret("")), "access token is empty"),
        (replace(a_login(), refresh_token=Secret("\ud800")), "refresh token cannot be sent"),
        (replace(a_login(), account_id="a\r\nb: c"), "account id cannot be sent"),
        (replace(a_login(), issuer="http://a b"), "issuer cannot be sent"),
    ],
)
def test_a_login_that_no_header_can_carry_is_refused(
    tmp_path: Path, login: Login, what: str
) -> None:
    credentials = Credentials(tmp_path, {})
    with pytest.raises(ConfigError) as caught:
        credentials.store_login("plan", login)
    assert str(caught.value).startswith(f"the login of `plan` cannot be used: its {what}")
    assert not credentials.file.exists()


@pytest.mark.parametrize(
    "login",
    [
        "'token-LEAK'",
        "{}",
        "{ access_token = '' }",
        "{ access_token = 1 }",
        "{ access_token = 'token-LEAK', refresh_token = ['token-LEAK'] }",
        "{ access_token = 'token-LEAK', refreshed_at = true }",
        "{ access_token = 'token-LEAK', refreshed_at = nan }",
        "{ access_token = 'token-LEAK', issuer = 1 }",
    ],
)
def test_a_broken_login_is_reported_and_never_written_over(tmp_path: Path, login: str) -> None:
    credentials = Credentials(tmp_path, {})
    content = f"[accounts.plan]\nlogin = {login}\n"
    credentials.file.write_text(content)
    credentials.file.chmod(0o600)
    for use in (
        lambda: credentials.login("plan"),
        lambda: credentials.present(PLAN),
        lambda: credentials.store_login("plan", a_login()),
    ):
        with pytest.raises(ConfigError, match=r"is broken$") as caught:
            use()
        assert LEAK not in f"{caught.value!r} {caught.value.hint} {caught.value.__cause__!r}"
    assert credentials.file.read_text() == content


texts = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20)


@given(
    texts, st.none() | texts, st.none() | texts, st.none() | texts,
    st.floats(0, 1e12), texts, texts,
)  # fmt: skip
def test_a_login_survives_its_document(
    access: str,
    refresh: str | None,
    identity: str | None,
    account_id: str | None,
    at: float,
    issuer: str,
    client: str,
) -> None:
    def secret(text: str | None) -> Secret | None:
        return None if text is None else Secret(text)

    login = Login(Secret(access), secret(refresh), secret(identity), account_id, at, issuer, client)
    document = login_document(login)
    assert is_login_document(document)
    assert read_login(document) == login
    assert read_login({**document, "more": 1}) == login


def test_the_repr_of_a_login_shows_no_token() -> None:
    login = a_login()
    shown = repr(login)
    assert "***" in shown
    assert LEAK not in shown
    assert login.access_token.reveal() not in shown


@pytest.mark.parametrize(
    ("account_id", "claimed", "sent"),
    [("own", "acc-1", "own"), (None, "acc-1", "acc-1"), (None, None, None), (None, "\xe4", None)],
)
def test_the_account_id_that_is_sent(
    tmp_path: Path, account_id: str | None, claimed: str | None, sent: str | None
) -> None:
    claims = {"https://api.openai.com/auth": {"chatgpt_account_id": claimed}}
    credentials = Credentials(tmp_path, {"TOKEN": jwt(claims)})
    credentials.store_login("plan", replace(a_login(1, **claims), account_id=account_id))
    assert signed_in_as(PLAN, credentials) == sent
    by_variable = replace(PLAN, credential=CredentialRef("env", "TOKEN"))
    assert signed_in_as(by_variable, credentials) == (None if sent == "own" else sent) or sent
    assert signed_in_as(replace(PLAN, kind="api_key"), credentials) is None


def test_when_a_login_is_refreshed() -> None:
    login = replace(a_login(), refreshed_at=NOW - 3600)
    assert not login.refresh_due(NOW)
    assert login.refresh_due(NOW + 3300)
    assert not login.refresh_needed(NOW + 3300)
    assert login.refresh_needed(NOW + 3570)
    assert not replace(login, refresh_token=None).refresh_due(NOW + 7200)
    fast_clock = a_login(1, iat=NOW - 86_400, exp=NOW - 82_800)
    assert not fast_clock.refresh_due(NOW + 1799)
    assert fast_clock.refresh_due(NOW + 1800)


# --- the keyring ------------------------------------------------------------------------------


def kept_in(keyring: FakeKeyring, folder: Path) -> Credentials:
    return Credentials(folder, {}, "keyring", lambda: keyring)


def test_a_keyring_keeps_what_the_file_does_not_hold(tmp_path: Path) -> None:
    keyring = FakeKeyring()
    credentials = kept_in(keyring, tmp_path)
    credentials.store("work", Secret("sk-LEAK"))
    credentials.store_login("plan", a_login())
    other = kept_in(keyring, tmp_path)
    assert other.secret(KEYED) == Secret("sk-LEAK")
    assert other.login("plan") == a_login()
    assert "LEAK" not in other.file.read_text()
    assert len(keyring.secrets) == 2
    assert "LEAK" not in repr(other)
    assert other.forget("work")
    assert other.forget("plan")
    assert keyring.secrets == {}
    assert kept_in(keyring, tmp_path).login("plan") is None


def test_a_keyring_is_asked_once_for_each_change(tmp_path: Path) -> None:
    keyring = FakeKeyring()
    writer, reader = kept_in(keyring, tmp_path), kept_in(keyring, tmp_path)
    writer.store_login("plan", a_login(1))
    before = keyring.asked
    for _ in range(5):
        assert reader.login("plan") == a_login(1)
    assert keyring.asked == before + 1
    writer.store_login("plan", a_login(2), instead_of=a_login(1))
    for _ in range(5):
        assert reader.login("plan") == a_login(2)
        assert writer.login("plan") == a_login(2)
    assert keyring.asked == before + 3


def test_credentials_move_with_the_setting(tmp_path: Path) -> None:
    keyring = FakeKeyring()
    in_file = Credentials(tmp_path, {}, "file", lambda: keyring)
    in_file.store("plan", Secret("key"))
    kept_in(keyring, tmp_path).store_login("plan", a_login())
    assert "key" not in tomllib.loads(in_file.file.read_text())["accounts"]["plan"].values()
    assert in_file.login("plan") == a_login()
    in_file.store_login("plan", a_login(2))
    assert keyring.secrets == {}
    entry = tomllib.loads(in_file.file.read_text())["accounts"]["plan"]
    assert (entry["api_key"], set(entry)) == ("key", {"api_key", "login"})


def test_two_state_folders_share_no_secret(tmp_path: Path) -> None:
    keyring = FakeKeyring()
    kept_in(keyring, tmp_path / "one").store("work", Secret("one"))
    kept_in(keyring, tmp_path / "two").store("work", Secret("two"))
    assert kept_in(keyring, tmp_path / "one").secret(KEYED) == Secret("one")


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (NoKeyringError(LEAK), "this system has no keyring that can be used"),
        (RuntimeError(LEAK), "the system's keyring refused (RuntimeError)"),
    ],
)
def test_a_keyring_that_cannot_be_used(tmp_path: Path, failure: Exception, message: str) -> None:
    keyring = FakeKeyring()
    kept_in(keyring, tmp_path).store_login("plan", a_login())
    keyring.failure = failure
    credentials = kept_in(keyring, tmp_path)
    for use in (
        lambda: credentials.login("plan"),
        credentials.check,
        lambda: credentials.store_login("plan", a_login(2)),
        lambda: credentials.store("work", Secret("key")),
        lambda: credentials.forget("plan"),
    ):
        with pytest.raises(ConfigError) as caught:
            use()
        assert str(caught.value) == message
        assert 'store = "file"' in str(caught.value.hint)
        assert caught.value.__cause__ is None
    assert "plan" in credentials.file.read_text()


def test_a_keyring_that_failed_is_left_alone_for_a_while(tmp_path: Path) -> None:
    keyring, now = FakeKeyring(), 100.0
    store = SystemKeyring(tmp_path, lambda: keyring, lambda: now)
    keyring.failure = RuntimeError()
    for _ in range(3):
        with pytest.raises(ConfigError):
            store.entry("plan", "1")
    assert keyring.asked == 1
    keyring.failure = None
    now += AGAIN_SECONDS
    assert store.entry("plan", "1") == {}


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"api_key": 1}), json.dumps({"login": 1})])
def test_a_keyring_that_holds_something_else(tmp_path: Path, text: str) -> None:
    keyring = FakeKeyring()
    credentials = kept_in(keyring, tmp_path)
    credentials.store("work", Secret("key"))
    (user,) = keyring.secrets
    keyring.secrets[user] = text
    with pytest.raises(ConfigError, match="what the keyring holds is broken"):
        kept_in(keyring, tmp_path).secret(KEYED)


def test_without_the_extra_there_is_no_keyring(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path, {}, "keyring", lambda: system_backend("no_such_library"))
    with pytest.raises(ConfigError, match="library is not installed") as caught:
        credentials.store("work", Secret("key"))
    assert caught.value.hint == "pip install 'codexlb-cli[keyring]'"
    assert not credentials.file.exists()
