"""Atomic writing of files and folders.

A temporary file is created beside its target, in a folder named `.draft-<process>-...`, so that the
rename is within one file system regardless of mounts and links above. Leftovers of a killed process
are deleted by the next process that writes the same target.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = ".draft-"


@contextmanager
def file(target: Path) -> Iterator[Path]:
    """Yield a temporary file that is renamed to `target` if the block succeeds."""
    with _temporary_folder(target) as place:
        draft = place / target.name
        yield draft
        _to_disk(draft)
        draft.replace(target)


@contextmanager
def folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that is renamed to `target` if the block succeeds.

    An existing folder is exchanged atomically where the system supports it.
    """
    with _temporary_folder(target) as place:
        draft = place / target.name
        draft.mkdir()
        yield draft
        for path in draft.rglob("*"):
            if path.is_file():
                _to_disk(path)
        if not _is_there(target):
            draft.replace(target)
        elif not _exchanged(draft, target):
            _replaced(draft, target, place / "replaced")


def require_room(folder: Path, size: int) -> None:
    """Check for disk space before a library writes that would abort the process on a full disk.

    Args:
        size: bytes.

    Raises:
        OSError: too little space (ENOSPC, EDQUOT), or the file would be too large (EFBIG).
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, max(size, 1))
        elif shutil.disk_usage(folder).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


@contextmanager
def _temporary_folder(target: Path) -> Iterator[Path]:
    _sweep(target)
    prefix = f"{PREFIX}{os.getpid()}-{target.name}-"
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=prefix))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sweep(target: Path) -> None:
    """Delete temporary files of this target whose process has ended."""
    import psutil

    for leftover in target.parent.glob(f"{PREFIX}*"):
        process, _, rest = leftover.name.removeprefix(PREFIX).partition("-")
        # mkdtemp adds eight characters that hold no hyphen
        same = rest.rpartition("-")[0] == target.name
        if same and process.isdecimal() and not psutil.pid_exists(int(process)):
            shutil.rmtree(leftover, ignore_errors=True)


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _replaced(draft: Path, target: Path, aside: Path) -> None:
    """Replace a folder by two renames; the old folder is restored if the second rename fails."""
    target.replace(aside)
    try:
        draft.replace(target)
    except OSError:
        aside.replace(target)
        raise


def _exchanged(left: Path, right: Path) -> bool:
    """Exchange the names of two paths atomically; return whether that succeeded.

    Linux: renameat2(2) with RENAME_EXCHANGE; macOS: renamex_np(2) with RENAME_SWAP. Some file
    systems do not support it.
    """
    swap = 2
    names = (os.fsencode(left), os.fsencode(right))
    library = ctypes.CDLL(None)
    if sys.platform == "linux" and hasattr(library, "renameat2"):
        current_folder = -100  # AT_FDCWD: relative to the current folder
        return bool(
            library.renameat2(current_folder, names[0], current_folder, names[1], swap) == 0
        )
    if sys.platform == "darwin" and hasattr(library, "renamex_np"):
        return bool(library.renamex_np(names[0], names[1], swap) == 0)
    return False
