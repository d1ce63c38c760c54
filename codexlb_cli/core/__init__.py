"""Pure decisions: no clock, no chance, no files, no sockets, no logs, no async.

Time, chance and state come in as arguments; a decision carries its reasons. The gateway performs
what is decided here, `inspect` and `simulate` print it.
"""
