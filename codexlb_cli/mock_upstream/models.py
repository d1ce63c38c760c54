"""The mock's models: the list of the API, one of them, and the catalogue that Codex asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote

from codexlb_cli.mock_upstream.requests import invalid_request
from codexlb_cli.mock_upstream.rules import ErrorSpec
from codexlb_cli.mock_upstream.script import SHORTCUTS
from codexlb_cli.mock_upstream.wire import to_json

if TYPE_CHECKING:
    from codexlb_cli.mock_upstream.rules import ModelsRule
    from codexlb_cli.mock_upstream.wire import Head

JSON = "application/json"

_USUAL = (*(name for name in SHORTCUTS if "CODE" not in name), "mock-close-1011")


@dataclass(frozen=True, slots=True)
class ModelsReply:
    """An answer to a question for models; its body is JSON."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def asks_for_models(head: Head) -> bool:
    """Whether a request is for the models, or for one of them."""
    return head.path.endswith("/models") or "/models/" in head.path


def models_reply(head: Head, rule: ModelsRule) -> ModelsReply:
    """Return what an account with this rule answers."""
    if rule.status is not None:
        error = rule.error or ErrorSpec(message="Scripted refusal.")
        scripted = {"error": error.model_copy(update={"status": rule.status}).body}
        body = to_json(scripted) if rule.body is None else rule.body.encode()
        return ModelsReply(rule.status, body)
    names = _USUAL if rule.models is None else rule.models
    headers = {} if rule.etag is None else {"etag": rule.etag}
    wanted = unquote(head.path.partition("/models/")[2])
    if wanted:
        if wanted not in names:
            return _not_found(wanted)
        return ModelsReply(200, to_json(_model(wanted)), headers)
    if rule.catalogue and "client_version" in parse_qs(head.target.partition("?")[2]):
        return ModelsReply(200, to_json({"models": [_codex_model(n) for n in names]}), headers)
    document = {"object": "list", "data": [_model(name) for name in names]}
    return ModelsReply(200, to_json(document), headers)


def _not_found(name: str) -> ModelsReply:
    message = f"The model '{name[:200]}' does not exist"
    error = invalid_request(message, code="model_not_found", param="model").error
    return ModelsReply(404, to_json({"error": error.body}))


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 1_780_000_000, "owned_by": "mock"}


def _codex_model(name: str) -> dict[str, object]:
    """A model as Codex reads it from its `/models`; the fields of its own bundled list."""
    return {
        "slug": name,
        "display_name": name,
        "description": SHORTCUTS.get(name, "a model of the mock's"),
        "default_reasoning_level": "medium",
        "supported_reasoning_levels": [{"effort": "medium", "description": "medium"}],
        "shell_type": "shell_command",
        "visibility": "list",
        "supported_in_api": True,
        "priority": 1,
        "service_tiers": [],
        "base_instructions": "You are a mock.",
        "context_window": 272_000,
        "max_context_window": 272_000,
        "truncation_policy": {"mode": "bytes", "limit": 10_000},
        "input_modalities": ["text"],
        "use_responses_lite": False,
        "support_verbosity": False,
        "default_verbosity": None,
        "apply_patch_tool_type": None,
        "web_search_tool_type": "text",
        "supports_parallel_tool_calls": False,
        "supports_reasoning_summaries": False,
        "supports_image_detail_original": False,
        "experimental_supported_tools": [],
        "additional_speed_tiers": [],
        "availability_nux": None,
        "upgrade": None,
    }
