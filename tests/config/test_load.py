from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from codexlb_cli.config.load import Settings, demo_settings, load_settings
from codexlb_cli.config.schema import scalar_keys
from codexlb_cli.core.accounts import Account, CredentialRef
from codexlb_cli.errors import CodexlbError, ConfigError, UsageError


def load(tmp_path: Path, content: str | bytes, **environ: str) -> Settings:
    file = tmp_path / "config.toml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    before = file.stat()
    try:
        return load_settings(file, environ=environ)
    finally:
        assert file.stat().st_mtime_ns == before.st_mtime_ns


def refused(tmp_path: Path, content: str | bytes, **environ: str) -> CodexlbError:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, content, **environ)
    return caught.value


def test_a_missing_file_means_the_defaults_and_no_accounts(tmp_path: Path) -> None:
    settings = load_settings(tmp_path / "config.toml", environ={})
    assert settings.accounts == ()
    assert (settings.gateway.host, settings.gateway.port) == ("127.0.0.1", 2455)
    timeouts = settings.timeouts
    assert (timeouts.dial, timeouts.first_event, timeouts.idle) == (15, 100, 900)
    assert (timeouts.before_first_event_total, timeouts.drain) == (240, 30)
    assert settings.limits.request_bytes == 134217728
    assert settings.limits.frame_bytes == 15728640
    assert (settings.lanes.idle, settings.lanes.max_age, settings.lanes.queue) == (300, 3300, 8)
    headers = settings.headers
    assert (headers.allow, headers.traceparent) == ((), False)
    assert headers.beta == "responses_websockets=2026-02-06"
    reconnect = settings.reconnect
    assert (reconnect.replays, reconnect.backoff_base, reconnect.backoff_max) == (1, 0.25, 5)
    assert (reconnect.close, reconnect.replay_hosted_tools) == ({}, False)
    assert settings.affinity.session_on_account_failure == "move"
    assert settings.affinity.wait_up_to == 10
    assert settings.origin(("gateway", "port")).source == "default"


def test_accounts_keep_the_order_of_the_file(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        """
        [accounts.work]
        api_key_env = "WORK"
        organization = "org-1"
        [accounts.alpha]
        base_url = "ws://127.0.0.1:9000/v1/"
        enabled = false
        project = "p"
        [accounts.plan]
        kind = "chatgpt"
        """,
    )
    assert settings.accounts == (
        Account("work", organization="org-1", credential=CredentialRef("env", "WORK")),
        Account(
            "alpha",
            base_url="ws://127.0.0.1:9000/v1/",
            enabled=False,
            project="p",
            credential=CredentialRef("file", "alpha"),
        ),
        Account(
            "plan",
            kind="chatgpt",
            base_url="https://chatgpt.com/backend-api/codex",
            credential=CredentialRef("login", "plan"),
        ),
    )
    assert settings.account("alpha") is settings.accounts[1]


@pytest.mark.parametrize(
    ("names", "asked", "hint"),
    [
        (["work"], "wrok", "did you mean `work`?"),
        (["work", "home"], "zzz", "the accounts are: work, home"),
        ([], "ghost", "codexlb accounts add ghost --api-key-env OPENAI_API_KEY"),
        ([], "x;\n", "codexlb accounts add work --api-key-env OPENAI_API_KEY"),
    ],
)
def test_an_unknown_account(tmp_path: Path, names: list[str], asked: str, hint: str) -> None:
    settings = load(tmp_path, "".join(f"[accounts.{name}]\n" for name in names))
    with pytest.raises(ConfigError, match=r"^no account named `") as caught:
        settings.account(asked)
    assert caught.value.hint == hint
    assert "\n" not in str(caught.value)


