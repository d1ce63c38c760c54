"""What every Python driver has: a task on stdin, one JSON document on stdout.

A driver runs in the environment of its client, where nothing of codexlb is installed.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any


@dataclass(frozen=True)
class Task:
    """What to do, and where.

    Attributes:
        base_url: the upstream's or the gateway's, `http://127.0.0.1:PORT/v1`.
        key: the person's own.
        transport: `HTTP` or `WebSocket`.
        login: whether `key` is the access token of a ChatGPT login.
        options: the scenario's.
    """

    action: str
    base_url: str
    key: str
    transport: str
    login: bool
    options: dict[str, Any]


Seen = dict[str, Any]
Action = Callable[[Task, Seen], Any]


def run(package: str, *actions: Action) -> None:
    """Do what the task says, and print what the client saw; an exception is part of it.

    An action fills the document as it goes, so that what came before an exception is in it.
    """
    task = Task(**json.load(sys.stdin))
    seen: Seen = {}
    action = {action.__name__: action for action in actions}[task.action]
    try:
        result = action(task, seen)
        if inspect.iscoroutine(result):
            asyncio.run(result)
    except Exception as error:  # noqa: BLE001 - whatever the client raises is what it saw
        seen["error"] = described(error)
    seen["version"] = version(package)
    print(json.dumps(seen))  # noqa: T201


def described(error: BaseException) -> Seen:
    """Return what a program can learn from an exception."""
    response = getattr(error, "response", None)
    headers = getattr(response, "headers", None) or {}
    body = getattr(error, "body", None)
    return {
        "class": type(error).__name__,
        "status": getattr(error, "status_code", None),
        "code": getattr(error, "code", None),
        "type": getattr(error, "type", None),
        "param": getattr(error, "param", None),
        "message": str(error),
        "body": body if isinstance(body, (dict, str)) else None,
        "retry_after": headers.get("retry-after"),
        "cause": type(error.__cause__).__name__ if error.__cause__ else None,
    }
