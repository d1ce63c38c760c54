from __future__ import annotations

import json
import tomllib
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexlb_cli.config.client_edits import Jsonc, Toml, changed
from codexlb_cli.core.client_settings import (
    Address,
    Auth,
    Provider,
    Transport,
    agents,
    codex,
    codex_overrides,
    curl,
    environment,
    openai,
    opencode,
)

ADDRESS = Address("127.0.0.1", 2455)
URL = "http://127.0.0.1:2455/v1"


def test_an_ipv6_address_is_written_in_brackets() -> None:
    address = Address("::1", 1)
    assert address.base_url == "http://[::1]:1/v1"
    assert address.websocket_url == "ws://[::1]:1/v1"
    assert address.codex_url == "http://[::1]:1/backend-api/codex"


@pytest.mark.parametrize(("provider", "transport", "auth"), [*product(Provider, Transport, Auth)])
def test_what_is_printed_for_codex_is_what_is_written(
    provider: Provider, transport: Transport, auth: Auth
) -> None:
    settings = codex(ADDRESS, provider=provider, transport=transport, auth=auth)
    printed = tomllib.loads(settings.text)
    assert printed == tomllib.loads(changed(Toml(), "", settings.changes))
    assert "chatgpt_base_url" not in printed
    assert "Leave chatgpt_base_url as it is" in settings.text
    if provider is Provider.OPENAI:
        url = "http://127.0.0.1:2455/backend-api/codex"
        assert printed == {"model_provider": "openai", "openai_base_url": url}
        return
    table: dict[str, object] = {"name": "codexlb", "base_url": URL, "wire_api": "responses"}
    if transport is Transport.WEBSOCKET:
        table |= {"supports_websockets": True}
    if auth is Auth.CHATGPT:
        table |= {"requires_openai_auth": True}
    if auth is Auth.API_KEY:
        table |= {"env_key": "OPENAI_API_KEY"}
        assert 'export OPENAI_API_KEY="unused"' in settings.text
    assert printed == {"model_provider": "codexlb", "model_providers": {"codexlb": table}}


@pytest.mark.parametrize("provider", Provider)
def test_what_is_printed_for_opencode_is_what_is_written(provider: Provider) -> None:
    settings = opencode(ADDRESS, provider=provider)
    printed = json.loads(settings.text)
    assert printed == json.loads(changed(Jsonc(), "", settings.fresh))
    assert printed.pop("$schema") == "https://opencode.ai/config.json"
    table = {"npm": "@ai-sdk/openai", "options": {"baseURL": URL, "apiKey": "unused"}}
    name = "openai" if provider is Provider.OPENAI else "codexlb"
    models: dict[str, object] = {} if provider is Provider.OPENAI else {"models": {"gpt-5.5": {}}}
    assert printed == {"provider": {name: {**table, **models}}}


def test_the_others_have_no_file() -> None:
    for settings in (openai(ADDRESS), agents(ADDRESS), curl(ADDRESS)):
        assert URL in settings.text
        assert not settings.changes


def test_the_overrides_of_codex_say_what_its_file_would_say() -> None:
    flags, values = codex_overrides(ADDRESS)[::2], codex_overrides(ADDRESS)[1::2]
    assert set(flags) == {"-c"}
    settings = codex(
        ADDRESS, provider=Provider.CUSTOM, transport=Transport.WEBSOCKET, auth=Auth.NONE
    )
    assert tomllib.loads("\n".join(values)) == tomllib.loads(settings.text)


VARIABLES = ("OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENAI_WEBSOCKET_BASE_URL", "OPENAI_API_KEY")


@given(
    st.dictionaries(
        st.sampled_from([*VARIABLES, "OPENAI_PROXY", "HTTP_PROXY", "PATH", "OTHER"]),
        st.sampled_from(["sk-LEAK", "http://example.com"]),
    ),
    st.dictionaries(
        st.sampled_from(["NO_PROXY", "no_proxy"]),
        st.lists(st.sampled_from(["a.example", "localhost", ""]), max_size=3).map(",".join),
    ),
)
def test_an_environment_points_at_the_gateway_and_keeps_the_rest(
    environ: dict[str, str], proxies: dict[str, str]
) -> None:
    made = environment(ADDRESS, {**environ, **proxies})
    urls = (URL, URL, "ws://127.0.0.1:2455/v1", "unused")
    assert tuple(made[name] for name in VARIABLES) == urls
    for name in ("HTTP_PROXY", "PATH", "OTHER"):
        assert made.get(name) == environ.get(name)
    assert "OPENAI_PROXY" not in made
    assert made["NO_PROXY"] == made["no_proxy"]
    hosts = made["NO_PROXY"].split(",")
    assert len(hosts) == len(set(hosts))
    given_hosts = {host for value in proxies.values() for host in value.split(",") if host}
    assert set(hosts) == given_hosts | {"127.0.0.1", "localhost", "::1"}


def test_no_proxy_for_anything_stays() -> None:
    made = environment(ADDRESS, {"NO_PROXY": "*"})
    assert made["NO_PROXY"] == "*"
    assert "no_proxy" not in made


@pytest.mark.parametrize("given_value", [None, "0"])
def test_tracing_is_off_unless_somebody_wants_it(given_value: str | None) -> None:
    name = "OPENAI_AGENTS_DISABLE_TRACING"
    environ = {} if given_value is None else {name: given_value}
    assert environment(ADDRESS, environ)[name] == (given_value or "1")
