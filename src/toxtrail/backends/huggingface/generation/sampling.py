"""Which token comes next: a row's draw depends on its own seed and step alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

_MASK = (1 << 64) - 1
_SMALLEST = np.finfo(np.float64).tiny


class RowDraws:
    """A logits processor after which the largest score is the token to take.

    Greedy search over the returned scores then samples, and batch mates cannot disturb each other's
    random numbers.
    """

    def __init__(
        self, prompt_width: int, seeds: Sequence[int], temperature: float, top_p: float
    ) -> None:
        self._prompt_width = prompt_width
        self._seeds = seeds
        self._temperature = temperature
        self._top_p = top_p
        self.failed: dict[int, int] = {}
        """Row -> the first step (from 0) at which its logits could not be used."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """(row, vocabulary) logits -> scores of the same shape."""
        step = input_ids.shape[1] - self._prompt_width
        scores = self._usable(scores, step)
        return scores if self._temperature == 0 else self._drawn(scores, step)

    def _usable(self, scores: torch.Tensor, step: int) -> torch.Tensor:
        """Note rows with NaN, +inf or nothing to choose from, and make them harmless."""
        import torch

        broken = torch.isnan(scores).any(-1) | ~torch.isfinite(scores.amax(-1))
        for row in torch.nonzero(broken).flatten().tolist():
            self.failed.setdefault(row, step)
        return torch.where(broken[:, None], torch.zeros_like(scores), scores)

    def _drawn(self, scores: torch.Tensor, step: int) -> torch.Tensor:
        import torch

        steps = [step] * len(self._seeds)
        chosen = drawn(scores, self._seeds, steps, self._temperature, self._top_p)[:, None]
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen.to(scores.device), 0.0)


def choose(
    logits: torch.Tensor,
    seeds: Sequence[int],
    steps: Sequence[int],
    temperature: float,
    top_p: float,
) -> tuple[list[int], list[bool]]:
    """The next token of each row, and whether its logits could be used (no NaN, no +inf, something
    to choose from); a row that could not has token 0.

    Args:
        logits: (row, vocabulary).
        seeds, steps: of each row; what is drawn depends on these two and the row alone.
    """
    import torch

    best, tokens = logits.max(-1)  # NaN wins
    usable = torch.isfinite(best)
    if temperature > 0:
        clean = torch.where(usable[:, None], logits, torch.zeros_like(logits))
        tokens = drawn(clean, seeds, steps, temperature, top_p)
    return torch.where(usable, tokens.to(usable.device), 0).tolist(), usable.tolist()


def drawn(
    logits: torch.Tensor,
    seeds: Sequence[int],
    steps: Sequence[int],
    temperature: float,
    top_p: float,
) -> torch.Tensor:
    """(row,) tokens drawn from softmax(logits / temperature), on the CPU.

    A draw is the argmax of logits / temperature plus Gumbel noise (Gumbel 1954; Maddison et al.
    2014, arXiv:1411.0030): a base and its fine-tune then draw alike where they say alike.
    """
    import torch

    scaled = logits.to("cpu", torch.float64) / temperature
    if top_p < 1:
        scaled = nucleus(scaled, top_p)
    rows = zip(scaled.numpy(), seeds, steps, strict=True)
    return torch.tensor([_draw(row, seed, step) for row, seed, step in rows])


def _draw(row: NDArray[np.float64], seed: int, step: int) -> int:
    """The largest of (vocabulary,) logits and their noise; those at -inf need none."""
    kept = np.flatnonzero(row > -np.inf)
    if len(kept) == len(row):
        return int(np.argmax(row + gumbel(uniform(seed, step, len(row)))))
    return int(kept[np.argmax(row[kept] + gumbel(uniform(seed, step, len(row))[kept]))])


def uniform(seed: int, step: int, size: int) -> NDArray[np.float64]:
    """In [0, 1), of one row at one step: a counter-based stream, keyed by both."""
    key = np.array([seed & _MASK, step], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(size)


def gumbel(uniform: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard Gumbel noise from uniform numbers."""
    noise: NDArray[np.float64] = -np.log(-np.log(np.maximum(uniform, _SMALLEST)))
    return noise


def nucleus(logits: torch.Tensor, top_p: float, most: int = 1024) -> torch.Tensor:
    """Keep the fewest most probable tokens whose probabilities sum to at least top_p; of equal ones
    the first.

    Args:
        logits: (row, vocabulary).
        most: tokens looked at before all are sorted, which few rows need. Our choice.

    Source: Holtzman et al. 2020, arXiv:1904.09751.
    """
    import torch

    probability = logits.softmax(-1)
    top = probability.topk(min(most, logits.shape[-1])).values
    number = (top.cumsum(-1) - top < top_p).sum(-1, keepdim=True)
    kept = probability >= top.gather(1, number - 1)
    unclear = (number[:, 0] == top.shape[1]) | (kept.sum(-1) != number[:, 0])
    for row in torch.nonzero(unclear).flatten().tolist():
        kept[row] = _by_sorting(probability[row], top_p)
    return logits.masked_fill(~kept, -torch.inf)


def _by_sorting(probability: torch.Tensor, top_p: float) -> torch.Tensor:
    """(vocabulary,) what to keep, after all are sorted."""
    import torch

    ordered, order = probability.sort(descending=True, stable=True)
    return torch.zeros_like(order, dtype=torch.bool).scatter(
        0, order, ordered.cumsum(-1) - ordered < top_p
    )
