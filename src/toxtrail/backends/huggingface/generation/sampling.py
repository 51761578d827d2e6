"""Sample next tokens: a row's sample depends only on its own seed and step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

_MASK = (1 << 64) - 1
_TINY = np.finfo(np.float64).tiny


class SeededSampler:
    """Logits processor that gives the sampled token the largest score.

    Greedy search over the returned scores then samples, and the rows of a batch do not affect each
    other's random numbers.
    """

    def __init__(
        self, prompt_width: int, seeds: Sequence[int], temperature: float, top_p: float
    ) -> None:
        self._prompt_width = prompt_width
        self._seeds = seeds
        self._temperature = temperature
        self._top_p = top_p
        self.failed: dict[int, int] = {}
        """Row -> the first step (from 0) at which its logits are unusable."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Convert (row, vocabulary) logits to scores of the same shape."""
        step = input_ids.shape[1] - self._prompt_width
        scores = self._usable(scores, step)
        return scores if self._temperature == 0 else self._sampled(scores, step)

    def _usable(self, scores: torch.Tensor, step: int) -> torch.Tensor:
        """Record rows with NaN, +inf or no finite value, and replace them with zeros."""
        import torch

        unusable = torch.isnan(scores).any(-1) | ~torch.isfinite(scores.amax(-1))
        for row in torch.nonzero(unusable).flatten().tolist():
            self.failed.setdefault(row, step)
        return torch.where(unusable[:, None], torch.zeros_like(scores), scores)

    def _sampled(self, scores: torch.Tensor, step: int) -> torch.Tensor:
        import torch

        steps = [step] * len(self._seeds)
        chosen = gumbel_max_sample(scores, self._seeds, steps, self._temperature, self._top_p)[
            :, None
        ]
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen.to(scores.device), 0.0)


def sample_next_tokens(
    logits: torch.Tensor,
    seeds: Sequence[int],
    steps: Sequence[int],
    temperature: float,
    top_p: float,
) -> tuple[list[int], list[bool]]:
    """Return the next token of each row, and whether its logits are usable (no NaN, no +inf, some
    finite value); a row with unusable logits has token 0.

    Args:
        logits: (row, vocabulary).
        seeds, steps: of each row; the sample depends only on these and the row.
    """
    import torch

    best, tokens = logits.max(-1)  # NaN wins
    usable = torch.isfinite(best)
    if temperature > 0:
        clean = torch.where(usable[:, None], logits, torch.zeros_like(logits))
        tokens = gumbel_max_sample(clean, seeds, steps, temperature, top_p)
    return torch.where(usable, tokens.to(usable.device), 0).tolist(), usable.tolist()


def gumbel_max_sample(
    logits: torch.Tensor,
    seeds: Sequence[int],
    steps: Sequence[int],
    temperature: float,
    top_p: float,
) -> torch.Tensor:
    """Sample (row,) tokens from softmax(logits / temperature), on the CPU.

    A sample is the argmax of logits / temperature plus Gumbel noise (Gumbel 1954; Maddison et al.
    2014, arXiv:1411.0030): a base and its fine-tune then sample equal tokens from equal logits.
    """
    import torch

    scaled = logits.to("cpu", torch.float64) / temperature
    if top_p < 1:
        scaled = top_p_filter(scaled, top_p)
    rows = zip(scaled.numpy(), seeds, steps, strict=True)
    return torch.tensor([_sample_row(row, seed, step) for row, seed, step in rows])


def _sample_row(row: NDArray[np.float64], seed: int, step: int) -> int:
    """Return the argmax of (vocabulary,) logits plus noise; logits of -inf need no noise."""
    finite = np.flatnonzero(row > -np.inf)
    if len(finite) == len(row):
        return int(np.argmax(row + gumbel(uniform(seed, step, len(row)))))
    return int(finite[np.argmax(row[finite] + gumbel(uniform(seed, step, len(row))[finite]))])


def uniform(seed: int, step: int, size: int) -> NDArray[np.float64]:
    """Return uniform numbers in [0, 1) of a counter-based stream, keyed by seed and step."""
    key = np.array([seed & _MASK, step], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(size)


def gumbel(uniform: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert uniform numbers to standard Gumbel noise."""
    noise: NDArray[np.float64] = -np.log(-np.log(np.maximum(uniform, _TINY)))
    return noise


def top_p_filter(logits: torch.Tensor, top_p: float, most: int = 1024) -> torch.Tensor:
    """Keep the smallest set of most probable tokens whose probabilities sum to at least top_p; of
    equal ones the first.

    Args:
        logits: (row, vocabulary).
        most: tokens examined before all are sorted, which few rows need. Our choice.

    Source: Holtzman et al. 2020, arXiv:1904.09751.
    """
    import torch

    probability = logits.softmax(-1)
    top = probability.topk(min(most, logits.shape[-1])).values
    count = (top.cumsum(-1) - top < top_p).sum(-1, keepdim=True)
    keep = probability >= top.gather(1, count - 1)
    unclear = (count[:, 0] == top.shape[1]) | (keep.sum(-1) != count[:, 0])
    for row in torch.nonzero(unclear).flatten().tolist():
        keep[row] = _sorted_mask(probability[row], top_p)
    return logits.masked_fill(~keep, -torch.inf)


def _sorted_mask(probability: torch.Tensor, top_p: float) -> torch.Tensor:
    """Return the (vocabulary,) mask of tokens to keep, by sorting all of them."""
    import torch

    ordered, order = probability.sort(descending=True, stable=True)
    return torch.zeros_like(order, dtype=torch.bool).scatter(
        0, order, ordered.cumsum(-1) - ordered < top_p
    )