def test_precedence_is_flag_then_variable_then_file_then_default(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("# mine\n[gateway]\nport = 1111\nhost = '127.0.0.2'\n[lanes]\nqueue = 3\n")
    environ = {
        "CODEXLB_GATEWAY_PORT": "2222",
        "CODEXLB_LANES_QUEUE": " 4 ",
        "CODEXLB_TIMEOUTS_DIAL": "2.5",
        "CODEXLB_HEADERS_ALLOW": "X-One, x-two,",
        "CODEXLB_HEADERS_TRACEPARENT": "TRUE",
        "CODEXLB_LANES_IDLE": "",
        "CODEXLB_CONFIG": "ignored",
        "CODEXLB_WORK_KEY": "ignored",
    }
    settings = load_settings(file, environ=environ, overrides={"gateway.port": 3333})
    assert (settings.gateway.port, settings.gateway.host) == (3333, "127.0.0.2")
    assert (settings.lanes.queue, settings.lanes.idle) == (4, 300)
    assert settings.timeouts.dial == 2.5
    assert settings.headers.allow == ("x-one", "x-two")
    assert settings.headers.traceparent is True
    origins = {
        path: (origin.source, origin.name, origin.line)
        for path in settings.origins
        if len(path) > 1 and (origin := settings.origin(path))
    }
    assert origins == {
        ("gateway", "port"): ("flag", "--port", None),
        ("gateway", "host"): ("file", "config.toml", 4),
        ("lanes", "queue"): ("env", "CODEXLB_LANES_QUEUE", None),
        ("timeouts", "dial"): ("env", "CODEXLB_TIMEOUTS_DIAL", None),
        ("headers", "allow"): ("env", "CODEXLB_HEADERS_ALLOW", None),
        ("headers", "traceparent"): ("env", "CODEXLB_HEADERS_TRACEPARENT", None),
    }


@pytest.mark.parametrize(("table", "key", "default"), scalar_keys())
def test_every_key_can_be_set_by_a_variable(
    tmp_path: Path, table: str, key: str, default: object
) -> None:
    other = {
        "host": "localhost",
        "beta": "responses_websockets=other",
        "session_on_account_failure": "wait",
        "allow": "x-a",
        "replays": "0",
        "prices_as_of": "2026-02-06",
        "policy": "first",
        "issuer": "https://issuer.example",
        "store": "keyring",
    }
    text = other.get(key, "true" if default is False else "7")
    settings = load(tmp_path, "", **{f"CODEXLB_{table}_{key}".upper(): text})
    assert getattr(getattr(settings, table), key) != default
    assert settings.origin((table, key)).source == "env"


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "CODEXLB_GATEWAY_PORT",
            "0",
            "`CODEXLB_GATEWAY_PORT` must be a whole number from 1 to 65535, not 0",
        ),
        (
            "CODEXLB_GATEWAY_PORT",
            "x\n",
            "`CODEXLB_GATEWAY_PORT` must be a whole number from 1 to 65535, not `x`",
        ),
        (
            "CODEXLB_HEADERS_TRACEPARENT",
            "yes",
            "`CODEXLB_HEADERS_TRACEPARENT` must be true or false, not `yes`",
        ),
        ("CODEXLB_HEADERS_ALLOW", "a b", "`CODEXLB_HEADERS_ALLOW` must be the name of a header"),
        ("CODEXLB_GATEWAY_PROT", "1", "the variable `CODEXLB_GATEWAY_PROT` names no key"),
    ],
)
def test_a_wrong_variable(tmp_path: Path, variable: str, value: str, message: str) -> None:
    error = refused(tmp_path, "", **{variable: value})
    assert str(error) == message
    if "PROT" in variable:
        assert error.hint == "did you mean `CODEXLB_GATEWAY_PORT`?"


