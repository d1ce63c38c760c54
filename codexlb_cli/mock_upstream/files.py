"""Which files and uploads an account has: in memory, bounded, and nobody else's."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_BYTES = 256 * 1024 * 1024
_MOST_FILES = 10_000
_UPLOAD_SECONDS = 3600


@dataclass(slots=True)
class StoredFile:
    """A file."""

    id: str
    account: str
    filename: str
    purpose: str
    content: bytes = field(repr=False)
    content_type: str
    created_at: int

    def document(self) -> dict[str, object]:
        """Return it as the API shows it."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.content),
            "created_at": self.created_at,
            "expires_at": None,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
        }


@dataclass(slots=True)
class Upload:
    """A file that comes in parts.

    Attributes:
        status: `pending`, `completed` or `cancelled`.
        parts: their bytes by id.
    """

    id: str
    account: str
    filename: str
    purpose: str
    size: int
    content_type: str
    created_at: int
    status: str = "pending"
    parts: dict[str, bytes] = field(default_factory=dict, repr=False)

    def document(self, file: StoredFile | None = None) -> dict[str, object]:
        """Return it as the API shows it; `file` is what it has become."""
        return {
            "id": self.id,
            "object": "upload",
            "bytes": self.size,
            "created_at": self.created_at,
            "expires_at": self.created_at + _UPLOAD_SECONDS,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": self.status,
            "file": file.document() if file else None,
        }


class FileStore:
    """The files and uploads of all accounts; what is oldest goes first when there are too many.

    Args:
        run: what ids begin with, so that two mocks never make the same one.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._numbers = count(1)
        self._files: OrderedDict[str, StoredFile] = OrderedDict()
        self._uploads: OrderedDict[str, Upload] = OrderedDict()

    def new_id(self, prefix: str) -> str:
        """Return an id that nothing else has: `file-…`, `upload_…` or `part_…`."""
        return f"{prefix}{self._run}{next(self._numbers):08x}"

    def add(self, file: StoredFile) -> None:
        """Keep a file."""
        self._files[file.id] = file
        self._bound()

    def file(self, account: str, name: str) -> StoredFile | None:
        """Return a file of this account; None if it has none of that id."""
        found = self._files.get(name)
        return found if found is not None and found.account == account else None

    def files(self, account: str) -> Sequence[StoredFile]:
        """Return the files of an account, the newest first."""
        return [file for file in reversed(self._files.values()) if file.account == account]

    def remove(self, file: StoredFile) -> None:
        """Forget a file."""
        del self._files[file.id]

    def begin(self, upload: Upload) -> None:
        """Keep an upload."""
        self._uploads[upload.id] = upload
        self._bound()

    def upload(self, account: str, name: str) -> Upload | None:
        """Return an upload of this account; None if it has none of that id."""
        found = self._uploads.get(name)
        return found if found is not None and found.account == account else None

    def add_part(self, upload: Upload, content: bytes) -> str:
        """Keep a part of an upload; returns its id."""
        part = self.new_id("part_")
        upload.parts[part] = content
        self._bound()
        return part

    @property
    def _bytes(self) -> int:
        files = sum(len(file.content) for file in self._files.values())
        return files + sum(len(p) for u in self._uploads.values() for p in u.parts.values())

    def _bound(self) -> None:
        while len(self._uploads) > _MOST_FILES:
            self._uploads.popitem(last=False)
        while self._files and (len(self._files) > _MOST_FILES or self._bytes > _MOST_BYTES):
            self._files.popitem(last=False)
        while self._uploads and self._bytes > _MOST_BYTES:
            self._uploads.popitem(last=False)
