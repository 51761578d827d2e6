"""Every error raised on purpose, sorted by what the reader must do about it."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class ToxtrailError(Exception):
    """A problem that a user can act on: printed as one message, without a traceback."""


class ConfigError(ToxtrailError):
    """params.yaml (or an option) is wrong: edit it."""


class DataError(ToxtrailError):
    """A file of the pipeline is missing, foreign or damaged: re-run the stage that makes it."""


class BackendError(ToxtrailError):
    """A model, scorer, asset source or tracker misbehaved: the message says which and how."""


class InferenceError(ToxtrailError):
    """A posterior cannot be trusted: nothing was written, do not use it."""


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_ROOM_TEXTS = ("no space left on device", "database or disk is full", "disk quota exceeded")
"""As libraries say it that raise errors of their own: safetensors, SQLite."""


def no_room(error: BaseException | None) -> bool:
    """Whether something could not be written for lack of space: an error, or what it comes from."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return True
        if any(text in str(error).lower() for text in NO_ROOM_TEXTS):
            return True
        error = error.__cause__ or error.__context__
    return False


def nearest(name: str, valid: Iterable[str]) -> str:
    """` Did you mean "x"?`, or the valid names if none is near."""
    names = list(dict.fromkeys(valid))
    lowered = {one.lower(): one for one in names}
    if close := difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6):
        return f' Did you mean "{lowered[close[0]]}"?'
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f" There is: {shown or 'none yet'}."
