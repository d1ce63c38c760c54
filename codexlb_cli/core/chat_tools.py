"""Tools and tool choices of a chat completion in the form of the Responses API."""

from __future__ import annotations

from typing import Any

from codexlb_cli.core.nodes import Node

_NO_PARAMETERS = {"type": "object", "properties": {}}
"""What leaving `parameters` out means in chat: a function without any."""


def tool(given: Node) -> Any:
    """Return a tool in the flat form; types that chat does not know pass unchanged.

    Raises:
        InvalidBodyError: it is malformed.
    """
    match given.get("type").text():
        case "function":
            return function_tool(given.get("function"))
        case "custom":
            custom = given.get("custom")
            custom.get("name").text()
            form = custom.get("format")
            told = {k: v for k, v in custom.members().items() if k != "format"}
            if form.value is not None:
                told["format"] = _custom_format(form)
            return {**told, "type": "custom"}
    return given.value


def function_tool(function: Node) -> dict[str, Any]:
    """Return a function as a tool. Chat is not strict unless asked, Responses unless told not to.

    Raises:
        InvalidBodyError: it is malformed.
    """
    function.get("name").text()
    told = function.members()
    parameters = told.get("parameters")
    strict = told.get("strict")
    return {
        **told,
        "type": "function",
        "parameters": _NO_PARAMETERS if parameters is None else parameters,
        "strict": False if strict is None else strict,
    }


def tool_choice(choice: Node) -> Any:
    """Return a tool choice in the flat form; what chat does not know passes unchanged.

    Raises:
        InvalidBodyError: it is malformed.
    """
    if isinstance(choice.value, str):
        return choice.value
    kind = choice.get("type").text()
    if kind == "allowed_tools":
        allowed = choice.get("allowed_tools")
        tools = [tool_choice(named) for named in allowed.get("tools").elements()]
        return {**allowed.members(), "type": kind, "tools": tools}
    if kind in ("function", "custom"):
        return {"type": kind, "name": choice.get(kind).get("name").text()}
    return choice.value


def function_choice(choice: Node) -> Any:
    """Return the deprecated `function_call` as a tool choice.

    Raises:
        InvalidBodyError: it is malformed.
    """
    if isinstance(choice.value, str):
        return choice.value
    return {"type": "function", "name": choice.get("name").text()}


def web_search_tool(options: Node) -> dict[str, Any]:
    """Return `web_search_options` as the hosted tool.

    Raises:
        InvalidBodyError: they are malformed.
    """
    told = {k: v for k, v in options.members().items() if v is not None}
    location = options.get("user_location")
    if location.value is not None:
        # Chat nests under `approximate` what the tool has beside its type.
        approximate = location.get("approximate").members()
        told["user_location"] = {"type": "approximate", **approximate}
    return {"type": "web_search", **told}


def _custom_format(form: Node) -> Any:
    if form.get("type").text() == "grammar":
        return {"type": "grammar", **form.get("grammar").members()}
    return form.value
