"""What each client must be told to use the gateway: as text to paste, as values, as variables.

Where a client reads what was looked up in the clients themselves; the documentation names their
versions. No key is needed on loopback and none is forwarded, so a placeholder stands for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

PLACEHOLDER = "unused"
NAME = "codexlb"
"""The provider. Never "OpenAI": Codex compresses requests to one of that name, and asks an account
server first, without which it sends nothing."""

_OPENCODE_SCHEMA = "https://opencode.ai/config.json"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_KEY = "OPENAI_API_KEY"


class Provider(StrEnum):
    """Whether a client is given a provider of its own, or its built-in OpenAI is redirected."""

    CUSTOM = "custom"
    OPENAI = "openai"


class Transport(StrEnum):
    """How Codex speaks to the gateway."""

    WEBSOCKET = "websocket"
    HTTP = "http"


class Auth(StrEnum):
    """What Codex sends as its own credential; the gateway never forwards it."""

    NONE = "none"
    API_KEY = "api-key"
    CHATGPT = "chatgpt"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a gateway listens.

    Attributes:
        host: a loopback address or name.
        port: its port.
    """

    host: str
    port: int

    @property
    def base_url(self) -> str:
        """What most clients are given."""
        return f"http://{self._authority}/v1"

    @property
    def websocket_url(self) -> str:
        """The same for WebSocket."""
        return f"ws://{self._authority}/v1"

    @property
    def codex_url(self) -> str:
        """What the built-in provider of Codex is given: the path that it has by itself."""
        return f"http://{self._authority}/backend-api/codex"

    @property
    def _authority(self) -> str:
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What a client must be told.

    Attributes:
        text: to paste.
        changes: what each path of its configuration file is to be, None where nothing may stand;
            empty for a client without such a file.
        fresh: the same for a file that is not there yet.
        unit: the table that is ours as a whole.
    """

    text: str
    changes: Mapping[tuple[str, ...], Any] = field(default_factory=dict)
    fresh: Mapping[tuple[str, ...], Any] = field(default_factory=dict)
    unit: tuple[str, ...] | None = None


def codex(
    address: Address, *, provider: Provider, transport: Transport, auth: Auth
) -> ClientSettings:
    """Return what the Codex CLI needs in its config.toml.

    The built-in provider always tries WebSocket, and signs in with what Codex itself holds.
    """
    if provider is Provider.OPENAI:
        return _codex_built_in(address, auth)
    table = ("model_providers", NAME)
    changes: dict[tuple[str, ...], Any] = {
        ("model_provider",): NAME,
        (*table, "name"): NAME,
        (*table, "base_url"): address.base_url,
        (*table, "wire_api"): "responses",
        (*table, "supports_websockets"): True if transport is Transport.WEBSOCKET else None,
        (*table, "requires_openai_auth"): True if auth is Auth.CHATGPT else None,
        (*table, "env_key"): _KEY if auth is Auth.API_KEY else None,
    }
    lines = [f"{p[-1]} = {_toml(v)}" for p, v in changes.items() if len(p) > 1 and v is not None]
    text = f"""\
# For ~/.codex/config.toml. This line must stand above the first [table] of the file:
model_provider = "{NAME}"

# This may stand anywhere below:
{_CODEX_AUTH[auth]}
[model_providers.{NAME}]
{chr(10).join(lines)}"""
    return ClientSettings(text, changes, changes, table)


_CODEX_AUTH = {
    Auth.NONE: """\
# No env_key: the gateway needs no key on this computer.
# Leave chatgpt_base_url as it is; it is not for a gateway.""",
    Auth.API_KEY: f"""\
# Codex does not start without that variable. The gateway ignores it, so any text will do:
#   export {_KEY}="{PLACEHOLDER}"
# Leave chatgpt_base_url as it is; it is not for a gateway.""",
    Auth.CHATGPT: """\
# Codex uses its own ChatGPT login for what it asks ChatGPT itself. The gateway does not forward
# it: turns are served by the accounts of `codexlb accounts list`.
# Leave chatgpt_base_url as it is: Codex asks there which workspace its login belongs to.""",
}


def _codex_built_in(address: Address, auth: Auth) -> ClientSettings:
    changes: dict[tuple[str, ...], Any] = {
        ("model_provider",): "openai",
        ("openai_base_url",): address.codex_url,
    }
    who = "the key of `codex login --with-api-key`" if auth is Auth.API_KEY else "its ChatGPT login"
    text = f"""\
# For ~/.codex/config.toml. These lines must stand above the first [table] of the file:
model_provider = "openai"
openai_base_url = "{address.codex_url}"
# Codex tries WebSocket first, and sends {who}; the gateway does not forward it.
# Leave chatgpt_base_url as it is: with a ChatGPT login Codex asks there which workspace that
# belongs to, over https only, and sends no turn at all if that fails."""
    return ClientSettings(text, changes, changes)


