"""One file per command group: options in, one call, a rendering, an exit code.

Modules here are imported for every command line, so they import what is heavy inside functions.
"""
