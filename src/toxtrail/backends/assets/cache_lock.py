"""The asset cache is shared: one process at a time makes a file of it, and it may be read-only."""

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
    """Only one process at a time makes `path`; the others wait and then find it made.

    Where nothing can be written, a lock can neither be had nor is it needed: what lies there is
    used, and only the attempt to write is an error.

    Raises:
        BackendError: something had to be written to the cache and could not be.
    """
    lock = _lock(path)
    try:
        yield
    except OSError as error:
        if error.errno not in NOT_WRITABLE:
            raise
        raise BackendError(
            f"The asset cache cannot be used: {error.filename or path.parent}: {error.strerror}. "
            "Something is missing there and this user may not write it. Set TOXTRAIL_CACHE to a "
            "folder that can be written, or let somebody fill this one (`toxtrail pin`)."
        ) from error
    finally:
        if lock is not None:
            lock.release()


def _lock(path: Path) -> BaseFileLock | None:
    """The lock, taken; None where its file cannot be written."""
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
