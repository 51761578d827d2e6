"""Check that the packed engine gives the same logits as the model, for each loaded model.

An architecture's attention may have features that the engine does not support (sinks, distance
biases, states instead of keys). There is no complete list of them, so the logits are compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toxtrail.backends.compute.devices import batch_alignment
from toxtrail.backends.compute.onednn_linear import OneDnnLinears
from toxtrail.backends.huggingface.generation import packed_forward
from toxtrail.backends.huggingface.weights.logit_probe import PROBES, largest_difference

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

STEPS = 3
"""Number of tokens generated after each probe sentence."""
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.02}
"""Largest difference of two logits, in standard deviations of all logits: rounding stays below by
a factor of ten or more, a different attention exceeds it. Our choice."""
CHANGING_ROTARY = ("dynamic", "longrope")
"""Rotary embeddings whose frequencies change once *any* text in the batch is long."""


def packed_mismatch(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, linears: OneDnnLinears
) -> str:
    """Compare engine and model on the probe sentences and a few tokens after them.

    Args:
        linears: the linear layers that the engine uses.

    Returns:
        Why the packed engine must not be used; empty if it may. The model is left unchanged.
    """
    import torch

    texts = [tokenizer(text)["input_ids"] for text in PROBES]
    try:
        with packed_forward.packed_attention(model), linears.used(), torch.inference_mode():
            tokens, actual = _packed_logits(model, texts)
    except (
        TypeError,
        ValueError,
        RuntimeError,
        AttributeError,
        IndexError,
        AssertionError,
    ) as error:
        return f"{type(model).__name__} does not support packed attention: {_error_line(error)}"
    expected = torch.cat([_model_logits(model, t + d) for t, d in zip(texts, tokens, strict=True)])
    allowed = TOLERANCE[str(model.dtype).removeprefix("torch.")] * float(expected.std())
    difference = largest_difference(actual, expected)
    if difference <= allowed:
        return ""
    return (
        f"its logits differ from those of {type(model).__name__} by {difference:.2g}, more than "
        f"{allowed:.2g}"
    )


def longest_packed(model: PreTrainedModel) -> int | None:
    """Return the length up to which other texts cannot change a text's positions; None: any."""
    config: Any = model.config.get_text_config()
    rotary = getattr(config, "rope_parameters", None) or {}
    kinds = [rotary, *(kind for kind in rotary.values() if isinstance(kind, dict))]
    if not any(kind.get("rope_type") in CHANGING_ROTARY for kind in kinds):
        return None
    originals = (kind.get("original_max_position_embeddings") for kind in kinds)
    lengths = [int(n) for n in originals if n] or [int(config.max_position_embeddings)]
    return min(lengths)


def _packed_logits(
    model: PreTrainedModel, texts: list[list[int]]
) -> tuple[list[list[int]], torch.Tensor]:
    """Generate tokens after each text; return them and their (text * step, vocabulary) logits."""
    import torch

    capacity = -(-(max(map(len, texts)) + STEPS) // packed_forward.BLOCK) * packed_forward.BLOCK
    cache = packed_forward.SlotKVCache(len(texts), capacity)
    starts = [packed_forward.PrefillPrompt(slot, tuple(text)) for slot, text in enumerate(texts)]
    step = packed_forward.PackedStep(cache, [], starts, model.device, batch_alignment())
    logits = [packed_forward.forward(model, step, [token for text in texts for token in text])]
    new_tokens = [[int(token)] for token in logits[0].argmax(-1)]
    for extra in range(STEPS - 1):
        lengths = [len(text) + extra for text in texts]
        step = packed_forward.PackedStep(cache, lengths, [], model.device, batch_alignment())
        logits.append(packed_forward.forward(model, step, [row[-1] for row in new_tokens]))
        for row, token in zip(new_tokens, logits[-1].argmax(-1), strict=True):
            row.append(int(token))
    return new_tokens, torch.stack(logits, dim=1).flatten(0, 1).float().cpu()


def _model_logits(model: PreTrainedModel, tokens: list[int]) -> torch.Tensor:
    """Return the model's (STEPS, vocabulary) logits before each of the last STEPS tokens."""
    import torch

    with torch.inference_mode():
        ids = torch.tensor([tokens[:-1]], device=model.device)
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return logits[0, -STEPS:].float().cpu()


def _error_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}{': ' + lines[0][:120] if lines else ''}"
