"""A transformers sequence classifier over windows: what Detoxify and plain hub models share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from toxtrail.backends.base import ScoredText
from toxtrail.backends.scorers.windows import highest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

OVERLAP_SHARE = 4
"""A quarter of a window is shared with the one before. Our choice."""


class SequenceClassifier:
    """Scores texts with one encoder."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        heads: Sequence[str],
        activation: Literal["softmax", "sigmoid"],
        batch_size: int,
    ) -> None:
        self._model = model.train(mode=False)
        self._tokenizer = tokenizer
        self._activation = activation
        self._batch_size = batch_size
        self._window = window_tokens(model, tokenizer)
        self.heads = tuple(heads)

    def score(self, texts: Sequence[str]) -> list[ScoredText]:
        """All heads of each text, in order; a text over the window is scored in windows."""
        if not texts:
            return []
        windows, owner = self._windows(texts)
        order = sorted(range(len(windows)), key=lambda i: len(windows[i]))
        values = np.empty((len(windows), len(self.heads)))
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            values[batch] = self._forward([windows[i] for i in batch])
        return highest(self.heads, values, owner, len(texts))

    def _windows(self, texts: Sequence[str]) -> tuple[list[list[int]], list[int]]:
        """Token ids of every window with its special tokens, and the text it belongs to."""
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

    def _forward(self, windows: list[list[int]]) -> NDArray[np.float64]:
        import torch

        padded = self._tokenizer.pad({"input_ids": windows}, return_tensors="pt")
        with torch.inference_mode():
            logits = self._model(**padded.to(self._model.device)).logits.double()
            if self._activation == "softmax":
                values = torch.softmax(logits, dim=-1)
            else:
                values = torch.sigmoid(logits)
        result: NDArray[np.float64] = values.cpu().numpy()
        return result


def window_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Longest input in tokens, special ones counted.

    RoBERTa-like encoders number positions from pad_token_id + 1, so that many are not usable.
    """
    positions = int(getattr(model.config, "max_position_embeddings", 512))
    if "roberta" in model.config.model_type or model.config.model_type == "camembert":
        positions -= int(model.config.pad_token_id) + 1
    return min(positions, int(tokenizer.model_max_length))
