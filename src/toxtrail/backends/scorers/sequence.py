"""Score with a transformers sequence classifier over windows; used for Detoxify and Hub models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from toxtrail.backends.compute.devices import batch_alignment
from toxtrail.backends.compute.onednn_linear import OneDnnLinears
from toxtrail.backends.protocols import ScoredText
from toxtrail.backends.scorers.windows import max_over_windows
from toxtrail.config.scorer_kinds.base import HeadCombination
from toxtrail.errors import BackendError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

STRIDE = 8
"""Windows are padded to multiples of this many tokens: little is wasted, and batches are full."""
OVERLAP_SHARE = 4
"""A quarter of each window overlaps with the one before. Our choice."""
PROBES = ("The train leaves at nine.", "The train leaves at nine tomorrow, I am told.")
"""Texts scored at load time with and without padding, with torch and with oneDNN."""
TOLERANCE = 1e-5
"""Largest difference of a score between two methods; rounding stays below."""


class SequenceClassifier:
    """Scorer based on one encoder."""

    converted: Mapping[str, str] = MappingProxyType({})
    """Name -> SHA-256 of the copy that was loaded in place of pickled weights."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        heads: Sequence[str],
        activation: Literal["softmax", "sigmoid"],
        batch_size: int,
        combination: HeadCombination | None = None,
    ) -> None:
        self._model = model.train(mode=False)
        self._tokenizer = tokenizer
        self._activation = activation
        self._combination = combination
        self._batch_size = batch_size
        self._window = window_tokens(model.config, tokenizer)
        self.heads = tuple(heads)
        self._linears = OneDnnLinears(None)
        self._stride = STRIDE if self._padding_is_safe() else 1
        self._linears = self._choose_linears(OneDnnLinears(model))

    def score(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> list[ScoredText]:
        """Score all heads of each text, in order; longer texts are scored in windows."""
        if not texts:
            return []
        windows, owner = self._windows(texts)
        values = np.empty((len(windows), len(self.heads)))
        lengths = [len(window) for window in windows]
        for batch in length_batches(lengths, self._stride, self._window, self._batch_size):
            values[batch] = self._forward([windows[i] for i in batch], self._stride)
        return max_over_windows(self.heads, values, owner, len(texts), self._combination)

    def _windows(self, texts: Sequence[str]) -> tuple[list[list[int]], list[int]]:
        """Return each window's token ids with special tokens, and the index of its text."""
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        encoded = self._tokenizer(
            clean,
            truncation=True,
            max_length=self._window,
            stride=self._window // OVERLAP_SHARE,
            return_overflowing_tokens=True,
        )
        owner = [int(i) for i in encoded["overflow_to_sample_mapping"]]
        return [list(ids) for ids in encoded["input_ids"]], owner

    def _padding_is_safe(self) -> bool:
        """Return whether padding changes no score: a model may number positions from the padded
        end, read its output from the last token, or have no padding token. Then only windows of
        equal length are batched."""
        if self._tokenizer.pad_token_id is None:
            if self._model.config.pad_token_id is None:
                raise BackendError(
                    f"{type(self._model).__name__} has no padding token, so it accepts only one "
                    "text at a time. Set pad_token_id in its tokenizer and its config.json, or "
                    "choose another scorer."
                )
            return False
        windows, _ = self._windows(PROBES)
        for window in windows:
            padded, bare = (self._forward([window], stride) for stride in (2 * len(window), 1))
            if not _same_scores(padded, bare):
                return False
        return True

    def _choose_linears(self, linears: OneDnnLinears) -> OneDnnLinears:
        """Return the given linear layers, or torch's if these change a score."""
        torch_linears = self._linears
        windows, _ = self._windows(PROBES)
        expected = [self._forward([window], self._stride) for window in windows]
        self._linears = linears
        actual = [self._forward([window], self._stride) for window in windows]
        same = all(_same_scores(left, right) for left, right in zip(actual, expected, strict=True))
        return linears if same else torch_linears

    def _forward(self, windows: list[list[int]], stride: int) -> NDArray[np.float64]:
        """Compute (window, head) for windows of equal padded length."""
        import torch
        from scipy.special import expit, softmax

        width = padded_length(len(windows[0]), stride, self._window)
        filled = windows + windows[:1] * (
            -len(windows) % batch_multiple(width, bool(self._linears))
        )
        if all(len(window) == width for window in filled):
            ids = torch.tensor(filled)
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        else:
            inputs = dict(
                self._tokenizer.pad(
                    {"input_ids": filled},
                    padding="max_length",
                    max_length=width,
                    return_tensors="pt",
                )
            )
        on_device = {name: tensor.to(self._model.device) for name, tensor in inputs.items()}
        with torch.inference_mode(), self._linears.used():
            logits = self._model(**on_device).logits.double().cpu().numpy()[: len(windows)]
        # torch's functions would round the last of many rows differently from the others
        probability = softmax(logits, axis=-1) if self._activation == "softmax" else expit(logits)
        result: NDArray[np.float64] = probability
        return result


def batch_multiple(width: int, prepacked: bool) -> int:
    """Return the number of which batches of inputs of this width are multiples, so that no score
    depends on the batch size (`batch_alignment`): enough rows to fill blocks of tokens where each
    row of a product has the same bits from two rows on, else full blocks.

    Args:
        prepacked: whether oneDNN computes the linear layers.
    """
    block = batch_alignment()
    return max(2, block // math.gcd(block, width)) if prepacked else block


def _same_scores(left: NDArray[np.float64], right: NDArray[np.float64]) -> bool:
    """Return whether two methods give the same scores up to rounding."""
    return np.allclose(left, right, rtol=0, atol=TOLERANCE, equal_nan=True)


def length_batches(lengths: Sequence[int], stride: int, longest: int, size: int) -> list[list[int]]:
    """Batch windows of equal padded length, which depends on each window alone, so no score depends
    on the other windows."""
    groups: dict[int, list[int]] = {}
    for number, length in enumerate(lengths):
        groups.setdefault(padded_length(length, stride, longest), []).append(number)
    return [
        indices[i : i + size] for indices in groups.values() for i in range(0, len(indices), size)
    ]


def padded_length(length: int, stride: int, longest: int) -> int:
    """Return the tokens of a window with padding: a multiple of the stride, where that fits."""
    return min(-(-length // stride) * stride, longest)


def window_tokens(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the longest input in tokens, including special tokens.

    RoBERTa-like encoders number positions from pad_token_id + 1, so that many are not usable.
    """
    positions = int(getattr(config, "max_position_embeddings", 512))
    if "roberta" in config.model_type or config.model_type == "camembert":
        positions -= int(config.pad_token_id) + 1
    return min(positions, int(tokenizer.model_max_length))
