"""Refuse checkpoints with tensors that the loaded model does not use.

transformers ignores them with a warning at most. That is right for tensors that the model does not
use by definition, such as a computed mask. Otherwise the file contains another model than its
config.json describes (more layers, an unmerged adapter), and the results would be those of a third
model.
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
follow from config.json. (The attention of `h.N` has no bias; its projections have.)"""
UNUSED = re.compile(
    r"(^|\.)mtp(_\w+)?\.|^v_head\."
    r"|(^|\.)((vision|visual|image|audio|speech|video|vq|multi_?modal)\w*|mm(_\w+)?)\."
)
"""Multi-token prediction, which only speeds up some servers; the value head of a PPO trainer; image
and audio encoders besides the text model that is loaded."""
HEADS = re.compile(
    r"(^|\.)pooler\.|^(lm_head|cls|vocab_(transform|layer_norm|projector)|lm_predictions|"
    r"mask_predictions|generator_(predictions|lm_head)|discriminator_predictions|qa_outputs)(\.|$)"
)
"""Heads of an encoder that was trained for another task before: a classifier or a language model of
this kind does not have them by definition."""
ENCODER_HEADS = re.compile(r"(^|\.)pooler\.|^cls\.seq_relationship\.")
"""Heads that an encoder used as a language model does not have."""
SCALES = re.compile(r"\.((k|v|q|kv|prob|input|output)_scale|(input|output)_global_scale)$")
"""Activation scales of a quantized model, which are not weights."""


def refuse_unplaced(name: str, model: PreTrainedModel, unexpected: Iterable[str]) -> None:
    """Raise if a checkpoint has weights that the model would not use.

    Args:
        unexpected: names of unused tensors, without those that the model's class lists as ignorable
            (`unexpected_keys` of transformers).

    Raises:
        BackendError: with the number of tensors, one of them, and the possible cause.
    """
    unused = sorted(set(unexpected) - _ignorable(model, unexpected))
    if unused:
        raise BackendError(
            f"{name}: {len(unused)} tensor(s) in its files are not part of {type(model).__name__} "
            f"as described by config.json, and would be ignored; the first is {unused[0]}. "
            f"{_cause(unused)}"
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
    """Return whether it is a buffer that the model computes, possibly under a shorter name."""
    return any(
        key == buffer or key.endswith(f".{buffer}") or buffer.endswith(f".{key}")
        for buffer in buffers
    )


def _predicts_more(key: str, model: PreTrainedModel) -> bool:
    """Return whether it belongs to a multi-token prediction layer after the model's layers."""
    more = getattr(model.config, "num_nextn_predict_layers", None) or 0
    layers = getattr(model.config, "num_hidden_layers", None) or 0
    match = re.search(r"(^|\.)layers\.(\d+)\.", key)
    return bool(match) and layers <= int(match[2]) < layers + more  # type: ignore[index]


def _cause(keys: Collection[str]) -> str:
    if any(".lora_" in key or "base_layer." in key for key in keys):
        return (
            "The file contains an unmerged adapter: merge it (peft's merge_and_unload) and save "
            "it again, or set uri to the base and adapter.uri to the adapter."
        )
    if any(re.search(r"(^|\.)(layers?|h|blocks?|blk)\.\d+\.", key) for key in keys):
        return "config.json has fewer layers, or other kinds of layers, than the files."
    return "The files do not match this config.json."
