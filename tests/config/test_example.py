from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from codexlb_cli.config.load import load_settings
from codexlb_cli.config.paths import example_config
from codexlb_cli.config.schema import AccountTable, CloseTable, PriceTable, scalar_keys

TEXT = example_config().decode("ascii")


def keys(text: str) -> dict[str, list[str]]:
    """Return the keys under each header, in comments or not."""
    found: dict[str, list[str]] = {}
    header = ""
    for line in text.splitlines():
        if match := re.fullmatch(r'(?:# )?\[([a-z0-9_."-]+)\]', line):
            header = match[1]
            found[header] = []
        elif match := re.fullmatch(r"(?:# )?([a-z_]+) = .+", line):
            found[header].append(match[1])
    return found


def test_it_says_nothing_but_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(TEXT)
    example = load_settings(file, environ={})
    defaults = load_settings(tmp_path / "none.toml", environ={})
    for name in (
        "gateway",
        "timeouts",
        "limits",
        "lanes",
        "headers",
        "reconnect",
        "affinity",
        "usage",
        "selection",
        "signin",
    ):
        assert getattr(example, name) == getattr(defaults, name)
    assert example.accounts == defaults.accounts == ()
    assert example.prices == defaults.prices == {}


def test_it_has_every_key() -> None:
    expected: dict[str, list[str]] = {}
    for table, key, _ in scalar_keys():
        expected.setdefault(table, []).append(key)
    expected["reconnect.close.1011"] = list(CloseTable.model_fields)
    expected['prices."gpt-5.5"'] = list(PriceTable.model_fields)
    expected["accounts.work"] = list(AccountTable.model_fields)
    found = keys(TEXT)
    assert {name: sorted(found[name]) for name in found} == {
        name: sorted(expected[name]) for name in expected
    }


def test_every_key_without_a_comment_sign_is_valid_too(tmp_path: Path) -> None:
    text = re.sub(r"(?m)^# (\[|[a-z_]+ = )", r"\1", TEXT)
    file = tmp_path / "config.toml"
    file.write_text(text)
    settings = load_settings(file, environ={})
    assert [account.name for account in settings.accounts] == ["work"]
    assert settings.reconnect.close[1011] == CloseTable(
        account="counted", soft="another_account", hard="owner"
    )
    assert settings.prices == {"gpt-5.5": PriceTable(input=3, cached=0.3, output=12)}


def test_comments_stand_under_their_header_and_lines_are_short() -> None:
    lines = TEXT.splitlines()
    for above, line in pairwise(lines):
        assert len(line) <= 100
        assert line == line.rstrip()
        if line.startswith(("[", "# [")):
            assert not above
