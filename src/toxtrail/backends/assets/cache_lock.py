"""Lock of the shared asset cache: one process at a time writes a file; it may be read-only."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from toxtrail.errors import BackendError

if TYPE_CHECKING:
    from filelock import BaseFileLock

NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time create `path`; the others wait and then use it.

    A read-only cache cannot be locked and needs no lock: existing files are used, and only an
    attempt to write is an error.

    Raises:
        BackendError: a file had to be written to the cache and could not be.
    """
    lock = _acquire_lock(path)
    try:
        yield
    except OSError as error:
        if error.errno not in NOT_WRITABLE:
            raise
        raise BackendError(
            f"Cannot write to the asset cache: {error.filename or path.parent}: {error.strerror}. "
            "A file is missing there. Set TOXTRAIL_CACHE to a writable folder, or have a user "
            "with write permission fill this one (`toxtrail pin`)."
        ) from error
    finally:
        if lock is not None:
            lock.release()


def _acquire_lock(path: Path) -> BaseFileLock | None:
    """Acquire the lock; None where its file cannot be written."""
    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(path.name + ".lock"))
        lock.acquire()
    except OSError as error:
        if error.errno not in NOT_WRITABLE:
            raise
        return None
    return lock
