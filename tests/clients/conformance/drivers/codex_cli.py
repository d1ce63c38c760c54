"""Drives the Codex CLI: `codex exec` for single turns, `codex app-server` for conversations.

It runs in the environment of the tests; the CLI itself is a program from npm.
"""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

from reporting import Seen, Task, run_program

from tests.clients.chatgpt import chatgpt, login
from tests.clients.codex import CODEX
from tests.clients.codex_app import CodexApp, app_server

_WAIT_SECONDS = 60
_QUIET = ("-c", "check_for_update_on_startup=false", "-c", "analytics.enabled=false")
_EXEC = ("--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox")
# Codex does not know the mock's models, and says so; that is not about the upstream.
_ABOUT_MODELS = ("Model metadata for", "This session was recorded with model")


def version() -> str:
    """Return the version of the installed CLI."""
    modules = Path(os.environ["CLIENT_FOLDER"]) / "node_modules"
    return str(json.loads((modules / "@openai" / "codex" / "package.json").read_text())["version"])


class Home:
    """A person's Codex: its configuration and its login."""

    def __init__(self, task: Task) -> None:
        self.task, self.folder = task, Path(task.folder)
        self.work = self.folder / "work"
        for name in ("codex", "work"):
            (self.folder / name).mkdir()
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": task.folder,
            "CODEX_HOME": str(self.folder / "codex"),
        }
        if not task.login:
            self.environment["CODEX_CLIENT_KEY"] = task.key
        self.configure("https://127.0.0.1:9/backend-api")

    def configure(self, chatgpt_base_url: str) -> None:
        """Write the configuration for one way of speaking."""
        task, name = self.task, self.task.options.get("provider", "codexlb")
        auth = "requires_openai_auth = true" if task.login else 'env_key = "CODEX_CLIENT_KEY"'
        sockets = "supports_websockets = true" if task.transport == "WebSocket" else ""
        base_url = task.base_url
        if task.login:
            base_url = base_url.removesuffix("/v1") + "/backend-api/codex"
        provider = (
            f'model_provider = "codexlb"\n[model_providers.codexlb]\nname = "{name}"\n'
            f'base_url = "{base_url}"\nwire_api = "responses"\n{auth}\n{sockets}\n'
        )
        if name == "built-in":
            # It speaks WebSocket by itself, and takes the person's login.
            provider = f'openai_base_url = "{base_url}"\n'
        (self.folder / "codex" / "config.toml").write_text(
            f'chatgpt_base_url = "{chatgpt_base_url}"\n{provider}'
        )

    def sign_in(self, stack: ExitStack) -> None:
        """Sign in with a login that nobody issued, and let its service vouch for it."""
        service = stack.enter_context(chatgpt(self.folder))
        (self.folder / "codex" / "auth.json").write_text(login(self.task.key))
        self.environment["CODEX_CA_CERTIFICATE"] = str(service.certificate)
        self.configure(service.base_url)


# `codex exec`: one process per turn


def exec_turns(task: Task, seen: Seen) -> None:
    """One turn after the other; the second and later ones resume the session."""
    home = Home(task)
    with ExitStack() as stack:
        if task.login:
            home.sign_in(stack)
        seen["turns"] = []
        for number, prompt in enumerate(task.options["prompts"]):
            resume = ("resume", "--last") if number else ()
            seen["turns"].append(_exec(home, *resume, prompt))


def _exec(home: Home, *words: str) -> Seen:
    model = home.task.options.get("model", "mock")
    ran = subprocess.run(
        [CODEX, "exec", *_EXEC, *_QUIET, "-m", model, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=home.environment,
        cwd=home.work,
        timeout=_WAIT_SECONDS,
        check=False,
    )
    turn: Seen = {"exit": ran.returncode, "texts": [], "commands": [], "complaints": []}
    for line in ran.stdout.decode().splitlines():
        event = json.loads(line)
        if event["type"] == "item.completed":
            _note_item(turn, event["item"], "agent_message", "command_execution")
        elif event["type"] == "error":
            _complain(turn, event["message"])
    return turn


def _note_item(turn: Seen, item: Seen, message: str, command: str) -> None:
    if item["type"] == message:
        turn["texts"].append(item["text"])
    elif item["type"] == command:
        output = item.get("aggregated_output", item.get("aggregatedOutput"))
        turn["commands"].append(output)
    elif item["type"] == "error":
        _complain(turn, item["message"])
    elif item["type"] == "contextCompaction":
        turn["compactions"] = turn.get("compactions", 0) + 1


def _complain(turn: Seen, message: str) -> None:
    if not message.startswith(_ABOUT_MODELS):
        turn["complaints"].append(message)


# `codex app-server`: a conversation in one process


def conversation(task: Task, seen: Seen) -> None:
    """Several steps in one process: prompts, compactions, interrupts, steering."""
    home = Home(task)
    with app_server(home.folder, home.environment) as app:
        started = app.call(
            "thread/start",
            model=task.options.get("model", "mock"),
            cwd=str(home.work),
            approvalPolicy="never",
            sandbox="danger-full-access",
        )
        app.thread = started["thread"]["id"]
        seen["turns"] = [_step(app, step) for step in task.options["steps"]]


def _step(app: CodexApp, step: Seen) -> Seen:
    """Take one step, and return what was seen until its turn had ended."""
    turn: Seen = {"texts": [], "commands": [], "complaints": []}
    noticed = len(app.notices)
    if "prompt" in step:
        app.call("turn/start", threadId=app.thread, input=_said(step["prompt"]))
    else:
        app.call("thread/compact/start", threadId=app.thread)
    acted = False
    messages = app.messages()
    while True:
        if noticed == len(app.notices):
            next(messages)
        message = app.notices[noticed]
        noticed += 1
        params = message.get("params", {})
        match message.get("method"):
            case "item/agentMessage/delta" if not acted:
                acted = True
                _act(app, params["turnId"], step)
            case "item/completed":
                _note_item(turn, params["item"], "agentMessage", "commandExecution")
            case "error":
                retries = ", retries" if params["willRetry"] else ""
                turn["complaints"].append(params["error"]["message"] + retries)
            case "turn/completed":
                turn["status"] = params["turn"]["status"]
                return turn


def _act(app: CodexApp, turn: str, step: Seen) -> None:
    if step.get("interrupt"):
        app.call("turn/interrupt", threadId=app.thread, turnId=turn)
    elif "steer" in step:
        app.call("turn/steer", threadId=app.thread, expectedTurnId=turn, input=_said(step["steer"]))


def _said(text: str) -> list[Seen]:
    return [{"type": "text", "text": text}]


if __name__ == "__main__":
    run_program(version(), exec_turns, conversation)
