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
from toxtrail.config.scorer_kinds.base import HeadCombination
from toxtrail.errors import BackendError

T = TypeVar("T")

ROUNDING = 1e-9
"""Maximum excess of the sum of probabilities over 1."""


def split_windows(tokens: Sequence[T], size: int, overlap: int) -> list[Sequence[T]]:
    """Split into windows of at most `size` tokens, each sharing `overlap` with the one before; at
    least one."""
    if len(tokens) <= size:
        return [tokens]
    step = size - overlap
    starts = range(0, len(tokens) - overlap, step)
    return [tokens[start : start + size] for start in starts]


def with_combination(
    heads: Sequence[str], values: NDArray[np.float64], combination: HeadCombination | None
) -> tuple[Sequence[str], NDArray[np.float64]]:
    """Append the combination to the heads of each window.

    Args:
        values: (window, head), in [0, 1].
    """
    if combination is None:
        return heads, values
    parts = values[:, [heads.index(name) for name in combination.parts]]
    combined = _combined(combination.rule, parts)
    if combined.max(initial=0.0) <= 1 + ROUNDING:
        combined = np.minimum(combined, 1.0)
    return [*heads, combination.label], np.column_stack([values, combined])


def _combined(rule: str, parts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Combine heads.

    Args:
        parts: (window, head).
    """
    if rule == "any":
        result = 1 - (1 - parts).prod(axis=1)
    elif rule == "one_minus":
        result = 1 - parts[:, 0]
    else:
        result = parts.max(axis=1) if rule == "max" else parts.sum(axis=1)
    combined: NDArray[np.float64] = result
    return combined


def max_over_windows(
    heads: Sequence[str],
    values: NDArray[np.float64],
    owner: Sequence[int],
    texts: int,
    combination: HeadCombination | None = None,
) -> list[ScoredText]:
    """Take each head's maximum over the windows of a text.

    Args:
        values: (window, head), in [0, 1].
        owner: (window,): index of the text that the window belongs to, in 0..texts-1.
        combination: a further head, computed in each window.

    Raises:
        BackendError: a value is not finite.
    """
    heads, values = with_combination(heads, values, combination)
    if not np.isfinite(values).all():
        raise BackendError("The scorer returned a value that is not finite. Nothing was saved.")
    best = np.full((texts, len(heads)), -np.inf)
    np.maximum.at(best, np.asarray(owner), values)
    counts = np.bincount(owner, minlength=texts)
    return [
        ScoredText(dict(zip(heads, map(float, row), strict=True)), int(count))
        for row, count in zip(best, counts, strict=True)
    ]
