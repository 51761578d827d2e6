"""Every error raised on purpose, sorted by what the reader must do about it."""

from __future__ import annotations

import difflib
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


def nearest(name: str, valid: Iterable[str]) -> str:
    """` Did you mean "x"?`, or the valid names if none is near."""
    names = list(dict.fromkeys(valid))
    lowered = {one.lower(): one for one in names}
    if close := difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6):
        return f' Did you mean "{lowered[close[0]]}"?'
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f" There is: {shown or 'none yet'}."
