"""What `…/files` and `…/uploads` answer: the part of the API that clients use for file inputs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote

from codexlb_cli.mock_upstream.files import FileStore, StoredFile, Upload
from codexlb_cli.mock_upstream.multipart import Field, parse_multipart
from codexlb_cli.mock_upstream.requests import RefusedError, invalid_request
from codexlb_cli.mock_upstream.rules import ErrorSpec
from codexlb_cli.mock_upstream.wire import to_json

if TYPE_CHECKING:
    from codexlb_cli.mock_upstream.wire import Head

_MOST_LISTED = 10_000


@dataclass(slots=True)
class Reply:
    """An answer."""

    body: bytes = field(repr=False)
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


def file_segments(path: str) -> list[str] | None:
    """Return the parts of a path from `files` or `uploads` on; None if it speaks of neither."""
    segments = path.strip("/").split("/")
    for at, segment in enumerate(segments):
        if segment in ("files", "uploads"):
            return segments[at:]
    return None


class FileRequests:
    """The requests of one account.

    Args:
        store: the files of all accounts.
        account: whose key the request carries.
        now: seconds since the epoch.
    """

    def __init__(self, store: FileStore, account: str, now: int) -> None:
        self._store = store
        self._account = account
        self._now = now

    def answer(self, head: Head, segments: list[str], body: bytes) -> Reply:
        """Answer a request.

        Raises:
            RefusedError: there is no such file or endpoint, or the request is malformed.
        """
        match head.method, segments:
            case "POST", ["files"]:
                return self._create(head, body)
            case "GET", ["files"]:
                return json_reply(self._list(head))
            case "GET", ["files", name]:
                return json_reply(self._file(name).document())
            case "DELETE", ["files", name]:
                self._store.remove(self._file(name))
                return json_reply({"id": name, "object": "file", "deleted": True})
            case "GET", ["files", name, "content"]:
                file = self._file(name)
                shown = f"attachment; filename*=utf-8''{quote(file.filename)}"
                return Reply(file.content, file.content_type, {"content-disposition": shown})
            case "POST", ["uploads"]:
                return self._begin(body)
            case "POST", ["uploads", name, action]:
                return self._upload_step(self._upload(name), action, head, body)
        raise _not_found(f"Invalid URL ({head.method} {head.path[:200]})", None)

    def _create(self, head: Head, body: bytes) -> Reply:
        fields = parse_multipart(head.value("content-type"), body)
        sent, purpose = fields.get("file"), fields.get("purpose")
        if sent is None or purpose is None or not purpose.text:
            missing = "file" if sent is None else "purpose"
            raise invalid_request(f"'{missing}' is a required property", param=missing)
        name = sent.filename or "upload"
        return json_reply(
            self._keep(name, purpose.text, sent.content, sent.content_type).document()
        )

    def _keep(self, filename: str, purpose: str, content: bytes, kind: str) -> StoredFile:
        name = self._store.new_id("file-")
        file = StoredFile(name, self._account, filename, purpose, content, kind, self._now)
        self._store.add(file)
        return file

    def _list(self, head: Head) -> dict[str, object]:
        query = parse_qs(head.target.partition("?")[2])
        files = list(self._store.files(self._account))
        if query.get("order") == ["asc"]:
            files.reverse()
        if purpose := query.get("purpose"):
            files = [file for file in files if file.purpose == purpose[0]]
        if after := query.get("after"):
            ids = [file.id for file in files]
            self._file(after[0])
            files = files[ids.index(after[0]) + 1 :] if after[0] in ids else []
        text = query.get("limit", [str(_MOST_LISTED)])[0]
        limit = int(text) if text.isascii() and text.isdigit() else 0
        if not 1 <= limit <= _MOST_LISTED:
            raise invalid_request("Invalid 'limit'.", code="integer_out_of_range", param="limit")
        page = files[:limit]
        return {
            "object": "list",
            "data": [file.document() for file in page],
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
            "has_more": len(files) > limit,
        }

    def _begin(self, body: bytes) -> Reply:
        asked = read_object(body)
        filename, purpose = asked.get("filename"), asked.get("purpose")
        size, kind = asked.get("bytes"), asked.get("mime_type")
        texts = (filename, purpose, kind)
        if not all(isinstance(text, str) for text in texts) or not isinstance(size, int):
            raise invalid_request("Needs 'filename', 'purpose', 'bytes' and 'mime_type'.")
        upload = Upload(
            id=self._store.new_id("upload_"),
            account=self._account,
            filename=str(filename),
            purpose=str(purpose),
            size=size,
            content_type=str(kind),
            created_at=self._now,
        )
        self._store.begin(upload)
        return json_reply(upload.document())

    def _upload_step(self, upload: Upload, action: str, head: Head, body: bytes) -> Reply:
        if upload.status != "pending":
            raise invalid_request(f"The upload is {upload.status}.", code="upload_not_pending")
        if action == "parts":
            fields = parse_multipart(head.value("content-type"), body)
            return json_reply(self._part(upload, fields.get("data")))
        if action == "complete":
            return json_reply(self._complete(upload, read_object(body).get("part_ids")))
        if action == "cancel":
            upload.status = "cancelled"
            upload.parts.clear()
            return json_reply(upload.document())
        raise _not_found(f"Invalid URL ({head.method} {head.path[:200]})", None)

    def _part(self, upload: Upload, data: Field | None) -> dict[str, object]:
        if data is None:
            raise invalid_request("'data' is a required property", param="data")
        return {
            "id": self._store.add_part(upload, data.content),
            "object": "upload.part",
            "created_at": self._now,
            "upload_id": upload.id,
        }

    def _complete(self, upload: Upload, parts: Any) -> dict[str, object]:
        if not isinstance(parts, list) or any(part not in upload.parts for part in parts):
            raise invalid_request("Unknown part.", code="invalid_part", param="part_ids")
        content = b"".join(upload.parts[part] for part in parts)
        if len(content) != upload.size:
            raise invalid_request("The parts are not as long as announced.", param="part_ids")
        upload.status = "completed"
        upload.parts.clear()
        file = self._keep(upload.filename, upload.purpose, content, upload.content_type)
        return upload.document(file)

    def _file(self, name: str) -> StoredFile:
        file = self._store.file(self._account, name)
        if file is None:
            raise _not_found(f"No such File object: {name[:200]}", "id")
        return file

    def _upload(self, name: str) -> Upload:
        upload = self._store.upload(self._account, name)
        if upload is None:
            raise _not_found(f"No such Upload object: {name[:200]}", "upload_id")
        return upload


def _not_found(message: str, param: str | None) -> RefusedError:
    kind = "invalid_request_error"
    return RefusedError(ErrorSpec(status=404, type=kind, message=message, param=param))


def json_reply(document: object) -> Reply:
    """Return an answer that is a JSON document."""
    return Reply(to_json(document))


def read_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object that a body is.

    Raises:
        RefusedError: it is none.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise invalid_request("The body is not a JSON object.", code="invalid_json")
    return value