def test_a_flag_out_of_range_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_settings(
            tmp_path / "config.toml",
            environ={"CODEXLB_GATEWAY_PORT": "1"},
            overrides={"gateway.port": 70000},
        )
    assert str(caught.value) == "`--port` must be a whole number from 1 to 65535, not 70000"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[gateway]\nport = 0", "`gateway.port` in `config.toml` must be a whole number from 1 to"),
        ("[gateway]\nport = 65536", "65535, not 65536"),
        ("[gateway]\nport = true", "65535, not true"),
        ("[gateway]\nport = 24.5", "65535, not 24.5"),
        ("[gateway]\nport = '2455'", '65535, not `"2455"`'),
        ("[gateway]\nport = [1]", "65535, not an array"),
        ("[gateway]\nhost = '0.0.0.0'", "a loopback address such as `127.0.0.1` or `::1`, not `0"),
        ("[gateway]\nhost = ''", "must be a loopback address"),
        ("[gateway]\nhost = '::ffff:127.0.0.1'", "must be a loopback address"),
        ("\ngateway = 3", "`gateway` in `config.toml` must be a table, not 3"),
        ("\n[[gateway]]", "`gateway` in `config.toml` must be a table, not an array"),
        ("\n[[accounts]]", "must be tables such as `[accounts.work]`, not an array"),
        ("accounts = {}\n[timeouts]\ndial = 0", "more than 0 and 86400 at most, not 0"),
        ("[timeouts]\ndial = inf", "86400 at most, not inf"),
        ("[timeouts]\ndial = nan", "86400 at most, not nan"),
        ("[timeouts]\ndrain = -1", "`timeouts.drain` in `config.toml` must be a number of sec"),
        ("[limits]\nframe_bytes = 0", "a whole number of bytes from 1 to 4294967296, not 0"),
        ("[lanes]\nqueue = -1", "a whole number from 0 to 10000, not -1"),
        ("[reconnect]\nreplays = 2", "must be 0 or 1, not 2"),
        ("[headers]\nallow = 'x'", "`headers.allow` in `config.toml` must be an array of header"),
        ("[headers]\nallow = ['x', 'a:b']", "`headers.allow` in `config.toml` must be the name of"),
        ("[headers]\nallow = ['x', 3]", "must be the name of a header, not 3"),
        ("[headers]\nbeta = 'responses_websockets='", "`headers.beta`"),
        ("[headers]\nbeta = 'responses_websockets=a b'", "must be one token such as"),
        ("[headers]\nbeta = 'responses_websockets=a,b'", "must be one token such as"),
        ('[headers]\nbeta = "responses_websockets=a\\n"', "must be one token such as"),
        ("[headers]\nbeta = 'responses=experimental'", "must be one token such as"),
        ("[affinity]\nsession_on_account_failure = 'stay'", "`move`, `wait` or `fail`, not `stay`"),
        ("[reconnect.close.999]", "must be a close code from 1000 to 4999"),
        ("[reconnect.close.5000]", "the name in `reconnect.close.5000` in `config.toml` must be"),
        ("[reconnect.close.abc]", "must be a close code from 1000 to 4999"),
        ("[reconnect.close.1011]\nhard = 'move'", "`reconnect.close.1011.hard` in `config.toml`"),
        ("[reconnect.close.1011]\naccount = 'limited'", "`neutral`, `counted` or `cooled`, not `l"),
        ("[accounts.Work]", "the name in `accounts.Work` in `config.toml` must be a-z, 0-9"),
        ("[accounts.'a b']", 'the name in `accounts."a b"` in'),
        (f"[accounts.{'a' * 33}]", "32 characters at most"),
        ("[accounts.1]\nkind = 'other'", "`accounts.1.kind` in `config.toml` must be `api_key` or"),
        ("[accounts.w]\nbase_url = 'ftp://x'", "must be an http, https, ws or wss URL with a host"),
        ('[accounts.w]\norganization = "a\\r\\nx: y"', "must be printable ASCII without spaces"),
        ("[accounts.w]\nenabled = 1", "must be true or false, not 1"),
        ("accounts.w = 1", "`accounts.w` in `config.toml` must be a table, not 1"),
    ],
)
def test_a_wrong_value(tmp_path: Path, content: str, message: str) -> None:
    error = refused(tmp_path, "\n" + content)
    assert message in str(error)
    assert error.hint is not None
    assert str(tmp_path / "config.toml") in error.hint
    assert f"line {content.count(chr(10)) + 2} of" in error.hint


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://",
        "https:///v1",
        "example.com/v1",
        "file:///x",
        "https://user:hunter2@example.com/v1",
        "https://example.com/v1?key=hunter2",
        "https://example.com/v1#hunter2",
        "https://example.com:99999/v1",
        "https://example.com:0/v1",
        "https://exa mple.com/v1",
        "https://example.com/v1\r\nx: hunter2",
        "https://ex\u00e4mple.com/v1",
        "https://[::1/v1",
        "https://exa%41mple/v1",
        "https:\\\\example.com",
    ],
)
def test_a_base_url_that_is_none_is_not_shown(tmp_path: Path, url: str) -> None:
    text = url.replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n")
    error = refused(tmp_path, f'[accounts.w]\nbase_url = "{text}"\n')
    assert str(error).startswith("`accounts.w.base_url` in `config.toml` must be an http, https")
    assert "hunter2" not in f"{error} {error.hint} {error!r}"


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("[gateway]\nprot = 1", "did you mean `gateway.port`?; see line 2 of "),
        ("[gatway]\nport = 1", "did you mean `gateway`?; see line 1 of "),
        ("port = 1", "did you mean `gateway.port`?; see line 1 of "),
        ("[reconnect.close.1011]\nsfot = 'x'", "did you mean `reconnect.close.1011.soft`?; see li"),
        ("[accounts.w]\ncolour = 1", "see line 2 of "),
        ("[accounts.w]\napi_key = 'sk-test-LEAK'", "name a variable with `api_key_env`; keys do n"),
        ('"\\u001b[31m" = 1', "see line 1 of "),
    ],
)
def test_an_unknown_key(tmp_path: Path, content: str, hint: str) -> None:
    error = refused(tmp_path, content)
    assert str(error).endswith("in `config.toml` is not a known key")
    assert error.hint is not None
    assert error.hint.startswith(hint)
    assert "\x1b" not in str(error)
    assert "LEAK" not in f"{error!r} {error} {error.hint}"


