from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from codexlb_cli.core.signin import CLIENT_ID, ISSUER
from codexlb_cli.errors import ConfigError
from codexlb_cli.mock_upstream.grants import GrantStore, Person, Tokens
from codexlb_cli.signin.codex_auth import LARGEST_BYTES, NoLogin, read_codex_auth
from tests.support.signing import auth_json

NOW = 1_790_000_000.0


def issued(**other: Any) -> Tokens:
    store = GrantStore("t")
    return store.issue(store.grant(Person("ada"), "app"), issuer="mock", now=NOW, **other)


def test_a_file_as_codex_writes_it(tmp_path: Path) -> None:
    tokens = issued()
    found = read_codex_auth(auth_json(tmp_path, tokens))
    login = found.login
    assert login.access_token.reveal() == tokens.access_token
    assert login.refresh_token is not None
    assert login.refresh_token.reveal() == tokens.refresh_token
    assert login.claims.email == "ada@example.com"
    assert (login.account_id, login.issuer, login.client_id) == ("acct-ada", ISSUER, CLIENT_ID)
    assert (login.refreshed_at, login.shared) == (1_767_225_600.0, True)
    assert (found.set_aside, found.open_to_others) == ((), False)
    assert tokens.access_token not in repr(found)
    assert tokens.refresh_token not in repr(found)


def test_what_is_new_or_odd_is_put_aside(tmp_path: Path) -> None:
    tokens = issued()
    file = auth_json(tmp_path, tokens, agent_identity={}, last_refresh=["soon"])
    document = json.loads(file.read_text())
    document["tokens"] |= {
        "oauth_provenance": {"issuer": "https://other.example/", "client_id": "app-other"},
        "login_owner_id": "x",
        "account_id": 7,
    }
    file.write_text(json.dumps(document))
    found = read_codex_auth(file)
    assert found.set_aside == ("agent_identity", "tokens.login_owner_id")
    assert (found.login.issuer, found.login.client_id) == ("https://other.example", "app-other")
    assert (found.login.account_id, found.login.refreshed_at) == ("acct-ada", 0.0)


def test_a_login_without_a_refresh_token(tmp_path: Path) -> None:
    file = auth_json(tmp_path, issued())
    document = json.loads(file.read_text())
    document["tokens"] = {"access_token": document["tokens"]["access_token"]}
    file.write_text(json.dumps(document))
    login = read_codex_auth(file).login
    assert (login.refresh_token, login.id_token, login.account_id) == (None, None, "acct-ada")


@pytest.mark.skipif(os.name != "posix", reason="links and modes")
def test_a_link_and_a_file_that_others_can_read(tmp_path: Path) -> None:
    file = auth_json(tmp_path, issued())
    file.chmod(0o644)
    link = tmp_path / "link.json"
    link.symlink_to(file)
    assert read_codex_auth(link).open_to_others


def with_tokens(**tokens: object) -> bytes:
    good = issued()
    given = {"access_token": good.access_token, "refresh_token": good.refresh_token, **tokens}
    return json.dumps({"tokens": given}).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it holds no JSON object"),
        (b"[]", "it holds no JSON object"),
        (b"\xff\xfe", "it holds no JSON object"),
        (b"[" * 100_000, "it holds no JSON object"),
        (b'{"tokens": {}}', "holds no access token"),
        (b'{"tokens": {"access_token": 7}}', "holds no access token"),
        (b'{"tokens": {"access_token": "LEAK"}}', "holds tokens that name no account"),
        (b'{"tokens": {"access_token": "LE AK"}}', "`tokens.access_token` in "),
        (with_tokens(refresh_token="LEAK\n"), "`tokens.refresh_token` in "),
        (
            with_tokens(oauth_provenance={"issuer": "http://LEAK.example"}),
            "must be an https URL, or one on loopback",
        ),
        (b" " * (LARGEST_BYTES + 1), "is larger than 1 MiB"),
    ],
)
def test_a_file_that_holds_no_login(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "auth.json"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_codex_auth(file)
    assert message in str(caught.value)
    assert "LEAK" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "has_key"),
    [(b"{}", False), (b'{"tokens": null, "OPENAI_API_KEY": "sk-LEAK"}', True)],
)
def test_a_file_without_a_login(tmp_path: Path, content: bytes, has_key: bool) -> None:
    file = tmp_path / "auth.json"
    file.write_bytes(content)
    with pytest.raises(NoLogin) as caught:
        read_codex_auth(file)
    assert caught.value.has_key is has_key
    assert "LEAK" not in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="pipes and links")
def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, message in (
        ("none", "cannot read "),
        ("loop", "cannot read "),
        (".", "cannot read "),
        ("pipe", "is not a regular file"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_codex_auth(tmp_path / name)
