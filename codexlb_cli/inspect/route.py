"""What the gateway would do with a request: `core`'s own decisions, stopped before the socket.

Nothing here prints what a request says: of its body only names, types and sizes are told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from codexlb_cli.config.load import Settings
from codexlb_cli.config.policies import OWN_USER_AGENT, header_options, reconnect_policy
from codexlb_cli.core import frames
from codexlb_cli.core.accounts import Account, Transport
from codexlb_cli.core.affinity import Evidence, Key, unreadable_reasoning
from codexlb_cli.core.calls import route_new
from codexlb_cli.core.client_errors import ClientError
from codexlb_cli.core.handshake import MASKED, HandshakeInputs
from codexlb_cli.core.http_request import UpstreamHead, build_call, build_head
from codexlb_cli.core.ownership import (
    NEW,
    KeyRecord,
    Ownership,
    Seated,
    facts_of,
    plan_error,
    resolve,
)
from codexlb_cli.core.plan import Plan, opening, with_models
from codexlb_cli.core.requests import (
    acts_twice,
    frame_error,
    handshake_inputs,
    invalid_body,
    model_of,
    read_request,
    size_error,
    wants_background,
)
from codexlb_cli.core.selection import asked_for
from codexlb_cli.core.stored import BACKGROUND, is_portable
from codexlb_cli.core.turn_events import TurnFacts
from codexlb_cli.inspect.close import verdict_document
from codexlb_cli.inspect.handshake import header_documents, shown_metadata
from codexlb_cli.inspect.inputs import shown_key
from codexlb_cli.inspect.pool import OfflinePool
from codexlb_cli.inspect.requests import ClientRequest

SCHEMA = "codexlb.inspect.route/1"

Memory = tuple[Mapping[Key, str], Mapping[str, str]]
"""The owners of keys, and the accounts that made encrypted reasoning, by digest."""
Recall = Callable[[Sequence[Key], Sequence[str]], Memory]
"""Returns what is remembered of these keys and digests."""


@dataclass(frozen=True, slots=True, repr=False)
class Sent:
    """What would be sent.

    Attributes:
        handshake: the upgrade of a new socket, or the head of the POST.
        transport: how the account is spoken to now.
        frame: the `response.create`, or the body of a background response.
        dropped_reasoning: how many items of encrypted reasoning the account could not have read.
    """

    handshake: UpstreamHead
    transport: Transport
    frame: str
    dropped_reasoning: int


@dataclass(frozen=True, slots=True, repr=False)
class Asked:
    """What a request asks for, and who owns its turn.

    Attributes:
        body: the parsed body.
        stream: whether the client wants a stream.
        evidence: its affinity evidence.
        ownership: who owns the turn, and the key that decides.
        facts: what a turn is planned from.
        acts: whether a replay might do twice what hosted tools do.
        replays: how often the configuration lets a turn be sent again.
        background: whether a background response is asked for: over HTTP, as it is.
        left_out: the members of a chat completion that have no counterpart in a response.
    """

    body: frames.Body
    stream: bool
    evidence: Evidence
    ownership: Ownership
    facts: TurnFacts
    acts: bool
    replays: int
    background: bool
    left_out: tuple[str, ...] = ()

    @property
    def portable(self) -> bool:
        """Whether it may move with its session, if that moves."""
        if self.background:
            return is_portable(self.evidence, self.body)
        return self.evidence.portable

    @property
    def replayable(self) -> bool:
        """Whether the turn may be sent again where nothing of its response came."""
        return self.facts.repeatable and self.replays > 0


@dataclass(frozen=True, slots=True, repr=False)
class Route:
    """What the gateway would do with a request, as far as it would come.

    Attributes:
        offline: the accounts.
        asked: what is asked for; None for a body that cannot be read.
        plan: where the turn starts; None if it is refused whatever the accounts are.
        sent: what would be sent; None if nothing would be.
        error: what the client would be told; None if the turn starts.
    """

    offline: OfflinePool
    asked: Asked | None = None
    plan: Plan | None = None
    sent: Sent | None = None
    error: ClientError | None = None

    @property
    def account(self) -> str | None:
        """The account that is dialled, or waited for, first; None if none is."""
        names = (*self.plan.candidates, *self.plan.queued_for) if self.plan else ()
        return names[0] if names else None


def routed(
    request: ClientRequest, settings: Settings, offline: OfflinePool, recall: Recall
) -> Route:
    """Decide what the gateway would do with a request; nothing is sent or changed."""
    limits, policy = settings.limits, reconnect_policy(settings)
    error = size_error(
        len(request.body), request_bytes=limits.request_bytes, frame_bytes=limits.frame_bytes
    )
    if error is not None:
        return Route(offline, error=error)
    try:
        wanted = read_request(request.headers, request.body, chat=request.chat)
    except frames.InvalidBodyError as exc:
        return Route(offline, error=invalid_body(exc))
    body, evidence = wanted.body, wanted.evidence
    memory = recall(evidence.keys, frames.reasoning_digests(body))

    def known(key: Key) -> KeyRecord:
        owner = memory[0].get(key)
        return NEW if owner is None else KeyRecord.stored(owner)

    pool = replace(offline.pool, policy=settings.selection.policy)
    pool = asked_for(pool, model_of(body))
    offline = replace(offline, pool=pool)
    ownership, seated = resolve(evidence, known), Seated()
    acts = acts_twice(body, policy)
    deadline = pool.now + settings.timeouts.before_first_event_total
    facts = facts_of(
        ownership, evidence, known(evidence.lane), seated,
        now=pool.now, acts=acts, deadline=deadline,
    )  # fmt: skip
    background = wants_background(body)
    asked = Asked(
        body, wanted.stream, evidence, ownership, facts, acts, policy.replays, background,
        wanted.left_out,
    )  # fmt: skip
    error = plan_error(ownership, evidence, seated)
    if error is not None:
        return Route(offline, asked, error=error)
    if background:
        plan = route_new(ownership, pool, policy, deadline, portable=asked.portable).plan
    else:
        plan = opening(facts, with_models(pool, is_hard=facts.is_hard), policy)
    if plan.error is not None:
        return Route(offline, asked, plan, error=plan.error)
    account = (*plan.candidates, *plan.queued_for)[0]
    if background:
        sent = _posted(asked, request, settings, account, memory, offline=offline)
        return Route(offline, asked, plan, sent)
    sent = _sent(asked, request, settings, account, memory, offline=offline)
    return Route(offline, asked, plan, sent, frame_error(sent.frame, limits.frame_bytes))


def _sent(
    asked: Asked,
    request: ClientRequest,
    settings: Settings,
    name: str,
    memory: Memory,
    *,
    offline: OfflinePool,
) -> Sent:
    account, transport = offline.pool.transport(name)
    inputs = _inputs(account, asked, request, settings, memory, offline=offline)
    handshake = build_head(inputs, transport)
    unreadable = unreadable_reasoning(
        frames.reasoning_digests(asked.body),
        account.name,
        made_by=memory[1].get,
        home=asked.ownership.owner,
    )
    frame = frames.create_frame(asked.body, handshake.client_metadata, unreadable=unreadable)
    return Sent(handshake, transport, frame, len(unreadable))


def _posted(
    asked: Asked,
    request: ClientRequest,
    settings: Settings,
    name: str,
    memory: Memory,
    *,
    offline: OfflinePool,
) -> Sent:
    account, _ = offline.pool.transport(name)
    inputs = _inputs(account, asked, request, settings, memory, offline=offline)
    head = build_call(inputs, account.call_url(BACKGROUND.path))
    return Sent(head, "http", request.body.decode(), 0)


def _inputs(
    account: Account,
    asked: Asked,
    request: ClientRequest,
    settings: Settings,
    memory: Memory,
    *,
    offline: OfflinePool,
) -> HandshakeInputs:
    return handshake_inputs(
        account,
        MASKED,
        request.headers,
        asked.evidence,
        memory[0].get,
        options=header_options(settings),
        user_agent=OWN_USER_AGENT,
        account_id=offline.account_id(account),
    )


def document(route: Route) -> dict[str, Any]:
    """Return the document of `--json`."""
    asked, plan, sent = route.asked, route.plan, route.sent
    return {
        "schema": SCHEMA,
        "request": None if asked is None else _request(asked),
        "affinity": None if asked is None else _affinity(asked),
        "evidence": [] if asked is None else _evidence(asked),
        "portable": None if asked is None else asked.portable,
        "replayable": None if asked is None else asked.replayable,
        "plan": {
            "reason": plan and str(plan.reason),
            "account": route.account,
            "wait_seconds": plan.wait_seconds if plan else 0.0,
            "moved_from": plan and plan.moved_from,
            "error": None if route.error is None else _error(route.error),
        },
        "verdicts": [verdict_document(verdict) for verdict in plan.verdicts] if plan else [],
        "transport": sent and sent.transport,
        "url": sent and sent.handshake.url,
        "headers": [] if sent is None else header_documents(sent.handshake),
        "client_metadata": {} if sent is None else shown_metadata(sent.handshake),
        "frame": None if asked is None or sent is None else _frame(asked, sent),
    }


def frame_members(frame: str) -> list[tuple[str, str, int]]:
    """Return name, JSON type and size in bytes of each member of a frame, in order."""
    return [
        (name, _json_type(member.value), len(member.raw.encode()))
        for name, member in frames.split_members(frame).items()
    ]


def dropped_members(asked: Asked, sent: Sent) -> list[str]:
    """Return the members of the Responses body that do not go into the frame."""
    kept = frames.split_members(sent.frame)
    return [name for name in asked.body.members if name not in kept]


def _request(asked: Asked) -> dict[str, Any]:
    return {
        "model": model_of(asked.body),
        "stream": asked.stream,
        "store": asked.body.get("store"),
    }


def _affinity(asked: Asked) -> dict[str, Any]:
    key, facts = asked.ownership.key, asked.facts
    return {
        "source": key.source,
        "key": shown_key(key) or None,
        "strength": facts.strength.value,
        "owner": facts.owner,
        "bound": facts.bound,
    }


def _evidence(asked: Asked) -> list[dict[str, Any]]:
    return [
        {
            "source": witness.key.source,
            "key": shown_key(witness.key),
            "owner": witness.owner,
            "role": witness.role,
        }
        for witness in asked.ownership.witnesses
    ]


def _error(error: ClientError) -> dict[str, Any]:
    return {
        "code": error.code,
        "status": error.status,
        "message": error.message,
        "param": error.param,
    }


def _frame(asked: Asked, sent: Sent) -> dict[str, Any]:
    return {
        "bytes": len(sent.frame.encode()),
        "members": [
            {"name": name, "type": kind, "bytes": size}
            for name, kind, size in frame_members(sent.frame)
        ],
        "dropped": [*asked.left_out, *dropped_members(asked, sent)],
        "dropped_reasoning": sent.dropped_reasoning,
    }


def _json_type(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"
