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

    A draw from softmax(logits / temperature) is the argmax of logits / temperature plus Gumbel
    noise (Gumbel 1954; Maddison et al. 2014, arXiv:1411.0030), so that greedy search over the
    returned scores samples, and batch mates cannot disturb each other's random numbers.
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

        logits = scores.to("cpu", torch.float64) / self._temperature
        if self._top_p < 1:
            logits = nucleus(logits, self._top_p)
        noise = np.stack([gumbel(seed, step, logits.shape[-1]) for seed in self._seeds])
        chosen = (logits + torch.from_numpy(noise)).argmax(-1, keepdim=True)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen.to(scores.device), 0.0)


def gumbel(seed: int, step: int, size: int) -> NDArray[np.float64]:
    """Standard Gumbel noise of one row at one step: a counter-based stream, keyed by both."""
    key = np.array([seed & _MASK, step], dtype=np.uint64)
    uniform = np.random.Generator(np.random.Philox(key=key)).random(size)
    noise: NDArray[np.float64] = -np.log(-np.log(np.maximum(uniform, _SMALLEST)))
    return noise


def nucleus(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keep the fewest most probable tokens whose probabilities sum to at least top_p.

    Args:
        logits: (row, vocabulary).

    Source: Holtzman et al. 2020, arXiv:1904.09751.
    """
    import torch

    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probability = ordered.softmax(-1)
    before = probability.cumsum(-1) - probability
    dropped = torch.zeros_like(logits, dtype=torch.bool).scatter(1, order, before >= top_p)
    return logits.masked_fill(dropped, -torch.inf)
