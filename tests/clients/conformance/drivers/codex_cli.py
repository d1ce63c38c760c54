"""Drives the Codex CLI: `codex exec` for single turns, `codex app-server` for conversations.

It runs in the environment of the tests; the CLI itself is a program from npm.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accounts_check import serving_accounts_check
from reporting import Seen, Task, run_program

FOLDER = Path(os.environ["CLIENT_FOLDER"])
CODEX = str(FOLDER / "node_modules" / ".bin" / "codex")
ACCOUNT_ID = "acct-ada"

_WAIT_SECONDS = 60
_QUIET = ("-c", "check_for_update_on_startup=false", "-c", "analytics.enabled=false")
_EXEC = ("--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox")
# Codex does not know the mock's models, and says so; that is not about the upstream.
_ABOUT_MODELS = ("Model metadata for", "This session was recorded with model")


def version() -> str:
    """Return the version of the installed CLI."""
    file = FOLDER / "node_modules" / "@openai" / "codex" / "package.json"
    return str(json.loads(file.read_text())["version"])


class Home:
    """A person's Codex: its configuration, its login, its sessions."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.codex, self.work = Path.cwd() / "codex", Path.cwd() / "work"
        for folder in (self.codex, self.work):
            folder.mkdir()
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": task.folder,
            "CODEX_HOME": str(self.codex),
            # Nothing is asked of the vendor's hosts: this proxy does not exist.
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "NO_PROXY": "127.0.0.1,localhost",
        }
        if not task.login:
            self.environment["CODEX_CLIENT_KEY"] = task.key
        self.configure()

    def configure(self, chatgpt: str = "https://127.0.0.1:9/backend-api") -> None:
        """Write what `codexlb connect codex` would say for this way of speaking."""
        task, name = self.task, self.task.options.get("provider", "codexlb")
        auth = "requires_openai_auth = true" if task.login else 'env_key = "CODEX_CLIENT_KEY"'
        sockets = "supports_websockets = true" if task.transport == "WebSocket" else ""
        base_url = task.base_url
        if task.login:
            base_url = base_url.removesuffix("/v1") + "/backend-api/codex"
        (self.codex / "config.toml").write_text(
            f'model_provider = "codexlb"\nchatgpt_base_url = "{chatgpt}"\n'
            f'[model_providers.codexlb]\nname = "{name}"\nbase_url = "{base_url}"\n'
            f'wire_api = "responses"\n{auth}\n{sockets}\n'
        )
        if task.login:
            tokens = {
                "id_token": task.key,
                "access_token": task.key,
                "refresh_token": "rt-LEAK",
                "account_id": ACCOUNT_ID,
            }
            login = {
                "auth_mode": "chatgpt",
                "OPENAI_API_KEY": None,
                "tokens": tokens,
                "last_refresh": "2026-01-01T00:00:00.000000000Z",
            }
            (self.codex / "auth.json").write_text(json.dumps(login))


# `codex exec`: one process per turn


def exec_turns(task: Task, seen: Seen) -> None:
    """One turn after the other; the second and later ones resume the session."""
    home = Home(task)
    with serving_accounts_check(ACCOUNT_ID, needed=task.login) as service:
        if service:
            home.configure(service.base_url)
            home.environment["CODEX_CA_CERTIFICATE"] = str(service.certificate)
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


class AppServer:
    """The core of the CLI's own interface, over JSON-RPC on stdio."""

    def __init__(self, home: Home) -> None:
        self._process = subprocess.Popen(
            [CODEX, *_QUIET, "app-server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=home.environment,
            cwd=home.work,
            text=True,
        )
        self._lines: queue.Queue[Seen] = queue.Queue()
        self._waiting: list[Seen] = []
        self._count = 0
        threading.Thread(target=self._read, daemon=True).start()

    def call(self, method: str, params: Seen) -> Any:
        """Return the result of a request; notifications meanwhile are kept."""
        self._count += 1
        self._send({"id": self._count, "method": method, "params": params})
        answer = self._until(lambda message: message.get("id") == self._count)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def notify(self, method: str) -> None:
        """Say something that is not answered."""
        self._send({"method": method})

    def next(self) -> Seen:
        """Return the next notification."""
        if self._waiting:
            return self._waiting.pop(0)
        return self._lines.get(timeout=_WAIT_SECONDS)

    def close(self) -> None:
        """End the process, as somebody who closes the program."""
        self._process.terminate()
        self._process.wait(_WAIT_SECONDS)

    def _until(self, wanted: Callable[[Seen], bool]) -> Seen:
        while True:
            message = self._lines.get(timeout=_WAIT_SECONDS)
            if wanted(message):
                return message
            self._waiting.append(message)

    def _send(self, message: Seen) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(json.loads(line))


def conversation(task: Task, seen: Seen) -> None:
    """Several steps in one process: prompts, compactions, interrupts, steering."""
    home = Home(task)
    server = AppServer(home)
    try:
        server.call("initialize", {"clientInfo": {"name": "codexlb_tests", "version": "0"}})
        server.notify("initialized")
        started = server.call(
            "thread/start",
            {
                "model": task.options.get("model", "mock"),
                "cwd": str(home.work),
                "approvalPolicy": "never",
                "sandbox": "danger-full-access",
            },
        )
        thread = started["thread"]["id"]
        seen["turns"] = [_step(server, thread, step) for step in task.options["steps"]]
    finally:
        server.close()


def _step(server: AppServer, thread: str, step: Seen) -> Seen:
    """Take one step, and return what was seen until its turn had ended."""
    turn: Seen = {"texts": [], "commands": [], "complaints": []}
    if "prompt" in step:
        said = [{"type": "text", "text": step["prompt"]}]
        server.call("turn/start", {"threadId": thread, "input": said})
    else:
        server.call("thread/compact/start", {"threadId": thread})
    acted = False
    while True:
        message = server.next()
        params = message.get("params", {})
        match message.get("method"):
            case "item/agentMessage/delta" if not acted:
                acted = True
                _act(server, thread, params["turnId"], step)
            case "item/completed":
                _note_item(turn, params["item"], "agentMessage", "commandExecution")
            case "error":
                retries = ", retries" if params["willRetry"] else ""
                turn["complaints"].append(params["error"]["message"] + retries)
            case "turn/completed":
                turn["status"] = params["turn"]["status"]
                if "steer" in step or "interrupt" in step:
                    # How far the answer came before is a matter of chance.
                    turn["texts"] = turn["texts"][1:]
                return turn


def _act(server: AppServer, thread: str, turn: str, step: Seen) -> None:
    if step.get("interrupt"):
        server.call("turn/interrupt", {"threadId": thread, "turnId": turn})
    elif "steer" in step:
        said = [{"type": "text", "text": step["steer"]}]
        server.call("turn/steer", {"threadId": thread, "expectedTurnId": turn, "input": said})


if __name__ == "__main__":
    run_program(version(), exec_turns, conversation)
