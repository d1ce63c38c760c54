from __future__ import annotations

from hypothesis import given

from codexlb_cli.config.client_diff import masked, unified_diff
from codexlb_cli.config.client_edits import CannotEdit, Jsonc, Toml, changed
from codexlb_cli.core.client_settings import Address, Provider, opencode
from tests.support.documents import jsonc_texts, toml_texts

OURS = opencode(Address("127.0.0.1", 2455), provider=Provider.OPENAI)


def test_only_changed_lines_are_shown() -> None:
    before = 'a = 1\nmodel_provider = "x"\nb = 2\nb3 = 3\n'
    after = 'a = 1\nmodel_provider = "codexlb"\nb = 2\nb3 = 3\n\n[c]\nd = 4\n'
    assert unified_diff(Toml(), "config.toml", before, after, ours=()) == (
        "--- config.toml\n+++ config.toml\n"
        '@@ -2 +2 @@\n-model_provider = "x"\n+model_provider = "codexlb"\n'
        "@@ -4,0 +5,3 @@\n+\n+[c]\n+d = 4"
    )


def test_a_file_that_comes_or_goes() -> None:
    come = unified_diff(Toml(), "f", None, "a = 1\n", ours=())
    assert come == "--- /dev/null\n+++ f\n@@ -0,0 +1 @@\n+a = 1"
    gone = unified_diff(Toml(), "f", "a = 1\n", None, ours=())
    assert gone == "--- f\n+++ /dev/null\n@@ -1 +0,0 @@\n-a = 1"


def test_secrets_in_changed_lines_are_masked_and_what_is_ours_is_not() -> None:
    before = '{"provider": {"openai": {"options": {"apiKey": "LEAK"}}}, "mcp": {"token": ["LEAK"]}}'
    after = changed(Jsonc(), before, OURS.changes)
    shown = unified_diff(Jsonc(), "f", before, after, ours=list(OURS.changes.values()))
    minus, plus = shown.splitlines()[3:]
    assert minus == (
        '-{"provider": {"openai": {"options": {"apiKey": "***"}}}, "mcp": {"token": "***"}}'
    )
    assert plus == (
        '+{"provider": {"openai": {"options": {"apiKey": "unused", '
        '"baseURL": "http://127.0.0.1:2455/v1"}, "npm": "@ai-sdk/openai"}}, '
        '"mcp": {"token": "***"}}'
    )


def test_what_looks_like_a_secret_is_masked_wherever_it_stands() -> None:
    assert masked(Toml(), "x = 'sk-proj-0123456789' # or sk-0123456789\n") == "x = '***' # or ***\n"
    text = 'env_key = "MY_KEY"\nheaders = [\n  "a",\n]\nkeys = { a = "b" }\n'
    assert (
        masked(Toml(), text) == 'env_key = "MY_KEY"\nheaders = "***"\n"***"\n"***"\nkeys = "***"\n'
    )


@given(toml_texts())
def test_no_secret_of_a_toml_file_is_shown(document: tuple[str, str]) -> None:
    text, _ = document
    shown = masked(Toml(), text)
    assert "LEAK" not in shown
    assert shown.count("\n") == text.count("\n")
    assert "LEAK" not in unified_diff(Toml(), "f", text, None, ours=())


@given(jsonc_texts(provider=True))
def test_no_secret_of_a_jsonc_file_is_shown(text: str) -> None:
    shown = masked(Jsonc(), text)
    assert "LEAK" not in shown
    assert shown.count("\n") == text.count("\n")
    try:
        after = changed(Jsonc(), text, OURS.changes)
    except CannotEdit:
        return
    assert "LEAK" not in unified_diff(Jsonc(), "f", text, after, ours=list(OURS.changes.values()))
