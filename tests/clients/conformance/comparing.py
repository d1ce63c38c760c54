"""Whether a client saw through the gateway what it would have seen of the upstream itself."""

from __future__ import annotations

import copy
import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.clients.conformance.scenario import Scenario, at, replace_at

Document = dict[str, Any]

RUN = "c0ffee"
"""What the ids of the mock begin with, so that both runs see the same ones."""

_OURS = re.compile(r"x-codexlb-|x-request-id$")
# How Codex shows an answer's `x-request-id`, and a `resets_at` in local time.
_REQUEST_ID = re.compile(r", request id: [0-9a-f-]{36}")
_TIME = re.compile(r"again at [^.]*[AP]M")
# The mock counts the bytes of the request, and a frame is not as long as a body.
_COUNTED = ("input_tokens", "total_tokens", "cached_tokens")


def neutral(value: Any, names: Mapping[str, str]) -> Any:
    """Return what a client saw without what differs from run to run.

    Args:
        value: any part of the document.
        names: what stands for an address, a folder or the like.
    """
    match value:
        case dict():
            plain = {
                key: 0 if key in _COUNTED and isinstance(inner, int) else neutral(inner, names)
                for key, inner in value.items()
            }
            return _without_our_headers(plain)
        case list():
            kept = (inner for inner in value if not _is_about_us_alone(inner))
            return [neutral(inner, names) for inner in kept]
        case str():
            for text, name in names.items():
                value = value.replace(text, name)
            value = _REQUEST_ID.sub("", _TIME.sub("again at TIME", value))
            return _rewritten(value, names)
    return value


@dataclass(frozen=True)
class Played:
    """What a client saw.

    Attributes:
        direct: of the upstream itself.
        basis: of an upstream without what the gateway hides; `direct` if it hides nothing.
        gateway: through the gateway.
    """

    direct: Document
    basis: Document
    gateway: Document


def complaints(scenario: Scenario, played: Played) -> list[str]:
    """Return what is wrong with a run, one text each; none if it is as it should be."""
    direct, basis, gateway = played.direct, played.basis, played.gateway
    if scenario.hidden is not None:
        # A turn that was sent twice used up an id.
        basis, gateway = _renumbered(basis), _renumbered(gateway)
    found = [
        f"of the upstream itself, `{path}` should be {value!r}, not {_seen(direct, path)!r}"
        for path, value in scenario.sees.items()
        if _seen(direct, path) != value
    ]
    expected = copy.deepcopy(basis)
    for path, value in scenario.differs.items():
        if not path.endswith("+") and _seen(basis, path) == value:
            found.append(f"`{path}` is no difference: {value!r}")
        replace_at(expected, path, value)
    if expected != gateway:
        lines = difflib.unified_diff(
            _lines(expected), _lines(gateway), "expected", "through the gateway", lineterm="", n=2
        )
        found.append("\n".join(lines))
    return found


def _rewritten(text: str, names: Mapping[str, str]) -> str:
    """Return a text with the JSON that it ends with in one spelling: some quote what they got."""
    before, brace, after = text.partition('{"')
    if not brace:
        return text
    try:
        quoted = json.loads(brace + after)
    except ValueError:
        return text
    return before + json.dumps(neutral(quoted, names), sort_keys=True)


def _without_our_headers(document: Document) -> Document:
    headers = document.get("headers")
    if not isinstance(headers, dict):
        return document
    others = {name: value for name, value in headers.items() if not _OURS.match(name)}
    return {**document, "headers": others} if others else _without(document, "headers")


def _is_about_us_alone(event: object) -> bool:
    """Whether it is the event that names the account and the attempts, and says nothing else."""
    if not isinstance(event, dict) or event.get("type") != "response.metadata":
        return False
    return all(_OURS.match(name) for name in event.get("headers", {}))


def _without(document: Document, key: str) -> Document:
    return {name: value for name, value in document.items() if name != key}


def _renumbered(document: Document) -> Document:
    """Return it with the mock's ids numbered by their order in it."""
    numbers: dict[str, str] = {}
    text = re.sub(
        rf"{RUN}[0-9a-f]{{12}}",
        lambda found: numbers.setdefault(found[0], f"{RUN}{len(numbers) + 1:012x}"),
        json.dumps(document),
    )
    renumbered: Document = json.loads(text)
    return renumbered


def _seen(document: Document, path: str) -> object:
    try:
        return at(document, path)
    except (LookupError, TypeError):
        return None


def _lines(document: Document) -> list[str]:
    return json.dumps(document, indent=1, sort_keys=True).splitlines()
