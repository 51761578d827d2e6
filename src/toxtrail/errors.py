"""Errors raised on purpose, classified by how the user can fix them."""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable

from toxtrail.redaction import redacted


class ToxtrailError(Exception):
    """Problem that a user can fix; printed as one message, without a traceback.

    Secrets are removed from its text at construction: it may be recorded or become part of another
    message.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(redacted(message))


class ConfigError(ToxtrailError):
    """Invalid params.yaml or option: edit it."""


class DataError(ToxtrailError):
    """Missing, foreign or damaged pipeline file: re-run the stage that creates it."""


class OtherVersionError(DataError):
    """Pipeline file of another version of toxtrail, which this one does not read."""


class BackendError(ToxtrailError):
    """Failure of a model, scorer, asset source or tracker, named in the message."""


class UnreadableError(BackendError):
    """Existing content that could not be read, so nothing is known about it."""


class InferenceError(ToxtrailError):
    """Unreliable posterior: nothing was written."""


DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_ROOM_TEXTS = ("no space left on device", "database or disk is full", "disk quota exceeded")
"""Messages for a full disk of libraries that raise their own errors: safetensors, SQLite."""


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether an error or one of its causes is a lack of disk space."""
    visited = set[int]()
    while error is not None and id(error) not in visited:
        visited.add(id(error))
        if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
            return True
        if any(text in str(error).lower() for text in NO_ROOM_TEXTS):
            return True
        error = error.__cause__ or error.__context__
    return False


OWNER = "Ask its owner for access, or work on a copy of your own (`git clone`, `dvc pull`)."
SYSTEM_ERRORS = {
    errno.EACCES: f"permission denied. {OWNER}",
    errno.EPERM: f"permission denied. {OWNER}",
    errno.EROFS: "it is on a read-only file system. Work on a copy that can be written to.",
    errno.ENOENT: "it does not exist (any more).",
    errno.EEXIST: "it exists already.",
    errno.EISDIR: "it is a folder; a file is expected.",
    errno.ENOTDIR: "a part of this path is a file; a folder is expected.",
    errno.ENAMETOOLONG: "the name is too long for the file system. Choose a shorter one.",
    errno.ELOOP: "its symbolic links form a cycle. Remove one of them.",
    errno.EMFILE: "too many files are open. Raise the limit (`ulimit -n`).",
    errno.ENFILE: "too many files are open on this machine.",
    errno.ETXTBSY: "a program is using it.",
    errno.EBUSY: "it is in use.",
    errno.EXDEV: "the two are on different file systems.",
    errno.EIO: "the disk reports an error. Check it, and restore the file from a copy.",
    errno.ESTALE: "the network file system has lost it. Mount it again.",
}
"""Error of the operating system -> meaning, and how to fix it."""


def system_problem(error: OSError) -> str:
    """Return one sentence on an error of the operating system, with the path."""
    message = SYSTEM_ERRORS.get(error.errno or 0, f"{error.strerror or type(error).__name__}.")
    paths = [
        os.fsdecode(p) for p in (error.filename, error.filename2) if isinstance(p, str | bytes)
    ]
    if not paths:
        return f"The operating system refused: {error.strerror or error}."
    return f"{' -> '.join(paths)}: {message}"


NO_MEMORY_TEXTS = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "can't start new thread",
    "could not create a primitive",
    "could not create a memory object",
)
"""Messages for insufficient memory of libraries that raise RuntimeErrors: torch, oneDNN,
threading."""


def _no_memory(error: BaseException) -> bool:
    message = str(error).lower() if isinstance(error, RuntimeError) else ""
    refused = isinstance(error, OSError) and error.errno in (errno.ENOMEM, errno.EAGAIN)
    return isinstance(error, MemoryError) or refused or any(t in message for t in NO_MEMORY_TEXTS)


OF_THE_FILE = (
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EEXIST,
    errno.EINVAL, errno.ENXIO, errno.EOVERFLOW,
)  # fmt: skip
"""Errors of the operating system caused by the path itself: it is missing, a folder or a link
cycle, or the content of a file makes a library seek beyond its end."""


def is_of_the_system(error: BaseException) -> bool:
    """Return whether an error concerns the machine (memory, disk, permissions) and not the content
    of the file: such a file must not be reported as damaged."""
    refused = isinstance(error, OSError) and error.errno is not None
    of_the_file = isinstance(error, OSError) and error.errno in OF_THE_FILE
    return is_disk_full(error) or _no_memory(error) or (refused and not of_the_file)


def why_unread(error: BaseException | None) -> str | None:
    """Return why existing content could not be read; None if it was read and is invalid, or is
    missing.

    Considers the error and its causes.
    """
    visited = set[int]()
    while error is not None and id(error) not in visited:
        visited.add(id(error))
        if isinstance(error, UnreadableError | OtherVersionError):
            return str(error)
        foreign = isinstance(error, Exception) and not isinstance(error, ToxtrailError)
        if foreign and is_of_the_system(error):
            return problem_of(error) or str(error)
        error = error.__cause__ or error.__context__
    return None


def problem_of(error: BaseException) -> str | None:
    """Return the message for a user who can fix the problem; None for a bug."""
    if isinstance(error, ToxtrailError):
        return str(error)
    if is_disk_full(error):
        return (
            f"Disk full ({error}). Finished work is kept: free disk "
            "space and run the same command again."
        )
    if _no_memory(error):
        return (
            "Out of memory, or the limit of threads is reached. Finished work is "
            "kept: close other programs, raise the limit (`ulimit -a`), or lower the batch sizes "
            "and threads under `runtime` in params.yaml, and run the same command again."
        )
    if isinstance(error, OSError) and error.errno is not None:
        return system_problem(error)
    return None


def unknown_name(option: str, name: str, names: Iterable[str]) -> ConfigError:
    """Return the error for a value of an option that is none of the known names."""
    options = list(names)
    hint = did_you_mean(name, options)
    similar = hint if hint.startswith(" Did you mean") else ""
    return ConfigError(f'{option}: unknown name "{name}".{similar} Known: {", ".join(options)}.')


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Return ` Did you mean "x"?`, or the valid names if none is similar."""
    names = list(dict.fromkeys(valid))
    lowered = {one.lower(): one for one in names}
    if close := difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6):
        return f' Did you mean "{lowered[close[0]]}"?'
    listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f" There is: {listed or 'none yet'}."
