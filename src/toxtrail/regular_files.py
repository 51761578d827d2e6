"""Opening files that somebody else may have put there: regular files only, inside one folder.

A named pipe in place of a table would be waited for without end, a device may never end, and a name
such as `../../etc/passwd` leads out of the experiment. Every reader of an experiment opens its
files here, or asks here before a library opens them.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from io import BufferedReader
from pathlib import Path, PureWindowsPath

from toxtrail.errors import OF_THE_FILE, DataError

TEXT_LIMIT = 1 << 30
"""Bytes of a file that is read at once: JSON, YAML, HTML. Ours have megabytes."""

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_DVC_OBJECT = re.compile(r"files/md5/[0-9a-f]{2}/[0-9a-f]{30}(\.dir)?$")


def irregular(path: Path) -> str | None:
    """What a path is if it is neither a file nor a folder; None if it is one, or is missing."""
    try:
        return _KINDS.get(stat.S_IFMT(path.stat().st_mode))
    except (OSError, ValueError):
        return None


def refuse_irregular(path: Path) -> None:
    """For libraries that open a file by its name.

    Raises:
        DataError: it is a named pipe, a socket or a device.
    """
    if kind := irregular(path):
        raise DataError(f"{path} is {kind}, not a file. It was not opened. Delete it.")


def open_regular(path: Path) -> BufferedReader:
    """The file, to be read.

    Raises:
        DataError: it is a named pipe, a socket or a device.
    """
    refuse_irregular(path)
    descriptor = os.open(path, _flags())
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise DataError(f"{path} is not a regular file. Delete it.")  # replaced in between


def read_bytes(path: Path, limit: int | None = TEXT_LIMIT) -> bytes:
    """Read the complete content.

    Args:
        limit: bytes of the largest file that is read; None: whatever fits into the memory.

    Raises:
        DataError: it is not a regular file, or larger than the limit.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if limit is not None and size > limit:
            most = f"{limit >> 20} MiB"
            raise DataError(f"{path} has {size:,} bytes; at most {most} are read as one text.")
        return file.read()


def read_text(path: Path, errors: str = "strict") -> str:
    """Read the complete content as UTF-8, its ends of line as they are.

    Raises:
        DataError: it is not a regular file, or larger than TEXT_LIMIT.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_bytes(path).decode("utf-8", errors)


def status(path: Path) -> os.stat_result | None:
    """What is there, links followed; None if nothing is.

    Raises:
        OSError: that cannot be found out, such as in a folder of somebody else.
    """
    try:
        return path.stat()
    except ValueError:  # no name that a file can have
        return None
    except OSError as error:
        if error.errno in OF_THE_FILE:
            return None
        raise


def is_file(path: Path) -> bool:
    """Whether a regular file is there, links followed. See `status`."""
    status_result = status(path)
    return status_result is not None and stat.S_ISREG(status_result.st_mode)


def below(folder: Path) -> list[Path]:
    """Everything below a folder, sorted; links to folders are not followed.

    Raises:
        OSError: a folder cannot be read, so that something may be missing in the list.
    """
    walk = os.walk(folder, onerror=_refuse)
    return sorted(Path(place, name) for place, inner, names in walk for name in (*inner, *names))


def files_below(folder: Path) -> list[Path]:
    """The regular files of `below`."""
    return [path for path in below(folder) if is_file(path)]


def _refuse(error: OSError) -> None:
    """os.walk would leave out what it cannot read."""
    if error.errno not in OF_THE_FILE:
        raise error


def leads_out(name: str) -> bool:
    """Whether a recorded name could be of a file outside of the folder that it is relative to: an
    absolute path, `..`, or a drive of Windows."""
    windows = PureWindowsPath(name)
    return bool(windows.drive or windows.root or ".." in windows.parts or "\0" in name or not name)


def link_target(path: Path) -> str | None:
    """Where a symbolic link points, unless it is one that DVC made to an object of its cache."""
    try:
        if not path.is_symlink():
            return None
    except OSError:  # nobody may look: whoever reads it is told so
        return None
    target = os.path.realpath(path)
    return None if _DVC_OBJECT.search(Path(target).as_posix()) else target


def _flags() -> int:
    """Without waiting for the other end of a pipe; Windows has neither flag."""
    return os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
