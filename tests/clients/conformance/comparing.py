"""Whether a client saw through the gateway what it would have seen of the upstream itself."""

from __future__ import annotations

import copy
import difflib
import json
import re
from collections.abc import Mapping
from typing import Any

from tests.clients.conformance.scenario import Scenario, at, replaced

Document = dict[str, Any]

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
            return {
                key: 0 if key in _COUNTED and isinstance(inner, int) else neutral(inner, names)
                for key, inner in value.items()
            }
        case list():
            return [neutral(inner, names) for inner in value]
        case str():
            for text, name in names.items():
                value = value.replace(text, name)
            return re.sub(r"0x[0-9a-f]{8,}", "0x", value)
    return value


def complaints(scenario: Scenario, direct: Document, gateway: Document) -> list[str]:
    """Return what is wrong with a run, one text each; none if it is as it should be."""
    found = [
        f"of the upstream itself, `{path}` should be {value!r}, not {_seen(direct, path)!r}"
        for path, value in scenario.sees.items()
        if _seen(direct, path) != value
    ]
    expected = copy.deepcopy(direct)
    for path, value in scenario.differs.items():
        if _seen(direct, path) == value:
            found.append(f"`{path}` is no difference: {value!r}")
        replaced(expected, path, value)
    if expected != gateway:
        lines = difflib.unified_diff(
            _lines(expected), _lines(gateway), "expected", "through the gateway", lineterm="", n=2
        )
        found.append("\n".join(lines))
    return found


def _seen(document: Document, path: str) -> object:
    try:
        return at(document, path)
    except LookupError:
        return None


def _lines(document: Document) -> list[str]:
    return json.dumps(document, indent=1, sort_keys=True).splitlines()
