"""Signing in at an issuer, and keeping logins fresh."""
