"""Load, verify and probe (probes.py) the model that a model card describes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from toxtrail.backends.huggingface.weights.adapters import apply_adapter
from toxtrail.backends.huggingface.weights.logit_probe import (
    adapter_moves,
    largest_difference,
    probe_of,
    require_deterministic_load,
    verify_weights,
)
from toxtrail.backends.huggingface.weights.pretrained import load_base
from toxtrail.backends.huggingface.weights.quantization import quantization_in_memory
from toxtrail.backends.huggingface.weights.resolve import HuggingFaceWeights
from toxtrail.backends.huggingface.weights.tokenizer import NamedFolder, tokenizer_of
from toxtrail.backends.silence import silence_libraries
from toxtrail.errors import BackendError
from toxtrail.provenance.identity import LogitProbe, ModelIdentity

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SAME_LOGITS = 0.01
"""Largest difference of a logit that merging in float32 may cause, in standard deviations of all
logits. Our choice: rounding stays a hundred times below."""
LARGE = 4_000_000_000
"""Number of weights above which a model is probed in bfloat16, as float32 would take over 16 GB.
Our choice."""


class LoadedModel(NamedTuple):
    """Weights in memory."""

    model: PreTrainedModel | PeftModel
    """With the last adapter attached, unmerged: merging into 16-bit weights could round it away."""
    tokenizer: PreTrainedTokenizerBase
    probe: torch.Tensor
    """(token, vocabulary) logits on the probe sentences."""


class VerifiedFiles(NamedTuple):
    """Folders whose files match a card."""

    name: str
    base: Path
    adapters: tuple[NamedFolder, ...]
    """In the order in which they are applied."""

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the variant's tokenizer.

        Raises:
            BackendError: it cannot be loaded.
        """
        return tokenizer_of(NamedFolder(self.name, self.base), self.adapters)


def verify_files(
    card: ModelIdentity, model_folder: Path, weights: HuggingFaceWeights
) -> VerifiedFiles:
    """Hash every file of a card again.

    Args:
        model_folder: models/<variant>, with adapters trained here in adapters/<key>.

    Raises:
        BackendError: a file differs from the card.
    """
    trained = model_folder / "adapters"
    adapters = tuple(
        NamedFolder(
            adapter.uri or f"adapter {adapter.key}", weights.adapter_folder(adapter, trained)
        )
        for adapter in card.adapters
    )
    return VerifiedFiles(card.base.uri, weights.folder(card.base), adapters)


def load_model(
    card: ModelIdentity, model_folder: Path, weights: HuggingFaceWeights, dtype: str, device: str
) -> LoadedModel:
    """Load the model that a card describes, and verify it.

    All adapters but the last are merged in float32; the last stays attached.

    Args:
        model_folder: models/<variant>, with adapters trained here in adapters/<key>.
        dtype: of the base weights: float32, bfloat16 or float16.

    Raises:
        BackendError: a file differs from the card, an adapter does not fit, or it has no effect.
    """
    files = verify_files(card, model_folder, weights)
    base = merged_base(files, files.adapters[:-1], dtype, device)
    model: PreTrainedModel | PeftModel = base
    for last in files.adapters[-1:]:
        model = apply_adapter(base, last.folder, last.name).to(device)
    tokenizer = files.tokenizer()
    logits = verify_weights(model, tokenizer, card)
    return LoadedModel(model, tokenizer, logits)


def merged_base(
    files: VerifiedFiles, adapters: Sequence[NamedFolder], dtype: str, device: str
) -> PreTrainedModel:
    """Load the base, merge adapters into it in order, in float32, and cast to the given dtype."""
    model = load_base(files.base, files.name, "float32" if adapters else dtype, device)
    for adapter in adapters:
        model = merge_adapter(apply_adapter(model, adapter.folder, adapter.name), adapter.name)
    return cast_weights(model, dtype) if adapters else model


def merge_adapter(model: PeftModel, name: str) -> PreTrainedModel:
    """Merge the adapter into the model's weights.

    Raises:
        BackendError: the weights stay quantized in memory, or merging changes the logits, for
            example where one matrix is both embedding and output, and the adapter changes only one
            of the two.
    """
    import torch

    if quantization := quantization_in_memory(model):
        raise BackendError(
            f"{name} would have to be merged into quantized weights ({quantization}), whose "
            "rounding would change it. Use the base's unquantized repository."
        )

    def logits(model: Any) -> torch.Tensor:
        with torch.inference_mode():
            ids = torch.arange(8, device=model.device)[None]
            return model(input_ids=ids, use_cache=False).logits  # type: ignore[no-any-return]

    before = logits(model)
    with silence_libraries():
        result: Any = model.merge_and_unload()
    difference = largest_difference(logits(result), before)
    if not difference <= SAME_LOGITS * float(before.std()):
        raise BackendError(
            f"{name} cannot be merged, as an adapter or a fine-tune on top of it requires: "
            f"merged, its logits differ by {difference:.2g}. Use a merged model instead."
        )
    return result  # type: ignore[no-any-return]


def cast_weights(model: PreTrainedModel, dtype: str) -> PreTrainedModel:
    """Cast weights only: `model.to(dtype)` would also round the rotary frequencies."""
    import torch

    for weight in model.parameters():
        weight.data = weight.data.to(getattr(torch, dtype))
    model.config.dtype = getattr(torch, dtype)
    return model


class HuggingFaceProver:
    """Verifier that loads a card's weights twice before they are used."""

    def __init__(self, weights: HuggingFaceWeights, device: str) -> None:
        self._weights = weights
        self._device = device

    def prove(self, card: ModelIdentity, folder: Path) -> LogitProbe:
        """Load the weights twice, require equal logits, and return the probe for the card.

        Raises:
            BackendError: see `load_model` and `refuse_unlike_loads`.
        """
        dtype = "float32" if card.base.parameters <= LARGE else "bfloat16"
        first, unmoved = self._load(card, folder, dtype)
        second, _ = self._load(card, folder, dtype)
        require_deterministic_load(card.key, first, second)
        return probe_of(first, dtype).model_copy(update={"unmoved": unmoved})

    def _load(
        self, card: ModelIdentity, folder: Path, dtype: str
    ) -> tuple[torch.Tensor, Literal[True] | None]:
        """Return one load's logits, and True if the last adapter changes no most likely token."""
        loaded = load_model(card, folder, self._weights, dtype, self._device)
        moves = not card.adapters or adapter_moves(loaded.model, loaded.tokenizer, loaded.probe)
        return loaded.probe, None if moves else True


def adds_one_adapter(card: ModelIdentity, parent: ModelIdentity) -> bool:
    """Return whether a variant is its parent plus one adapter: then `prove` compared the two."""
    without_last = card.model_copy(update={"adapters": card.adapters[:-1]})
    return bool(card.adapters) and without_last.fingerprint == parent.fingerprint
