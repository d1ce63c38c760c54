"""The user's config.toml: where it lies, what it may say, how it is read and edited."""
