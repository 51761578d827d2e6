"""Score with a guard model: a causal language model that answers a fixed question about a text.

The score is read from the logits of the first token of the answer, after one pass over the input:
the softmax over the tokens that the configuration names. Nothing is sampled or decoded, so a score
is a continuous number and the same in every run. The probability of all other tokens is kept with
the score: a model that wants to answer something else has given no score.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from toxtrail.backends.compute.onednn_linear import OneDnnLinears
from toxtrail.backends.protocols import ScoredText
from toxtrail.backends.scorers.guard_prompt import GuardInput, GuardPrompt, RefusalPrompt
from toxtrail.backends.scorers.sequence import (
    STRIDE,
    TOLERANCE,
    batch_multiple,
    length_batches,
    padded_length,
)
from toxtrail.backends.scorers.windows import max_over_windows
from toxtrail.config.scorer_kinds.base import HeadCombination
from toxtrail.errors import BackendError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OTHER_ANSWER = "the guard gives another answer than those named with probability {:.3f}"


class NoAnswer(NamedTuple):
    """Why a window has no answer."""

    reason: str
    is_temporary: bool


class WindowAnswers(NamedTuple):
    """Answers to windows of texts."""

    values: NDArray[np.float64]
    """(window, answer and `other` last)."""
    missing: dict[int, NoAnswer]
    """Windows without an answer; their values are not used."""


def score_in_windows(
    prompt: GuardPrompt,
    texts: Sequence[str],
    prompts: Sequence[str] | None,
    answer: Callable[[Sequence[GuardInput]], WindowAnswers],
    max_other: float,
    combination: HeadCombination | None,
) -> list[ScoredText]:
    """Score each response, in order; a response that does not fit is scored in windows: each
    answer's largest share over the windows, and the largest share of other tokens.

    Args:
        answer: computes the answers to windows.
        max_other: largest probability of tokens that no answer names.
    """
    inputs = prompt.inputs(texts, prompts)
    answers = answer(inputs)
    windows: list[list[int]] = [[] for _ in texts]
    for i, one in enumerate(inputs):
        windows[one.text].append(i)

    def scored(number: int, rows: list[int]) -> ScoredText:
        if not rows:
            question = prompts[number] if prompts else ""
            return ScoredText({}, 0, None, prompt.problem(question, texts[number]))
        missing = next((answers.missing[row] for row in rows if row in answers.missing), None)
        if missing:
            return ScoredText(
                {}, len(rows), error=missing.reason, is_temporary=missing.is_temporary
            )
        values, heads = answers.values[rows], tuple(prompt.answers)
        (best,) = max_over_windows(heads, values[:, :-1], [0] * len(rows), 1, combination)
        other = float(values[:, -1].max())
        return best._replace(
            other=other, error=OTHER_ANSWER.format(other) if other > max_other else ""
        )

    return [scored(number, rows) for number, rows in enumerate(windows)]


def answer_shares(
    logits: NDArray[np.float64], answers: Iterable[Sequence[int]]
) -> NDArray[np.float64]:
    """Return (row, answer and `other` last): each answer's share of the probability of all named
    tokens, and the probability of all other tokens.

    Args:
        logits: (row, token).
        answers: token ids of each answer.
    """
    named = np.stack([logsumexp(logits[:, list(ids)], axis=1) for ids in answers], axis=1)
    total = logsumexp(named, axis=1, keepdims=True)
    other = -np.expm1(np.minimum(total - logsumexp(logits, axis=1, keepdims=True), 0.0))
    shares: NDArray[np.float64] = np.concatenate([np.exp(named - total), other], axis=1)
    return shares


def with_refusals(
    scored: Sequence[ScoredText], answers: Sequence[ScoredText], head: str
) -> list[ScoredText]:
    """Return the scores with the answers of the same texts to the question about refusal; a text
    without an answer has none.

    Args:
        head: the answer that means a refusal.
    """
    return [
        one._replace(
            refusal=None if answer.error else answer.heads[head],
            is_temporary=one.is_temporary or answer.is_temporary,
        )
        for one, answer in zip(scored, answers, strict=True)
    ]


class GuardScorer:
    """Scorer based on one causal language model."""

    converted: Mapping[str, str] = MappingProxyType({})
    """Name -> SHA-256 of the copy that was loaded in place of pickled weights."""

    def __init__(
        self,
        model: PreTrainedModel,
        prompt: GuardPrompt,
        max_other: float,
        pad: int,
        window: int,
        batch_size: int,
        combination: HeadCombination | None = None,
        refusal: RefusalPrompt | None = None,
    ) -> None:
        """Args:
        max_other: largest probability of tokens that no answer names.
        pad: id of a token that fills inputs up to equal length; no score depends on it.
        window: the longest input in tokens.
        batch_size: inputs in one forward pass.
        """
        self._model = model.train(mode=False)
        self._prompt, self._pad, self._window = prompt, pad, window
        self._batch_size, self._max_other = batch_size, max_other
        self._combination, self._refusal = combination, refusal
        self.heads = tuple(prompt.answers)
        self._keeps_some_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._linears = OneDnnLinears(None)
        self._stride = STRIDE
        if not self._same_as(self._probed(1), self._probed(STRIDE)):
            self._stride = 1
        torch_linears, expected = self._linears, self._probed(self._stride)
        self._linears = OneDnnLinears(model)
        if not self._same_as(expected, self._probed(self._stride)):
            self._linears = torch_linears

    def score(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> list[ScoredText]:
        """Score each response, in order; a response that does not fit is scored in windows."""
        if not texts:
            return []
        scored = self._ask(self._prompt, texts, prompts, self._combination)
        if self._refusal is None:
            return scored
        answers = self._ask(self._refusal.prompt, texts, prompts, None)
        return with_refusals(scored, answers, self._refusal.head)

    def _ask(
        self,
        prompt: GuardPrompt,
        texts: Sequence[str],
        prompts: Sequence[str] | None,
        combination: HeadCombination | None,
    ) -> list[ScoredText]:
        def answer(inputs: Sequence[GuardInput]) -> WindowAnswers:
            return WindowAnswers(self._answers(inputs, prompt), {})

        return score_in_windows(prompt, texts, prompts, answer, self._max_other, combination)

    def _answers(self, inputs: Sequence[GuardInput], prompt: GuardPrompt) -> NDArray[np.float64]:
        """Compute (input, answer and `other` last)."""
        values, stride = np.empty((len(inputs), len(prompt.answers) + 1)), self._stride
        lengths = [len(one.token_ids) for one in inputs]
        for batch in length_batches(lengths, stride, self._window, self._batch_size):
            logits = self._forward([inputs[i].token_ids for i in batch], stride)
            values[batch] = answer_shares(logits, prompt.answers.values())
        if not np.isfinite(values).all():
            raise BackendError("The guard returned a logit that is not finite. Nothing was saved.")
        return values

    def _forward(self, rows: list[list[int]], stride: int) -> NDArray[np.float64]:
        """Compute (row, token), the logits after inputs of equal padded length."""
        import torch

        width = padded_length(len(rows[0]), stride, self._window)
        filled = rows + rows[:1] * (-len(rows) % batch_multiple(width, bool(self._linears)))
        lengths = torch.tensor([len(row) for row in filled])
        ids = torch.tensor([row + [self._pad] * (width - len(row)) for row in filled])
        mask = (torch.arange(width) < lengths[:, None]).long()
        kept = min(stride, width) if self._keeps_some_logits else width
        options: dict[str, Any] = {"logits_to_keep": kept} if self._keeps_some_logits else {}
        device = self._model.device
        with torch.inference_mode(), self._linears.used():
            logits = self._model(
                input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False, **options
            ).logits
            last = (lengths - 1 - (width - kept)).to(device)
            of_answer = logits[torch.arange(len(filled), device=device), last]
            table: NDArray[np.float64] = of_answer.double().cpu().numpy()[: len(rows)]
        return table

    def _probed(self, stride: int) -> NDArray[np.float64]:
        """Compute the answers to the probes, each in a separate forward pass."""
        probes = self._prompt.probes()
        logits = np.concatenate([self._forward([one.token_ids], stride) for one in probes])
        return answer_shares(logits, self._prompt.answers.values())

    @staticmethod
    def _same_as(left: NDArray[np.float64], right: NDArray[np.float64]) -> bool:
        return np.allclose(left, right, rtol=0, atol=TOLERANCE, equal_nan=True)
