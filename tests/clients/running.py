"""A gateway as people run it: `codexlb serve` with a configuration file, as a process."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.cli import Cli
from tests.support.ports import free_port

KEYS = {"work": "sk-upstream-work", "home": "sk-upstream-home"}
"""The accounts, in the order of the configuration, and the keys that the upstream knows."""

_STOP_SECONDS = 20


@dataclass
class ServingGateway:
    """A running `codexlb serve`.

    Attributes:
        cli: the program in the same folders and environment, for `connect` and the like.
        base_url: what a client is given.
        banner: what it wrote to stdout.
        log: what it wrote to stderr; complete once it has stopped.
    """

    cli: Cli
    base_url: str
    banner: str = ""
    log: str = ""

    def requests(self) -> list[str]:
        """Return the status of every request that it served, in order; once it has stopped."""
        lines = (line.split() for line in self.log.splitlines())
        return [words[1] for words in lines if len(words) > 3 and words[0].count(":") == 2]


@contextmanager
def serving(
    home: Path, upstream: str, *, accounts: Sequence[str] = tuple(KEYS), more: str = ""
) -> Iterator[ServingGateway]:
    """Run a gateway on a free port while the context lasts, and require that it ends cleanly.

    Args:
        home: its folders; with the same home it finds its configuration and state again.
        upstream: the base URL of every account.
        accounts: names out of `KEYS`.
        more: further TOML for the configuration.
    """
    cli = Cli(home)
    port = free_port()
    cli.configure(_configuration(port, upstream, accounts) + more)
    gateway = ServingGateway(cli, f"http://127.0.0.1:{port}/v1")
    with _process(gateway, "--config", str(cli.config_file), "serve"):
        yield gateway


@contextmanager
def demonstrating(home: Path) -> Iterator[ServingGateway]:
    """Run `codexlb demo` likewise."""
    port = free_port()
    gateway = ServingGateway(Cli(home), f"http://127.0.0.1:{port}/v1")
    with _process(gateway, "demo", "--port", str(port)):
        yield gateway


@contextmanager
def _process(gateway: ServingGateway, *command: str) -> Iterator[None]:
    home = gateway.cli.home
    keys = {f"KEY_OF_{name.upper()}": key for name, key in KEYS.items()}
    log = home / "serve.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "codexlb_cli", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=gateway.cli.environment(**keys),
            cwd=home,
            text=True,
        )
    try:
        gateway.banner = _read_banner(process, log)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(_STOP_SECONDS)
        finally:
            process.kill()
            process.communicate()
            gateway.log = log.read_text()
    assert status == 0, gateway.log
    assert "Traceback" not in gateway.log
    assert "internal error" not in gateway.log


def _read_banner(process: subprocess.Popen[str], log: Path) -> str:
    """Return the banner once it is there: the port is open then."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Ctrl-C stops" in line:
            return "".join(lines)
    raise AssertionError(f"the gateway did not start:\n{log.read_text()}")


def _configuration(port: int, upstream: str, accounts: Sequence[str]) -> str:
    tables = [f"[gateway]\nport = {port}\n\n[timeouts]\ndrain = 5\n"]
    tables += [
        f'[accounts.{name}]\napi_key_env = "KEY_OF_{name.upper()}"\nbase_url = "{upstream}"\n'
        for name in accounts
    ]
    return "\n".join(tables)
