"""Tensors of a checkpoint that the loaded model has no place for.

transformers leaves them out with a warning at most. That is right for what a model does not use by
its own definition, such as a mask that is computed anew. Otherwise the file holds another model
than its config.json describes (more layers, an adapter that was not merged), and the numbers would
be of a third one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from toxtrail.errors import BackendError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

COMPUTED = re.compile(
    r"(^|\.)(inv_freq|position_ids|masked_bias)$|\.rotary_emb\.(cos|sin)_cached$"
    r"|(^|\.)h\.\d+\.attn(\.attention)?\.(bias|causal_mask)$"
)
"""Buffers that older versions of transformers saved: frequencies, positions and causal masks, which
follow from config.json. (An attention of `h.N` has no bias of its own, its projections have.)"""
UNUSED = re.compile(
    r"(^|\.)mtp(_\w+)?\.|^v_head\."
    r"|(^|\.)((vision|visual|image|audio|speech|video|vq|multi_?modal)\w*|mm(_\w+)?)\."
)
"""Multi-token prediction, which only speeds up some servers; the value head of a PPO trainer; what
reads pictures and sound beside the text part that is loaded."""
HEADS = re.compile(
    r"(^|\.)pooler\.|^(lm_head|cls|vocab_(transform|layer_norm|projector)|lm_predictions|"
    r"mask_predictions|generator_(predictions|lm_head)|discriminator_predictions|qa_outputs)(\.|$)"
)
"""Of an encoder that was trained for another task before: a classifier or a language model of this
kind has none of them by its own definition."""
ENCODER_HEADS = re.compile(r"(^|\.)pooler\.|^cls\.seq_relationship\.")
"""The same, where an encoder serves as a language model."""
SCALES = re.compile(r"\.((k|v|q|kv|prob|input|output)_scale|(input|output)_global_scale)$")
"""Of a quantized model: ranges of activations, not of weights."""


def refuse_unplaced(name: str, model: PreTrainedModel, unexpected: Iterable[str]) -> None:
    """Raise if a checkpoint holds weights that the model would not use.

    Args:
        unexpected: names of tensors without a place, less those that the model's class itself lists
            as ignorable (`unexpected_keys` of transformers).

    Raises:
        BackendError: with the number of tensors, one of them, and what may be the cause.
    """
    found = sorted(set(unexpected) - _ignorable(model, unexpected))
    if found:
        raise BackendError(
            f"{name}: {len(found)} tensor(s) of its files have no place in {type(model).__name__} "
            f"as config.json describes it, and would be left out; the first is {found[0]}. "
            f"{_cause(found)}"
        )


def _ignorable(model: PreTrainedModel, unexpected: Iterable[str]) -> set[str]:
    stored = set(model.state_dict())
    buffers = [key for key, _ in model.named_buffers() if key not in stored]
    heads = HEADS if type(model).__name__.endswith("ForSequenceClassification") else ENCODER_HEADS
    patterns = [COMPUTED, UNUSED, heads]
    if getattr(model.config, "quantization_config", None) is not None:
        patterns.append(SCALES)
    return {
        key
        for key in unexpected
        if any(pattern.search(key) for pattern in patterns)
        or _is_buffer(key, buffers)
        or _predicts_more(key, model)
    }


def _is_buffer(key: str, buffers: Collection[str]) -> bool:
    """Whether it is a buffer that the model computes itself, maybe under a shorter name."""
    return any(key == one or key.endswith(f".{one}") or one.endswith(f".{key}") for one in buffers)


def _predicts_more(key: str, model: PreTrainedModel) -> bool:
    """Whether it is of a layer for multi-token prediction, counted after the model's own layers."""
    more = getattr(model.config, "num_nextn_predict_layers", None) or 0
    layers = getattr(model.config, "num_hidden_layers", None) or 0
    found = re.search(r"(^|\.)layers\.(\d+)\.", key)
    return bool(found) and layers <= int(found[2]) < layers + more  # type: ignore[index]


def _cause(keys: Collection[str]) -> str:
    if any(".lora_" in key or "base_layer." in key for key in keys):
        return (
            "An adapter lies unmerged in the file: merge it (peft's merge_and_unload) and save "
            "again, or name the base as uri and the adapter as adapter.uri."
        )
    if any(re.search(r"(^|\.)(layers?|h|blocks?|blk)\.\d+\.", key) for key in keys):
        return "config.json says fewer layers or another kind of layer than the files hold."
    return "The files do not belong to this config.json."
