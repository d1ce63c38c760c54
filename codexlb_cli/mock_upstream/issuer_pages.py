"""The pages of the mock's issuer: plain, without scripts, one button each."""

from __future__ import annotations

from html import escape

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<h1>{title}</h1>
{body}
</html>
"""


def page(title: str, body: str) -> bytes:
    """Return a page; the body is HTML."""
    return _PAGE.format(title=escape(title), body=body).encode()


def message_page(title: str, text: str) -> bytes:
    """Return a page that only says something."""
    return page(title, f"<p>{escape(text)}</p>")


def approval_page(person: str, request: str) -> bytes:
    """Return the page on which a person approves a sign-in in the browser."""
    return page(
        "Mock sign-in",
        f"""<p>No account is real here. A program asks to act for <b>{escape(person)}</b>.</p>
<form method="post" action="/oauth/authorize">
<input type="hidden" name="request" value="{escape(request)}">
<button type="submit" id="approve">Sign in as {escape(person)}</button>
</form>""",
    )


def device_page(user_code: str) -> bytes:
    """Return the page on which a person enters the code of a device."""
    return page(
        "Mock device sign-in",
        f"""<form method="post" action="/codex/device">
<label>Code <input name="user_code" id="user_code" value="{escape(user_code)}"></label>
<button type="submit" id="approve">Sign in</button>
</form>""",
    )
