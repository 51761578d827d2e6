"""Continuations as token ids: their ends, their differences, and near ties."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Written(NamedTuple):
    """One continuation."""

    tokens: tuple[int, ...]
    """Without the token that ended it."""
    ended: bool
    """Whether the model ended it; else it was cut at the number of new tokens."""

    @property
    def drawn(self) -> int:
        """New tokens, the one that ended it counted."""
        return len(self.tokens) + self.ended


def until_stop(tokens: Sequence[int], stops: Sequence[int]) -> Written:
    """Return a row of `generate` up to the first stop token; the rest is padding."""
    end = next((i for i, token in enumerate(tokens) if token in stops), None)
    return Written(tuple(tokens[:end]), end is not None)


def share_equal(first: Sequence[Written], second: Sequence[Written]) -> float:
    """Return the share of rows with the same tokens and the same end."""
    same = [one == other for one, other in zip(first, second, strict=True)]
    return sum(same) / len(same)


def first_difference(one: Written, other: Written) -> int | None:
    """Return the index, from 0, of the first new token that differs (an end counts as one); None if
    equal."""
    if one == other:
        return None
    pairs = zip(one.tokens, other.tokens, strict=False)
    unlike = (i for i, (a, b) in enumerate(pairs) if a != b)
    return next(unlike, min(len(one.tokens), len(other.tokens)))


def near_ties(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    expected: Sequence[Written],
    found: Sequence[Written],
    tolerance: float,
) -> list[dict[str, Any]]:
    """Return every row that differs, with the margin between the two best tokens at the first
    difference.

    Args:
        prompts: token ids.
        tolerance: in standard deviations of the logits; a smaller margin may be decided by
            rounding.
    """
    import torch

    rows = []
    for row, (one, other) in enumerate(zip(expected, found, strict=True)):
        at = first_difference(one, other)
        if at is None:
            continue
        ids = torch.tensor([[*prompts[row], *one.tokens[:at]]], device=model.device)
        with torch.inference_mode():
            logits = model(input_ids=ids, use_cache=False).logits[0, -1].float()
        best, second = logits.topk(2).values.tolist()
        deviation = float(logits.std())
        tie = best - second <= tolerance * deviation
        rows.append(
            {"row": row, "at": at, "margin": best - second, "logit_sd": deviation, "tie": tie}
        )
    return rows
