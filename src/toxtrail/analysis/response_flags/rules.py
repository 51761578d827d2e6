"""Interface of the module of a response flag."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple, Protocol, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from toxtrail.analysis.response_flags.registry import RESPONSE_FLAGS
from toxtrail.stats.rates import Ints

Flags = NDArray[np.bool_]


class ResponseColumns(NamedTuple):
    """Texts of generation rows, and their tokens."""

    texts: pa.ChunkedArray
    tokens: Ints
    """(token,): tokens of all rows, concatenated."""
    ends: Ints
    """(row + 1,): start of each row's tokens."""
    written: Flags
    """(row,): whether it is a continuation with a visible character."""
    may_be_degenerate: Flags
    """(row,): see `text_screening.screened`."""
    languages: Sequence[str | None]
    """(row,): language of its prompt as a BCP 47 tag; None if it is not declared."""


class FlagModule(Protocol):
    """Interface of a flag's module."""

    def applies(self, text: str, token_ids: Sequence[int], language: str | None) -> bool:
        """Return whether a text that is not blank has the flag.

        Args:
            token_ids: its own tokens, without the end-of-sequence token.
            language: language of its prompt as a BCP 47 tag; None if it is not declared.
        """
        ...

    def may_apply(self, responses: ResponseColumns) -> Flags:
        """Return (row,): false if `applies` is certainly false, so that it need not be called. A
        fast rule returns `responses.written`."""
        ...


def flag_modules() -> dict[str, FlagModule]:
    """Return flag -> the module of its rule, for the flags that have one."""
    return {
        name: cast(FlagModule, import_module(flag.module))
        for name, flag in RESPONSE_FLAGS.items()
        if flag.module is not None
    }
