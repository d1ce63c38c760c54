"""Signing in to an issuer of ChatGPT logins: in the browser, by device code, from Codex's file."""
