"""The fields of a `multipart/form-data` body (RFC 7578), byte for byte and within bounds."""

from __future__ import annotations

from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser

from codexlb_cli.mock_upstream.requests import invalid_request

_MOST_FIELDS = 32
_UNNAMED_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Field:
    """One field.

    Attributes:
        filename: None for a field that is no file.
        content_type: of a file; `application/octet-stream` if it named none.
    """

    content: bytes
    filename: str | None = None
    content_type: str = _UNNAMED_TYPE

    @property
    def text(self) -> str:
        """Its value as text."""
        return self.content.decode(errors="replace")


def parse_multipart(content_type: str, body: bytes) -> dict[str, Field]:
    """Return the fields by name.

    Raises:
        RefusedError: it is no multipart form, broken, or has too many fields.
    """
    boundary = _header("content-type", content_type).get_boundary()
    if boundary is None or not content_type.lower().startswith("multipart/form-data"):
        raise invalid_request("The body must be a multipart form.", code="invalid_multipart")
    # Every delimiter begins with a line break, the first one's may be left out (RFC 2046 5.1.1).
    delimiter = b"\r\n--" + boundary.encode()
    _, *parts = (b"\r\n" + body).split(delimiter, _MOST_FIELDS + 2)
    if not parts or len(parts) > _MOST_FIELDS + 1 or not parts[-1].startswith(b"--"):
        raise invalid_request("The multipart form is broken.", code="invalid_multipart")
    return dict(_field(part) for part in parts[:-1])


def _field(part: bytes) -> tuple[str, Field]:
    head, found, content = part.partition(b"\r\n\r\n")
    lines = HeaderParser().parsestr(head.decode("utf-8", "replace").lstrip("\r\n"))
    disposition = _header("content-disposition", lines.get("content-disposition", ""))
    name = disposition.get_param("name", header="content-disposition")
    if not found or not isinstance(name, str):
        raise invalid_request("A field of the form has no name.", code="invalid_multipart")
    kind = lines.get("content-type") or _UNNAMED_TYPE
    return name, Field(content, disposition.get_filename(), kind)


def _header(name: str, value: str) -> Message:
    message = Message()
    message[name] = value.replace("\r", "").replace("\n", "")
    return message
