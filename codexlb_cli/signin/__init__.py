"""Signing in at an issuer of ChatGPT logins, in three ways, and keeping logins fresh."""
