from __future__ import annotations

import json
from pathlib import Path

from tests.support.cli import Cli


def test_the_rules_for_a_person_and_for_a_script(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    ran = cli.run("inspect", "rules")
    assert (ran.code, ran.err) == (0, "")
    for title in ("HEADERS  ", "\n\nCLOSES  ", "\n\nERRORS  "):
        assert title in ran.out
    found = cli.run("inspect", "rules", "--json")
    assert (found.code, found.err) == (0, "")
    assert list(json.loads(found.out)) == ["schema", "headers", "closes", "errors"]


def test_the_users_changes_are_in_force(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    cli.configure(
        '[headers]\nallow = ["X-Foo"]\ntraceparent = true\n'
        '[reconnect]\nbackoff_base = 2\n[reconnect.close.4008]\nsoft = "give_up"\n'
    )
    found = json.loads(cli.run("inspect", "rules", "--json").out)
    assert found["closes"][0]["codes"] == [[4008, 4008]]
    assert found["closes"][0]["soft"] == "give_up"
    forwarded = [row["names"] for row in found["headers"] if row["action"] == "forward"]
    assert forwarded[:2] == [["traceparent"], ["x-foo"]]
    assert "owner    2 s" in cli.run("inspect", "rules").out


def test_a_broken_configuration_is_said(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    cli.configure("[reconnect]\nreplays = 2\n")
    ran = cli.run("inspect", "rules", "--json")
    assert (ran.code, ran.out) == (3, "")
    assert "`reconnect.replays`" in ran.err
