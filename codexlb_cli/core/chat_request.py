"""A chat completion's body as the body of a Responses request.

Members that both APIs have under one name, and members that nobody knows, go on unchanged, byte
for byte: the upstream decides about them. `CHAT_MEMBERS` says what becomes of the others; the
documentation prints that table.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from codexlb_cli.core.chat_messages import input_items
from codexlb_cli.core.chat_tools import (
    function_choice,
    function_tool,
    tool,
    tool_choice,
    web_search_tool,
)
from codexlb_cli.core.frames import Body, InvalidBodyError, Member
from codexlb_cli.core.nodes import Node

LOGPROBS_INCLUDED = "message.output_text.logprobs"


class Fate(StrEnum):
    """What becomes of a member of a chat body."""

    UNCHANGED = "unchanged"
    TRANSLATED = "translated"
    LEFT_OUT = "left out"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class ChatMember:
    """What becomes of some members of a chat body.

    Attributes:
        names: the members.
        fate: what becomes of them.
        becomes: the member of the Responses body; "" if there is none.
        why: more about it, for a person.
        harmless: values that say nothing, so that nothing is lost without them.
    """

    names: tuple[str, ...]
    fate: Fate
    becomes: str = ""
    why: str = ""
    harmless: tuple[object, ...] = (None,)


CHAT_MEMBERS: tuple[ChatMember, ...] = (
    ChatMember(("messages",), Fate.TRANSLATED, "input", "see the next table"),
    ChatMember(
        ("tools", "functions"),
        Fate.TRANSLATED,
        "tools",
        "flat; `strict` is false unless given; `functions` allows one call at a time",
    ),
    ChatMember(("tool_choice", "function_call"), Fate.TRANSLATED, "tool_choice", "flat"),
    ChatMember(
        ("web_search_options",),
        Fate.TRANSLATED,
        "tools",
        "a `web_search` tool: the model may search, it need not",
    ),
    ChatMember(("response_format",), Fate.TRANSLATED, "text.format", "flat"),
    ChatMember(("verbosity",), Fate.TRANSLATED, "text.verbosity"),
    ChatMember(("reasoning_effort",), Fate.TRANSLATED, "reasoning.effort"),
    ChatMember(("max_completion_tokens", "max_tokens"), Fate.TRANSLATED, "max_output_tokens"),
    ChatMember(("logprobs",), Fate.TRANSLATED, "include", f"`{LOGPROBS_INCLUDED}`"),
    ChatMember(("top_logprobs",), Fate.UNCHANGED, "top_logprobs", "needs `logprobs`: true"),
    ChatMember(("store",), Fate.TRANSLATED, "store", "false unless true: chat's own default"),
    ChatMember(
        ("stream_options",),
        Fate.TRANSLATED,
        "stream_options",
        "without `include_usage`, which the gateway itself obeys",
    ),
    ChatMember(
        (
            "model", "stream", "temperature", "top_p", "metadata", "user", "safety_identifier",
            "service_tier", "parallel_tool_calls", "prompt_cache_key", "prompt_cache_options",
            "prompt_cache_retention", "moderation",
        ),
        Fate.UNCHANGED,
        "the same name",
        "byte for byte, as every member that does not stand in this table",
    ),
    ChatMember(
        ("seed",), Fate.LEFT_OUT, why="asks for a best effort only; Responses has no such thing"
    ),
    ChatMember(
        ("prediction",), Fate.LEFT_OUT, why="makes an answer come faster, not another answer"
    ),
    ChatMember(
        ("n",),
        Fate.REFUSED,
        why="a response is one choice; 1 is taken",
        harmless=(None, 1),
    ),
    ChatMember(
        ("stop",),
        Fate.REFUSED,
        why="Responses has no stop sequences",
        harmless=(None, "", []),
    ),
    ChatMember(
        ("frequency_penalty", "presence_penalty"),
        Fate.REFUSED,
        why="Responses has no penalties; 0 is taken",
        harmless=(None, 0),
    ),
    ChatMember(
        ("logit_bias",),
        Fate.REFUSED,
        why="Responses has no bias; an empty one is taken",
        harmless=(None, {}),
    ),
    ChatMember(
        ("modalities",),
        Fate.REFUSED,
        why='responses are text; `["text"]` is taken',
        harmless=(None, ["text"], []),
    ),
    ChatMember(("audio",), Fate.REFUSED, why="responses are text"),
)  # fmt: skip
"""What becomes of the members of a chat body; the others go on unchanged."""

_RULES = {name: rule for rule in CHAT_MEMBERS for name in rule.names}


@dataclass(frozen=True, slots=True)
class ChatForm:
    """How the client wants its chat completion.

    Attributes:
        include_usage: whether a stream ends with a chunk that tells the usage.
        logprobs: whether it asked for log probabilities.
        functions: whether it asked with the deprecated `functions`, and is answered in kind.
    """

    include_usage: bool = False
    logprobs: bool = False
    functions: bool = False


class Translated(NamedTuple):
    """A chat body as a Responses body.

    Attributes:
        body: the Responses body.
        form: how the client wants its answer.
        left_out: the members of the chat body that have no counterpart in it.
    """

    body: Body
    form: ChatForm
    left_out: tuple[str, ...]


def responses_body(chat: Body) -> Translated:
    """Return the Responses body that asks for what a chat body asks for.

    Raises:
        InvalidBodyError: it is malformed, or asks for what Responses cannot give; `param` names
            the member as the client wrote it.
    """
    translation = _Translation(chat)
    for name, member in chat.members.items():
        translation.take(name, member)
    return Translated(translation.ended(), translation.form(), tuple(translation.left_out))


class _Translation:
    """A chat body on its way to become a Responses body.

    Attributes:
        left_out: the members that have no counterpart.
    """

    def __init__(self, chat: Body) -> None:
        self.left_out: list[str] = []
        self._chat = chat
        self._members: dict[str, Member] = {}
        self._tools: list[Any] = []
        self._text: dict[str, Any] = {}
        self._takers: dict[str, Callable[[Node], None]] = {
            "messages": lambda given: self._put("input", given, input_items(given)),
            "tools": lambda given: self._tools.extend(map(tool, given.elements())),
            "functions": lambda given: self._tools.extend(map(function_tool, given.elements())),
            "web_search_options": lambda given: self._tools.append(web_search_tool(given)),
            "tool_choice": lambda given: self._put("tool_choice", given, tool_choice(given)),
            "function_call": lambda given: self._put("tool_choice", given, function_choice(given)),
            "response_format": lambda given: self._in_text("format", given, _text_format(given)),
            "verbosity": lambda given: self._in_text("verbosity", given, given.value),
            "reasoning_effort": self._effort,
            "max_completion_tokens": self._most_tokens,
            "max_tokens": self._most_tokens,
            "logprobs": self._logprobs,
            "stream_options": self._stream_options,
        }

    def take(self, name: str, member: Member) -> None:
        """Take a member of the chat body.

        Raises:
            InvalidBodyError: it is malformed, or asks for what Responses cannot give.
        """
        rule, given = _RULES.get(name), Node(member.value, name)
        if rule is None or rule.fate is Fate.UNCHANGED:
            self._members[name] = member
        elif rule.fate is not Fate.TRANSLATED:
            if rule.fate is Fate.REFUSED and member.value not in rule.harmless:
                raise given.wrong(f"is not supported here: {rule.why}")
            self.left_out.append(name)
        elif name in self._takers and member.value is not None:
            self._takers[name](given)

    def form(self) -> ChatForm:
        """Return how the client wants its answer."""
        options = self._chat.get("stream_options")
        return ChatForm(
            include_usage=isinstance(options, dict) and options.get("include_usage") is True,
            logprobs=self._chat.flag("logprobs"),
            functions=self._chat.get("functions") is not None,
        )

    def ended(self) -> Body:
        """Return the body, when all members were taken.

        Raises:
            InvalidBodyError: there are no messages, or members contradict each other.
        """
        chat, members = self._chat, self._members
        if chat.get("messages") is None:
            raise InvalidBodyError("`messages` is missing", param="messages")
        if chat.get("functions") is not None:
            if chat.get("tools") is not None:
                raise InvalidBodyError("send `tools` or `functions`, not both", param="functions")
            members["parallel_tool_calls"] = written(False)
        if chat.get("top_logprobs") is not None and not chat.flag("logprobs"):
            raise InvalidBodyError("`top_logprobs` needs `logprobs`: true", param="top_logprobs")
        if self._tools or chat.get("tools") is not None:
            members["tools"] = written(self._tools)
        if self._text:
            members["text"] = written(self._text)
        members["store"] = written(chat.flag("store"))
        return Body(members)

    def _put(self, name: str, given: Node, value: object) -> None:
        self._put_member(name, given, written(value))

    def _put_member(self, name: str, given: Node, member: Member) -> None:
        self._free(name, given)
        if name in self._members:
            raise given.wrong("is there twice, under its old and its new name")
        self._members[name] = member

    def _free(self, name: str, given: Node) -> None:
        """Refuse a body that says one thing in the words of both APIs."""
        if name in self._chat.members and name not in _RULES:
            raise InvalidBodyError(
                f"send `{given.path}` of chat completions or `{name}` of Responses, not both",
                param=name,
            )

    def _in_text(self, name: str, given: Node, value: object) -> None:
        self._free("text", given)
        self._text[name] = value

    def _effort(self, given: Node) -> None:
        self._put("reasoning", given, {"effort": given.value})

    def _most_tokens(self, given: Node) -> None:
        self._put_member("max_output_tokens", given, self._chat.members[given.path])

    def _logprobs(self, given: Node) -> None:
        if self._chat.flag("logprobs"):
            self._put("include", given, [LOGPROBS_INCLUDED])

    def _stream_options(self, given: Node) -> None:
        include_usage = given.get("include_usage")
        if not isinstance(include_usage.value, bool | None):
            raise include_usage.wrong("must be true or false")
        rest = {k: v for k, v in given.members().items() if k != "include_usage"}
        if rest:
            self._put("stream_options", given, rest)


def _text_format(given: Node) -> Any:
    if given.get("type").text() != "json_schema":
        return given.value
    schema = given.get("json_schema")
    schema.get("name").text()
    told = {name: value for name, value in schema.members().items() if value is not None}
    # Without a schema any JSON will do, and Responses wants one.
    return {"schema": {}, **told, "type": "json_schema"}


def written(value: object) -> Member:
    """Return a value as a member.

    Raises:
        InvalidBodyError: it cannot be written: it is nested too deeply, or holds a number beyond
            what a double takes.
    """
    try:
        raw = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        if not raw.isascii():
            raw.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can say
        raw = json.dumps(value, separators=(",", ":"), allow_nan=False)
    except RecursionError:
        raise InvalidBodyError("the request body is nested too deeply") from None
    except ValueError:
        raise InvalidBodyError("the request body holds a number that is too large") from None
    return Member(value, raw)
