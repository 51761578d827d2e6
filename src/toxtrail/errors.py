"""Every error raised on purpose, sorted by what the reader must do about it."""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable

from toxtrail.redaction import redacted


class ToxtrailError(Exception):
    """A problem that a user can act on: printed as one message, without a traceback.

    Its text holds no secret from the start: it may be recorded, or be part of another message.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(redacted(message))


class ConfigError(ToxtrailError):
    """params.yaml (or an option) is wrong: edit it."""


class DataError(ToxtrailError):
    """A file of the pipeline is missing, foreign or damaged: re-run the stage that makes it."""


class BackendError(ToxtrailError):
    """A model, scorer, asset source or tracker misbehaved: the message says which and how."""


class UnreadableError(BackendError):
    """Something is there and could not be read: nothing is known of it."""


class InferenceError(ToxtrailError):
    """A posterior cannot be trusted: nothing was written, do not use it."""


DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_ROOM_TEXTS = ("no space left on device", "database or disk is full", "disk quota exceeded")
"""As libraries say it that raise errors of their own: safetensors, SQLite."""


def is_disk_full(error: BaseException | None) -> bool:
    """Whether something could not be written for lack of space: an error, or what it comes from."""
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
    errno.ELOOP: "its symbolic links lead to each other. Remove one of them.",
    errno.EMFILE: "too many files are open. Raise the limit (`ulimit -n`).",
    errno.ENFILE: "too many files are open on this machine.",
    errno.ETXTBSY: "a program is using it.",
    errno.EBUSY: "it is in use.",
    errno.EXDEV: "the two lie on different file systems.",
    errno.EIO: "the disk reports an error. Check it, and restore the file from a copy.",
    errno.ESTALE: "the network file system has lost it. Mount it again.",
}
"""What the operating system refuses -> what that means, and what to do."""


def system_problem(error: OSError) -> str:
    """One sentence on what the operating system refused, with the path."""
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
"""As libraries say it that raise RuntimeErrors: torch, oneDNN, Python's threading."""


def _no_memory(error: BaseException) -> bool:
    message = str(error).lower() if isinstance(error, RuntimeError) else ""
    refused = isinstance(error, OSError) and error.errno in (errno.ENOMEM, errno.EAGAIN)
    return isinstance(error, MemoryError) or refused or any(t in message for t in NO_MEMORY_TEXTS)


OF_THE_FILE = (
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EEXIST,
    errno.EINVAL, errno.ENXIO, errno.EOVERFLOW,
)  # fmt: skip
"""What the operating system refuses because of what is there: nothing, a folder, a circle of
links, or a file whose content leads a library to a place that it does not have."""


def is_of_the_system(error: BaseException) -> bool:
    """Whether an error says something of the machine (memory, disk, permissions) and nothing of the
    content of the file that was read: that file must not be called damaged."""
    refused = isinstance(error, OSError) and error.errno is not None
    of_the_file = isinstance(error, OSError) and error.errno in OF_THE_FILE
    return is_disk_full(error) or _no_memory(error) or (refused and not of_the_file)


def why_unread(error: BaseException | None) -> str | None:
    """Why something that is there could not be read; None if it was read, and is wrong, or is not
    there.

    The error itself may say so, or what it comes from.
    """
    visited = set[int]()
    while error is not None and id(error) not in visited:
        visited.add(id(error))
        if isinstance(error, UnreadableError):
            return str(error)
        foreign = isinstance(error, Exception) and not isinstance(error, ToxtrailError)
        if foreign and is_of_the_system(error):
            return problem_of(error) or str(error)
        error = error.__cause__ or error.__context__
    return None


def problem_of(error: BaseException) -> str | None:
    """The message to a person who can do something about it; None: it is a bug."""
    if isinstance(error, ToxtrailError):
        return str(error)
    if is_disk_full(error):
        return (
            f"There is no room to write any more ({error}). What was finished is kept: free some "
            "space and run the same command again."
        )
    if _no_memory(error):
        return (
            "There is not enough memory, or no further thread may be started. What was finished is "
            "kept: close other programs, raise the limit (`ulimit -a`), or lower the batch sizes "
            "and threads under `runtime` in params.yaml, and run the same command again."
        )
    if isinstance(error, OSError) and error.errno is not None:
        return system_problem(error)
    return None


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """` Did you mean "x"?`, or the valid names if none is near."""
    names = list(dict.fromkeys(valid))
    lowered = {one.lower(): one for one in names}
    if close := difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6):
        return f' Did you mean "{lowered[close[0]]}"?'
    listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f" There is: {listed or 'none yet'}."
