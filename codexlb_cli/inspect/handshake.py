"""What `inspect handshake` prints of the handshake that `core.handshake.build` made."""

from __future__ import annotations

from collections import Counter
from typing import Any

from codexlb_cli.config.policies import OWN_USER_AGENT
from codexlb_cli.console import WIDTH, table
from codexlb_cli.core.accounts import Account
from codexlb_cli.core.handshake import MASKED, Handshake, HandshakeInputs, build, shown_value
from codexlb_cli.core.headers import ALLOWED, Action, Header, HeaderDecision, HeaderOptions
from codexlb_cli.core.http_request import UpstreamHead
from codexlb_cli.inspect.inputs import as_text
from codexlb_cli.inspect.layout import broken, wrapped

SCHEMA = "codexlb.inspect.handshake/1"
PLACEHOLDER = Account("example")
"""Stands for an account where none is configured."""

_NAME_WIDTH = 38


def inspected(
    account: Account,
    inbound: tuple[Header, ...],
    options: HeaderOptions,
    account_id: str | None = None,
) -> Handshake:
    """Build the handshake that `account` would get. Its key is not needed, and never read.

    Args:
        account: the account.
        inbound: the client's header lines.
        options: the `[headers]` table.
        account_id: what stands for its `chatgpt-account-id`; None if it sends none.

    Raises:
        InvalidHeader: an inbound header cannot be sent.
    """
    return build(
        HandshakeInputs(
            account=account,
            secret=MASKED,
            inbound=inbound,
            options=options,
            user_agent=OWN_USER_AGENT,
            account_id=account_id,
        )
    )


def document(handshake: Handshake) -> dict[str, Any]:
    """Return the document of `--json`."""
    return {
        "schema": SCHEMA,
        "account": handshake.account,
        "url": handshake.url,
        "headers": header_documents(handshake),
        "decisions": [_decision(decision) for decision in handshake.decisions],
        "client_metadata": shown_metadata(handshake),
    }


def header_documents(handshake: UpstreamHead) -> list[dict[str, Any]]:
    """Return every line of the upgrade request as `--json` shows it."""
    return [
        {
            "name": line.name,
            "value": as_text(line.shown),
            "origin": line.origin,
            "rule": line.rule,
            "varies": line.varies,
        }
        for line in handshake.lines
    ]


def wire(handshake: Handshake) -> bytes:
    """Return the request head as it goes on the wire, secrets masked."""
    lines = [handshake.request_line, *(f"{line.name}: {line.shown}" for line in handshake.lines)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def text(handshake: Handshake, source: str) -> str:
    """Return the answer for a person.

    Args:
        handshake: what `inspected` returned.
        source: where the client headers come from.
    """
    parts = [
        wrapped(f"Dry run, nothing was sent. Client headers: {source}."),
        wrapped(
            f"UPSTREAM HANDSHAKE  account {handshake.account},"
            f" {handshake.request_line.split(' ')[0]} {handshake.url}"
        ),
        header_table(handshake),
        "CLIENT HEADERS  one decision per line, in the order received",
        _decisions(handshake),
        decision_count(handshake),
    ]
    metadata = shown_metadata(handshake)
    if metadata:
        name = max(map(len, metadata))  # of our own making, so none is too long
        rows = [row for pair in metadata.items() for row in broken(pair, (name, WIDTH - name - 4))]
        parts[5:5] = [
            "CLIENT METADATA  goes into the frame of the turn, not on the handshake",
            table(("NAME", "VALUE"), rows, indent=2),
        ]
    return "\n\n".join(parts)


def _decision(decision: HeaderDecision) -> dict[str, str | None]:
    return {
        "name": decision.name,
        "value": as_text(shown_value(decision.name, decision.value)),
        "action": decision.action.value,
        "rule": decision.rule,
        "reason": decision.reason,
        "source": decision.source,
    }


def shown_metadata(handshake: UpstreamHead) -> dict[str, str]:
    """Return what moves from headers into the frame, secrets masked."""
    return {
        name: as_text(shown_value(name, value)) for name, value in handshake.client_metadata.items()
    }


def header_table(handshake: UpstreamHead) -> str:
    """Return every line of the upgrade request for a person."""
    lines = handshake.lines
    origin, rule = (
        max(len(cell) for cell in column)
        for column in zip(
            ("FROM", "RULE"), *((line.origin, line.rule) for line in lines), strict=True
        )
    )
    name = min(max(len(line.name) for line in lines), _NAME_WIDTH)
    value = WIDTH - 2 - (name + 2) - (origin + 2) - (rule + 2)
    rows = [
        row
        for line in lines
        for row in broken(
            (line.name, as_text(line.shown), line.origin, line.rule), (name, value, origin, rule)
        )
    ]
    return table(("HEADER", "VALUE", "FROM", "RULE"), rows, indent=2)


def _decisions(handshake: Handshake) -> str:
    if not handshake.decisions:
        return "  The client sent none."
    rows = []
    for decision in handshake.decisions:
        why = "" if decision.reason == ALLOWED.reason else decision.reason
        cells = (decision.name, decision.action.value, decision.rule, why)
        rows += broken(cells, (_NAME_WIDTH, WIDTH, WIDTH, WIDTH))
    return table(("HEADER", "ACTION", "RULE", "WHY"), rows, indent=2)


def decision_count(handshake: UpstreamHead) -> str:
    """Say how many of the client's headers fared how."""
    counts = Counter(decision.action for decision in handshake.decisions)
    return (
        f"{counts[Action.FORWARD]} forwarded, {counts[Action.REPLACE]} replaced,"
        f" {counts[Action.DROP]} dropped, {counts[Action.MOVE]} moved into the frame."
        " Every reconnect uses the same rules."
    )
