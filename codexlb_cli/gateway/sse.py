"""Server-sent events out of a stream of bytes, however it was cut into pieces.

The rules of the HTML standard, section 9.2.6, so far as they concern data: names, ids and retry
times of events are not kept. One thing is stricter: what is no UTF-8 is a fault.
"""

from __future__ import annotations

import re

_LINE_END = re.compile(rb"\r\n|\r|\n")
_BOM = b"\xef\xbb\xbf"
_LAST = "[DONE]"


class _TooLargeError(Exception):
    """An event, or a line, is larger than what is taken."""


class SseDecoder:
    """Takes bytes, returns the data of each event.

    Args:
        largest_bytes: the biggest event, and the longest line, that is taken.

    Attributes:
        fault: why nothing more can be read; None while all is well.
    """

    def __init__(self, largest_bytes: int) -> None:
        self.fault: str | None = None
        self._largest = largest_bytes
        self._line = bytearray()
        self._data = bytearray()
        self._first_line = True
        self._after_cr = False

    def feed(self, piece: bytes) -> list[str]:
        """Return the data of the events that end in `piece`; `fault` is set if it is broken."""
        events: list[str] = []
        if not piece or self.fault is not None:
            return events
        at = 1 if self._after_cr and piece.startswith(b"\n") else 0
        self._after_cr = piece.endswith(b"\r")
        try:
            for end in _LINE_END.finditer(piece, at):
                self._grow(piece[at : end.start()])
                at = end.end()
                self._end_line(events)
            self._grow(piece[at:])
        except UnicodeDecodeError:
            self.fault = "not UTF-8"
        except _TooLargeError:
            self.fault = "event too large"
        return events

    def _grow(self, part: bytes) -> None:
        self._line += part
        if len(self._line) + len(self._data) > self._largest:
            raise _TooLargeError

    def _end_line(self, events: list[str]) -> None:
        line = bytes(self._line)
        self._line.clear()
        if self._first_line:
            self._first_line = False
            line = line.removeprefix(_BOM)
        if not line:
            self._end_event(events)
            return
        name, _, value = line.partition(b":")  # a comment is a line without a name
        if name == b"data":
            self._data += value.removeprefix(b" ") + b"\n"

    def _end_event(self, events: list[str]) -> None:
        text = self._data[:-1].decode()
        self._data.clear()
        if text and text != _LAST:
            events.append(text)
