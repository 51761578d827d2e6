"""A model card -> the model it describes, loaded, verified and probed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from toxtrail.backends.huggingface.adapters import attach
from toxtrail.backends.huggingface.pretrained import load_base, load_tokenizer
from toxtrail.backends.huggingface.weights import HuggingFaceWeights
from toxtrail.backends.quiet import quiet
from toxtrail.errors import BackendError
from toxtrail.identity import ModelCard

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PROBES = (
    "The weather this morning was",
    "Question: what is the capital of France? Answer:",
    "She looked at him and said that he",
)
"""Fixed texts on which a variant must differ from its parent. Our choice: three unlike openings."""


class LoadedModel(NamedTuple):
    """Weights in memory."""

    model: PreTrainedModel | PeftModel
    """With the last adapter attached, unmerged: merging into 16-bit weights would round it away."""
    tokenizer: PreTrainedTokenizerBase


class AdapterFiles(NamedTuple):
    """An adapter whose files are those of its card."""

    name: str
    folder: Path


class VerifiedFiles(NamedTuple):
    """Folders whose files are those of a card."""

    name: str
    base: Path
    adapters: tuple[AdapterFiles, ...]
    """In the order in which they are applied."""


def verified(card: ModelCard, model_folder: Path, weights: HuggingFaceWeights) -> VerifiedFiles:
    """Hash every file of a card again.

    Args:
        model_folder: models/<variant>, with adapters trained here in adapters/<key>.

    Raises:
        BackendError: a file is not the one on the card.
    """
    trained = model_folder / "adapters"
    adapters = tuple(
        AdapterFiles(
            adapter.uri or f"adapter {adapter.key}", weights.adapter_folder(adapter, trained)
        )
        for adapter in card.adapters
    )
    return VerifiedFiles(card.base.uri, weights.folder(card.base), adapters)


def load_model(
    card: ModelCard, model_folder: Path, weights: HuggingFaceWeights, dtype: str, device: str
) -> LoadedModel:
    """Load what a card describes, and prove that it is that.

    All adapters but the last are merged in float32; the last stays attached.

    Args:
        model_folder: models/<variant>, with adapters trained here in adapters/<key>.
        dtype: of the base weights: float32, bfloat16 or float16.

    Raises:
        BackendError: a file differs from the card, an adapter does not fit, or it has no effect.
    """
    files = verified(card, model_folder, weights)
    base = merged_base(files, files.adapters[:-1], dtype, device)
    model: PreTrainedModel | PeftModel = base
    for last in files.adapters[-1:]:
        model = attach(base, last.folder, last.name).to(device)
    tokenizer = load_tokenizer(files.base, files.name)
    prove(model, tokenizer, card)
    return LoadedModel(model, tokenizer)


def merged_base(
    files: VerifiedFiles, adapters: Sequence[AdapterFiles], dtype: str, device: str
) -> PreTrainedModel:
    """The base with some adapters merged into it, in order, in float32; then of the given dtype."""
    model = load_base(files.base, files.name, "float32" if adapters else dtype, device)
    for adapter in adapters:
        with quiet():
            model = attach(model, adapter.folder, adapter.name).merge_and_unload()
    return cast_weights(model, dtype) if adapters else model


def cast_weights(model: PreTrainedModel, dtype: str) -> PreTrainedModel:
    """Cast weights only: `model.to(dtype)` would also round the rotary frequencies."""
    import torch

    for weight in model.parameters():
        weight.data = weight.data.to(getattr(torch, dtype))
    model.config.dtype = getattr(torch, dtype)
    return model


def prove(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, card: ModelCard
) -> None:
    """Probe a loaded model: it equals itself, it is finite, and its last adapter changes it.

    Raises:
        BackendError: one of these is not so.
    """
    logits = probe_logits(model, tokenizer)
    if not logits.isfinite().all():
        raise BackendError(
            f"{card.key}: logits on the probe sentences are not finite. Another generation.dtype "
            "(float32, bfloat16) may help; else the weights are damaged."
        )
    noise = _largest_difference(logits, probe_logits(model, tokenizer))
    if noise > 0:
        raise BackendError(
            f"{card.key}: the same probe gives logits that differ by {noise:g}: this device "
            "computes differently each time: no variant can be told from its parent. Use another."
        )
    if card.adapters:
        _prove_adapter(model, tokenizer, logits, card)  # type: ignore[arg-type]


def probe_logits(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase
) -> torch.Tensor:
    """(token, vocabulary) logits of all probe sentences one after another, float32, on the CPU."""
    import torch

    rows = []
    with torch.inference_mode():
        for text in PROBES:
            ids = torch.tensor([tokenizer(text)["input_ids"]], device=model.device)
            rows.append(model(input_ids=ids, use_cache=False).logits[0].float().cpu())
    return torch.cat(rows)


def _prove_adapter(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, logits: torch.Tensor, card: ModelCard
) -> None:
    with model.disable_adapter():
        parent = probe_logits(model, tokenizer)
    if _largest_difference(logits, parent) == 0:
        raise BackendError(
            f"{card.key}: with and without its adapter {card.adapters[-1].key} the logits on "
            f"{len(PROBES)} probe sentences are the same: the adapter did not load, or has no "
            "effect at this dtype. Its numbers would be its parent's."
        )


def _largest_difference(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left - right).abs().max())
