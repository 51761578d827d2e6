"""Safe opening of untrusted files: regular files only, inside one folder.

Opening a named pipe in place of a table would block forever, a device may be endless, and a name
such as `../../etc/passwd` leads out of the experiment. Every reader of an experiment opens its
files with this module, or checks them with it before a library opens them.
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
"""Maximum size in bytes of a file that is read at once: JSON, YAML, HTML (toxtrail's have
megabytes)."""

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_DVC_OBJECT = re.compile(r"files/md5/[0-9a-f]{2}/[0-9a-f]{30}(\.dir)?$")


def irregular(path: Path) -> str | None:
    """Return the type of a path that is neither a file nor a folder; None if it is one, or is
    missing."""
    try:
        return _KINDS.get(stat.S_IFMT(path.stat().st_mode))
    except (OSError, ValueError):
        return None


def refuse_irregular(path: Path) -> None:
    """Check a path before a library opens it by name.

    Raises:
        DataError: it is a named pipe, a socket or a device.
    """
    if kind := irregular(path):
        raise DataError(f"{path} is {kind}, not a file. It was not opened. Delete it.")


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading.

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
        limit: maximum size in bytes; None for no limit.

    Raises:
        DataError: it is not a regular file, or larger than the limit.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if limit is not None and size > limit:
            most = f"{limit >> 20} MiB"
            raise DataError(f"{path} has {size:,} bytes; at most {most} can be read as text.")
        return file.read()


def read_text(path: Path, errors: str = "strict") -> str:
    """Read the complete content as UTF-8; line ends are unchanged.

    Raises:
        DataError: it is not a regular file, or larger than TEXT_LIMIT.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_bytes(path).decode("utf-8", errors)


def status(path: Path) -> os.stat_result | None:
    """Return the status of a path, following links; None if it does not exist.

    Raises:
        OSError: the status cannot be read, for example in another user's folder.
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
    """Return whether the path is a regular file, following links. See `status`."""
    status_result = status(path)
    return status_result is not None and stat.S_ISREG(status_result.st_mode)


def below(folder: Path) -> list[Path]:
    """Return everything below a folder, sorted; links to folders are not followed.

    Raises:
        OSError: a folder cannot be read, so the list would be incomplete.
    """
    walk = os.walk(folder, onerror=_refuse)
    return sorted(Path(place, name) for place, inner, names in walk for name in (*inner, *names))


def files_below(folder: Path) -> list[Path]:
    """Return the regular files of `below`."""
    return [path for path in below(folder) if is_file(path)]


def files_by_name(folder: Path) -> dict[str, Path]:
    """Name relative to the folder -> file, for the regular files of `below`."""
    return {path.relative_to(folder).as_posix(): path for path in files_below(folder)}


def _refuse(error: OSError) -> None:
    """Raise the error, since os.walk would skip unreadable folders."""
    if error.errno not in OF_THE_FILE:
        raise error


def name_in(root: Path, path: Path) -> str:
    """Return a path's name relative to a folder; the path itself if it is outside."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def leads_out(name: str) -> bool:
    """Return whether a recorded name could leave the folder that it is relative to: an absolute
    path, `..`, or a Windows drive."""
    windows = PureWindowsPath(name)
    return bool(windows.drive or windows.root or ".." in windows.parts or "\0" in name or not name)


def link_target(path: Path) -> str | None:
    """Return the target of a symbolic link, unless it is DVC's link to an object of its cache."""
    try:
        if not path.is_symlink():
            return None
    except OSError:  # no permission: reading it reports the error
        return None
    target = os.path.realpath(path)
    return None if _DVC_OBJECT.search(Path(target).as_posix()) else target


def _flags() -> int:
    """Return flags that prevent blocking on a pipe; Windows has neither flag."""
    return os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
