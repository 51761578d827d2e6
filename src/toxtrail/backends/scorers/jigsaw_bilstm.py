"""The Jigsaw six-label BiLSTM of the package tox-block 0.1.2 (MIT), computed in torch.

    words -> 100 ids (padded and cut at the front) -> embedding 50 -> bidirectional LSTM 50
    -> maximum over time -> dense 50, ReLU -> dense 6, sigmoid

Its recurrent activation is Keras' hard sigmoid, clip(0.2 x + 0.5, 0, 1), so torch's LSTM would be
wrong by up to 5e-3: the cell is implemented here. Heads are the model's probabilities, without the
package's optional min-max rescaling.

It is lexical: on RealToxicityPrompts it agrees with Perspective (AUC .94), on HateCheck it does not
(AUC .50): it detects neither implicit nor negated hate.
"""

from __future__ import annotations

import collections
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from toxtrail.backends.checkpoint_files.weight_files import content_problem
from toxtrail.backends.compute.devices import batch_alignment
from toxtrail.backends.compute.onednn_linear import OneDnnLinears
from toxtrail.backends.protocols import Assets, ScoredText
from toxtrail.backends.scorers.windows import max_over_windows, split_windows
from toxtrail.config.scorer_kinds.base import HeadCombination
from toxtrail.config.scorer_kinds.jigsaw_bilstm import JigsawBilstmConfig
from toxtrail.errors import BackendError, ConfigError, is_of_the_system
from toxtrail.regular_files import open_regular

if TYPE_CHECKING:
    import h5py
    import torch
    from torch.nn import Linear

HEADS = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
"""In the order of the outputs."""
WINDOW = 100
"""Words per window."""
OVERLAP = 50
"""Our choice: no passage of 50 words falls between two windows."""
VOCABULARY = 20_000
FILTERED = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'
"""Characters that Keras' Tokenizer turns into spaces."""
LAYERS = {
    "embedding": "embedding/embedding/embeddings:0",
    "hidden_kernel": "dense/dense/kernel:0",
    "hidden_bias": "dense/dense/bias:0",
    "output_kernel": "dense_1/dense_1/kernel:0",
    "output_bias": "dense_1/dense_1/bias:0",
    **{
        f"{way}_{part}": f"bidirectional/bidirectional/{way}_lstm/{part}:0"
        for way in ("forward", "backward")
        for part in ("kernel", "recurrent_kernel", "bias")
    },
}
PRODUCTS = {
    "forward_input": ("forward_kernel", "forward_bias"),
    "forward_recurrent": ("forward_recurrent_kernel", None),
    "backward_input": ("backward_kernel", "backward_bias"),
    "backward_recurrent": ("backward_recurrent_kernel", None),
    "hidden": ("hidden_kernel", "hidden_bias"),
    "output": ("output_kernel", "output_bias"),
}
"""Linear layer -> its kernel, (in, out), and bias. torch's product with six columns gave a text
different last bits at another index of the batch; those of `Linears` do not."""


