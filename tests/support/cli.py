"""Runs the command line with folders and an environment of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import codexlb_cli
from codexlb_cli.main import main

ROOT = Path(codexlb_cli.__file__).parent.parent


class Ran(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Cli:
    """The program in a home folder of its own, without the tester's environment."""

    home: Path

    @property
    def config_file(self) -> Path:
        return self.home / "config" / "codexlb" / "config.toml"

    @property
    def state_folder(self) -> Path:
        return self.home / "data" / "codexlb"

    def environment(self, **more: str) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": str(ROOT),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "XDG_DATA_HOME": str(self.home / "data"),
            **more,
        }

    def configure(self, text: str) -> None:
        self.config_file.parent.mkdir(parents=True, exist_ok=True)
        self.config_file.write_bytes(text.encode())

    def run(self, *args: str, stdin: bytes = b"", **environ: str) -> Ran:
        """Call `main` in this process."""
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", newline="\n") for _ in range(2))
        with (
            mock.patch.dict(os.environ, self.environment(**environ), clear=True),
            mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8")),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            code = main(args)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read())
        return Ran(code, *texts)

    def spawn(
        self, *args: str, stdin: bytes = b"", **environ: str
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the program as a process."""
        return subprocess.run(
            [sys.executable, "-m", "codexlb_cli", *args],
            input=stdin,
            capture_output=True,
            env=self.environment(**environ),
            cwd=self.home,
            timeout=30,
            check=False,
        )
