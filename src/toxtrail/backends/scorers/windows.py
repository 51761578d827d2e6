"""Split texts longer than a scorer's window into overlapping windows, and take the maximum score.

The rule is ours: a text is as toxic as its most toxic part. No text is truncated, and every score
records the number of windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from toxtrail.backends.protocols import ScoredText
from toxtrail.errors import BackendError

T = TypeVar("T")


def split_windows(tokens: Sequence[T], size: int, overlap: int) -> list[Sequence[T]]:
    """Split into windows of at most `size` tokens, each sharing `overlap` with the one before; at
    least one."""
    if len(tokens) <= size:
        return [tokens]
    step = size - overlap
    starts = range(0, len(tokens) - overlap, step)
    return [tokens[start : start + size] for start in starts]


def max_over_windows(
    heads: Sequence[str], values: NDArray[np.float64], owner: Sequence[int], texts: int
) -> list[ScoredText]:
    """Take each head's maximum over the windows of a text.

    Args:
        values: (window, head), in [0, 1].
        owner: (window,): index of the text that the window belongs to, in 0..texts-1.

    Raises:
        BackendError: a value is not finite.
    """
    if not np.isfinite(values).all():
        raise BackendError("The scorer returned a value that is not finite. Nothing was saved.")
    best = np.full((texts, len(heads)), -np.inf)
    np.maximum.at(best, np.asarray(owner), values)
    counts = np.bincount(owner, minlength=texts)
    return [
        ScoredText(dict(zip(heads, map(float, row), strict=True)), int(count))
        for row, count in zip(best, counts, strict=True)
    ]
