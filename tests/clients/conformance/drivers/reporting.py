"""What every Python driver has: tasks on stdin, what the client saw as JSON on stdout.

A driver runs in the environment of its client, where nothing of codexlb is installed.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
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
        login: whether the person signs in with a ChatGPT login that is made of `key`.
        folder: an empty one, for whatever the client keeps.
        options: the scenario's.
    """

    action: str
    base_url: str
    key: str
    transport: str
    login: bool
    folder: str
    options: dict[str, Any]


Seen = dict[str, Any]
Action = Callable[[Task, Seen], Any]


def run(package: str, *actions: Action) -> None:
    """Do what the task says, with a package of this environment; see `run_program`."""
    run_program(version(package), *actions)


def run_program(its_version: str, *actions: Action) -> None:
    """Do what the tasks say, one after the other, and print what the client saw each time."""
    by_name = {action.__name__: action for action in actions}
    seen = [_done(Task(**task), by_name) for task in json.load(sys.stdin)]
    print(json.dumps({"version": its_version, "seen": seen}))  # noqa: T201


def _done(task: Task, actions: dict[str, Action]) -> Seen:
    """Do one task; what the client raises is part of what it saw.

    An action fills the document as it goes, so that what came before an exception is in it.
    """
    os.chdir(task.folder)
    seen: Seen = {}
    try:
        result = actions[task.action](task, seen)
        if inspect.iscoroutine(result):
            asyncio.run(result)
    except Exception as error:  # noqa: BLE001 - whatever it is
        seen["error"] = described(error)
    return seen


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
