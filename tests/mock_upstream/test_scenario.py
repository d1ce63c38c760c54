from __future__ import annotations

import re
from pathlib import Path

import pytest

from codexlb_cli.errors import ConfigError
from codexlb_cli.mock_upstream.issuer_rules import IssuerRule
from codexlb_cli.mock_upstream.rules import ErrorSpec, HandshakeRule, RateLimits, TurnRule
from codexlb_cli.mock_upstream.scenario import load_scenario, parse_scenario
from codexlb_cli.mock_upstream.script import SHORTCUTS

ROOT = Path(__file__).parent.parent.parent
DOCS = (ROOT / "docs" / "scenarios.md").read_text(encoding="utf-8")
EXAMPLES = sorted((ROOT / "examples" / "scenarios").glob("*.toml"))


def test_a_scenario_becomes_rules_in_order() -> None:
    script = parse_scenario(
        """
        [[upstream]]
        on = "handshake"
        account = "home"
        status = 429
        headers = { retry-after = "3" }

        [[upstream]]
        on = "turn"
        delay = 1
        send = ["{"]
        close = 1011
        when = "streaming"
        after = 2

        [[request]]
        whatever = 1
        """,
        "faults.toml",
    )
    assert script.rules == (
        HandshakeRule(account="home", status=429, headers={"retry-after": "3"}),
        TurnRule(delay=1, send=("{",), close=1011, when="streaming", after=2),
    )


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("x = ", "`f.toml` is not valid TOML: invalid value (at end of document)", None),
        ("upstrem = 1", "`upstrem` in `f.toml` is not a known key", "did you mean `upstream`?"),
        (
            "[upstream]",
            "`upstream` in `f.toml` must be an array of tables",
            "write `[[upstream]]`, with double brackets",
        ),
        (
            "[[upstream]]\nclose = 1011",
            (
                "`on` in `[[upstream]]` 1 of `f.toml` must be `handshake`, `turn`, `warmup` or "
                "`models`"
            ),
            "see docs/scenarios.md",
        ),
        (
            '[[upstream]]\non = "turn"\n[[upstream]]\non = "turns"',
            (
                "`on` in `[[upstream]]` 2 of `f.toml` must be `handshake`, `turn`, `warmup` or "
                "`models`, not `turns`"
            ),
            "see docs/scenarios.md",
        ),
        (
            '[[upstream]]\non = "turn"\nclos = 1011',
            "`clos` in `[[upstream]]` 1 of `f.toml` is not a known key",
            "did you mean `close`?",
        ),
        (
            '[[upstream]]\non = "turn"\nclose = 99',
            "`close` in `[[upstream]]` 1 of `f.toml` must be 1000 or more, not `99`",
            "see docs/scenarios.md",
        ),
        (
            '[[upstream]]\non = "turn"\nsilence = "yes"',
            "`silence` in `[[upstream]]` 1 of `f.toml` must be true or false, not `yes`",
            "see docs/scenarios.md",
        ),
        (
            '[[upstream]]\non = "turn"\nclose = 1011\nwhen = "now"',
            (
                "`when` in `[[upstream]]` 1 of `f.toml` must be `before_created`, `created`, "
                "`streaming` or `idle`, not `now`"
            ),
            "see docs/scenarios.md",
        ),
        (
            '[[upstream]]\non = "turn"\nwhen = "idle"',
            "`[[upstream]]` 1 of `f.toml`: has a `when` but no fault",
            "see docs/scenarios.md",
        ),
        (
            '[[upstream]]\non = "turn"\nerror = { status = 429, headers = 7 }',
            "`error.headers` in `[[upstream]]` 1 of `f.toml` must be a table, not `7`",
            "see docs/scenarios.md",
        ),
        (
            '[[upstream]]\non = "turn"\nfailed = { cod = "x" }',
            "`failed.cod` in `[[upstream]]` 1 of `f.toml` is not a known key",
            "did you mean `failed.code`?",
        ),
        (
            "upstream = [1]",
            "`[[upstream]]` 1 of `f.toml` must be a table",
            None,
        ),
        (
            '[[upstream]]\non = "turn"\nerror = { status = 99 }',
            "`error.status` in `[[upstream]]` 1 of `f.toml` must be 300 or more, not `99`",
            "see docs/scenarios.md",
        ),
    ],
)
def test_a_broken_scenario_says_where_and_how(text: str, message: str, hint: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_scenario(text, "f.toml")
    assert (str(caught.value), caught.value.hint) == (message, hint)


@pytest.mark.parametrize("content", [b"\xff", b"a" * (1024 * 1024 + 1), None])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "s.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"s\.toml"):
        load_scenario(file)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_the_examples_are_valid(file: Path) -> None:
    rules = load_scenario(file).rules
    assert bool(rules) == ("[[upstream]]" in file.read_text("utf-8"))


def test_the_documentation_shows_valid_scenarios() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", DOCS, re.DOTALL)
    assert blocks
    assert all(parse_scenario(block, "docs").rules for block in blocks)


def test_the_documentation_names_every_key_and_every_shortcut() -> None:
    keys = {*HandshakeRule.model_fields, *TurnRule.model_fields, *IssuerRule.model_fields}
    keys |= {*ErrorSpec.model_fields, *RateLimits.model_fields, *SHORTCUTS}
    assert {key for key in keys if f"`{key}`" not in DOCS} == set()
