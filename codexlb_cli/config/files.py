"""Files that are replaced as a whole: one writer at a time, and never half a file on disk."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from codexlb_cli.errors import ConfigError

LOCK_SECONDS = 10.0


@contextmanager
def locked(lock_file: Path, patience_seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold a lock among the processes of this program.

    Raises:
        ConfigError: another process holds it for longer than that, or it cannot be made.
    """
    try:
        lock_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(lock_file, timeout=patience_seconds)
        lock.acquire()
    except Timeout:
        raise ConfigError(f"another process keeps `{lock_file}` locked") from None
    except OSError as exc:
        raise cannot_write(lock_file, exc) from None
    try:
        yield
    finally:
        lock.release()


def replace_file(
    file: Path, content: bytes, *, mode: int, check: Callable[[], None] | None = None
) -> None:
    """Put `content` in the place of `file` in one step.

    Args:
        file: the file itself, not a link to it.
        content: all of it.
        mode: the permissions of the new file.
        check: called at the very last moment; what it raises keeps `file` as it is.

    Raises:
        OSError: it cannot be written; `file` is as it was.
    """
    if file.exists() and not file.is_file():
        raise OSError(errno.EINVAL, "not a regular file")  # a device would be replaced, too
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as temporary:
            temporary.write(content)
            temporary.flush()
            os.fsync(temporary.fileno())
        Path(name).chmod(mode)
        if check is not None:
            check()
        Path(name).replace(file)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
    _keep_name(file.parent)


def _keep_name(folder: Path) -> None:
    """Make sure that the new name survives a power failure; not every file system can tell."""
    if os.name != "posix":
        return
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def cannot_write(file: Path, exc: OSError) -> ConfigError:
    """Return the error that says that `file` cannot be written."""
    reason = (exc.strerror or type(exc).__name__).lower()
    return ConfigError(f"cannot write `{file}`: {reason}")
