"""codexlb: a local gateway for the OpenAI Responses API over several accounts of your own."""

__version__ = "0.1.0"