class JigsawBilstm:
    """Scorer with the six Jigsaw labels."""

    heads = HEADS

    def __init__(
        self,
        weights: Mapping[str, torch.Tensor],
        words: Mapping[str, int],
        batch_size: int,
        combination: HeadCombination | None = None,
    ) -> None:
        from torch.nn import ModuleDict

        self._embedding = weights["embedding"]
        self._layers = ModuleDict(
            {
                name: _linear_layer(weights[kernel], None if bias is None else weights[bias])
                for name, (kernel, bias) in PRODUCTS.items()
            }
        )
        self._linears = OneDnnLinears(self._layers)
        self._words = words
        self._batch_size, self._combination = batch_size, combination

    def score(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> list[ScoredText]:
        """Score all heads of each text, in order; a text over 100 words is scored in windows."""
        windows = [
            (owner, window)
            for owner, text in enumerate(texts)
            for window in split_windows(self.ids(text), WINDOW, OVERLAP)
        ]
        values = [
            self._forward([window for _, window in windows[start : start + self._batch_size]])
            for start in range(0, len(windows), self._batch_size)
        ]
        if not values:
            return []
        return max_over_windows(
            HEADS,
            np.concatenate(values),
            [owner for owner, _ in windows],
            len(texts),
            self._combination,
        )

    def ids(self, text: str) -> list[int]:
        """Convert words to the ids of Keras' Tokenizer; unknown words are left out."""
        cleaned = text.lower().translate({ord(c): " " for c in FILTERED})
        numbers = (self._words.get(word, VOCABULARY) for word in cleaned.split(" ") if word)
        return [number for number in numbers if number < VOCABULARY]

    def _forward(self, windows: Sequence[Sequence[int]]) -> np.ndarray[Any, np.dtype[np.float64]]:
        import torch
        from scipy.special import expit

        padded_rows = len(windows) + -len(windows) % batch_alignment()
        ids = torch.zeros((padded_rows, WINDOW), dtype=torch.long)
        for row, window in enumerate(windows):
            if window:
                ids[row, WINDOW - len(window) :] = torch.tensor(window)
        with torch.inference_mode(), self._linears.used():
            embedded = self._embedding[ids.to(self._embedding.device)]
            ahead = self._lstm(embedded, "forward")
            back = self._lstm(embedded.flip(1), "backward")
            pooled = torch.cat([ahead.amax(1), back.amax(1)], dim=1)
            hidden = torch.relu(self._layers["hidden"](pooled))
            logits = self._layers["output"](hidden)[: len(windows)].cpu().double().numpy()
        # torch's sigmoid would round the last of many rows differently from the others
        probability: np.ndarray[Any, np.dtype[np.float64]] = expit(logits)
        return probability

    def _lstm(self, embedded: torch.Tensor, direction: str) -> torch.Tensor:
        """Compute (row, time, unit) hidden states; gates: input, forget, cell, output."""
        import torch

        recurrent = self._layers[f"{direction}_recurrent"]
        inputs = self._layers[f"{direction}_input"](embedded).unbind(1)
        hidden = torch.zeros_like(inputs[0][:, : inputs[0].shape[1] // 4])
        cell = torch.zeros_like(hidden)
        states = []
        for step in inputs:
            i, f, c, o = (step + recurrent(hidden)).chunk(4, dim=1)
            cell = _hard_sigmoid(f) * cell + _hard_sigmoid(i) * torch.tanh(c)
            hidden = _hard_sigmoid(o) * torch.tanh(cell)
            states.append(hidden)
        return torch.stack(states, dim=1)


def known_heads(config: JigsawBilstmConfig, folder: Path | None) -> tuple[str, ...]:
    """Return the heads of this scorer."""
    return HEADS


def load(config: JigsawBilstmConfig, assets: Assets, device: str, batch_size: int) -> JigsawBilstm:
    """Load the weights (`uri`, HDF5) and the vocabulary (`base`, a pickle that must be pinned).

    Raises:
        ConfigError: the vocabulary is not given, or not pinned.
        BackendError: a file is invalid.
    """
    import torch

    if config.base is None or config.base.sha256 is None:
        raise ConfigError(
            f"{config.uri}: the vocabulary is a second file. Set `base` to it, with its sha256 "
            "(it is a pickle, and a pickle is only read if it is pinned)."
        )
    weights = assets.fetch(config.uri, config.sha256)
    vocabulary = assets.fetch(config.base.uri, config.base.sha256)
    tensors = {
        name: torch.from_numpy(v).to(device) for name, v in _read_arrays(weights.path).items()
    }
    return JigsawBilstm(tensors, read_vocabulary(vocabulary.path), batch_size, config.combination)


def _read_arrays(path: Path) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    import h5py

    try:
        with h5py.File(path) as file:
            return {
                name: _read_array(file, f"model_weights/{path_in_file}")
                for name, path_in_file in LAYERS.items()
            }
    except (OSError, KeyError, TypeError, ValueError) as error:
        if is_of_the_system(error):
            raise
        problem = content_problem(path) or f"is not the BiLSTM's weight file: {error}."
        raise BackendError(f"{path.name} {problem}") from error


def _read_array(file: h5py.File, path_in_file: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Read an array that is stored in the file itself: HDF5 can also link to other files, which are
    not hashed."""
    import h5py

    group: Any = file
    for part in path_in_file.split("/"):
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"{path_in_file} is a link")
        group = group[part]
    if group.external or group.is_virtual:
        raise ValueError(f"{path_in_file} is stored in another file")
    values: np.ndarray[Any, np.dtype[np.float32]] = group[()]
    return values


def _linear_layer(kernel: torch.Tensor, bias: torch.Tensor | None) -> Linear:
    """Convert a kernel (in, out) to a torch layer, whose weight is (out, in)."""
    from torch.nn import Linear, Parameter

    layer = Linear(kernel.shape[0], kernel.shape[1], bias=bias is not None)
    layer.weight = Parameter(kernel.T.contiguous(), requires_grad=False)
    if bias is not None:
        layer.bias = Parameter(bias, requires_grad=False)
    return layer


def _hard_sigmoid(x: torch.Tensor) -> torch.Tensor:
    return (0.2 * x + 0.5).clamp(0.0, 1.0)


class _Placeholder:
    """Placeholder for the pickled classes: has their attributes, does nothing."""


class _VocabularyUnpickler(pickle.Unpickler):
    """Unpickler that allows only the class names of the known file, and refuses all others."""

    ALLOWED: ClassVar[Mapping[tuple[str, str], type]] = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("collections", "defaultdict"): collections.defaultdict,
        ("builtins", "int"): int,
        ("__builtin__", "int"): int,
        ("keras_preprocessing.text", "Tokenizer"): _Placeholder,
        ("tox_block.data_processing.preprocessors", "TokenSequencer"): _Placeholder,
    }

    def find_class(self, module: str, name: str) -> type:
        """Return the allowed class of this name."""
        try:
            return self.ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed") from None


def read_vocabulary(path: Path) -> dict[str, int]:
    """Read word -> id, numbered from 1 by frequency.

    Raises:
        BackendError: the file is not such a vocabulary, or contains anything that could run code.
    """
    try:
        with open_regular(path) as file:
            tokenizer = _VocabularyUnpickler(file).load().tokenizer
        words: dict[str, int] = tokenizer.word_index
    except (pickle.UnpicklingError, AttributeError, EOFError, ValueError) as error:
        raise BackendError(f"{path.name} is not the BiLSTM's vocabulary: {error}.") from error
    return words