def test_a_pasted_key_is_never_shown(tmp_path: Path) -> None:
    for key in ("api_key_env", "base_url", "organization", "project"):
        error = refused(tmp_path, f"[accounts.w]\n{key} = 'sk-test-LEAK \u00e4'")
        assert "LEAK" not in f"{error!r} {error} {error.hint}"
        assert error.__cause__ is None


@pytest.mark.parametrize(
    ("content", "message", "line"),
    [
        (b"[gateway]\nport = \n", "is not valid TOML: invalid value (line 2, column 8)", 2),
        (b"[gateway]\r\nport = \r\n", "is not valid TOML: invalid value (line 2, column 8)", 2),
        (b"[gateway\n", "is not valid TOML: expected ']'", 1),
        (b"[gateway]\nx = '''\n", "is not valid TOML:", 3),
        (b"a = 1\na = 2\n", "is not valid TOML: cannot overwrite a value (line 2", 2),
        (b"[a]\n[a]\n", "is not valid TOML: cannot declare", 2),
        (b"x = 1\n\xff\n", "`config.toml` is not UTF-8", 2),
        (b"x = " + b"[" * 5000, "is not valid TOML:", None),
        (b"x = " + b"9" * 5000, "is not valid TOML:", None),
    ],
)
def test_a_broken_file(tmp_path: Path, content: bytes, message: str, line: int | None) -> None:
    error = refused(tmp_path, content)
    assert message in str(error)
    assert error.hint is not None
    where = f"line {line} of " if line else ""
    assert error.hint == f"see {where}{tmp_path / 'config.toml'}, then: codexlb config check"


def test_a_byte_order_mark_is_named(tmp_path: Path) -> None:
    error = refused(tmp_path, b"\xef\xbb\xbf[gateway]\n")
    assert str(error) == "`config.toml` begins with a byte order mark, which TOML does not allow"


def test_windows_line_endings(tmp_path: Path) -> None:
    settings = load(tmp_path, "# x\r\n[gateway]\r\nport = 7\r\n\r\n[accounts.w]\r\n")
    assert settings.gateway.port == 7
    assert settings.origin(("gateway", "port")).line == 3
    assert [account.name for account in settings.accounts] == ["w"]


def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^cannot read `.*`: is a directory$"):
        load_settings(tmp_path, environ={})


def test_a_file_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^cannot read "):
        load_settings(tmp_path / "file" / "config.toml", environ={})


def test_close_codes_become_numbers(tmp_path: Path) -> None:
    settings = load(tmp_path, "[reconnect.close.1011]\nsoft = 'same_account'\n[reconnect.close]\n")
    assert settings.reconnect.close[1011].soft == "same_account"
    assert settings.reconnect.close[1011].hard is None


def test_the_first_fault_in_the_file_is_the_one_named(tmp_path: Path) -> None:
    error = refused(tmp_path, "[lanes]\nqueue = -1\n[gateway]\nport = 0\n")
    assert "lanes.queue" in str(error)


def test_settings_are_frozen(tmp_path: Path) -> None:
    settings = load(tmp_path, "")
    with pytest.raises(AttributeError):
        settings.accounts = ()  # type: ignore[misc]
    with pytest.raises(ValidationError):
        settings.gateway.port = 3


def test_the_demo_is_built_in() -> None:
    settings = demo_settings(environ={}, overrides={"gateway.port": 99})
    assert settings.config_file is None
    assert settings.gateway.port == 99
    assert [(a.name, a.base_url, a.credential) for a in settings.accounts] == [
        (name, "ws://127.0.0.1:100/v1", CredentialRef("file", name))
        for name in ("work", "home", "spare")
    ]
    assert settings.origin(("accounts", "work", "base_url")).source == "demo"
    with pytest.raises(ConfigError, match=r"in the demo configuration$"):
        settings.account("lab")


def test_where_credentials_are_kept(tmp_path: Path) -> None:
    accounts = "[accounts.a]\n[accounts.b]\nkind = 'chatgpt'\n[accounts.c]\napi_key_env = 'C'\n"
    for store in ("file", "keyring"):
        settings = load(tmp_path, f"[credentials]\nstore = '{store}'\n{accounts}")
        assert settings.credentials.store == store
        sources = [account.credential.source for account in settings.accounts]
        assert sources == [store, "login", "env"]