def opencode(address: Address, *, provider: Provider) -> ClientSettings:
    """Return what opencode needs in its opencode.json.

    Its own OpenAI provider knows all models, sends a session header, and asks for no output limit,
    which ChatGPT plans refuse; but a ChatGPT login of opencode goes past it. A provider of its own
    has none of this, and is given the models by name.
    """
    name = "openai" if provider is Provider.OPENAI else NAME
    table = ("provider", name)
    changes: dict[tuple[str, ...], Any] = {
        (*table, "npm"): "@ai-sdk/openai",
        (*table, "options", "baseURL"): address.base_url,
        (*table, "options", "apiKey"): PLACEHOLDER,
    }
    models = ""
    if provider is Provider.CUSTOM:
        changes[(*table, "models", "gpt-5.5")] = {}
        models = ',\n      "models": { "gpt-5.5": {} }'
    text = f"""\
{{
  "$schema": "{_OPENCODE_SCHEMA}",
  "provider": {{
    "{name}": {{
      "npm": "@ai-sdk/openai",
      "options": {{
        "baseURL": "{address.base_url}",
        "apiKey": "{PLACEHOLDER}"
      }}{models}
    }}
  }}
}}"""
    fresh = {("$schema",): _OPENCODE_SCHEMA, **changes}  # opencode would add it
    return ClientSettings(text, changes, fresh, None if provider is Provider.OPENAI else table)


def openai(address: Address) -> ClientSettings:
    """Return what the OpenAI SDKs need."""
    url = address.base_url
    return ClientSettings(f"""\
# For a shell; the OpenAI SDKs for Python and Node read these. The key is required, but not used.
export OPENAI_BASE_URL="{url}"
export OPENAI_API_KEY="{PLACEHOLDER}"

# Or in Python:
#   client = OpenAI(base_url="{url}", api_key="{PLACEHOLDER}")

# Or in Node:
#   const client = new OpenAI({{ baseURL: "{url}", apiKey: "{PLACEHOLDER}" }});""")


def agents(address: Address) -> ClientSettings:
    """Return what the OpenAI Agents SDKs need."""
    return ClientSettings(f"""\
# For a shell; the OpenAI Agents SDKs for Python and JavaScript read these. The key is required,
# but not used.
export OPENAI_BASE_URL="{address.base_url}"
export OPENAI_WEBSOCKET_BASE_URL="{address.websocket_url}"
export OPENAI_API_KEY="{PLACEHOLDER}"
# Traces go to OpenAI itself, past the gateway, and that key is of no use there.
export OPENAI_AGENTS_DISABLE_TRACING="1"

# They use HTTP. For WebSocket, in Python:
#   from agents import set_default_openai_responses_transport
#   set_default_openai_responses_transport("websocket")

# In JavaScript (Node 22 or later):
#   import {{ setOpenAIResponsesTransport }} from "@openai/agents";
#   setOpenAIResponsesTransport("websocket");""")


def curl(address: Address) -> ClientSettings:
    """Return a command that asks for a streamed answer."""
    return ClientSettings(f"""\
curl -N {address.base_url}/responses -H "content-type: application/json" \\
  -d '{{"model": "gpt-5.5", "input": "hello", "stream": true}}'""")


def environment(address: Address, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a command whose clients are to use the gateway.

    Args:
        address: where the gateway listens.
        environ: the environment otherwise.
    """
    wanted = {
        "OPENAI_BASE_URL": address.base_url,  # the OpenAI and Agents SDKs, the AI SDK, LiteLLM
        "OPENAI_API_BASE": address.base_url,  # LangChain, which prefers it; older LiteLLM
        "OPENAI_WEBSOCKET_BASE_URL": address.websocket_url,  # the Agents SDKs
        # A placeholder always: the key of a person has no business here.
        _KEY: PLACEHOLDER,
    }
    kept = {name: value for name, value in environ.items() if name != "OPENAI_PROXY"}  # LangChain
    kept.setdefault("OPENAI_AGENTS_DISABLE_TRACING", "1")  # traces need a real key, at OpenAI
    hosts = dict.fromkeys((*_LOOPBACK, address.host))
    # A proxy of the environment is not asked for this computer. Some read only one of the names.
    both = ",".join(environ.get(name, "") for name in ("no_proxy", "NO_PROXY"))
    named = [host.strip() for host in both.split(",") if host.strip()]
    if "*" not in named:
        kept["no_proxy"] = kept["NO_PROXY"] = ",".join(dict.fromkeys((*named, *hosts)))
    return {**kept, **wanted}


def codex_overrides(address: Address) -> tuple[str, ...]:
    """Return the options that point Codex at the gateway: it reads no variable for that."""
    settings = codex(
        address, provider=Provider.CUSTOM, transport=Transport.WEBSOCKET, auth=Auth.NONE
    )
    rows = (
        f"{path[-1]}={_toml(value)}"
        for path, value in settings.changes.items()
        if len(path) > 1 and value is not None
    )
    table = f"model_providers.{NAME}={{{','.join(rows)}}}"
    return ("-c", f'model_provider="{NAME}"', "-c", table)


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"'
