"""Configuration files of other programs, as people write them: texts for property tests."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

# Every secret holds LEAK; every comment is one of few, so that a test can count them.
_SECRET = "sk-LEAK-0000000000"

_TOML_TOP = (
    "model = 'gpt-5.5' # the best",
    'approval_policy = "never"',
    'notify = [\n  "a", # c1\n  "b",\n]',
    "history.persistence = 'none'",
    'shell = { set = { TOKEN = "' + _SECRET + '" }, n = 1 } # c2',
    '# api_key = "' + _SECRET + '"',
    '"quoted key" = """\n[no.table]\nmodel_provider = "no key" # no comment\n"""',
    "when = 1979-05-27 07:32:00",
)
_TOML_PROVIDER = (
    "",
    'model_provider = "other"',
    "model_provider='other'   # mine",
    '"model_provider" = """other"""',
    'openai_base_url = "https://example.com/v1" # c3',
)
_TOML_TABLES = (
    "[features]\nfast = true",
    "  [tui] # c4\n  theme = 'dark'\n\n  # c5",
    '[mcp_servers.x]\ncommand = "run"\nenv = { API_KEY = "' + _SECRET + '" }',
    '[[hooks]]\nname = "one"\n[[hooks]]\nname = "two"',
    '# about the project\n[projects."/a b"]\ntrust_level = "trusted"',
)
OWN_TABLE = '[model_providers.codexlb]\nname = "mine" # c6\nrequest_max_retries = 2'
# The texts that stand above the first header come first.
TOML_PROVIDERS = {
    "none": ("", ""),
    "other": ("", '[model_providers.other]\nexperimental_bearer_token = "' + _SECRET + '"'),
    "parent": ("", '[model_providers]\nother = { name = "other" } # c7'),
    "own": ("", OWN_TABLE),
    "own_key": ("", OWN_TABLE + '\nenv_key = "MY_KEY"'),
    "own_inline": ("", '[model_providers]\ncodexlb = { name = "mine" }'),
    "below": ("", '[model_providers.codexlb.http_headers]\nx-key = "' + _SECRET + '"'),
    "dotted": ('model_providers.other.name = "other"', ""),
    "inline": ('model_providers = { other = { name = "other" } }', ""),
    "broken": ("model_providers = 3", ""),
}
NO_PLACE = {"broken"}
NO_WAY_BACK = {"broken", "inline", "own_inline"}  # nothing is deleted from inline tables

_gaps = st.sampled_from(["\n", "\n\n", "\n\n\n", "\n# a comment\n", "\n\n# a comment\n\n"])


@st.composite
def toml_texts(draw: st.DrawFn) -> tuple[str, str]:
    """A config.toml, and the name of the way in which it has providers."""
    kind = draw(st.sampled_from(sorted(TOML_PROVIDERS)))
    top, table = TOML_PROVIDERS[kind]
    above = draw(st.lists(st.sampled_from(_TOML_TOP), unique=True, max_size=4))
    above += [text for text in (draw(st.sampled_from(_TOML_PROVIDER)), top) if text]
    tables = draw(st.lists(st.sampled_from(_TOML_TABLES), unique=True, max_size=3))
    tables += [table] if table else []
    parts = [*draw(st.permutations(above)), *draw(st.permutations(tables))]
    text = draw(st.sampled_from(["", "\n", "# the head\n\n"]))
    text += "".join(part + draw(_gaps) for part in parts)
    if draw(st.booleans()):
        text = text.rstrip("\n")
    return (text.replace("\n", "\r\n") if draw(st.booleans()) else text), kind


_scalars: st.SearchStrategy[Any] = st.sampled_from(
    [1, 1.5, True, None, "text", "// no comment", _SECRET, [], [1, {"a": "x"}, []], "\u2028\u00e9"]
)
_documents: st.SearchStrategy[Any] = st.recursive(
    _scalars,
    lambda inner: st.dictionaries(st.sampled_from(["a", "b", "apiKey", "//"]), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def jsonc_texts(draw: st.DrawFn, provider: bool = False) -> str:
    """An opencode.jsonc: an object with comments, trailing commas and blanks of any kind.

    With `provider`, it may hold providers, ours or others, in any form.
    """
    content = draw(
        st.dictionaries(
            st.sampled_from(["theme", "model", "mcp", "$schema"]), _documents, max_size=3
        )
    )
    if provider:
        some = st.dictionaries(
            st.sampled_from(["npm", "name", "options", "models"]), _documents, max_size=3
        )
        names = st.sampled_from(["openai", "codexlb", "other"])
        content["provider"] = draw(st.dictionaries(names, some, max_size=2) | _scalars)
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    gap = st.sampled_from(["", " ", "\n", "\n    ", " // c1\n", " /* c2 */ ", "\n\t// c1\n\t"])

    def space() -> str:
        return draw(gap).replace("\n", newline)

    def written(value: object) -> str:
        if isinstance(value, dict):
            rows = [
                f"{space()}{json.dumps(key)}{space()}:{space()}{written(item)}"
                for key, item in value.items()
            ]
        elif isinstance(value, list):
            rows = [f"{space()}{written(item)}" for item in value]
        else:
            return json.dumps(value, ensure_ascii=draw(st.booleans()))
        inside = f"{space()},".join(rows)
        inside += f"{space()}," if bool(rows) and draw(st.booleans()) else ""
        opening, closing = "{}" if isinstance(value, dict) else "[]"
        return f"{opening}{inside}{space()}{closing}"

    return f"{space()}{written(content)}{space()}"
